"""Which connection goes when there is no room, and how many there may be."""
import asyncio
import resource
import time

import pytest

from steadyhook.serving import connections

Activity = connections.Activity
NOW = 1000.0


def connection(activity: connections.Activity, *, age: float = 60, since: float = 60, useful: bool = False,
               ) -> connections.Connection:
    """``age``, ``since``: for how many seconds it has been there, and has done what it does."""
    result = connections.Connection(asyncio.Protocol(), closed=lambda connection: None)
    result.activity, result.useful = activity, useful
    result.accepted, result.since = NOW - age, NOW - since
    return result


def dispensable(*open_ones: connections.Connection, places: int = 4) -> connections.Connection | None:
    return connections.dispensable(open_ones, places=places, now=NOW)


@pytest.mark.parametrize("activity", [Activity.OPENING, Activity.IDLE, Activity.HEAD, Activity.BODY])
def test_the_oldest_of_those_that_never_got_an_answer_goes_first(activity: connections.Activity) -> None:
    oldest = connection(activity, age=70)
    assert dispensable(connection(Activity.IDLE, since=900, useful=True), connection(Activity.IDLE), oldest) is oldest


def test_else_the_one_that_has_been_idle_longest() -> None:
    longest = connection(Activity.IDLE, since=90, useful=True)
    assert dispensable(connection(Activity.IDLE, useful=True), longest, connection(Activity.ANSWERING)) is longest


def test_half_a_request_on_a_useful_connection_is_waited_for_but_not_for_long() -> None:
    fresh = connection(Activity.BODY, since=0.1, useful=True)
    old = connection(Activity.BODY, since=connections.GRACE_SECONDS, useful=True)
    assert dispensable(fresh) is None
    assert dispensable(fresh, old) is old


def test_one_that_is_being_answered_never_goes() -> None:
    assert dispensable(connection(Activity.ANSWERING), connection(Activity.ANSWERING, useful=True)) is None


def test_newcomers_do_not_push_each_other_out_at_once_nor_all_the_useful_ones() -> None:
    new, useful = connection(Activity.OPENING, age=0.1), connection(Activity.IDLE, useful=True)
    assert dispensable(new, useful, useful, useful, useful, places=5) is useful
    assert dispensable(new, new, useful, useful, useful, places=5) is None


@pytest.fixture
def open_files() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be_and_else_holds_fewer(
    open_files: tuple[int, int], caplog: pytest.LogCaptureFixture,
) -> None:
    hard = open_files[1]
    assert hard >= 1024, "this test needs more files"
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        assert connections.affordable(256) == 256
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 256 + connections.RESERVED_DESCRIPTORS
        assert not caplog.records
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        assert connections.affordable(10) == 10
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, open_files)


def test_it_is_noted_since_when_a_connection_does_what_it_does() -> None:
    new = connections.Connection(asyncio.Protocol(), closed=lambda connection: None)
    assert new.activity is Activity.OPENING
    new.since = NOW
    new.connection_made(asyncio.Transport())
    assert (new.activity, new.since > NOW or time.monotonic() < NOW) == (Activity.IDLE, True)
