"""Certificates for programs with dynamiclistener: frozen, adopted, never injected, rotated by the wire's proof."""
import dataclasses
import datetime
from typing import Any

import pytest

from core import builders
from core.builders import NOW
from steadyhook.core import conditions, facts, issuing, policy, reasons, rotation, steps

OLD, NEW = builders.ca("old", age=datetime.timedelta(days=9)), builders.ca("new")
SPEC: dict[str, Any] = {
    "compatibility": "Dynamiclistener", "privateKey": {"algorithm": "RSA-2048"}, "duration": "8760h",
    "renewBefore": "2400h"}
STATIC = builders.secret(static=True)
STATIC_CA = builders.secret("tls-ca", static=True)
MADE_BY_A_LISTENER = builders.certificate(
    "made", not_after=NOW + datetime.timedelta(days=300), dns_names=builders.NAMES | {"more.ns.svc"})


def adopted(**changes: Any) -> facts.Leaf:
    return builders.leaf(signer=OLD, **{
        "cert": MADE_BY_A_LISTENER, "adopted": True, "secret": STATIC, "ready_mark": None, "generation": None,
        "trusted": (), **changes})


def reader(*trusted: facts.Certificate) -> facts.Configuration:
    return builders.configuration(*trusted, state=facts.ConfigurationState.READ_ONLY, known=False)


def seen(**changes: Any) -> facts.Seen:
    return facts.Seen(**{
        "leaf": adopted(), "authority": builders.authority(OLD, secret=STATIC_CA),
        "configurations": (reader(OLD),), **changes})


def decide(world: facts.Seen, **spec: Any) -> issuing.Decision:
    return issuing.decide(world, builders.wanted(**SPEC, **spec), NOW)


def test_what_listeners_fight_over_is_frozen_before_anything_else() -> None:
    world = seen(leaf=adopted(secret=builders.secret()), authority=None)
    assert decide(world).actions == (steps.Freeze(secrets=(builders.secret(),)),)
    both = seen(leaf=adopted(secret=builders.secret()), authority=builders.authority(OLD))
    assert decide(both).actions == (steps.Freeze(secrets=(builders.secret(), builders.secret("tls-ca"))),)


def test_nothing_is_frozen_for_servers_of_our_own() -> None:
    world = facts.Seen(leaf=None, authority=builders.authority(OLD))
    assert not any(isinstance(item, steps.Freeze) for item in issuing.decide(world, builders.wanted(), NOW).actions)


def test_a_good_leaf_and_a_good_ca_are_adopted_as_they_are() -> None:
    decision = decide(seen())
    assert (decision.actions, decision.reason) == ((), reasons.Reason.UP_TO_DATE)
    assert decision.wake_at == MADE_BY_A_LISTENER.not_after - datetime.timedelta(hours=2400)
    status = conditions.status(
        seen=seen(), wanted=builders.wanted(**SPEC), decision=decision, previous={}, observed_generation=1, now=NOW,
        acknowledged=conditions.Acknowledged(done=0, total=0))
    assert {item["type"]: item["status"] for item in status["conditions"]} == {
        "Ready": "True", "Issuing": "False", "Injected": "True", "Rotating": "False", "Degraded": "False"}
    assert status["fingerprint"] == MADE_BY_A_LISTENER.fingerprint


@pytest.mark.parametrize(("leaf", "reason"), [
    (adopted(cert=dataclasses.replace(MADE_BY_A_LISTENER, not_after=NOW + datetime.timedelta(days=99))),
     reasons.Reason.RENEWAL_DUE),
    (adopted(cert=dataclasses.replace(MADE_BY_A_LISTENER, dns_names=frozenset({"hook.ns.svc"}))),
     reasons.Reason.WRONG_NAMES),
    (adopted(cert=dataclasses.replace(MADE_BY_A_LISTENER, not_after=NOW)), reasons.Reason.EXPIRED),
    (None, reasons.Reason.SECRET_MISSING),
], ids=["renewal", "names", "expired", "missing"])
def test_what_is_not_good_enough_is_issued_anew_by_the_ca_in_use(
    leaf: facts.Leaf | None, reason: reasons.Reason
) -> None:
    (issue,) = decide(seen(leaf=leaf, last_signer=OLD.fingerprint)).actions
    assert isinstance(issue, steps.IssueLeaf)
    assert (issue.reason, issue.signer) == (reason, OLD)


def test_nothing_is_ever_injected() -> None:
    for trusted in ((), (OLD,), (NEW,), (OLD, NEW)):
        actions = decide(seen(configurations=(reader(*trusted),))).actions
        assert not any(isinstance(item, steps.InjectBundle) for item in actions)


def test_a_rotation_waits_until_the_application_has_copied_the_new_ca() -> None:
    rotating = builders.authority(OLD, NEW, secret=STATIC_CA, successor=NEW)
    waiting = decide(seen(authority=rotating))
    assert (waiting.actions, waiting.reason) == ((), reasons.Reason.DISTRIBUTING)
    assert "ValidatingWebhookConfiguration config" in waiting.message
    settled = seen(authority=rotating, configurations=(reader(OLD, NEW),),
                   trusted_seconds={NEW.fingerprint: 10.0})
    assert isinstance(decide(settled).actions[0], steps.Switch)


def test_a_listener_has_acknowledged_what_it_was_seen_to_serve() -> None:
    switched = builders.authority(OLD, NEW, secret=STATIC_CA, successor=NEW, switched=True)
    leaf = builders.leaf(signer=NEW, secret=STATIC, cert=builders.certificate(
        "next", not_before=NOW - builders.BACKDATE, not_after=NOW + datetime.timedelta(hours=8760),
        key_algorithm="RSA-2048"))
    one = facts.Server(pod_uid="1", name="listener-1", proof=facts.Proof.WRONG)
    world = seen(authority=switched, leaf=leaf, configurations=(reader(OLD, NEW),), servers=(one,))
    assert rotation.to_be_proven(world) == (one,)
    assert decide(world).reason is reasons.Reason.ACKNOWLEDGING
    good = dataclasses.replace(world, servers=(dataclasses.replace(one, proof=facts.Proof.GOOD),),
                               acknowledged_seconds=10.0)
    (promote,) = decide(good).actions
    assert isinstance(promote, steps.Promote)
    assert promote.bundle == (NEW,)


def test_a_leaf_of_somebody_elses_is_not_called_ready_and_nothing_of_it_is_told_as_ours() -> None:
    foreign = seen(leaf=adopted(secret=builders.secret(ours=False)), authority=None)
    decision = decide(foreign)
    assert decision.reason is reasons.Reason.NOT_OURS
    status = conditions.status(
        seen=foreign, wanted=builders.wanted(**SPEC), decision=decision, previous={}, observed_generation=1, now=NOW,
        acknowledged=conditions.Acknowledged(done=0, total=0))
    ready = next(item for item in status["conditions"] if item["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "NotOurs")
    assert not {"fingerprint", "notAfter", "generation"} & status.keys()


ALIEN = builders.ca("alien")


@pytest.mark.parametrize(("leaf", "taken"), [
    (adopted(), (OLD,)),  # what verifies the leaf is found in the application's own configurations
    (None, ()),  # a first installation: nothing is there that would have to be trusted further
], ids=["adopted", "first"])
def test_nothing_is_trusted_because_anybody_has_made_an_object_that_calls_the_application(
    leaf: facts.Leaf | None, taken: tuple[facts.Certificate, ...]
) -> None:
    create = decide(seen(leaf=leaf, authority=None, configurations=(reader(OLD), reader(ALIEN)))).actions[0]
    assert isinstance(create, steps.CreateAuthority)
    assert create.bundle == taken


def test_a_lost_ca_waits_for_the_application_while_the_leaf_is_still_good() -> None:
    replaced = seen(authority=builders.authority(NEW, OLD, secret=STATIC_CA))
    assert decide(replaced).reason is reasons.Reason.PENDING


@pytest.mark.parametrize(("spec", "field"), [
    ({"privateKey": {"algorithm": "ECDSA-P256"}}, "spec.privateKey.algorithm"),
    ({"renewBefore": "2160h"}, "spec.renewBefore"),
    ({"caSecretName": "tls"}, "spec.caSecretName"),
    ({"compatibility": "Dynamic"}, "spec.compatibility"),
])
def test_a_spec_that_the_programs_would_fight_is_refused(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(policy.InvalidSpec) as caught:
        builders.wanted(**{**SPEC, **spec})
    assert caught.value.field == field


def test_the_ca_secret_can_have_a_name_of_its_own() -> None:
    assert builders.wanted(caSecretName="webhook-ca").authority_secret_name == "webhook-ca"
    assert builders.wanted().authority_secret_name == "tls-ca"
