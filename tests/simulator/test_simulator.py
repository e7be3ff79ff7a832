"""Every invariant at every step of thousands of schedules, and rest in the end; ``SIMULATOR_RUNS`` asks for more."""
import os

import pytest

from simulator import running, schedule

RUNS = int(os.environ.get("SIMULATOR_RUNS", "10000"))
FIRST = int(os.environ.get("SIMULATOR_FIRST", "0"))
BLOCKS = 10


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_schedule_violates_an_invariant_and_every_one_comes_to_rest(block: int) -> None:
    for seed in range(FIRST + RUNS * block // BLOCKS, FIRST + RUNS * (block + 1) // BLOCKS):
        plan = schedule.make(seed)
        outcome = running.run(plan)
        assert outcome.violation is None, (
            f"{outcome.violation}\n{plan}\n\n{outcome.log.render(last=60)}\n\n"
            f"All of it: python -m simulator --seed {seed}")


def test_a_seed_always_gives_the_same_run() -> None:
    for seed in range(5):
        first, second = (running.run(schedule.make(seed)) for _ in range(2))
        assert first.log.render() == second.log.render()
        assert len(first.log) > 10


def test_every_happening_is_in_some_schedule() -> None:
    from simulator import happenings

    planned = {event.what for seed in range(1000) for event in schedule.make(seed).events}
    assert planned == set(happenings.HAPPENINGS)
