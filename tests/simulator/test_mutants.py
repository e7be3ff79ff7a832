"""The simulator is sensitive: it finds each of the broken variants of the core, and soon."""
import pytest

from simulator import mutants, running, schedule

SEEDS = 1500


@pytest.mark.parametrize("name", mutants.names())
def test_a_broken_core_is_caught(name: str) -> None:
    with mutants.MUTANTS[name]():
        assert any(running.run(schedule.make(seed)).violation for seed in range(SEEDS)), (
            f"{name} was not found in {SEEDS} schedules")


def test_nothing_of_a_mutant_is_left_behind() -> None:
    before = [running.run(schedule.make(seed)).log.render() for seed in range(3)]
    for build in mutants.MUTANTS.values():
        with build():
            pass
    assert [running.run(schedule.make(seed)).log.render() for seed in range(3)] == before
