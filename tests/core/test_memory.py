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
