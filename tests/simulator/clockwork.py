"""
Simulated time: processes are generators that yield how many seconds to sleep; the earliest runs next.

A process may be crashed at any yield (its generator is dropped), paused (it runs on later, unaware) or woken.
"""
import collections.abc
import heapq
import itertools
from typing import TypeVar

T = TypeVar("T")
Steps = collections.abc.Generator[float, None, T]
"""Something that takes simulated time; each yield is a point at which everything else may happen."""

FOREVER = float("inf")


class Process:
    """A running generator. ``idle`` says that it sleeps of its own accord and may be woken."""

    def __init__(self, name: str, steps: Steps[None]) -> None:
        self.name = name
        self.steps = steps
        self.paused_until = 0.0
        self.idle = False
        self.alive = True
        self.turn = -1
        self.due = 0.0


class Clockwork:
    """The queue of what runs next, and the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step_count = 0
        self._queue: list[tuple[float, int, Process]] = []
        self._turns = itertools.count()

    def start(self, process: Process, delay: float = 0.0) -> None:
        self._push(process, self.now + delay)

    def wake(self, process: Process, delay: float = 0.0) -> None:
        """Let an idle process run ``delay`` seconds from now, if it would run later."""
        if process.idle and self.now + delay < process.due:
            self._push(process, self.now + delay)

    def stop(self, process: Process) -> None:
        process.turn = -1
        process.alive = False
        process.steps.close()

    def next_due(self) -> float:
        self._discard()
        return self._queue[0][0] if self._queue else FOREVER

    def step(self) -> Process | None:
        """Let the next process run to its next yield; None if it did not get to run."""
        self._discard()
        due, _, process = heapq.heappop(self._queue)
        self.now = max(self.now, due)
        if process.paused_until > self.now:
            self._push(process, process.paused_until)
            return None
        self.step_count += 1
        process.turn = -1
        try:
            delay = next(process.steps)
        except StopIteration:
            process.alive = False
            return process
        self._push(process, self.now + delay)
        return process

    def _push(self, process: Process, due: float) -> None:
        process.turn = next(self._turns)
        process.due = due
        if due < FOREVER:
            heapq.heappush(self._queue, (due, process.turn, process))

    def _discard(self) -> None:
        while self._queue and self._queue[0][1] != self._queue[0][2].turn:
            heapq.heappop(self._queue)
