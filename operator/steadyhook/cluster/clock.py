"""
The clock of this machine, compared with the API server's.

The API servers verify the certificates, so theirs is the time that counts. Each of their answers tells it, in whole
seconds, in the header ``Date`` (RFC 9110, 6.6.1).
"""
import datetime
import email.utils

from steadyhook import metrics

LONGEST_ANSWER_SECONDS = 5.0
"""An answer that took longer tells the time too roughly."""


class Clock:
    """``skew_seconds``: how far this machine is ahead, within some seconds; None while no answer has told it."""

    def __init__(self) -> None:
        self.skew_seconds: float | None = None

    def read(self) -> datetime.datetime:
        """The time of this machine."""
        return datetime.datetime.now(datetime.UTC)

    def now(self) -> datetime.datetime:
        """The time of the API server, as far as it is known."""
        now = self.read()
        # Less is within what the header can tell, and would only let the time jump.
        if self.skew_seconds is None or abs(self.skew_seconds) < LONGEST_ANSWER_SECONDS:
            return now
        return now - datetime.timedelta(seconds=self.skew_seconds)

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
        self.skew_seconds = skew.total_seconds()
        metrics.CLOCK_SKEW_SECONDS.set(round(self.skew_seconds, 1))


def _parse(date: str | None) -> datetime.datetime | None:
    try:
        told = email.utils.parsedate_to_datetime(date or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return told if told.tzinfo is not None else told.replace(tzinfo=datetime.UTC)
