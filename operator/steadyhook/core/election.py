"""
Who issues: seats in the peering, and the role that follows from its records.

kopf's peering elects by priority, but it does not scale to a peer on every node, so only a few instances hold a
record: a seat. An expired record is free by kopf's own rule (lastseen + lifetime). This is the one place where the
clock of another machine is read: it decides who works, never what is safe.
"""
import collections.abc
import dataclasses
import datetime
import enum
import re
from typing import Any


class Role(enum.StrEnum):
    """What an instance does about issuing."""

    ACTIVE = "active"  # issues
    CANDIDATE = "candidate"  # holds a seat, stands by
    RESERVE = "reserve"  # holds no seat


LONGEST_LIFETIME = datetime.timedelta(days=1)
"""No record counts for longer than this, whatever it says: a mistake in one may not end the election for good."""

CLOCK_SKEW = datetime.timedelta(minutes=5)

PRIORITY_LIMIT = 2**62
"""A Kubernetes object holds 64 bits."""
IDENTITY_CHARACTERS = 512
_NEVER = datetime.datetime.min.replace(tzinfo=datetime.UTC)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One peer's record in the status of a KopfPeering. One that cannot be read counts as dead."""

    identity: str
    priority: int
    expires_at: datetime.datetime
    lifetime: datetime.timedelta = LONGEST_LIFETIME
    readable: bool = True

    def is_live(self, now: datetime.datetime) -> bool:
        """One that seems to have been written in the future was written by a clock that is wrong."""
        return self.readable and now < self.expires_at <= now + self.lifetime + CLOCK_SKEW


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """Take a seat with this priority, dropping the records of the dead in the same write."""

    priority: int
    drop: tuple[str, ...]


def parse(manifest: collections.abc.Mapping[str, Any]) -> tuple[Record, ...]:
    """The records of all peers, as kopf writes them; one that cannot be read is among them, and dead. Never raises."""
    status = manifest.get("status")
    return tuple(_parse(identity, record) for identity, record in status.items()) if isinstance(
        status, collections.abc.Mapping) else ()


def _parse(identity: str, record: Any) -> Record:
    try:
        last_seen = datetime.datetime.fromisoformat(record["lastseen"])
        if last_seen.tzinfo is None:  # as kopf reads it
            last_seen = last_seen.replace(tzinfo=datetime.UTC)
        lifetime = datetime.timedelta(seconds=int(record.get("lifetime", 60)))
        priority = int(record.get("priority", 0))
        expires_at = min(last_seen + lifetime, last_seen + LONGEST_LIFETIME).astimezone(datetime.UTC)
        lifetime = min(lifetime, LONGEST_LIFETIME)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return Record(identity=identity, priority=0, expires_at=_NEVER, readable=False)
    if abs(priority) > PRIORITY_LIMIT or len(identity) > IDENTITY_CHARACTERS:
        return Record(identity=identity, priority=0, expires_at=_NEVER, readable=False)
    return Record(identity=identity, priority=priority, expires_at=expires_at, lifetime=lifetime)


def find_seat(
    records: collections.abc.Iterable[Record], *, identity: str, seats: int, now: datetime.datetime,
    priority: int | None = None,
) -> Join | None:
    """
    The seat that can be had, or None.

    Unless the user gave a priority, a newcomer's is below that of everyone before it, so that it never preempts,
    and unique, since peers of equal priority would all pause.
    """
    others = [record for record in records if record.identity != identity]
    live = [record for record in others if record.is_live(now)]
    if len(live) >= seats:
        return None
    if priority is None:
        lowest = min([-int(now.timestamp() * 1_000_000), *(record.priority - 1 for record in live)])
        priority = max(lowest, -PRIORITY_LIMIT)
    return Join(priority=priority, drop=tuple(sorted(r.identity for r in others if not r.is_live(now))))


def role(records: collections.abc.Iterable[Record], *, identity: str, now: datetime.datetime) -> Role:
    """The role of this instance; active is the live record of the highest priority, if there is one such."""
    live = [record for record in records if record.is_live(now)]
    own = next((record for record in live if record.identity == identity), None)
    if own is None:
        return Role.RESERVE
    rivals = [record for record in live if record.identity != identity and record.priority >= own.priority]
    return Role.CANDIDATE if rivals else Role.ACTIVE


def is_surplus(
    records: collections.abc.Iterable[Record], *, identity: str, seats: int, now: datetime.datetime
) -> bool:
    """Whether this instance has to leave: more records than seats (a resumed holder), and its own is the lowest."""
    live = sorted((r for r in records if r.is_live(now)), key=lambda r: (-r.priority, r.identity))
    return any(record.identity == identity for record in live[seats:])


LARGEST_SKEW_SECONDS = 300.0
"""How far a clock may be from the API server's for the instance to issue: as far as certificates are backdated."""


def clock_problem(
    skew_seconds: float | None, *, lifetime_seconds: float, others: bool
) -> str | None:
    """
    Why an instance must not issue because of its clock, or None. ``skew_seconds``: how far it is ahead, if known.

    ``others``: whether other instances are there to issue. Then a smaller difference is enough to stay out: an instance
    whose clock differs by more than a record's lifetime takes all others for dead.
    """
    limit = min(lifetime_seconds, LARGEST_SKEW_SECONDS) if others else LARGEST_SKEW_SECONDS
    if skew_seconds is None or abs(skew_seconds) <= limit:
        return None
    direction = "ahead of" if skew_seconds > 0 else "behind"
    return (f"the clock of this machine is {abs(skew_seconds):.0f} s {direction} the API server's, expected at most"
            f" {limit:.0f} s; synchronise the clocks of the nodes (NTP)")


def unreadable(manifest: collections.abc.Mapping[str, Any]) -> tuple[str, ...]:
    """The identities whose records kopf cannot parse, which ends every kopf operator that watches the peering."""
    status = manifest.get("status") or {}
    return tuple(sorted(identity for identity, record in status.items() if not _is_readable(record)))


_LAST_SEEN = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)?")


def _is_readable(record: object) -> bool:
    """Narrower than what kopf reads: whatever passes here is no trouble for it."""
    if not isinstance(record, dict) or "identity" in record:
        return False
    last_seen, lifetime, priority = record.get("lastseen"), record.get("lifetime", 60), record.get("priority", 0)
    if not isinstance(last_seen, str) or _LAST_SEEN.fullmatch(last_seen) is None:
        return False
    if type(lifetime) is not int or lifetime < 0 or type(priority) is not int:
        return False
    try:
        datetime.datetime.fromisoformat(last_seen) + datetime.timedelta(seconds=lifetime, days=1)  # any time zone
    except (ValueError, OverflowError):
        return False
    return True
