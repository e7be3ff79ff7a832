"""Seats and roles."""
import datetime

import hypothesis
from hypothesis import strategies

from steadyhook.core import election

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


def record(identity: str, priority: int, *, seconds_left: float = 10) -> election.Record:
    return election.Record(identity=identity, priority=priority,
                           expires_at=NOW + datetime.timedelta(seconds=seconds_left))


def test_a_seat_is_free_until_all_are_taken_by_the_living() -> None:
    living = [record("a", 3), record("b", 2)]
    assert election.find_seat(living, identity="c", seats=2, now=NOW) is None
    seat = election.find_seat([*living, record("dead", 9, seconds_left=0)], identity="c", seats=3, now=NOW)
    assert seat is not None
    assert seat.drop == ("dead",)


def test_one_who_comes_back_under_its_name_gets_its_own_seat() -> None:
    records = [record("a", 3), record("b", 2)]
    seat = election.find_seat(records, identity="a", seats=2, now=NOW)
    assert seat is not None
    assert seat.priority < 2


def test_a_newcomer_never_preempts_even_with_a_clock_far_behind() -> None:
    records = [record("a", -10**18)]
    seat = election.find_seat(records, identity="b", seats=3, now=NOW)
    assert seat is not None
    assert seat.priority == -(10**18) - 1


def test_the_priority_of_the_user_is_taken_as_it_is() -> None:
    seat = election.find_seat([record("a", 5)], identity="b", seats=3, now=NOW, priority=100)
    assert seat is not None
    assert seat.priority == 100


def test_the_active_one_is_the_live_record_of_the_highest_priority() -> None:
    records = [record("a", 3, seconds_left=-1), record("b", 2), record("c", 1)]
    assert election.role(records, identity="a", now=NOW) is election.Role.RESERVE
    assert election.role(records, identity="b", now=NOW) is election.Role.ACTIVE
    assert election.role(records, identity="c", now=NOW) is election.Role.CANDIDATE
    assert election.role(records, identity="d", now=NOW) is election.Role.RESERVE


def test_the_lowest_of_too_many_leaves() -> None:
    records = [record("a", 3), record("b", 2), record("c", 1)]
    surplus = [r.identity for r in records if election.is_surplus(records, identity=r.identity, seats=2, now=NOW)]
    assert surplus == ["c"]


@hypothesis.given(strategies.lists(
    strategies.tuples(strategies.sampled_from("abcdef"), strategies.integers(-5, 5), strategies.floats(-5, 5)),
    max_size=8, unique_by=lambda item: item[0]))
def test_at_most_one_is_active_whatever_the_records(peers: list[tuple[str, int, float]]) -> None:
    records = [record(name, priority, seconds_left=left) for name, priority, left in peers]
    roles = [election.role(records, identity=r.identity, now=NOW) for r in records]
    assert roles.count(election.Role.ACTIVE) <= 1
