"""
The cluster: the API server's store, machines with clocks of their own, issuers, pods, and what the API servers trust.

Whoever calls the API server may be cut off, paused or killed before the request arrives, and between its effect and the
answer.
"""
import collections.abc
import dataclasses
import datetime
import random
from typing import TYPE_CHECKING, Any, TypeVar

from simulator import clockwork, model, trace
from steadyhook.core import election, facts, policy

if TYPE_CHECKING:
    from simulator import invariants, issuer, server

EPOCH = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
SETTLE_SECONDS = 10.0
CORRECTED_SECONDS = 5.0
ENDPOINT_LAG_SECONDS = 4.0  # how long the EndpointSlice controller may take; less than settleSeconds
T = TypeVar("T")


class Crashed(BaseException):
    """The process that is running now has been killed."""


@dataclasses.dataclass(slots=True)
class Machine:
    """Its clocks, and whether it reaches the API server. UTC is skewed, the monotonic clock starts anywhere."""

    name: str
    skew_seconds: float = 0.0
    monotonic_offset: float = 0.0
    cut_off: bool = False
    clock_was_set: bool = False  # while it was running
    usual_skew_seconds: float | None = None  # what it comes back to, once it was set

    @property
    def is_wrong(self) -> bool:
        """Whether its clock is further from the API server's than any certificate is backdated."""
        return abs(self.skew_seconds) > election.LARGEST_SKEW_SECONDS


@dataclasses.dataclass(slots=True)
class View:
    """What an API server may have loaded of one configuration: a version, and until when it may still be in use."""

    trusted: tuple[frozenset[str], ...]  # the names of keys
    foreign: bool  # put there by somebody else, or by nobody yet
    blocked: bool  # while the issuer may not write it, or is being fought
    until: float = clockwork.FOREVER


class World:
    """Everything there is in one run."""

    def __init__(self, *, rng: random.Random, wanted: policy.Policy, log: trace.Trace) -> None:
        self.rng = rng
        self.log = log
        self.clock = clockwork.Clockwork()
        self.store = model.Store(self._written)
        self.mint = model.Mint()
        self.issuers: list[issuer.Issuer] = []
        self.servers: dict[str, server.Server] = {}
        self.records: dict[str, issuer.Record] = {}
        self.views: dict[str, list[View]] = {}
        self.leaf_history: list[tuple[float, model.Object | None]] = [(0.0, None)]
        self.checker: invariants.Checker | None = None
        self.torn_reads = False  # whether others may act between two reads of one look
        self.slow = 0.0  # the share of requests that take seconds
        self.rivals = False  # the peering is not exclusive: everyone believes to be active
        self.aliens: dict[str, facts.Certificate] = {}
        self.own: dict[str, facts.Certificate] = {}  # the user's CAs
        self.forbidden: set[str] = set()  # configurations that the issuer may not patch
        self.never: set[str] = set()  # and those that it never may
        self.rejected: set[str] = set()  # of these, those that an admission policy keeps it from
        self.strangers: set[str] = set()  # CAs that nobody has reason to trust
        self.overwritten: set[str] = set()  # CAs that were written into a configuration that was known to be ours
        self.odd_records: dict[str, election.Record] = {}  # in the peering, of nobody who runs
        self.was_restored = False
        self.backups: list[dict[str, model.Object]] = []  # all objects, at each new leaf
        self.outage = False
        self.planted: set[str] = set()  # leaves that people have put where listeners take what they find
        self.blind = 0.0  # the share of starting listeners that write what they saw before without looking
        self.passed_seconds = 0.0  # in days in which nothing has happened
        self.trap: str | None = None  # kill the issuer "before" or "after" its next write
        self.store.create(model.CERTIFICATE, model.CertificateContent(wanted=wanted, status={}), author="people")

    @property
    def now(self) -> float:
        return self.clock.now

    @property
    def wanted(self) -> policy.Policy:
        wanted: policy.Policy = self.store.objects[model.CERTIFICATE].value.wanted
        return wanted

    def utc(self, machine: Machine | None = None) -> datetime.datetime:
        """The time by a machine's clock, or the true one."""
        return EPOCH + datetime.timedelta(seconds=self.clock.now + (machine.skew_seconds if machine else 0.0))

    def api_time(self, machine: Machine) -> datetime.datetime:
        """The time by a machine that has heard the API server's: a small difference is not corrected."""
        return self.utc(machine if abs(machine.skew_seconds) < CORRECTED_SECONDS else None)

    def monotonic(self, machine: Machine) -> float:
        return self.clock.now + machine.monotonic_offset

    def note(self, who: str, what: str, detail: object = "") -> None:
        self.log.add(self.clock.now, who, what, detail)

    def latency(self) -> float:
        if self.rng.random() < self.slow:
            return self.rng.uniform(0.5, 6.0)
        return 0.001 + 0.03 * self.rng.random()

    def read(self, machine: Machine, effect: collections.abc.Callable[[], T]) -> clockwork.Steps[T]:
        """A read of the API server. Raises Unreachable."""
        yield self.latency()
        yield from self._reach(machine)
        return effect()

    def write(self, machine: Machine, effect: collections.abc.Callable[..., T], *arguments: Any,
              **keywords: Any) -> clockwork.Steps[T]:
        """A write: it arrives, takes effect, and is answered, or any part of this. Raises Conflict, Unreachable."""
        yield self.latency()
        yield from self._reach(machine)
        self._spring_trap(machine, "before")
        result = effect(*arguments, **keywords)
        self._spring_trap(machine, "after")
        yield self.latency()
        yield from self._reach(machine)
        return result

    def _spring_trap(self, machine: Machine, when: str) -> None:
        if self.trap == when and machine.name.startswith("issuer"):
            self.trap = None
            raise Crashed(next(peer for peer in self.issuers if peer.machine is machine))

    def _reach(self, machine: Machine) -> clockwork.Steps[None]:
        if machine.cut_off or self.outage:
            yield self.rng.uniform(0.1, 10.0)
            raise model.Unreachable

    def refusal(self, key: str) -> facts.ConfigurationState | None:
        """Why an issuer may not patch this configuration, or None."""
        if key not in self.forbidden and key not in self.never:
            return None
        return facts.ConfigurationState.REJECTED if key in self.rejected else facts.ConfigurationState.FORBIDDEN

    def live_servers(self) -> list["server.Server"]:
        return [item for item in self.servers.values() if item.exists]

    def _written(self, old: model.Object | None, new: model.Object | None) -> None:
        item = new or old
        assert item is not None
        author = new.author if new else "delete"
        if self.checker is not None:
            self.checker.written(old, new)
        if item.key == model.LEAF:
            self.leaf_history.append((self.now, new))
            if new is not None and new.author.startswith("issuer"):
                self.backups.append(dict(self.store.objects))
            if new is not None and new.author == "people":
                self.planted.add(new.value.certificate.fingerprint)
            for one in self.servers.values():
                one.secret_changed()
        if item.key.startswith(model.CONFIGURATION):
            self._change_view(item, new)
            if self.checker is not None:
                self.checker.check_trust()
        if not item.key.startswith(model.NODE):
            self.note(author, "writes" if new else "deletes", item.key)
        delay = 1.0 if item.key.startswith(model.NODE) else 0.0
        if item.key != model.AUTHORITY:  # which is read, not watched
            for peer in self.issuers:
                peer.changed(delay)

    def _change_view(self, item: model.Object, new: model.Object | None) -> None:
        views = self.views.setdefault(item.uid, [])
        for view in views:
            view.until = min(view.until, self.now + SETTLE_SECONDS)
        if new is None:
            del self.views[item.uid]
            return
        entries: tuple[facts.Entry, ...] = new.value
        views.append(View(
            trusted=tuple(frozenset(one.pem for one in entry.trusted) for entry in entries),
            foreign=not new.author.startswith(("issuer", "application")),
            blocked=any(peer.blocks(item.uid) for peer in self.issuers)))
        self.views[item.uid] = [view for view in views if view.until > self.now]

    def block_views(self, uid: str) -> None:
        """An issuer leaves this configuration alone from now on."""
        for view in self.views.get(uid, []):
            view.blocked = True
