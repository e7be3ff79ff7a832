"""What the active instance has seen to hold, and for how long; the time is its monotonic clock, in seconds."""
import dataclasses

import pytest

from core import builders
from steadyhook.core import facts, issuing, memory, reasons

OLD, NEW = builders.ca("old"), builders.ca("new")
LOST = facts.Seen(
    leaf=builders.leaf(signer=OLD), authority=builders.authority(NEW, OLD),
    last_generation=100, last_signer=OLD.fingerprint)
"""The leaf's signer was replaced: a leaf of the new one has to wait until that is trusted everywhere."""


def looking(*trusted: facts.Certificate, state: facts.ConfigurationState) -> facts.Seen:
    return dataclasses.replace(LOST, configurations=(
        builders.configuration(NEW, OLD, name="open"), builders.configuration(*trusted, name="late", state=state)))


@pytest.mark.parametrize("state", [facts.ConfigurationState.READ_ONLY, facts.ConfigurationState.FORBIDDEN])
def test_what_trusts_at_last_settles_from_the_first_look_on_that_shows_it(state: facts.ConfigurationState) -> None:
    one = memory.Memory()
    for now in (100.0, 200.0):
        seen = one.note(looking(OLD, state=state), now)
    assert issuing.decide(seen, builders.wanted(), builders.NOW).reason is reasons.Reason.PENDING
    seen = one.note(looking(NEW, OLD, state=state), 260.0)
    assert seen.trusted_seconds[NEW.fingerprint] == 0
    assert issuing.decide(seen, builders.wanted(), builders.NOW).reason is reasons.Reason.SETTLING
    seen = one.note(looking(NEW, OLD, state=state), 270.0)
    assert issuing.decide(seen, builders.wanted(), builders.NOW).reason is reasons.Reason.ISSUING_LEAF


def test_trust_that_is_lost_in_between_settles_anew() -> None:
    one = memory.Memory()
    state = facts.ConfigurationState.READ_ONLY
    for now, trusted in ((0.0, (NEW, OLD)), (50.0, (OLD,)), (60.0, (NEW, OLD))):
        seen = one.note(looking(*trusted, state=state), now)
    assert seen.trusted_seconds[NEW.fingerprint] == 0


def test_a_wait_that_nobody_was_active_for_does_not_count() -> None:
    one = memory.Memory()
    seen = looking(NEW, OLD, state=facts.ConfigurationState.OPEN)
    one.note(seen, 0.0)
    one.forget_waits()
    assert one.note(seen, 50.0).trusted_seconds == {NEW.fingerprint: 0, OLD.fingerprint: 0}


@pytest.mark.parametrize("refused", [facts.ConfigurationState.FORBIDDEN, facts.ConfigurationState.REJECTED])
def test_a_trial_counts_until_a_patch_is_refused(refused: facts.ConfigurationState) -> None:
    remembered = memory.Memory()
    remembered.note_trial("a", facts.ConfigurationState.OPEN, now=0.0)
    assert remembered.states(10_000.0) == {"a": facts.ConfigurationState.OPEN}
    remembered.note_refusal("a", 10_000.0, refused)
    assert remembered.states(10_001.0) == {"a": refused}
    # When the refusal is forgotten nothing is known: it has to be tried again before anything in it is believed.
    assert remembered.states(10_000.0 + memory.FORBIDDEN_SECONDS) == {}


def test_a_trial_without_an_answer_is_made_again_soon() -> None:
    remembered = memory.Memory()
    remembered.note_trial("a", facts.ConfigurationState.UNTRIED, now=0.0)
    assert remembered.states(1.0) == {"a": facts.ConfigurationState.UNTRIED}
    assert remembered.seconds_until_open(1.0) == [memory.TRY_AGAIN_SECONDS - 1.0]
    assert remembered.states(memory.TRY_AGAIN_SECONDS) == {}


def test_nothing_is_kept_of_what_is_gone() -> None:
    remembered = memory.Memory()
    remembered.note_trial("uid-a", facts.ConfigurationState.OPEN, now=0.0)
    there = builders.configuration(name="a")
    state = facts.Seen(leaf=None, authority=None, configurations=(there,))
    remembered.note(state, 1.0)
    assert remembered.states(1.0) == {"uid-a": facts.ConfigurationState.OPEN}
    remembered.note(dataclasses.replace(state, configurations=()), 2.0)
    assert remembered.states(2.0) == {}


def test_nobody_has_acknowledged_while_it_is_not_known_who_serves() -> None:
    remembered = memory.Memory()
    old, new = builders.ca("old"), builders.ca("new")
    state = facts.Seen(leaf=builders.leaf(signer=new, trusted=(old, new)),
                       authority=builders.authority(old, new, successor=new, switched=True),
                       servers_defect=facts.Defect(reason=reasons.Reason.SERVERS_UNKNOWN, message="no right"))
    assert remembered.note(remembered.note(state, 0.0), 60.0).acknowledged_seconds == 0.0
    known = dataclasses.replace(state, servers_defect=None)
    assert remembered.note(remembered.note(known, 60.0), 70.0).acknowledged_seconds == 10.0


def test_what_was_trusted_for_a_moment_settles_though_it_is_lost_again() -> None:
    """API servers may have loaded what was there before: a leaf that cannot wait for trust waits for that at least."""
    one = memory.Memory()
    state = facts.ConfigurationState.READ_ONLY
    for now, trusted in ((0.0, (OLD,)), (100.0, (NEW, OLD)), (103.0, (OLD,))):
        seen = one.note(looking(*trusted, state=state), now)
    assert seen.trusted_seconds[NEW.fingerprint] == 3.0
    assert one.note(looking(OLD, state=state), 110.0).trusted_seconds[NEW.fingerprint] == 10.0


def test_an_entry_that_trusts_at_last_settles_though_the_one_beside_it_trusts_somebody_else() -> None:
    one = memory.Memory()
    stranger = facts.Entry(name="b", trusted=(builders.ca("alien"),))
    for now, trusted in ((0.0, (OLD,)), (100.0, (NEW, OLD))):
        mixed = builders.configuration(name="mixed", state=facts.ConfigurationState.FORBIDDEN, entries=(
            facts.Entry(name="a", trusted=trusted), stranger))
        seen = one.note(dataclasses.replace(LOST, configurations=(builders.configuration(NEW, OLD), mixed)), now)
    assert seen.trusted_seconds[NEW.fingerprint] == 0
