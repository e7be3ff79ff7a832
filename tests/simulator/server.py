"""
A pod that serves: the keeper, the watch and the reporter of ``serving``, each in a few lines.

It sees the Secret late, more than once, or not in every state; never backwards within one watch, but a new list may be
older than what the watch has shown.
"""
import dataclasses
import datetime
from typing import Any

from simulator import clockwork, invariants, model, world
from steadyhook.core import facts, reporting
from steadyhook.core import serving as judging

STALE_LIST_SECONDS = 3.0
SERVICE_NAME = "hook.ns.svc"


class Server:
    """One pod. Its container may be restarted; then it has forgotten everything but its identity."""

    def __init__(self, where: world.World, *, name: str, node: str, machine: world.Machine, dialable: bool) -> None:
        self.world = where
        self.name = name
        self.node = node
        self.machine = machine
        self.dialable = dialable
        self.exists = True
        self.visible_from = where.now + where.rng.uniform(0.0, world.ENDPOINT_LAG_SECONDS)
        self.served: judging.Served | None = None
        self.planted = False  # what it serves was put into the Secret by hand
        self.legacy: facts.Certificate | None = None  # no instance of ours: it serves this
        self._verdict: judging.Verdict | None = None
        self._leaf: tuple[str | None, float] = (None, 0.0)
        self.seen_seconds = 0.0
        self._position = 0
        self._watch: clockwork.Process | None = None
        self._reporter: clockwork.Process | None = None

    def start(self, delay: float = 0.0) -> None:
        """The container starts; a watch that is lost is followed by a new list."""
        self.served = self._verdict = None
        self.planted = False
        if self.legacy is not None:
            return
        self._watch = clockwork.Process(self.name, self._watching())
        self._reporter = clockwork.Process(self.name + "/report", self._reporting())
        self.world.clock.start(self._watch, delay)
        self.world.clock.start(self._reporter, delay)

    def stop(self) -> None:
        for process in (self._watch, self._reporter):
            if process is not None:
                self.world.clock.stop(process)
        self.served = None

    def end_part(self, *, reporter: bool, delay: float) -> None:
        """A part ends by itself, and is started again after a back-off; what is served stays."""
        process = self._reporter if reporter else self._watch
        if process is None or not process.alive:
            return
        self.world.clock.stop(process)
        if reporter:
            self._reporter = clockwork.Process(self.name + "/report", self._reporting())
            self.world.clock.start(self._reporter, delay)
        else:
            self._watch = clockwork.Process(self.name, self._watching())
            self.world.clock.start(self._watch, delay)

    def utc(self) -> datetime.datetime:
        """The time by which it judges: the API server's, where its own is too far from that."""
        return self.world.api_time(self.machine)

    def pause(self, until: float) -> None:
        for process in (self._watch, self._reporter):
            if process is not None:
                process.paused_until = until

    def resume(self) -> None:
        for process in (self._watch, self._reporter):
            if process is not None and process.paused_until > self.world.now:
                process.paused_until = 0.0
                self.world.clock.start(process)

    @property
    def is_paused(self) -> bool:
        return self._watch is not None and self._watch.paused_until > self.world.now

    @property
    def certificate(self) -> facts.Certificate | None:
        """What new handshakes get."""
        return self.legacy or (self.served.certificate if self.served else None)

    def secret_changed(self) -> None:
        if self._watch is not None:
            self.world.clock.wake(self._watch, self.world.latency())

    def _watching(self) -> clockwork.Steps[None]:
        while True:
            try:
                self._position = yield from self.world.read(self.machine, lambda: len(self.world.leaf_history) - 1)
                break
            except model.Unreachable:
                yield self.world.rng.uniform(0.5, 5.0)
        self._see()
        assert self._watch is not None
        while True:
            self._watch.idle = True
            yield self._pause_seconds()
            self._watch.idle = False
            if self.machine.cut_off or self.world.outage:
                yield self.world.rng.uniform(1.0, 10.0)
                if self.machine.cut_off or self.world.outage:
                    continue
                self._relist()
            elif self._position < len(self.world.leaf_history) - 1:
                self._follow()
            self._see()

    def _pause_seconds(self) -> float:
        """Until something is there to be seen, or the verdict is due to change by time."""
        if self._position < len(self.world.leaf_history) - 1 or self.machine.cut_off or self.world.outage:
            return self.world.latency()
        wake_at = self._verdict.wake_at if self._verdict else None
        if wake_at is None:
            return clockwork.FOREVER
        return max(0.1, (wake_at - self.utc()).total_seconds() + 0.1)

    def _follow(self) -> None:
        """The next event of the watch, or the last of several, or once more the same."""
        chance = self.world.rng.random()
        if chance < 0.1:
            return
        self._position = len(self.world.leaf_history) - 1 if chance < 0.3 else self._position + 1
        if chance > 0.95:
            self._relist()

    def _relist(self) -> None:
        """A new list, by a replica of the API server that may be behind."""
        history = self.world.leaf_history
        position = len(history) - 1
        while position > 0 and history[position][0] > self.world.now - STALE_LIST_SECONDS and (
                self.world.rng.random() < 0.5):
            position -= 1
        self._position = position

    def _see(self) -> None:
        item = self.world.leaf_history[self._position][1]
        before = self.served
        leaf = model.read_leaf(item) if item else None
        fingerprint = leaf.certificate.fingerprint if leaf and leaf.certificate else None
        now = self.world.monotonic(self.machine)
        if fingerprint != self._leaf[0]:
            self._leaf = (fingerprint, now)
        self.seen_seconds = now - self._leaf[1]
        verdict = judging.judge(leaf, served=before, service_name=SERVICE_NAME, now=self.utc(),
                                seen_seconds=self.seen_seconds)
        self.served = verdict.served
        if verdict.swap:
            assert item is not None
            self.planted = not item.author.startswith("issuer")
            self.world.note(self.name, "serves", verdict.served and verdict.served.certificate.fingerprint)
            if self.world.checker is not None:
                self.world.checker.swapped(self, item, before)
        elif self.served is None and before is not None:
            raise invariants.Violation(f"4: {self.name} has dropped its certificate")
        verdict = dataclasses.replace(verdict, swap=False)
        if verdict != self._verdict and self._reporter is not None:
            self.world.clock.wake(self._reporter)
        self._verdict = verdict

    def _reporting(self) -> clockwork.Steps[None]:
        assert self._reporter is not None
        said: judging.Verdict | None = None
        while True:
            if self._verdict is None or self._verdict == said:
                self._reporter.idle = True
                yield clockwork.FOREVER
                self._reporter.idle = False
                continue
            verdict = self._verdict
            try:
                yield from self._report(verdict)
                said = verdict
            except model.Conflict:
                yield self.world.rng.uniform(0.0, 0.2)
            except model.Unreachable:
                yield self.world.rng.uniform(0.5, 10.0)

    def _report(self, verdict: judging.Verdict) -> clockwork.Steps[None]:
        key = model.NODE + self.node
        found = yield from self.world.read(self.machine, lambda: self.world.store.get(key))
        if found is None:
            found = yield from self.world.write(self.machine, self.world.store.create, key, (), author=self.name)
        before: tuple[dict[str, Any], ...] = found.value
        gone = {item["podUID"] for item in before
                if item["podUID"] not in self.world.servers or not self.world.servers[item["podUID"]].exists}
        own = reporting.entry(
            pod_uid=self.name, pod_name=self.name, address="", certificate="cert", verdict=verdict, role=None,
            problem=None, previous=reporting.find(before, self.name), now=self.world.utc(self.machine))
        after = tuple(reporting.merge(before, pod_uid=self.name, own=own, gone=gone))
        if after != before:
            yield from self.world.write(
                self.machine, self.world.store.update, key, after, resource_version=found.resource_version,
                author=self.name)


def proof(one: Server, successor: facts.Certificate, *, now: Any) -> facts.Proof:
    """A handshake, as ``issuing.proving`` judges it."""
    certificate = one.certificate
    if not one.dialable or one.is_paused or certificate is None:
        return facts.Proof.UNREACHABLE
    good = certificate.pem == successor.pem and now < certificate.not_after
    return facts.Proof.GOOD if good else facts.Proof.WRONG


def find(where: world.World) -> tuple[facts.Server, ...]:
    """As ``cluster.servers.find``: endpoints, joined with the ManagerNodes' instances of pods that exist."""
    said: dict[str, tuple[str, str | None]] = {}
    for item in where.store.list(model.NODE):
        for entry in item.value:
            said[entry["podUID"]] = (item.key, entry.get("fingerprint"))
    found = []
    for one in where.live_servers():
        if one.name in said or one.visible_from <= where.now:
            node, fingerprint = said.get(one.name, (one.name, None))
            found.append(facts.Server(pod_uid=one.name, name=node, fingerprint=fingerprint))
    return tuple(sorted(found, key=lambda item: item.pod_uid))


def look(where: world.World, doubtful: tuple[facts.Server, ...], successor: facts.Certificate,
         now: Any) -> dict[str, facts.Proof]:
    """As ``issuing.reconciling._prove``: who is no endpoint is called by nobody."""
    return {item.pod_uid: proof(where.servers[item.pod_uid], successor, now=now)
            if where.servers[item.pod_uid].visible_from <= where.now else facts.Proof.SKIPPED
            for item in doubtful}


def with_proofs(seen: facts.Seen, proofs: dict[str, facts.Proof]) -> facts.Seen:
    return dataclasses.replace(seen, servers=tuple(
        dataclasses.replace(item, proof=proofs.get(item.pod_uid, item.proof)) for item in seen.servers))
