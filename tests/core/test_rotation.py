"""Rotation of the CA, step by step: trust before use, acknowledged before anything leaves, never backwards."""
import dataclasses
import datetime

import pytest

from core import builders
from core.builders import NOW
from steadyhook.core import conditions, facts, issuing, memory, reasons, rotation, steps

OLD, NEW = builders.ca("old", age=datetime.timedelta(days=9)), builders.ca("new")
BY_OLD = builders.leaf(signer=OLD)
BY_NEW = builders.leaf(signer=NEW, trusted=(OLD, NEW), cert=builders.certificate("by-new"))
BOTH = (builders.configuration(OLD, NEW),)
SERVER = facts.Server(pod_uid="1", name="node-1", fingerprint=BY_NEW.certificate.fingerprint, proof=facts.Proof.GOOD)
SWITCHED = builders.authority(OLD, NEW, successor=NEW, switched=True, request="now")
ASKED = {"rotate_authority": "now"}


def seen(**changes: object) -> facts.Seen:
    """The middle of a rotation: the successor is there and trusted, the leaf is still the old CA's."""
    return dataclasses.replace(
        facts.Seen(leaf=BY_OLD, authority=builders.authority(OLD, NEW, successor=NEW, request="now"),
                   configurations=BOTH, last_generation=100, last_signer=OLD.fingerprint,
                   trusted_seconds={OLD.fingerprint: 60.0, NEW.fingerprint: 60.0}),
        **changes)


def switched(*servers: facts.Server, **changes: object) -> facts.Seen:
    return seen(**{"leaf": BY_NEW, "last_signer": NEW.fingerprint, "servers": servers, **changes})


def decide(state: facts.Seen, **policy: object) -> issuing.Decision:
    return issuing.decide(state, dataclasses.replace(builders.wanted(), **{**ASKED, **policy}), NOW)


def only(decision: issuing.Decision) -> steps.Step:
    assert len(decision.actions) == 1, decision
    return decision.actions[0]


def test_it_begins_when_the_ca_is_due_or_when_it_is_asked_for_once() -> None:
    before = seen(authority=builders.authority(OLD), configurations=(builders.configuration(OLD),))
    begun = only(decide(before))
    assert isinstance(begun, steps.AddSuccessor)
    assert (begun.bundle, begun.request) == ((OLD,), "now")
    assert decide(before, rotate_authority=None).actions == ()
    due = dataclasses.replace(OLD, not_after=NOW + datetime.timedelta(hours=17519))
    ending = seen(authority=builders.authority(due), configurations=(builders.configuration(due),),
                  leaf=builders.leaf(signer=due))
    assert isinstance(only(decide(ending, rotate_authority=None)), steps.AddSuccessor)


def test_a_request_that_was_taken_up_is_not_taken_up_again() -> None:
    after = seen(authority=builders.authority(NEW, request="now"), configurations=(builders.configuration(NEW),),
                 leaf=builders.leaf(signer=NEW), last_signer=NEW.fingerprint)
    assert decide(after).actions == ()
    assert isinstance(only(decide(after, rotate_authority="again")), steps.AddSuccessor)


def test_the_new_ca_is_injected_before_it_signs() -> None:
    inject = only(decide(seen(configurations=(builders.configuration(OLD),))))
    assert isinstance(inject, steps.InjectBundle)
    assert set(inject.bundle) == {OLD, NEW}


def test_the_switch_waits_until_the_new_ca_has_settled() -> None:
    unsettled = decide(seen(trusted_seconds={OLD.fingerprint: 60.0, NEW.fingerprint: 9.0}))
    assert (unsettled.actions, unsettled.reason) == ((), reasons.Reason.DISTRIBUTING)
    assert isinstance(only(decide(seen())), steps.Switch)
    issue = only(decide(seen(authority=SWITCHED)))
    assert isinstance(issue, steps.IssueLeaf)
    assert (issue.signer, set(issue.bundle), issue.reason) == (NEW, {OLD, NEW}, reasons.Reason.SWITCHING)


def test_the_switch_waits_for_a_configuration_that_cannot_be_written() -> None:
    blocked = builders.configuration(OLD, name="blocked", state=facts.ConfigurationState.FORBIDDEN)
    decision = decide(seen(configurations=(*BOTH, blocked)))
    assert (decision.actions, decision.reason) == ((), reasons.Reason.DISTRIBUTING)
    assert "blocked" in decision.message


def test_such_a_configuration_is_waited_for_until_the_leaf_is_due_and_does_not_take_it_down_with_the_ca() -> None:
    ends = NOW + datetime.timedelta(hours=719)  # within renewBefore, and the CA allows for no longer leaf
    ending = dataclasses.replace(OLD, not_after=ends)
    blocked = builders.configuration(ending, name="blocked", known=False, state=facts.ConfigurationState.FORBIDDEN)
    world = seen(
        leaf=builders.leaf(signer=ending, cert=builders.certificate(not_after=ends)),
        configurations=(builders.configuration(ending, NEW), blocked))
    decision = decide(dataclasses.replace(world, authority=builders.authority(ending, NEW, successor=NEW)))
    assert isinstance(only(decision), steps.Switch)
    assert "blocked" in decision.message
    issue = only(decide(dataclasses.replace(
        world, authority=builders.authority(ending, NEW, successor=NEW, switched=True))))
    assert isinstance(issue, steps.IssueLeaf)
    assert issue.signer == NEW


ALIEN = builders.ca("alien")
BLOCKED = [facts.ConfigurationState.FORBIDDEN, facts.ConfigurationState.REJECTED, facts.ConfigurationState.UNTRIED,
           facts.ConfigurationState.CONTESTED, facts.ConfigurationState.READ_ONLY]


@pytest.mark.parametrize("state", BLOCKED)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("trusted", [(), (ALIEN,)])
def test_the_switch_does_not_wait_for_an_object_that_trusts_no_ca_in_use(
    state: facts.ConfigurationState, known: bool, trusted: tuple[facts.Certificate, ...]
) -> None:
    foreign = builders.configuration(*trusted, name="foreign", state=state, known=known)
    assert isinstance(only(decide(seen(configurations=(*BOTH, foreign)))), steps.Switch)


@pytest.mark.parametrize("state", BLOCKED)
def test_the_switch_waits_for_whoever_trusts_the_ca_in_use_and_names_it(state: facts.ConfigurationState) -> None:
    copied = builders.configuration(OLD, ALIEN, name="copied", known=False, state=state)
    decision = decide(seen(configurations=(*BOTH, copied)))
    assert (decision.actions, decision.reason) == ((), reasons.Reason.DISTRIBUTING)
    assert decision.message == "the new CA has to be trusted by ValidatingWebhookConfiguration copied"


def test_each_entry_of_an_object_is_looked_at_by_itself() -> None:
    state = facts.ConfigurationState.FORBIDDEN
    mended = builders.configuration(name="mended", state=state, entries=(
        facts.Entry(name="a", trusted=(OLD, NEW)), facts.Entry(name="b", trusted=(ALIEN,))))
    assert isinstance(only(decide(seen(configurations=(*BOTH, mended)))), steps.Switch)
    mixed = builders.configuration(name="mixed", state=state, entries=(
        facts.Entry(name="a", trusted=(ALIEN, NEW)), facts.Entry(name="b", trusted=(OLD,))))
    assert decide(seen(configurations=(*BOTH, mixed))).reason is reasons.Reason.DISTRIBUTING


def test_a_former_ca_with_the_same_key_is_in_use_as_well() -> None:
    renewed = builders.ca("renewed")
    by_both = builders.leaf(signer=renewed, signers=frozenset({OLD.fingerprint, renewed.fingerprint}))
    former = builders.configuration(OLD, name="former", state=facts.ConfigurationState.FORBIDDEN)
    state = seen(leaf=by_both, last_signer=renewed.fingerprint, configurations=(
        builders.configuration(OLD, renewed, NEW), former),
        authority=builders.authority(renewed, OLD, NEW, successor=NEW, request="now"))
    assert "former" in decide(state).message


def test_what_the_last_leaf_was_signed_by_is_in_use_though_the_secret_is_lost() -> None:
    blocked = builders.configuration(OLD, name="blocked", state=facts.ConfigurationState.FORBIDDEN)
    assert rotation.untrusting(seen(leaf=None, configurations=(blocked,)), NEW) == (blocked,)


def test_a_leaf_that_nobody_trusts_is_replaced_without_waiting_for_anybody() -> None:
    planted = builders.leaf(signer=ALIEN, signers=frozenset(), adopted=True)
    stranger = builders.configuration(ALIEN, name="stranger", state=facts.ConfigurationState.READ_ONLY)
    assert rotation.untrusting(seen(leaf=planted, last_signer=None, configurations=(stranger,)), NEW) == ()


@pytest.mark.parametrize(("state", "remedy"), [
    (facts.ConfigurationState.FORBIDDEN, "remove its annotation steadyhook.io/inject-ca-from"),
    (facts.ConfigurationState.READ_ONLY, "delete it or empty its caBundle"),
])
def test_trust_that_is_missing_for_hours_waits_for_a_person_and_goes_on_only_by_a_decision_of_that_person(
    state: facts.ConfigurationState, remedy: str
) -> None:
    copied = builders.configuration(OLD, name="copied", known=False, state=state)
    overdue = seen(configurations=(*BOTH, copied), held_seconds=rotation.DEADLINE_SECONDS)
    decision = decide(overdue)
    assert (decision.actions, decision.reason) == ((), reasons.Reason.TRUST_OVERDUE)
    status = conditions.status(
        seen=overdue, wanted=builders.wanted(), decision=decision, previous={}, observed_generation=1, now=NOW,
        acknowledged=conditions.Acknowledged(done=0, total=0))
    (degraded,) = [item for item in status["conditions"] if item["type"] == "Degraded"]
    assert (degraded["status"], degraded["reason"]) == ("True", "TrustOverdue")
    assert "ValidatingWebhookConfiguration copied" in degraded["message"]
    assert remedy in degraded["message"]
    assert isinstance(only(decide(dataclasses.replace(overdue, configurations=BOTH))), steps.Switch)


def test_a_crowd_that_holds_a_rotation_leaves_room_for_the_remedy() -> None:
    crowd = tuple(builders.configuration(OLD, name=f"{'a' * 100}{number}", state=facts.ConfigurationState.FORBIDDEN)
                  for number in range(500))
    message = decide(seen(configurations=crowd, held_seconds=rotation.DEADLINE_SECONDS)).message
    assert "and 495 more" in message
    assert "remove its annotation" in message[:1020]


def test_a_leaf_whose_signer_was_lost_waits_for_hours_and_says_so_too() -> None:
    copied = builders.configuration(OLD, name="copied", state=facts.ConfigurationState.FORBIDDEN)
    state = seen(authority=builders.authority(NEW, OLD, request="now"), configurations=(*BOTH, copied))
    assert decide(state).reason is reasons.Reason.PENDING
    assert decide(dataclasses.replace(state, held_seconds=rotation.DEADLINE_SECONDS)).reason is (
        reasons.Reason.TRUST_OVERDUE)


def test_the_wait_for_trust_is_measured_for_each_next_ca_and_by_whoever_is_active() -> None:
    copied = builders.configuration(OLD, name="copied", state=facts.ConfigurationState.FORBIDDEN)
    state, remembered = seen(configurations=(*BOTH, copied)), memory.Memory()
    assert [remembered.note(state, now).held_seconds for now in (0.0, 60.0)] == [0.0, 60.0]
    assert remembered.note(seen(), 70.0).held_seconds == 0.0
    assert [remembered.note(state, now).held_seconds for now in (80.0, 90.0)] == [0.0, 10.0]
    other = dataclasses.replace(state, authority=builders.authority(OLD, ALIEN, successor=ALIEN))
    assert remembered.note(other, 100.0).held_seconds == 0.0
    remembered.forget_waits()
    assert remembered.note(other, 200.0).held_seconds == 0.0


def test_a_renewal_during_the_wait_for_trust_is_signed_by_the_ca_in_use() -> None:
    blocked = builders.configuration(OLD, name="blocked", state=facts.ConfigurationState.FORBIDDEN)
    issue = only(decide(seen(leaf=None, configurations=(*BOTH, blocked))))
    assert isinstance(issue, steps.IssueLeaf)
    assert issue.signer == OLD


def test_a_repair_after_the_switch_is_signed_by_the_new_ca_even_when_the_leaf_is_gone() -> None:
    issue = only(decide(switched(leaf=None, trusted_seconds={})))
    assert isinstance(issue, steps.IssueLeaf)
    assert issue.signer == NEW


def test_a_repair_after_the_switch_is_signed_by_the_new_ca_even_when_nobody_else_remembers_it() -> None:
    issue = only(decide(seen(leaf=None, authority=SWITCHED)))
    assert isinstance(issue, steps.IssueLeaf)
    assert issue.signer == NEW


def test_a_leaf_by_the_old_ca_that_came_back_after_the_switch_is_replaced() -> None:
    issue = only(decide(switched(SERVER, leaf=BY_OLD, authority=SWITCHED, acknowledged_seconds=60.0)))
    assert isinstance(issue, steps.IssueLeaf)
    assert issue.signer == NEW


@pytest.mark.parametrize("laggard", [
    facts.Server(pod_uid="2", name="node-2", fingerprint=BY_OLD.certificate.fingerprint),
    facts.Server(pod_uid="2", name="node-2"),
    facts.Server(pod_uid="2", name="node-2", proof=facts.Proof.UNREACHABLE),
])
def test_one_server_that_has_not_acknowledged_keeps_the_old_ca(laggard: facts.Server) -> None:
    decision = decide(switched(SERVER, laggard, acknowledged_seconds=60.0))
    assert (decision.actions, decision.reason) == ((), reasons.Reason.ACKNOWLEDGING)
    assert decision.message == "1/2 acknowledged, waiting for node-2"


def test_a_wait_of_hours_is_overdue_and_goes_on() -> None:
    laggard = facts.Server(pod_uid="2", name="node-2")
    decision = decide(switched(SERVER, laggard, waiting_seconds=rotation.DEADLINE_SECONDS))
    assert (decision.actions, decision.reason) == ((), reasons.Reason.OVERDUE)


def test_a_server_that_says_nothing_is_believed_on_the_wire() -> None:
    foreign = facts.Server(pod_uid="2", name="10.0.0.2", proof=facts.Proof.GOOD)
    assert isinstance(only(decide(switched(SERVER, foreign, acknowledged_seconds=60.0))), steps.Promote)


def test_a_wrong_certificate_on_the_wire_keeps_the_old_ca_whatever_was_said() -> None:
    liar = dataclasses.replace(SERVER, pod_uid="2", name="node-2", proof=facts.Proof.WRONG)
    decision = decide(switched(SERVER, liar, acknowledged_seconds=60.0))
    assert (decision.actions, decision.reason) == ((), reasons.Reason.WRONG_CERTIFICATE)


def test_nobody_is_believed_before_somebody_looked() -> None:
    decision = decide(switched(dataclasses.replace(SERVER, proof=None), acknowledged_seconds=60.0))
    assert (decision.actions, decision.reason) == ((), reasons.Reason.PROVING)


def test_an_unreachable_server_that_has_acknowledged_blocks_nothing_but_is_named() -> None:
    hidden = dataclasses.replace(SERVER, proof=facts.Proof.UNREACHABLE)
    waiting = decide(switched(hidden, acknowledged_seconds=1.0))
    assert "not reachable to be looked at: node-1" in waiting.message
    assert isinstance(only(decide(switched(hidden, acknowledged_seconds=60.0))), steps.Promote)


def test_the_old_ca_leaves_after_everyone_has_settled_on_the_new_one() -> None:
    early = decide(switched(SERVER, acknowledged_seconds=9.0))
    assert (early.actions, early.reason) == ((), reasons.Reason.RETIRING)
    promote = only(decide(switched(SERVER, acknowledged_seconds=10.0)))
    assert isinstance(promote, steps.Promote)
    assert promote.bundle == (NEW,)
    assert promote.retired == (OLD.fingerprint,)


def test_what_has_left_does_not_come_back_from_the_leaf_secret_and_is_taken_out_of_the_configurations() -> None:
    done = seen(leaf=BY_NEW, last_signer=NEW.fingerprint,
                authority=builders.authority(NEW, retired=(OLD.fingerprint,), request="now"))
    inject = only(decide(done))
    assert isinstance(inject, steps.InjectBundle)
    assert inject.bundle == (NEW,)
    assert decide(dataclasses.replace(done, configurations=(builders.configuration(NEW),))).actions == ()


def test_a_retired_ca_that_signs_once_more_is_trusted() -> None:
    again = builders.authority(NEW, OLD, successor=OLD, retired=(OLD.fingerprint,))
    assert set(issuing.trust_bundle(seen(authority=again), NOW)) == {OLD, NEW}


def test_a_present_ca_that_cannot_sign_any_more_is_replaced_by_its_successor_and_stays_trusted() -> None:
    broken = builders.authority(OLD, NEW, successor=NEW, certificate=None, defect=facts.Defect(
        reason=reasons.Reason.KEY_MISMATCH, message="damaged"))
    promote = only(decide(seen(authority=broken)))
    assert isinstance(promote, steps.Promote)
    assert set(promote.bundle) == {OLD, NEW}


def test_a_damaged_successor_is_made_anew() -> None:
    damaged = builders.authority(OLD, NEW, successor=None, successor_damaged=True, request="now")
    begun = only(decide(seen(authority=damaged)))
    assert isinstance(begun, steps.AddSuccessor)
    assert NEW in begun.bundle


def test_a_request_for_a_new_leaf_is_fulfilled_once() -> None:
    quiet = seen(authority=builders.authority(OLD, request="now"), configurations=(builders.configuration(OLD),))
    issue = only(decide(quiet, rotate_leaf="please"))
    assert isinstance(issue, steps.IssueLeaf)
    assert (issue.reason, issue.request) == (reasons.Reason.REQUESTED, "please")
    fulfilled = dataclasses.replace(quiet, leaf=dataclasses.replace(BY_OLD, request="please"))
    assert decide(fulfilled, rotate_leaf="please").actions == ()


def test_everybody_is_looked_at_only_when_all_have_said_yes_and_the_silent_ones_before() -> None:
    silent = facts.Server(pod_uid="2", name="x")
    behind = facts.Server(pod_uid="3", name="y", fingerprint=BY_OLD.certificate.fingerprint)
    assert rotation.to_be_proven(seen(servers=(SERVER,))) == ()
    assert rotation.to_be_proven(switched(SERVER, silent, behind)) == (silent,)
    assert rotation.to_be_proven(switched(SERVER, silent)) == (SERVER, silent)


PROVIDED = {"authority_name": "own-ca", "rotate_authority": None}


def test_a_provided_ca_is_taken_and_not_made() -> None:
    create = only(decide(facts.Seen(leaf=None, authority=None, provided=NEW), **PROVIDED))
    assert isinstance(create, steps.CreateAuthority)
    assert create.provided == NEW


def test_nothing_is_made_by_guess_while_the_provided_ca_cannot_be_used() -> None:
    defect = facts.Defect(reason=reasons.Reason.SECRET_MISSING, message="Secret own-ca does not exist")
    decision = decide(facts.Seen(leaf=None, authority=None, provided_defect=defect), **PROVIDED)
    assert (decision.actions, decision.reason) == ((), reasons.Reason.PROVIDED_UNUSABLE)


def test_another_provided_ca_is_rotated_in_and_one_that_is_gone_changes_nothing() -> None:
    steady = seen(authority=builders.authority(OLD), configurations=(builders.configuration(OLD),))
    begun = only(decide(dataclasses.replace(steady, provided=NEW), **PROVIDED))
    assert isinstance(begun, steps.AddSuccessor)
    assert begun.provided == NEW
    assert decide(dataclasses.replace(steady, provided=OLD), **PROVIDED).actions == ()
    gone = facts.Defect(reason=reasons.Reason.SECRET_MISSING, message="gone")
    assert decide(dataclasses.replace(steady, provided_defect=gone), **PROVIDED).actions == ()
