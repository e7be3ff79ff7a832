"""One read for all who ask for the same thing at the same time."""
import asyncio
import collections.abc
from typing import Generic, TypeVar

Value = TypeVar("Value")
Read = collections.abc.Callable[[], collections.abc.Awaitable[Value]]


class Shared(Generic[Value]):
    """
    A read that many want at once, done as rarely as possible.

    Whoever asks gets the result of a read that begins after the question: so it is as fresh as a read of one's own, and
    nothing that is older can enter a decision. Who asks while a read is under way waits for the next one.
    """

    def __init__(self) -> None:
        self._running: asyncio.Task[Value] | None = None
        self._next: asyncio.Task[Value] | None = None

    async def get(self, read: Read[Value]) -> Value:
        """The result of ``read``, or of the same read that somebody else has asked for. Raises what that raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._begin(read, self._running))
            self._next.add_done_callback(_look_at)
        return await asyncio.shield(self._next)  # one who gives up takes it from nobody else

    async def _begin(self, read: Read[Value], before: asyncio.Task[Value] | None) -> Value:
        if before is not None and not before.done():
            await asyncio.wait({before})
        self._running, self._next = self._next, None
        return await read()


def _look_at(task: asyncio.Task[Value]) -> None:
    """Its error is no matter if everybody has given up."""
    if not task.cancelled():
        task.exception()
