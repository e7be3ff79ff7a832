"""The clock of this machine against the API server's, by the Date of its answers."""
import datetime
import email.utils

import prometheus_client
import pytest

from steadyhook.cluster import clock

HERE = datetime.datetime(2030, 1, 1, 12, 0, 0, 500000, tzinfo=datetime.UTC)


class FixedClock(clock.Clock):
    here = HERE
    seconds = 0.0

    def read(self) -> datetime.datetime:
        return self.here

    def elapsed(self) -> float:
        return self.seconds


def answer(ahead_seconds: float, *, took_seconds: float = 0.0) -> FixedClock:
    """A clock that has had one answer of an API server, which it is ahead of."""
    result = FixedClock()
    there = HERE - datetime.timedelta(seconds=ahead_seconds)
    result.compare(email.utils.format_datetime(there.replace(microsecond=0), usegmt=True), sent=HERE,
                   received=HERE + datetime.timedelta(seconds=took_seconds))
    return result


def test_before_an_answer_the_time_is_that_of_the_machine() -> None:
    assert FixedClock().skew_seconds is None
    assert FixedClock().now() == HERE


@pytest.mark.parametrize("ahead_seconds", [3600.0, -3600.0, 86400.0 * 400])
def test_a_wrong_clock_is_noticed_and_corrected(ahead_seconds: float) -> None:
    found = answer(ahead_seconds)
    assert found.skew_seconds == pytest.approx(ahead_seconds, abs=1.0)
    assert abs((found.now() - (HERE - datetime.timedelta(seconds=ahead_seconds))).total_seconds()) <= 1.0


def test_a_difference_that_the_header_cannot_tell_does_not_let_the_time_jump() -> None:
    found = answer(2.0)
    assert found.skew_seconds == pytest.approx(2.0, abs=1.0)
    assert found.now() == HERE


def test_an_answer_that_took_long_tells_nothing() -> None:
    assert answer(3600.0, took_seconds=clock.LONGEST_ANSWER_SECONDS + 1).skew_seconds is None
    assert answer(3600.0, took_seconds=-1.0).skew_seconds is None, "the clock was set meanwhile"


@pytest.mark.parametrize("header", [
    None, "", "yesterday", "Tue, 99 Foo 2030 12:00:00 GMT", "Tue, 01 Jan 99999 12:00:00 GMT", "\x00", "1",
    "Tue, 01 Jan 2030 12:00:00 +9999",
])
def test_a_header_that_tells_no_time_is_left_alone(header: str | None) -> None:
    found = FixedClock()
    found.compare(header, sent=HERE, received=HERE)
    assert found.skew_seconds is None


def test_the_metric_says_how_far_the_clock_is_ahead() -> None:
    answer(-3600.0)
    assert prometheus_client.REGISTRY.get_sample_value("steadyhook_clock_skew_seconds") == pytest.approx(-3600, abs=1)


def test_a_correction_ends_when_the_clock_is_set() -> None:
    """A machine starts with a wrong clock, and NTP sets it some seconds later."""
    found = answer(-3600.0)
    assert not found.was_set
    found.here += datetime.timedelta(hours=1)
    assert found.was_set
    assert found.skew_seconds is None
    assert found.now() == found.here
    found.compare(email.utils.format_datetime(found.here, usegmt=True), sent=found.here, received=found.here)
    assert not found.was_set
    assert found.skew_seconds == pytest.approx(0.0, abs=1.0)


def test_time_that_goes_by_sets_no_clock() -> None:
    found = answer(-3600.0)
    found.here += datetime.timedelta(days=3)
    found.seconds += 3 * 86400.0
    assert not found.was_set
    assert found.skew_seconds == pytest.approx(-3600.0, abs=1.0)
