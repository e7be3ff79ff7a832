"""
The clock of this machine, compared with the API server's.

The API servers verify the certificates, so theirs is the time that counts. Each of their answers tells it, in whole
seconds, in the header ``Date`` (RFC 9110, 6.6.1).
"""
import datetime
import email.utils
import time

from steadyhook import metrics

LONGEST_ANSWER_SECONDS = 5.0
"""An answer that took longer tells the time too roughly."""


class Clock:
    """To be told of each answer by :meth:`compare`."""

    def __init__(self) -> None:
        self._skew_seconds: float | None = None
        self._set_to = 0.0  # this machine's time less its elapsed time, at the last answer

    def read(self) -> datetime.datetime:
        """The time of this machine."""
        return datetime.datetime.now(datetime.UTC)

    def elapsed(self) -> float:
        """Seconds of a clock that nobody sets, and that goes on while the machine sleeps."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    @property
    def skew_seconds(self) -> float | None:
        """How far this machine is ahead, within some seconds; None while no answer has told it."""
        return None if self.was_set else self._skew_seconds

    @property
    def was_set(self) -> bool:
        """
        Whether this machine's clock was set since the last answer, so that a new answer is wanted.

        As a rule it was set right: by NTP some seconds after the start of the machine.
        """
        return self._skew_seconds is not None and abs(self._setting() - self._set_to) >= LONGEST_ANSWER_SECONDS

    def now(self) -> datetime.datetime:
        """The time of the API server, as far as it is known."""
        now, skew_seconds = self.read(), self.skew_seconds
        # Less is within what the header can tell, and would only let the time jump.
        if skew_seconds is None or abs(skew_seconds) < LONGEST_ANSWER_SECONDS:
            return now
        return now - datetime.timedelta(seconds=skew_seconds)

    def compare(self, date: str | None, *, sent: datetime.datetime, received: datetime.datetime) -> None:
        """Take in an answer: its header, and this machine's time before and after it."""
        took = received - sent
        if not datetime.timedelta(0) <= took <= datetime.timedelta(seconds=LONGEST_ANSWER_SECONDS):
            return  # or the clock was set meanwhile
        told = _parse(date)
        if told is None:
            return
        # The header is cut to the second: on the average half of one is missing.
        skew = (sent + took / 2) - (told + datetime.timedelta(seconds=0.5))
        self._skew_seconds, self._set_to = skew.total_seconds(), self._setting()
        metrics.CLOCK_SKEW_SECONDS.set(round(self._skew_seconds, 1))

    def _setting(self) -> float:
        return self.read().timestamp() - self.elapsed()


def _parse(date: str | None) -> datetime.datetime | None:
    try:
        told = email.utils.parsedate_to_datetime(date or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return told if told.tzinfo is not None else told.replace(tzinfo=datetime.UTC)
