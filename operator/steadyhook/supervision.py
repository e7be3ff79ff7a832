"""
Supervision: a part that ends by itself is started again, and its restarts are counted.

A *part* is a coroutine that runs until it is cancelled: a loop, a watch, an embedded operator. Whether a part is alive
says nothing about what it achieves; health is judged elsewhere, by results.
"""
import asyncio
import collections.abc
import logging
import random
import time
from typing import Any, NoReturn

from steadyhook import metrics

logger = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 10.0
"""After an outage everything is as it should be within about this time; no more often than a kubelet's own reports."""

Run = collections.abc.Callable[[], collections.abc.Awaitable[None]]


class EndlessBackoffs(collections.abc.Iterable[float]):
    """
    Retry delays in seconds that grow to LONGEST_PAUSE_SECONDS and never end, with jitter.

    With kopf's own finite list an operator exits after about a minute of a failing API server.
    """

    def __iter__(self) -> collections.abc.Iterator[float]:
        pause = 0.5
        while True:
            yield pause * random.uniform(0.5, 1.0)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


async def keep(part: str, run: Run) -> NoReturn:
    """
    Run a part until this coroutine is cancelled; start it again, after a pause, whenever it ends by itself.

    ``part`` is its name in the log and in the metric: one of a few fixed names, not that of an object.
    """
    pauses = iter(EndlessBackoffs())
    while True:
        began = time.monotonic()
        try:
            await run()
            problem: BaseException | None = None
        except Exception as error:
            problem = error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            problem = error  # something inside was cancelled, and nobody asked this part to end
        if time.monotonic() - began > LONGEST_PAUSE_SECONDS:
            pauses = iter(EndlessBackoffs())  # it did work
        pause = next(pauses)
        metrics.RESTARTS.labels(part=part).inc()
        logger.error("The %s has ended by itself (%s); it starts again in %.1f s.", part,
                     _describe(problem), pause, exc_info=problem if _is_unexpected(problem) else None)
        await asyncio.sleep(pause)


async def end(tasks: collections.abc.Collection[asyncio.Task[Any]]) -> None:
    """
    Cancel tasks, and return when they all have ended.

    Whoever is cancelled meanwhile waits for them all the same, and is cancelled after that.
    """
    for task in tasks:
        task.cancel()
    interruption: asyncio.CancelledError | None = None
    while pending := {task for task in tasks if not task.done()}:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            interruption = error
    if interruption is not None:
        raise interruption


class Ended(Exception):
    """A part gives up what it was doing, for a reason that is said: no traceback would tell more."""


def _is_unexpected(problem: BaseException | None) -> bool:
    return problem is not None and not isinstance(problem, Ended)


def _describe(problem: BaseException | None) -> str:
    if problem is None:
        return "it returned"
    return str(problem) or type(problem).__name__
