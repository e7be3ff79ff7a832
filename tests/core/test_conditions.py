"""The status of a WebhookCertificate: true, bounded, and about what a person has to do."""
import datetime
from typing import Any

import pytest

from core import builders
from core.builders import NOW
from steadyhook.core import bounds, conditions, facts, issuing, reasons, rotation

OLD, NEW = builders.ca("old"), builders.ca("new")
BY_NEW = builders.leaf(signer=NEW, trusted=(OLD, NEW))
CERTIFICATES = {"observed_generation": 1, "now": NOW}


def status(seen: facts.Seen, previous: dict[str, Any] | None = None) -> dict[str, Any]:
    wanted = builders.wanted()
    return conditions.status(
        seen=seen, wanted=wanted, decision=issuing.decide(seen, wanted, NOW), previous=previous or {},
        acknowledged=conditions.Acknowledged(done=0, total=0), **CERTIFICATES)


def condition(of: dict[str, Any], kind: str) -> tuple[str, str, str]:
    (found,) = [item for item in of["conditions"] if item["type"] == kind]
    return found["status"], found["reason"], found["message"]


def settled(**changes: Any) -> facts.Seen:
    """Nothing to do."""
    return facts.Seen(**{
        "leaf": builders.leaf(signer=OLD), "authority": builders.authority(OLD), "last_generation": 100,
        "configurations": (builders.configuration(OLD),), "last_signer": OLD.fingerprint, **changes})


def rotating(*servers: facts.Server, **changes: Any) -> facts.Seen:
    """The leaf is the new CA's; the servers have to serve it."""
    return settled(**{
        "leaf": BY_NEW, "last_signer": NEW.fingerprint, "servers": servers,
        "authority": builders.authority(OLD, NEW, successor=NEW, switched=True),
        "configurations": (builders.configuration(OLD, NEW),), **changes})


def blocked(**previous: Any) -> dict[str, Any]:
    return conditions.blocked_status(reasons.Reason.FORBIDDEN, "no right", previous=previous, **CERTIFICATES)


def test_what_can_not_be_looked_at_is_ready_as_long_as_its_leaf_and_no_longer() -> None:
    ready = {"type": "Ready", "status": "True", "reason": "UpToDate", "message": "good",
             "lastTransitionTime": "2029-01-01T00:00:00Z"}
    later, now = "2030-01-01T12:00:01Z", "2030-01-01T12:00:00Z"
    assert condition(blocked(conditions=[ready], notAfter=later), "Ready") == ("True", "UpToDate", "good")
    state, reason, message = condition(blocked(conditions=[ready], notAfter=now), "Ready")
    assert (state, reason) == ("False", "Expired")
    assert now in message and "no right" in message


def test_what_was_never_issued_and_can_not_be_looked_at_is_not_ready() -> None:
    assert condition(blocked(), "Ready")[:2] == ("False", "Forbidden")


def test_no_message_is_longer_than_the_definition_allows() -> None:
    strays = tuple(f"APIService {'a' * 250}{number} asks for the bundle of ns/gone" for number in range(1000))
    refused = tuple(builders.configuration(name=f"{'b' * 250}{number}", state=facts.ConfigurationState.FORBIDDEN)
                    for number in range(600))
    told = status(settled(strays=strays, configurations=refused))
    assert condition(told, "Degraded")[2].startswith("APIService aaa")
    assert condition(told, "Injected")[2].endswith("599 more are not written either")
    assert max(len(item["message"]) for item in (*told["conditions"], *told["configurations"])) <= (
        bounds.MESSAGE_CHARACTERS)
    assert len(told["configurations"]) == bounds.CONFIGURATIONS
    invalid = conditions.invalid_spec_status(
        issuing.policy.InvalidSpec(field="spec.dnsNames", found="x" * 9999, expected="less", remedy="cut"),
        previous={}, **CERTIFICATES)
    assert len(condition(invalid, "Ready")[2]) <= bounds.MESSAGE_CHARACTERS


def test_of_more_configurations_than_there_is_room_for_those_that_carry_the_bundle_stay_known() -> None:
    new = tuple(builders.configuration(name=f"new-{number}", known=False, state=facts.ConfigurationState.UNTRIED)
                for number in range(bounds.CONFIGURATIONS))
    told = status(settled(configurations=(*new, builders.configuration(OLD, name="ours"))))
    assert told["configurations"][0]["name"] == "ours"


def test_one_that_nobody_has_tried_to_write_yet_is_pending() -> None:
    untried = builders.configuration(known=False, state=facts.ConfigurationState.UNTRIED)
    told = status(settled(configurations=(untried,)))
    assert condition(told, "Injected")[:2] == ("False", "Pending")
    assert told["configurations"][0]["state"] == "Pending"


def test_a_refusal_by_admission_is_told_apart_from_a_missing_right() -> None:
    told = {state: condition(status(settled(configurations=(builders.configuration(state=state),))), "Injected")
            for state in (facts.ConfigurationState.FORBIDDEN, facts.ConfigurationState.REJECTED)}
    assert "ClusterRole" in told[facts.ConfigurationState.FORBIDDEN][2]
    assert told[facts.ConfigurationState.REJECTED][1] == "Rejected"
    assert "ClusterRole" not in told[facts.ConfigurationState.REJECTED][2]
    assert "admission policy" in told[facts.ConfigurationState.REJECTED][2]


UNKNOWN = facts.Defect(reason=reasons.Reason.SERVERS_UNKNOWN, message="endpointslices may not be listed; add a Role")
SAID = facts.Server(pod_uid="1", name="node-1", fingerprint=BY_NEW.certificate.fingerprint, proof=facts.Proof.GOOD)


def test_while_nobody_knows_who_serves_the_old_ca_stays_and_everything_else_goes_on() -> None:
    waiting = rotating(servers_defect=UNKNOWN, acknowledged_seconds=9999.0)
    assert issuing.decide(waiting, builders.wanted(), NOW).actions == ()
    told = status(waiting)
    assert condition(told, "Degraded") == ("True", "ServersUnknown", UNKNOWN.message)
    assert (told["rotation"]["phase"], told["rotation"]["message"]) == ("Acknowledging", UNKNOWN.message)
    assert condition(told, "Ready")[0] == "True"
    old = builders.certificate("due", not_after=NOW + datetime.timedelta(days=1))
    for changes in ({"leaf": None}, {"leaf": builders.leaf(signer=NEW, cert=old)},
                    {"configurations": (builders.configuration(OLD),)}):
        decision = issuing.decide(rotating(servers_defect=UNKNOWN, trusted_seconds={NEW.fingerprint: 60.0}, **changes),
                                  builders.wanted(), NOW)
        assert len(decision.actions) == 1, decision


@pytest.mark.parametrize(("proof", "said", "degraded"), [
    (facts.Proof.UNREACHABLE, "could not be dialed at 10.0.0.9:9502", "False"),
    (facts.Proof.SKIPPED, "is not dialed (STEADYHOOK_DIAL=off) at 10.0.0.9:9502", "True"),
])
def test_an_endpoint_that_says_nothing_and_was_not_seen_is_told_as_such(
    proof: facts.Proof, said: str, degraded: str
) -> None:
    dark = facts.Server(pod_uid="2", name="longhorn-2", proof=proof, address="10.0.0.9:9502")
    told = status(rotating(SAID, dark))
    assert f"1/2 acknowledged, waiting for longhorn-2 ({said})" == told["rotation"]["message"]
    assert condition(told, "Degraded")[0] == degraded


def test_an_instance_that_is_no_endpoint_and_serves_nothing_yet_is_only_waited_for() -> None:
    starting = facts.Server(pod_uid="2", name="node-2", proof=facts.Proof.SKIPPED)
    told = status(rotating(SAID, starting))
    assert told["rotation"]["message"] == "1/2 acknowledged, waiting for node-2"
    assert condition(told, "Degraded")[0] == "False"


def test_what_a_node_says_of_a_pod_on_another_node_is_told() -> None:
    told = status(rotating(SAID, foreign_entries=("ManagerNode z speaks of pod a-1, which is on node a",)))
    assert condition(told, "Degraded")[:2] == ("True", "ForeignEntry")
    assert "ManagerNode z speaks of pod a-1" in condition(told, "Degraded")[2]


def test_that_more_ask_than_are_looked_after_is_told() -> None:
    assert condition(status(settled(left_out=3)), "Degraded")[:2] == ("True", "TooManyConfigurations")


def test_a_dns_name_that_was_dropped_and_is_still_called_is_told() -> None:
    lost = ("ValidatingWebhookConfiguration old calls old.ns.svc",)
    told = status(settled(lost_callers=lost))
    assert condition(told, "Degraded")[:2] == ("True", "NameStillCalled")
    assert condition(told, "Degraded")[2].startswith(f"{lost[0]}, which is not in spec.dnsNames")


def test_retired_cas_are_kept_in_the_status_when_the_secret_is_lost_and_the_newest_stay() -> None:
    first = [builders.fingerprint(str(number)) for number in range(bounds.RETIRED)]
    kept = status(settled(authority=None, retired=tuple(first)))["retiredCAs"]
    assert kept == first
    newer = builders.fingerprint("newer")
    with_newer = status(settled(
        retired=tuple(first), authority=builders.authority(OLD, retired=(first[5], newer))))["retiredCAs"]
    assert with_newer == [*first[1:], newer]
    assert "retiredCAs" not in status(settled())


def test_a_server_that_was_looked_at_is_in_no_wait() -> None:
    assert not rotation.is_dark(SAID)


@pytest.mark.parametrize("state", [facts.ConfigurationState.FORBIDDEN, facts.ConfigurationState.UNTRIED])
def test_what_may_not_be_written_is_not_ours_because_it_carries_the_bundle_which_is_no_secret(
    state: facts.ConfigurationState
) -> None:
    copied = builders.configuration(OLD, name="copied", known=False, state=state)
    told = status(settled(configurations=(copied, builders.configuration(OLD, name="written", known=False))))
    assert [item["name"] for item in told["configurations"] if item.get("ours")] == ["written"]
