"""Whatever the objects hold, the core decides and tells; nothing raises, and nothing grows without a bound."""
import datetime
from typing import Any

import hypothesis
from hypothesis import strategies

from core import builders
from core.builders import NOW
from steadyhook.core import conditions, election, facts, issuing, memory, policy, reasons, reporting, serving, steps

JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats(allow_nan=False)
    | strategies.text(max_size=10),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(
        strategies.sampled_from(["type", "status", "lastTransitionTime", "phase", "since", "uid", "state", "ours",
                                 "name", "namespace", "algorithm", "secretName", "podUID", "x"]), inner, max_size=4),
    max_leaves=8)


# ---- specs ----

FIELDS = ("secretName", "dnsNames", "service", "privateKey", "duration", "renewBefore", "caDuration", "caRenewBefore",
          "settleSeconds", "authority", "compatibility", "caSecretName")
PLAUSIBLE = {
    "secretName": strategies.sampled_from(["tls", "x" * 260, "../tls", "tls-ca"]),
    "duration": strategies.sampled_from(["1h", "9" * 30 + "h", "-1h", "0s"]),
    "dnsNames": strategies.lists(strategies.sampled_from(["a.b.svc", "*.b.svc", "A", ".", ""]), max_size=3),
    "service": strategies.dictionaries(strategies.sampled_from(["name", "namespace"]), JSON, max_size=2),
    "privateKey": strategies.dictionaries(strategies.just("algorithm"), JSON, max_size=1),
}


@hypothesis.given(spec=strategies.fixed_dictionaries({}, optional={
    field: JSON | PLAUSIBLE.get(field, strategies.nothing()) for field in FIELDS}))
def test_every_spec_is_a_policy_or_names_its_mistake(spec: dict[str, Any]) -> None:
    try:
        wanted = policy.parse({"secretName": "tls", "service": {"name": "hook"}, **spec}, namespace="ns", name="cert")
    except policy.InvalidSpec:
        return
    assert wanted.dns_names
    assert datetime.timedelta(0) < wanted.duration < wanted.ca_renew_before < wanted.ca_duration


# ---- decisions and statuses ----

CAS = (
    builders.ca("a"), builders.ca("b"), builders.ca("c"),
    builders.ca("future", age=-datetime.timedelta(days=400)), builders.ca("soon", age=-datetime.timedelta(minutes=2)),
    builders.ca("ended", not_after=NOW))
SOME = strategies.lists(strategies.sampled_from(CAS), max_size=4, unique_by=lambda item: item.fingerprint).map(tuple)
FINGERPRINTS = strategies.lists(strategies.sampled_from([item.fingerprint for item in CAS]), max_size=3)
MAYBE_CA = strategies.none() | strategies.sampled_from(CAS)
DEFECTS = strategies.none() | strategies.just(facts.Defect(reason=reasons.Reason.NOT_PEM, message="no PEM"))
NUMBERS = strategies.none() | strategies.integers() | strategies.integers(0, 2_000_000_000)
LEAVES = strategies.sampled_from([
    builders.certificate(), builders.certificate("other", not_before=NOW + datetime.timedelta(days=400)),
    builders.certificate("ended", not_after=NOW)])


@strategies.composite
def secrets_of(draw: strategies.DrawFn, name: str) -> facts.Secret:
    return builders.secret(name, ours=draw(strategies.booleans()), static=draw(strategies.booleans()),
                           recreate=draw(strategies.booleans()))


@strategies.composite
def leaves(draw: strategies.DrawFn) -> facts.Leaf:
    defect, certificate = draw(DEFECTS), draw(LEAVES)
    return facts.Leaf(
        secret=draw(secrets_of("tls")), defect=defect, certificate=None if defect else certificate, trusted=draw(SOME),
        signers=frozenset() if defect else frozenset(draw(FINGERPRINTS)), generation=draw(NUMBERS),
        ready_mark=draw(strategies.sampled_from([None, "00", certificate.fingerprint])),
        adopted=not defect and draw(strategies.booleans()))


@strategies.composite
def authorities(draw: strategies.DrawFn) -> facts.Authority:
    defect, certificate, successor = draw(DEFECTS), draw(strategies.sampled_from(CAS)), draw(MAYBE_CA)
    held = {item.fingerprint: item for item in (*draw(SOME), *([] if defect else [certificate]),
                                                *([successor] if successor else []))}
    return facts.Authority(
        secret=draw(secrets_of("tls-ca")), defect=defect, certificate=None if defect else certificate,
        successor=successor if successor != certificate else None, successor_damaged=draw(strategies.booleans()),
        switched=draw(strategies.booleans()), retired=tuple(draw(FINGERPRINTS)), bundle=tuple(held.values()),
        bundle_damaged=not defect and draw(strategies.booleans()))


@strategies.composite
def configurations(draw: strategies.DrawFn) -> facts.Configuration:
    entry = facts.Entry(name="a", trusted=draw(SOME), readable=draw(strategies.booleans()))
    return builders.configuration(
        name=draw(strategies.sampled_from("xyz")), known=draw(strategies.booleans()),
        entries=tuple([entry] * draw(strategies.integers(0, 2))),
        state=draw(strategies.sampled_from(list(facts.ConfigurationState))))


SERVERS = strategies.lists(strategies.builds(
    facts.Server, pod_uid=strategies.sampled_from("12"), name=strategies.just("pod"),
    fingerprint=strategies.none() | LEAVES.map(lambda item: item.fingerprint),
    proof=strategies.none() | strategies.sampled_from(list(facts.Proof))), max_size=3)
SEEN = strategies.builds(
    facts.Seen, leaf=strategies.none() | leaves(), authority=strategies.none() | authorities(),
    configurations=strategies.lists(configurations(), max_size=3, unique_by=lambda item: item.uid).map(tuple),
    last_generation=strategies.integers(), last_signer=strategies.none() | strategies.sampled_from(
        [item.fingerprint for item in CAS]),
    remembered=FINGERPRINTS.map(frozenset), retired=FINGERPRINTS.map(tuple), provided=MAYBE_CA, provided_defect=DEFECTS,
    servers=SERVERS.map(tuple), contested=strategies.sampled_from([frozenset(), frozenset({"tls", "tls-ca"})]))
WANTED = strategies.sampled_from([
    builders.wanted(), builders.wanted(authority={"secretName": "own"}),
    builders.wanted(compatibility="Dynamiclistener", privateKey={"algorithm": "RSA-2048"}, duration="8760h",
                    renewBefore="2400h")])
PREVIOUS = strategies.dictionaries(
    strategies.sampled_from(["conditions", "configurations", "rotation", "fingerprint", "generation", "notAfter",
                             "caFingerprint", "retiredCAs", "trustedCAs"]), JSON, max_size=6)


@hypothesis.given(seen=SEEN, wanted=WANTED, previous=PREVIOUS)
@hypothesis.settings(max_examples=400)
def test_every_world_has_a_decision_and_a_status(
    seen: facts.Seen, wanted: policy.Policy, previous: dict[str, Any]
) -> None:
    noted = memory.Memory().note(seen, 0.0)
    decision = issuing.decide(noted, wanted, NOW)
    assert decision == issuing.decide(noted, wanted, NOW)
    assert decision.wake_at is None or decision.wake_at >= NOW
    for action in decision.actions:
        _check(action, noted)
    status = conditions.status(
        seen=noted, wanted=wanted, decision=decision, previous=previous, observed_generation=1, now=NOW,
        acknowledged=conditions.Acknowledged(done=0, total=1, unserved_seconds=1e6))
    again = conditions.status(
        seen=noted, wanted=wanted, decision=decision, previous=status, observed_generation=1, now=NOW,
        acknowledged=conditions.Acknowledged(done=0, total=1, unserved_seconds=1e6))
    assert again == status
    assert all(isinstance(item, str) for item in conditions.known_configurations(previous))


def _check(action: steps.Step, seen: facts.Seen) -> None:
    """What no decision may hold, whatever was seen."""
    if isinstance(action, steps.IssueLeaf):
        assert 0 < action.generation < 10**12
        assert action.signer.not_before <= NOW < action.signer.not_after
        assert action.signer.fingerprint in {item.fingerprint for item in action.bundle}
    if isinstance(action, steps.InjectBundle):
        assert action.configuration.state is facts.ConfigurationState.OPEN
    if seen.last_signer is None:
        held = [item.secret for item in (seen.leaf, seen.authority) if item is not None]
        assert all(secret.ours for secret in held)


@hypothesis.given(previous=PREVIOUS)
def test_whatever_the_status_was_a_problem_can_be_told(previous: dict[str, Any]) -> None:
    problem = policy.InvalidSpec(field="spec.x", found="y" * 10_000, expected="z", remedy="r")
    for told in (
        conditions.invalid_spec_status(problem, previous=previous, observed_generation=1, now=NOW),
        conditions.blocked_status(reasons.Reason.FORBIDDEN, "m" * 10_000, previous=previous, observed_generation=1,
                                  now=NOW),
    ):
        assert all(len(item["message"]) <= 1024 for item in told["conditions"] if item.get("reason") in (
            reasons.Reason.INVALID_SPEC, reasons.Reason.FORBIDDEN))


# ---- what servers say and hear ----

@hypothesis.given(instances=strategies.lists(JSON | strategies.fixed_dictionaries({"podUID": JSON}), max_size=4),
                  previous=strategies.none() | strategies.dictionaries(
                      strategies.sampled_from(["phase", "since", "fingerprint"]), JSON, max_size=3),
                  leaf=strategies.none() | leaves(), seconds=strategies.sampled_from([0.0, 1e6]))
def test_whatever_is_in_a_manager_node_an_instance_can_say_what_it_serves(
    instances: list[Any], previous: dict[str, Any] | None, leaf: facts.Leaf | None, seconds: float
) -> None:
    served = serving.Served(certificate=builders.certificate("served"), generation=10**18,
                            signers=frozenset({CAS[0].fingerprint}))
    verdict = serving.judge(leaf, served=served, service_name="hook.ns.svc", now=NOW, seen_seconds=seconds)
    assert verdict.served is not None
    own = reporting.entry(pod_uid="me", pod_name="p", address="", certificate="c", verdict=verdict,
                          role=election.Role.ACTIVE, problem="x" * 10_000, previous=previous, now=NOW)
    assert len(own["message"]) <= 1024
    merged = reporting.merge(instances, pod_uid="me", own=own)
    assert reporting.find(merged, "me") == own
    assert len(merged) <= len(instances) + 1
