"""Seats and roles."""
import datetime

import hypothesis
import pytest
from hypothesis import strategies
from kopf._core.engines import peering

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


SOUND = {"lastseen": "2030-01-01T00:00:00.123456+00:00", "lifetime": 15, "priority": -5}


@pytest.mark.parametrize("record", [
    SOUND, {**SOUND, "lastseen": "2030-01-01 00:00:00Z"}, {**SOUND, "lastseen": "2030-01-01T00:00:00"},
    {**SOUND, "lifetime": 10 * 365 * 86400}, {**SOUND, "priority": 10**30}, {"lastseen": SOUND["lastseen"]},
    {**SOUND, "more": "of a later version"},
])
def test_a_record_that_kopf_can_read_is_left_alone(record: object) -> None:
    peering.Peer(identity=peering.Identity("a"), **record)  # type: ignore[arg-type]
    assert election.unreadable({"status": {"a": record}}) == ()


@pytest.mark.parametrize("record", [
    {**SOUND, "lastseen": "never"}, {**SOUND, "lastseen": "9999-12-31T23:59:59"}, {**SOUND, "lastseen": 1},
    {**SOUND, "lifetime": 10**12}, {**SOUND, "lifetime": "soon"}, {**SOUND, "lifetime": None},
    {**SOUND, "lifetime": -1}, {**SOUND, "priority": "high"}, {**SOUND, "identity": "b"}, {}, None, "x", 1, [],
])
def test_a_record_that_ends_kopf_or_that_nobody_writes_is_found(record: object) -> None:
    assert election.unreadable({"status": {"a": record, "b": SOUND}}) == ("a",)


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats(allow_nan=False)
    | strategies.text(max_size=20) | strategies.sampled_from(["2030-01-01T00:00:00+00:00", "9999-12-31T23:59:59"]),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(
        strategies.sampled_from(["lastseen", "lifetime", "priority", "identity", "x"]), inner, max_size=4),
    max_leaves=8)


@hypothesis.given(record=JSON)
def test_whatever_is_not_found_unreadable_kopf_reads(record: object) -> None:
    if not election.unreadable({"status": {"a": record}}):
        assert isinstance(record, dict)
        peering.Peer(identity=peering.Identity("a"), **record)


@pytest.mark.parametrize(("skew_seconds", "others", "fine"), [
    (None, True, True), (14.0, True, True), (16.0, True, False), (-16.0, True, False), (16.0, False, True),
    (299.0, False, True), (301.0, False, False), (-301.0, False, False), (86400.0 * 365, False, False),
])
def test_an_instance_stays_out_if_its_clock_is_wrong_and_sooner_if_others_can_issue(
    skew_seconds: float | None, others: bool, fine: bool
) -> None:
    problem = election.clock_problem(skew_seconds, lifetime_seconds=15.0, others=others)
    assert (problem is None) is fine


def test_the_problem_with_the_clock_names_the_value_the_limit_and_the_remedy() -> None:
    assert election.clock_problem(-3600.0, lifetime_seconds=15.0, others=False) == (
        "the clock of this machine is 3600 s behind the API server's, expected at most 300 s; synchronise the clocks of"
        " the nodes (NTP)")


def parsed(record: object, identity: str = "a") -> election.Record:
    (found,) = election.parse({"status": {identity: record}})
    return found


@pytest.mark.parametrize("record", [
    {**SOUND, "lifetime": 10**12}, {**SOUND, "lifetime": float("inf")}, {**SOUND, "lifetime": float("nan")},
    {**SOUND, "lastseen": "never"}, {**SOUND, "lastseen": 1}, {**SOUND, "lastseen": "9999-12-31T23:59:59-14:00"},
    {**SOUND, "priority": 10**30}, {**SOUND, "priority": "high"}, {**SOUND, "priority": -(10**30)}, None, "x", 1, [],
    {**SOUND, "lastseen": (NOW + datetime.timedelta(days=3)).isoformat()},
])
def test_a_record_that_cannot_be_is_dead_and_dropped_by_the_next_one_that_takes_a_seat(record: object) -> None:
    one = parsed(record)
    assert not one.is_live(NOW)
    seat = election.find_seat([one], identity="b", seats=1, now=NOW)
    assert seat is not None
    assert seat.drop == ("a",)


def test_a_record_without_an_offset_is_in_utc_as_kopf_reads_it() -> None:
    assert parsed({**SOUND, "lastseen": "2030-01-01T00:00:00"}).expires_at == NOW + datetime.timedelta(seconds=15)


def test_no_record_holds_its_seat_for_ever() -> None:
    for_years = parsed({**SOUND, "lifetime": 10 * 365 * 86400})
    assert for_years.is_live(NOW)
    assert not for_years.is_live(NOW + datetime.timedelta(days=2))


def test_a_record_with_a_name_of_a_megabyte_is_dead() -> None:
    assert not parsed(SOUND, "a" * 1_000_000).is_live(NOW)


def test_the_priority_of_a_newcomer_fits_into_an_object() -> None:
    seat = election.find_seat([record("a", -election.PRIORITY_LIMIT)], identity="b", seats=3, now=NOW)
    assert seat is not None
    assert abs(seat.priority) <= election.PRIORITY_LIMIT


@hypothesis.given(status=strategies.none() | strategies.integers() | strategies.lists(strategies.none())
                  | strategies.dictionaries(strategies.text(max_size=5), JSON, max_size=5))
def test_whatever_is_in_the_peering_every_question_has_an_answer(status: object) -> None:
    records = election.parse({"status": status})
    roles = [election.role(records, identity=one.identity, now=NOW) for one in records]
    assert roles.count(election.Role.ACTIVE) <= 1
    for one in records:
        election.find_seat(records, identity=one.identity, seats=3, now=NOW)
        election.is_surplus(records, identity=one.identity, seats=3, now=NOW)
