"""Whose a Secret is: nothing is written over what somebody else made, and no fight over a Secret is fought for ever."""
import dataclasses

import pytest

from core import builders
from core.builders import NOW
from steadyhook.core import conditions, facts, issuing, memory, reasons, steps

OLD = builders.ca("old")
FOREIGN = facts.Defect(reason=reasons.Reason.WRONG_TYPE, message="is of type Opaque")
CORPORATE = facts.Authority(secret=builders.secret("tls-ca", ours=False, recreate=True), defect=FOREIGN)
INGRESS = facts.Leaf(secret=builders.secret(ours=False), defect=FOREIGN)
WANTED = builders.wanted()


def decide(state: facts.Seen) -> issuing.Decision:
    return issuing.decide(state, WANTED, NOW)


@pytest.mark.parametrize(("state", "named"), [
    (facts.Seen(leaf=None, authority=CORPORATE), "Secret tls-ca"),
    (facts.Seen(leaf=INGRESS, authority=None), "Secret tls "),
    (facts.Seen(leaf=INGRESS, authority=CORPORATE), "Secret tls and Secret tls-ca"),
    (facts.Seen(leaf=INGRESS, authority=builders.authority(OLD), last_generation=100), "Secret tls "),
])
def test_a_secret_of_somebody_elses_is_neither_written_over_nor_deleted(state: facts.Seen, named: str) -> None:
    decision = decide(state)
    assert (decision.actions, decision.reason) == ((), reasons.Reason.NOT_OURS)
    assert named in decision.message
    assert "steadyhook.io/adopt=true" in decision.message
    status = conditions.status(
        seen=state, wanted=WANTED, decision=decision, previous={}, observed_generation=1, now=NOW,
        acknowledged=conditions.Acknowledged(done=0, total=0))
    degraded = next(item for item in status["conditions"] if item["type"] == "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "NotOurs")
    assert "caFingerprint" not in status


def test_a_ca_of_somebody_elses_that_happens_to_be_a_good_one_is_not_taken_for_ours() -> None:
    issued_by_others = facts.Seen(
        leaf=builders.leaf(signer=OLD, secret=builders.secret(ours=False), ready_mark=None),
        authority=builders.authority(OLD, secret=builders.secret("tls-ca", ours=False)))
    decision = decide(issued_by_others)
    assert decision.reason is reasons.Reason.NOT_OURS
    status = conditions.status(
        seen=issued_by_others, wanted=WANTED, decision=decision, previous={}, observed_generation=1, now=NOW,
        acknowledged=conditions.Acknowledged(done=0, total=0))
    assert "caFingerprint" not in status  # else the next look would take the names for ours


def test_foreign_content_under_a_name_that_is_ours_is_damage_and_repaired() -> None:
    state = facts.Seen(leaf=INGRESS, authority=builders.authority(OLD), last_generation=100,
                       last_signer=OLD.fingerprint)
    (issue,) = decide(state).actions
    assert isinstance(issue, steps.IssueLeaf)


def test_nothing_is_frozen_that_is_no_listeners() -> None:
    wanted = builders.wanted(compatibility="Dynamiclistener", privateKey={"algorithm": "RSA-2048"},
                             duration="8760h", renewBefore="2400h")
    decision = issuing.decide(facts.Seen(leaf=INGRESS, authority=None), wanted, NOW)
    assert (decision.actions, decision.reason) == ((), reasons.Reason.NOT_OURS)


# ---- fights ----

def issue(reason: reasons.Reason = reasons.Reason.READY_MARK_STALE) -> steps.IssueLeaf:
    return steps.IssueLeaf(replaces=builders.secret(), signer=OLD, bundle=(OLD,), generation=101, reason=reason)


def test_a_secret_that_is_spoiled_again_and_again_is_left_alone_for_a_while_and_more_rarely_each_time() -> None:
    one, now, pauses = memory.Memory(), 0.0, []
    broken = facts.Seen(leaf=builders.leaf(signer=OLD, ready_mark="00"), authority=builders.authority(OLD),
                        last_generation=100, last_signer=OLD.fingerprint)
    for _ in range(8):
        told = None
        writes = 0
        while told is None:
            seen = one.note(broken, now)
            assert isinstance(decide(seen).actions[0], steps.IssueLeaf)
            told = one.note_repair(issue(), WANTED, now)
            writes += 1
            now += 1.0
        assert writes == memory.CONTEST_REPAIRS
        decision = decide(one.note(broken, now))
        assert (decision.actions, decision.reason) == ((), reasons.Reason.CONTESTED)
        assert "Secret tls is written over" in decision.message
        (pause,) = one.seconds_until_open(now)
        pauses.append(round(pause))
        now += pause
    assert pauses == [59, 119, 239, 299, 299, 299, 299, 299]


def test_a_calm_while_ends_a_fight() -> None:
    one = memory.Memory()
    for now in range(memory.CONTEST_REPAIRS):
        one.note_repair(issue(), WANTED, float(now))
    for now in range(10_000, 10_000 + memory.CONTEST_REPAIRS):
        told = one.note_repair(issue(), WANTED, float(now))
    assert told is not None
    assert told.endswith("it is left alone for 60 s")


def test_damages_of_different_kinds_are_no_fight() -> None:
    one = memory.Memory()
    reasons_of_damage = [item for item in reasons.Reason if item not in issuing.NO_DAMAGE][:20]
    told = [one.note_repair(issue(item), WANTED, float(now)) for now, item in enumerate(reasons_of_damage)]
    assert told == [None] * 20


@pytest.mark.parametrize("reason", sorted(issuing.NO_DAMAGE))
def test_leaves_that_nobody_has_spoiled_are_no_fight(reason: reasons.Reason) -> None:
    one = memory.Memory()
    assert [one.note_repair(issue(reason), WANTED, float(now)) for now in range(20)] == [None] * 20


def test_a_ca_secret_that_is_spoiled_again_and_again_does_not_fill_the_bundle() -> None:
    one = memory.Memory()
    lost = facts.Seen(leaf=builders.leaf(signer=OLD), authority=None, last_generation=100,
                      last_signer=OLD.fingerprint)
    create = steps.CreateAuthority(replaces=None, bundle=(), reason=reasons.Reason.SECRET_MISSING)
    for now in range(memory.CONTEST_REPAIRS):
        assert decide(one.note(lost, float(now))).actions
        one.note_repair(create, WANTED, float(now))
    assert decide(one.note(lost, 5.0)).reason is reasons.Reason.CONTESTED


def test_what_is_remembered_of_configurations_does_not_grow_for_ever() -> None:
    one = memory.Memory()
    for number in range(1000):
        one.note_injection(f"uid-{number}", (OLD,), number * 1.0)
    assert len(one._injections) <= memory.CONTEST_SECONDS + 1


# ---- nobody serves it ----

def test_a_leaf_that_no_instance_serves_for_long_is_told() -> None:
    one = memory.Memory()
    counts = [(0.0, 0, 3), (300.0, 0, 3), (599.0, 0, 3), (601.0, 0, 3)]
    seconds = [one.unserved_seconds(now, done=done, total=total) for now, done, total in counts]
    assert seconds == [0.0, 300.0, 599.0, 601.0]
    assert one.unserved_seconds(700.0, done=1, total=3) == 0.0
    assert one.unserved_seconds(800.0, done=0, total=3) == 0.0
    state = facts.Seen(leaf=builders.leaf(signer=OLD), authority=builders.authority(OLD), last_generation=100,
                       last_signer=OLD.fingerprint)
    for since, expected in ((599.0, "False"), (601.0, "True")):
        status = conditions.status(
            seen=state, wanted=WANTED, decision=decide(state), previous={}, observed_generation=1, now=NOW,
            acknowledged=conditions.Acknowledged(done=0, total=3, unserved_seconds=since))
        degraded = next(item for item in status["conditions"] if item["type"] == "Degraded")
        assert degraded["status"] == expected


def test_what_is_told_of_it_does_not_change_with_the_time() -> None:
    state = facts.Seen(leaf=builders.leaf(signer=OLD), authority=builders.authority(OLD), last_generation=100,
                       last_signer=OLD.fingerprint)
    first, later = (conditions.status(
        seen=state, wanted=WANTED, decision=decide(state), previous={}, observed_generation=1, now=NOW,
        acknowledged=conditions.Acknowledged(done=0, total=3, unserved_seconds=since)) for since in (700.0, 7000.0))
    assert first == later  # else the status is written each minute


def test_the_end_of_a_provided_ca_is_told_as_early_as_a_leaf_would_be_renewed() -> None:
    wanted = dataclasses.replace(WANTED, authority_name="own-ca")
    for left, expected in ((wanted.renew_before, "True"), (2 * wanted.renew_before, "False")):
        ending = dataclasses.replace(OLD, not_after=NOW + left)
        state = facts.Seen(leaf=builders.leaf(signer=ending), authority=builders.authority(ending), provided=ending,
                           last_generation=100, last_signer=OLD.fingerprint)
        status = conditions.status(
            seen=state, wanted=wanted, decision=issuing.decide(state, wanted, NOW), previous={},
            observed_generation=1, now=NOW, acknowledged=conditions.Acknowledged(done=1, total=1))
        degraded = next(item for item in status["conditions"] if item["type"] == "Degraded")
        assert degraded["status"] == expected
