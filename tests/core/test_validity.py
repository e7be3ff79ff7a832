"""Nothing is used outside of its validity, whoever has made it, and no number that nobody gave is believed."""
import dataclasses
import datetime

import pytest

from core import builders
from core.builders import NOW
from steadyhook.core import conditions, facts, issuing, leaf, reasons, rotation, serving, steps

OLD, NEW = builders.ca("old", age=datetime.timedelta(days=9)), builders.ca("new")
MINUTE, HOUR, DAY = (datetime.timedelta(**{unit: 1}) for unit in ("minutes", "hours", "days"))
CONFIGURATIONS = (builders.configuration(OLD, NEW),)


def later(certificate: facts.Certificate, by: datetime.timedelta) -> facts.Certificate:
    return dataclasses.replace(certificate, not_before=NOW + by)


def seen(**changes: object) -> facts.Seen:
    return dataclasses.replace(
        facts.Seen(leaf=builders.leaf(signer=OLD), authority=builders.authority(OLD),
                   configurations=(builders.configuration(OLD),), last_generation=100, last_signer=OLD.fingerprint,
                   trusted_seconds={OLD.fingerprint: 60.0, NEW.fingerprint: 60.0}),
        **changes)


def decide(state: facts.Seen, **policy: object) -> issuing.Decision:
    return issuing.decide(state, dataclasses.replace(builders.wanted(), **policy), NOW)


# ---- CAs that have yet to begin ----

def test_the_switch_waits_until_the_new_ca_has_begun() -> None:
    monday = later(NEW, 3 * MINUTE)
    decision = decide(seen(authority=builders.authority(OLD, monday, successor=monday),
                           configurations=(builders.configuration(OLD, monday),)))
    assert (decision.actions, decision.reason) == ((), reasons.Reason.DISTRIBUTING)
    assert decision.wake_at == monday.not_before


def test_a_provided_ca_that_is_prepared_for_monday_is_rotated_in_on_monday() -> None:
    monday = later(NEW, 3 * DAY)
    decision = decide(seen(provided=monday), authority_name="own-ca")
    assert (decision.actions, decision.reason, decision.wake_at) == (
        (), reasons.Reason.PENDING, monday.not_before)
    assert "own-ca is valid only from" in decision.message
    begun = issuing.decide(seen(provided=monday), builders.wanted(authority={"secretName": "own-ca"}),
                           monday.not_before)
    assert isinstance(begun.actions[0], steps.AddSuccessor)


def test_a_first_ca_that_is_provided_too_early_is_waited_for() -> None:
    monday = later(NEW, 3 * DAY)
    decision = decide(facts.Seen(leaf=None, authority=None, provided=monday), authority_name="own-ca")
    assert (decision.actions, decision.reason, decision.wake_at) == ((), reasons.Reason.PENDING, monday.not_before)


def test_a_ca_made_by_a_clock_that_is_a_little_ahead_is_waited_for() -> None:
    ahead = later(NEW, 3 * MINUTE)
    decision = decide(seen(leaf=None, authority=builders.authority(ahead), last_generation=0, last_signer=None,
                           configurations=(builders.configuration(ahead),)))
    assert (decision.actions, decision.reason, decision.wake_at) == ((), reasons.Reason.PENDING, ahead.not_before)


@pytest.mark.parametrize("certificate", ["present", "next"])
def test_a_ca_of_a_clock_that_was_years_ahead_is_replaced_and_stays_trusted(certificate: str) -> None:
    far = later(NEW, 365 * DAY)
    held = builders.authority(far) if certificate == "present" else builders.authority(
        OLD, far, successor=far, switched=True)
    (create,) = decide(seen(authority=held)).actions
    assert isinstance(create, steps.CreateAuthority)
    assert create.reason is reasons.Reason.NOT_YET_VALID
    assert {OLD, far} == set(create.bundle)


def test_a_present_ca_that_cannot_sign_is_not_replaced_by_a_successor_that_cannot_either() -> None:
    expired = dataclasses.replace(OLD, not_after=NOW)
    far = later(NEW, 365 * DAY)
    (create,) = decide(seen(authority=builders.authority(expired, far, successor=far))).actions
    assert isinstance(create, steps.CreateAuthority)


def test_a_leaf_is_in_force_only_while_its_ca_is() -> None:
    early = builders.leaf(signer=later(OLD, HOUR))
    defect = leaf.first_defect(early, NOW)
    assert defect is not None
    assert defect.reason is reasons.Reason.NOT_YET_VALID
    verdict = serving.judge(early, served=None, service_name=None, now=NOW)
    assert (verdict.phase, verdict.wake_at) == (serving.Phase.WAITING, NOW + HOUR)
    ended = leaf.first_defect(builders.leaf(signer=dataclasses.replace(OLD, not_after=NOW)), NOW)
    assert ended is not None
    assert ended.reason is reasons.Reason.EXPIRED


def test_a_leaf_that_could_not_be_backdated_as_its_ca_had_just_begun_is_left_alone() -> None:
    fresh = later(OLD, -MINUTE)
    certificate = builders.certificate(not_before=fresh.not_before, not_after=NOW + datetime.timedelta(hours=2160))
    state = seen(leaf=builders.leaf(signer=fresh, cert=certificate), authority=builders.authority(fresh),
                 configurations=(builders.configuration(fresh),))
    assert decide(state).actions == ()


def test_a_date_that_has_passed_is_no_date_to_wake_at() -> None:
    ending = dataclasses.replace(OLD, not_after=NOW + 300 * DAY)
    state = seen(authority=builders.authority(ending), provided=ending, leaf=builders.leaf(signer=ending),
                 configurations=(builders.configuration(ending),))
    decision = decide(state, authority_name="own-ca")
    assert (decision.actions, decision.reason) == ((), reasons.Reason.UP_TO_DATE)
    assert decision.wake_at is not None
    assert decision.wake_at > NOW


# ---- generations that no issuer gives ----

ABSURD = [10**18 - 1, int((NOW + datetime.timedelta(days=4000)).timestamp()), 0, -5]


@pytest.mark.parametrize("absurd", ABSURD)
def test_an_absurd_generation_is_replaced_once_and_by_one_that_stays(absurd: int) -> None:
    for state in (seen(leaf=builders.leaf(signer=OLD, generation=absurd)),
                  seen(leaf=builders.leaf(signer=OLD, generation=absurd), last_generation=absurd),
                  seen(leaf=None, last_generation=absurd)):
        (issue,) = decide(state).actions
        assert isinstance(issue, steps.IssueLeaf)
        assert leaf.sane_generation(issue.generation, NOW) == issue.generation
        after = dataclasses.replace(state, leaf=builders.leaf(signer=OLD, generation=issue.generation))
        assert decide(after).actions == ()


@pytest.mark.parametrize("told", [*ABSURD, None, "7", 1.5])
def test_an_absurd_generation_in_the_status_does_not_hide_what_the_instance_itself_has_tried(told: object) -> None:
    assert leaf.last_generation(told, 100, NOW) == 100
    assert leaf.last_generation(200, 100, NOW) == 200


def test_where_no_status_remembers_a_generation_the_next_one_is_beyond_any_clock() -> None:
    state = seen(leaf=builders.leaf(signer=OLD, generation=int(NOW.timestamp()) - 5, ready_mark=None),
                 last_generation=0)
    (issue,) = decide(state).actions
    assert isinstance(issue, steps.IssueLeaf)
    assert issue.generation == int((NOW + issuing.BACKDATE).timestamp())


@pytest.mark.parametrize("absurd", ABSURD)
def test_an_absurd_generation_does_not_get_into_the_status_and_does_not_stay_there(absurd: int) -> None:
    state = seen(leaf=builders.leaf(signer=OLD, generation=absurd), last_generation=absurd)
    status = conditions.status(
        seen=state, wanted=builders.wanted(), decision=decide(state), previous={"generation": absurd},
        acknowledged=conditions.Acknowledged(done=0, total=0), observed_generation=1, now=NOW)
    assert "generation" not in status


def test_a_server_of_an_absurd_generation_takes_the_next_good_leaf() -> None:
    served = serving.Served(certificate=builders.certificate("served"), generation=10**18 - 1)
    assert serving.judge(builders.leaf(signer=OLD), served=served, service_name=None, now=NOW).swap


# ---- a CA that was renewed with the same key ----

def test_a_ca_renewed_with_the_same_key_is_rotated_in_step_by_step() -> None:
    both = frozenset({OLD.fingerprint, NEW.fingerprint})  # the former leaf verifies under either
    former = builders.leaf(signer=OLD, signers=both)
    held = builders.authority(OLD, NEW, successor=NEW)
    blocked = builders.configuration(OLD, name="blocked", state=facts.ConfigurationState.FORBIDDEN)
    waiting = seen(leaf=former, authority=held, configurations=(*CONFIGURATIONS, blocked))
    assert rotation.phase(waiting) is reasons.Reason.DISTRIBUTING
    assert decide(waiting).reason is reasons.Reason.DISTRIBUTING
    ready = dataclasses.replace(waiting, configurations=CONFIGURATIONS)
    assert isinstance(decide(ready).actions[0], steps.Switch)
    switched = dataclasses.replace(ready, authority=dataclasses.replace(held, switched=True))
    (issue,) = decide(switched).actions
    assert isinstance(issue, steps.IssueLeaf)
    assert (issue.signer, issue.reason) == (NEW, reasons.Reason.SWITCHING)
    server = facts.Server(pod_uid="1", name="1", fingerprint=former.certificate.fingerprint if former.certificate
                          else None, proof=facts.Proof.GOOD)
    assert rotation.unacknowledged(dataclasses.replace(switched, servers=(server,))) == (server,)
    issued = builders.leaf(signer=NEW, signers=both, trusted=(OLD, NEW), cert=builders.certificate("by-new"))
    assert decide(dataclasses.replace(switched, leaf=issued, servers=(server,))).reason is (
        reasons.Reason.ACKNOWLEDGING)


def test_the_status_names_the_ca_that_signs_of_two_that_have_one_key() -> None:
    both = frozenset({OLD.fingerprint, NEW.fingerprint})
    state = seen(leaf=builders.leaf(signer=OLD, signers=both), authority=builders.authority(OLD, NEW, successor=NEW))
    status = conditions.status(
        seen=state, wanted=builders.wanted(), decision=decide(state), previous={}, observed_generation=1, now=NOW,
        acknowledged=conditions.Acknowledged(done=0, total=0))
    assert status["caFingerprint"] == OLD.fingerprint
