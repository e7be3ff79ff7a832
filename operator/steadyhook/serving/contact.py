"""
How long ago this server last heard from the API server, and the rare read that keeps it in touch.

A server that was stopped or cut off for hours may hold a certificate whose CA is about to leave. A rotation waits for
it as long as its pod exists, but whoever comes back has to read the Secret before it gets requests again.
"""
import asyncio
import collections.abc
import logging
import random
import time

from steadyhook.cluster import client
from steadyhook.core import rotation

logger = logging.getLogger(__name__)

LONGEST_SILENCE_SECONDS = rotation.DEADLINE_SECONDS / 2
READ_SECONDS = LONGEST_SILENCE_SECONDS / 6
LOOK_SECONDS = 30.0

Read = collections.abc.Callable[[], collections.abc.Awaitable[None]]


class Contact:
    """
    ``clock`` is in seconds and goes on while the machine sleeps.

    ``is_in_doubt``: whether a read is wanted however short the silence is.
    """

    def __init__(
        self, clock: collections.abc.Callable[[], float] | None = None, *,
        is_in_doubt: collections.abc.Callable[[], bool] = lambda: False,
    ) -> None:
        self._clock = clock or _clock
        self._is_in_doubt = is_in_doubt
        self._last = self._clock()

    def touch(self) -> None:
        """The API server has answered."""
        self._last = self._clock()

    def silence(self) -> float:
        """Seconds since the last answer."""
        return self._clock() - self._last

    def trouble(self) -> str | None:
        """Why this server should not be called, or None; to be asked at each readiness probe."""
        if self.silence() < LONGEST_SILENCE_SECONDS:
            return None
        return (f"no contact to the API server for {self.silence() / 3600:.1f} h, so the certificate may be old;"
                " ready again after one successful read")

    async def keep(self, read: Read) -> None:
        """Read now and then, until cancelled. ``read`` raises :class:`client.APIError` where it fails."""
        pause = READ_SECONDS * random.uniform(0.8, 1.2)
        while True:
            # In short steps, since the loop's own clock stands still while the machine sleeps.
            await asyncio.sleep(LOOK_SECONDS)
            if self.silence() < pause and not self._is_in_doubt():
                continue
            try:
                await read()
            except client.APIError as error:
                logger.info("The API server was not reached: %s", error)
            else:
                self.touch()
                pause = READ_SECONDS * random.uniform(0.8, 1.2)


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
