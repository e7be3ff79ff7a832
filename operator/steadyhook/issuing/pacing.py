"""
Pace: how often a certificate is looked at when that fails, how often keys are made for it, and how many at a time.

Moments are of the monotonic clock, in seconds. Nobody who may write a WebhookCertificate, a Secret or an annotation,
however often, shall take the processor or the API server from the others.
"""
import asyncio
import collections.abc
import contextlib
import dataclasses
import datetime
import random
import weakref

from steadyhook.core import issuing, reasons, steps

KEYS_AT_ONCE, KEY_SECONDS = 40, 10.0
"""So many keys may be made at once for one certificate, for repairs, and then one in each so many seconds."""
REQUESTS_AT_ONCE, REQUEST_SECONDS = 4, 60.0
"""The same for leaves that only an annotation asks for."""

LOOKS_AT_ONCE, LOOK_SECONDS = 10, 1.0
"""So many changes of what belongs to a certificate are looked at one by one, and then one look a second is for all."""

TURNS = 8
TURNS_OF_A_NAMESPACE = 2
URGENT_AT_ONCE = 16
TURN_SECONDS = 5.0
"""A pass that takes longer, as it waits for endpoints that do not answer, holds up nobody else."""


class Bucket:
    """``size`` tokens at first; a new one comes in each ``seconds`` until there are ``size`` again."""

    def __init__(self, size: int, seconds: float) -> None:
        self._size = size
        self._seconds = seconds
        self._tokens = float(size)
        self._at: float | None = None

    def wait_seconds(self, now: float) -> float:
        """Until there is a token."""
        return max(0.0, (1.0 - self._level(now)) * self._seconds)

    def take(self, now: float) -> None:
        """Take a token; without one it is owed."""
        self._tokens, self._at = self._level(now) - 1.0, now

    def _level(self, now: float) -> float:
        since = now - self._at if self._at is not None else 0.0
        return min(float(self._size), self._tokens + since / self._seconds)


class Keys:
    """Of one certificate: how many keys are made for it."""

    def __init__(self) -> None:
        self._all = Bucket(KEYS_AT_ONCE, KEY_SECONDS)
        self._requested = Bucket(REQUESTS_AT_ONCE, REQUEST_SECONDS)

    def put_off(self, decision: issuing.Decision, *, clock: float, now: datetime.datetime) -> issuing.Decision:
        """The decision, or to wait if it would make one key too many. ``clock``: monotonic; ``now``: UTC."""
        buckets = [bucket for action in decision.actions for bucket in self._needs(action)]
        wait_seconds = max((bucket.wait_seconds(clock) for bucket in buckets), default=0.0)
        if wait_seconds <= 0:
            return decision
        until = now + datetime.timedelta(seconds=wait_seconds)
        return issuing.Decision(
            reason=reasons.Reason.PUT_OFF, wake_at=until,
            message=f"{decision.message}; put off until {until:%H:%M:%S} UTC, since many keys were made for this"
                    " certificate just now: find out who keeps asking, or keeps changing its Secrets")

    def note(self, action: steps.Step, *, clock: float) -> None:
        """The action is about to be carried out."""
        for bucket in self._of(action):
            bucket.take(clock)

    def _needs(self, action: steps.Step) -> tuple[Bucket, ...]:
        """Right after a switch a leaf has to be issued: it is put off before that, and not between the two."""
        return (self._all,) if isinstance(action, steps.Switch) else self._of(action)

    def _of(self, action: steps.Step) -> tuple[Bucket, ...]:
        match action:
            case steps.IssueLeaf(reason=reasons.Reason.REQUESTED):
                return self._all, self._requested
            case steps.IssueLeaf() | steps.CreateAuthority(provided=None) | steps.AddSuccessor(provided=None):
                return (self._all,)
        return ()


@dataclasses.dataclass(slots=True)
class Failures:
    """How often in a row looking at a certificate has failed, and so how long to wait."""

    count: int = 0

    def next_pause(self, first_seconds: float, longest_seconds: float) -> float:
        """Twice as long after each failure, with jitter."""
        self.count += 1
        return min(longest_seconds, first_seconds * 2.0 ** min(self.count - 1, 20)) * random.uniform(0.5, 1.0)

    @property
    def is_worth_a_line(self) -> bool:
        """Whether the last one is the 1st, 2nd, 4th, 8th, ... in a row: a log does not repeat itself for ever."""
        return self.count & (self.count - 1) == 0


class Turns:
    """Few passes at a time, of one namespace still fewer; first come, first served."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(TURNS)
        self.urgent = asyncio.Semaphore(URGENT_AT_ONCE)
        """For the few requests that end a storm, which wait for nobody's pass."""
        self._of_namespace: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def take(self, namespace: str) -> collections.abc.AsyncIterator[None]:
        """Wait for a turn; it ends with the block, or after TURN_SECONDS."""
        own = self._of_namespace.setdefault(namespace, asyncio.Semaphore(TURNS_OF_A_NAMESPACE))
        async with own:
            await self._all.acquire()
            held = True

            def give_back() -> None:
                nonlocal held
                if held:
                    held = False
                    self._all.release()

            timer = asyncio.get_running_loop().call_later(TURN_SECONDS, give_back)
            try:
                yield
            finally:
                timer.cancel()
                give_back()
