"""
An instance that stands for election and issues: ``issuing.candidacy`` and ``issuing.reconciling`` with the reads and
writes of ``cluster``, statement by statement, around the real core.
"""
import collections.abc
import dataclasses
import datetime
import functools
from typing import Any

from simulator import clockwork, model, server, world
from steadyhook.core import conditions, election, facts, issuing, memory, policy, reasons, rotation, steps
from steadyhook.core import leaf as rules
from steadyhook.issuing import pacing

RESYNC_SECONDS = 60.0
CONTENDED_SECONDS = 5.0
FREEZE_CHECK_SECONDS = 1.0
FREEZE_DOUBT_SECONDS = 20.0
CONFLICT_SECONDS, LONGEST_CONFLICT_SECONDS = 0.5, 30.0
UNREACHABLE_SECONDS, LONGEST_UNREACHABLE_SECONDS = 1.0, 10.0
STEPS = 12
MOMENT_SECONDS = 0.5
SEATS = 3
LIFETIME_SECONDS = 15.0


@dataclasses.dataclass(slots=True)
class Record:
    """A peer's record in the KopfPeering. ``holder`` keeps it alive as long as it runs and reaches the API server."""

    holder: "Issuer"
    priority: int
    last_seen: datetime.datetime


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was seen, the resourceVersions that it was seen at, and the CA keys that were read."""

    seen: facts.Seen
    certificate: model.Object
    keys: frozenset[str]
    versions: dict[str, int]


class Issuer:
    """One candidate. A crash takes its memory; it starts again a little later."""

    def __init__(self, where: world.World, machine: world.Machine) -> None:
        self.world = where
        self.machine = machine
        self.name = machine.name
        self.starts = 0
        self.memory = memory.Memory()
        self.role: election.Role | None = None
        self.observed: dict[str, int] = {}  # what was read since the last write that was refused
        self._due = self._not_before = 0.0
        self._failures = 0
        self._keys = pacing.Keys()
        self.ending = False
        self.seated = False
        self._frozen_at = -FREEZE_DOUBT_SECONDS
        self._contended: int | None = None
        self.process = clockwork.Process(self.name, self._life())

    def start(self, delay: float) -> None:
        self.starts += 1
        self.memory = memory.Memory()
        self.role = None
        self.observed = {}
        self._due = self._not_before = 0.0
        self._failures = 0
        self._keys = pacing.Keys()
        self.seated = self.ending = False
        self._frozen_at = -FREEZE_DOUBT_SECONDS
        self._contended = None
        self.process = clockwork.Process(self.name, self._life())
        self.world.clock.start(self.process, delay)

    def crash(self) -> None:
        self.keep_alive()
        self.world.clock.stop(self.process)

    def keep_alive(self) -> None:
        """The last sign of life in the peering, written before whatever silences this instance now."""
        record = self.world.records.get(self.name)
        if record is not None and record.holder is self and self.seated and self._sends():
            record.last_seen = self.world.utc(self.machine)

    def blocks(self, uid: str) -> bool:
        state = self.memory.states(self.world.monotonic(self.machine)).get(uid, facts.ConfigurationState.OPEN)
        return state not in (facts.ConfigurationState.OPEN, facts.ConfigurationState.UNTRIED)

    def changed(self, delay: float) -> None:
        """An event of a watch: look again soon."""
        if self.role is election.Role.ACTIVE and not self.machine.cut_off and not self.world.outage:
            self._due = min(self._due, self.world.now + delay)
            self.world.clock.wake(self.process, delay)

    def _sends(self) -> bool:
        return not (self.machine.cut_off or self.world.outage) and self.process.alive and (
            self.process.paused_until <= self.world.now)

    def _life(self) -> clockwork.Steps[None]:
        yield self.world.rng.uniform(0.0, 1.0)
        while True:
            seated = yield from self._take_seat()
            if seated:
                self.seated = True
                yield from self._run()
                self._leave()
            self._set_role(election.Role.RESERVE)
            yield LIFETIME_SECONDS + self.world.rng.uniform(0.0, 5.0)

    def _leave(self) -> None:
        """kopf takes its own record out when it ends, if it can; it does not renew it any more in any case."""
        if self._sends():
            self.world.records.pop(self.name, None)
        self.seated = False

    def _take_seat(self) -> clockwork.Steps[bool]:
        while True:
            try:
                records = yield from self.world.read(self.machine, self._records)
                before = [(item.identity, item.priority) for item in records]
                if self._clock_problem(records):
                    return False
                join = election.find_seat(
                    records, identity=self.name, seats=SEATS, now=self.world.api_time(self.machine))
                if join is None:
                    return False
                yield from self.world.write(self.machine, self._join, join, before)
                return True
            except model.Conflict:
                yield self.world.rng.uniform(0.0, 0.2)
            except model.Unreachable:
                return False

    def _join(self, join: election.Join, before: list[tuple[str, int]]) -> None:
        if [(item.identity, item.priority) for item in self._records()] != before:
            raise model.Conflict(model.PEERING)
        for identity in join.drop:
            self.world.records.pop(identity, None)
            self.world.odd_records.pop(identity, None)
        self.world.records[self.name] = Record(self, join.priority, self.world.utc(self.machine))

    def _clock_problem(self, records: list[election.Record]) -> bool:
        now = self.world.api_time(self.machine)
        others = any(one.is_live(now) for one in records if one.identity != self.name)
        return election.clock_problem(
            self.machine.skew_seconds, lifetime_seconds=LIFETIME_SECONDS, others=others) is not None

    def _records(self) -> list[election.Record]:
        """As the candidacy parses them: kopf stamps by the clock of the machine, and one knows one's own."""
        ahead = datetime.timedelta(seconds=self.machine.skew_seconds)
        result = list(self.world.odd_records.values())
        for name, record in sorted(self.world.records.items()):
            if record.holder.seated and record.holder._sends():
                record.last_seen = self.world.utc(record.holder.machine)
            result.append(election.Record(
                identity=name, priority=record.priority, lifetime=datetime.timedelta(seconds=LIFETIME_SECONDS),
                expires_at=record.last_seen + datetime.timedelta(seconds=LIFETIME_SECONDS)
                - (ahead if name == self.name else datetime.timedelta(0))))
        return result

    def _set_role(self, role: election.Role) -> None:
        if role is not self.role:
            self.world.note(self.name, "is now", role)
            self.role = role

    def _confirm(self) -> clockwork.Steps[bool]:
        was_active = self.role is election.Role.ACTIVE
        role = yield from self.world.read(self.machine, self._read_role)
        if role is election.Role.ACTIVE and not was_active:
            yield MOMENT_SECONDS
            role = yield from self.world.read(self.machine, self._read_role)
        self._set_role(role)
        return role is election.Role.ACTIVE

    def _read_role(self) -> election.Role:
        if self.world.rivals:
            return election.Role.CANDIDATE if self.machine.is_wrong else election.Role.ACTIVE
        records = self._records()
        if self._clock_problem(records):
            return election.Role.CANDIDATE
        return election.role(records, identity=self.name, now=self.world.api_time(self.machine))

    def _run(self) -> clockwork.Steps[None]:
        """As ``Reconciler.run``, until the seat is lost to the surplus rule."""
        while True:
            while (pause := max(self._due, self._not_before) - self.world.now) > 0:
                self.process.idle = True
                yield pause if self._contended is None else min(pause, CONTENDED_SECONDS)
                self.process.idle = False
                if self._contended_has_changed():
                    break
            self._due = clockwork.FOREVER
            try:
                pause = yield from self._reconcile()
                self._failures = 0
            except model.Conflict as error:
                self.world.note(self.name, "is refused", error)
                self.observed.clear()
                pause = self._pause(CONFLICT_SECONDS, LONGEST_CONFLICT_SECONDS)
            except model.Unreachable:
                self.observed.clear()
                pause = self._pause(UNREACHABLE_SECONDS, LONGEST_UNREACHABLE_SECONDS)
            self._due = min(self._due, self.world.now + pause)
            if self.ending:  # the loop has ended by itself, and is started again after a back-off
                self.ending = False
                self.world.note(self.name, "has ended, and starts again")
                yield self.world.rng.uniform(0.25, 10.0)
                self._due = self.world.now
            if self.role is not election.Role.ACTIVE and not self.world.rivals and self._has_to_leave():
                return

    def _pause(self, first_seconds: float, longest_seconds: float) -> float:
        self._failures += 1
        pause = min(longest_seconds, first_seconds * 2 ** (self._failures - 1)) * self.world.rng.uniform(0.5, 1.0)
        self._not_before = self.world.now + pause
        return float(pause)

    def _has_to_leave(self) -> bool:
        records = self._records()
        return self._clock_problem(records) or election.is_surplus(
            records, identity=self.name, seats=SEATS, now=self.world.api_time(self.machine))

    def _contended_has_changed(self) -> bool:
        if self._contended is None or self.machine.cut_off or self.world.outage:
            return False
        item = self.world.store.get(model.AUTHORITY)
        return self._contended != (item.resource_version if item else 0)

    def _reconcile(self) -> clockwork.Steps[float]:
        self._contended = None
        if not (yield from self._confirm()):
            self.memory.forget_waits()
            return LIFETIME_SECONDS
        certificate = yield from self._get(model.CERTIFICATE)
        assert certificate is not None
        wanted = certificate.value.wanted
        if wanted.compatibility is not None:
            yield from self._freeze_first()
        seen, decision = yield from self._take_steps(certificate, wanted)
        yield from self._report(certificate, seen, wanted, decision)
        if wanted.compatibility is not None:
            self._contended = int(seen.authority.secret.resource_version) if seen.authority else 0
        clock = self.world.monotonic(self.machine)
        longest = FREEZE_CHECK_SECONDS if self.world.now - self._frozen_at < FREEZE_DOUBT_SECONDS else RESYNC_SECONDS
        dates = [longest, *self.memory.seconds_until_open(clock)]
        if decision.wake_at is not None:
            dates.append((decision.wake_at - self.world.utc(self.machine)).total_seconds())
        return max(0.1, min(dates))

    def _take_steps(
        self, certificate: model.Object, wanted: policy.Policy
    ) -> clockwork.Steps[tuple[facts.Seen, issuing.Decision]]:
        switched: Observation | None = None
        for _ in range(STEPS):
            observation = (yield from self._observe(certificate, wanted)) if switched is None else (
                yield from self._observe_switched(certificate, wanted, switched))
            if observation is None:
                switched = None
                continue
            seen = observation.seen
            if switched is None:
                seen = self.memory.note(seen, self.world.monotonic(self.machine))
            now = self.world.utc(self.machine)
            decision = self._keys.put_off(
                issuing.decide(seen, wanted, now), clock=self.world.monotonic(self.machine), now=now)
            if switched is not None and not (decision.actions and all(
                    isinstance(item, steps.IssueLeaf) for item in decision.actions)):
                switched = None
                continue
            if not decision.actions:
                return seen, decision
            self.world.note(self.name, "decides", decision.reason)
            for action in decision.actions:
                if not (yield from self._confirm()):
                    return seen, decision
                yield from self._carry_out(action, wanted, observation)
            switched = dataclasses.replace(observation, seen=seen) if isinstance(
                decision.actions[-1], steps.Switch) else None
        if self.world.checker is not None:
            self.world.checker.unsettled(self, decision)
        yield RESYNC_SECONDS
        raise model.Unreachable

    def _get(self, key: str) -> clockwork.Steps[model.Object | None]:
        item = yield from self.world.read(self.machine, lambda: self._look(key))
        return item

    def _look(self, key: str) -> model.Object | None:
        item = self.world.store.get(key)
        self.observed[key] = item.resource_version if item else 0
        return item

    def _observe(self, certificate: model.Object, wanted: policy.Policy) -> clockwork.Steps[Observation]:
        states = self.memory.states(self.world.monotonic(self.machine))
        if self.world.torn_reads:
            authority_item = yield from self._get(model.AUTHORITY)
            leaf_item = yield from self._get(model.LEAF)
            yield from self.world.read(self.machine, lambda: None)
        else:
            yield self.world.latency()
            authority_item, leaf_item = self._look(model.AUTHORITY), self._look(model.LEAF)
        authority = model.read_authority(authority_item) if authority_item else None
        by_listener = wanted.compatibility is not None
        listed = self.world.store.list(model.CONFIGURATION)
        trusted = tuple(one for item in listed for entry in item.value for one in entry.trusted)
        leaf = model.read_leaf(
            leaf_item, (*(authority.bundle if authority else ()), *(trusted if by_listener else ())),
            by_listener=by_listener) if leaf_item else None
        self.observed |= {item.key: item.resource_version for item in listed}
        status = certificate.value.status
        known = conditions.known_configurations(status)
        seen = facts.Seen(
            leaf=leaf, authority=authority,
            configurations=tuple(
                _configuration(item, known=known, states=states, by_listener=by_listener) for item in listed),
            last_generation=rules.last_generation(
                status.get("generation"), self.memory.last_generation, self.world.utc(self.machine)),
            last_signer=status.get("caFingerprint"), remembered=frozenset(status.get("trustedCAs", ())),
            retired=tuple(status.get("retiredCAs", ())), **self._provided(wanted))
        seen = yield from self._try(seen)
        if rotation.has_switched(seen):
            seen = yield from self._observe_servers(seen)
        held = (authority and authority.certificate, authority and authority.successor, seen.provided)
        keys = {item.fingerprint for item in held if item}
        return Observation(seen=seen, certificate=certificate, keys=frozenset(keys), versions=dict(self.observed))

    def _observe_switched(
        self, certificate: model.Object, wanted: policy.Policy, before: Observation
    ) -> clockwork.Steps[Observation | None]:
        """As ``observing.observe_switched``: the two Secrets alone, in any order."""
        leaf_item = yield from self._get(model.LEAF)
        authority_item = yield from self._get(model.AUTHORITY)
        if authority_item is None or leaf_item is None:
            return None
        authority = model.read_authority(authority_item)
        leaf = model.read_leaf(leaf_item, authority.bundle, by_listener=wanted.compatibility is not None)
        keys = {item.fingerprint for item in (authority.certificate, authority.successor) if item}
        return Observation(seen=dataclasses.replace(before.seen, authority=authority, leaf=leaf),
                           certificate=certificate, keys=before.keys | keys, versions=dict(self.observed))

    def _freeze_first(self) -> clockwork.Steps[None]:
        """As ``freezing.freeze``."""
        found = []
        for key in (model.LEAF, model.AUTHORITY):
            item = yield from self.world.read(self.machine, functools.partial(self.world.store.get, key))
            if item is not None:
                found.append(facts.Secret(name=key, uid=item.uid, resource_version=str(item.resource_version),
                                          static=item.value.static))
        for secret in issuing.to_freeze(found):
            try:
                yield from self.world.write(self.machine, self._freeze, secret.name)
            except model.Conflict:
                continue  # gone meanwhile
            self._frozen_at = self.world.now

    def _try(self, seen: facts.Seen) -> clockwork.Steps[facts.Seen]:
        """As ``Reconciler._try``: a trial shows whether a configuration that is new may be written."""
        remembered = self.memory.states(self.world.monotonic(self.machine))
        untried = [item for item in seen.configurations
                   if item.state is facts.ConfigurationState.UNTRIED and item.uid not in remembered]
        for item in untried:
            try:
                refusal = yield from self.world.read(self.machine, functools.partial(
                    self.world.refusal, model.CONFIGURATION + item.name))
            except model.Unreachable:
                refusal = facts.ConfigurationState.UNTRIED
            state = refusal or facts.ConfigurationState.OPEN
            self.memory.note_trial(item.uid, state, self.world.monotonic(self.machine))
            if refusal:
                self.world.block_views(item.uid)
        states = self.memory.states(self.world.monotonic(self.machine))
        return dataclasses.replace(seen, configurations=tuple(
            dataclasses.replace(item, state=states.get(item.uid, item.state)) if item in untried else item
            for item in seen.configurations))

    def _provided(self, wanted: policy.Policy) -> dict[str, Any]:
        if wanted.authority_name is None:
            return {}
        item = self.world.store.get(model.PROVIDED)
        if item is None:
            return {"provided_defect": facts.Defect(reason=reasons.Reason.SECRET_MISSING, message="it is not there")}
        return {"provided": item.value}

    def _observe_servers(self, seen: facts.Seen) -> clockwork.Steps[facts.Seen]:
        if self.world.torn_reads:
            yield from self.world.read(self.machine, lambda: None)
        seen = dataclasses.replace(seen, servers=server.find(self.world))
        doubtful = rotation.to_be_proven(seen)
        if not doubtful or seen.authority is None or seen.authority.successor is None:
            return seen
        if self.world.torn_reads:
            yield self.world.latency()
        return server.with_proofs(seen, server.look(
            self.world, doubtful, seen.authority.successor, self.world.utc(self.machine)))

    def _carry_out(
        self, action: steps.Step, wanted: policy.Policy, observation: Observation
    ) -> clockwork.Steps[None]:
        if isinstance(action, steps.Freeze):
            self._frozen_at = self.world.now
        self._keys.note(action, clock=self.world.monotonic(self.machine))
        if isinstance(action, steps.IssueLeaf):
            self.memory.last_generation = action.generation
        try:
            yield from self._apply(action, wanted, observation)
        except (model.Forbidden, model.Rejected) as error:
            if not isinstance(action, steps.InjectBundle):
                raise
            self.memory.note_refusal(
                action.configuration.uid, self.world.monotonic(self.machine),
                facts.ConfigurationState.REJECTED if isinstance(error, model.Rejected)
                else facts.ConfigurationState.FORBIDDEN)
            self.world.block_views(action.configuration.uid)
            return
        if isinstance(action, steps.InjectBundle) and self.memory.note_injection(
                action.configuration.uid, action.bundle, self.world.monotonic(self.machine)) is not None:
            self.world.block_views(action.configuration.uid)
        self.memory.note_repair(action, wanted, self.world.monotonic(self.machine))

    def _apply(self, action: steps.Step, wanted: policy.Policy, observation: Observation) -> clockwork.Steps[None]:
        now = self.world.utc(self.machine)
        static = wanted.compatibility is not None
        match action:
            case steps.Freeze():
                for secret in action.secrets:
                    yield from self.world.write(self.machine, self._freeze, secret.name)
            case steps.CreateAuthority():
                made = action.provided or self.world.mint.authority(wanted, now)
                content = model.AuthorityContent(certificate=made, bundle=(made, *action.bundle),
                                                 retired=action.retired)
                yield from self._write_authority(action.replaces, content, action.request, observation, action)
            case steps.ExtendBundle(authority=authority):
                yield from self._write_authority(
                    authority.secret, _content(authority, bundle=action.bundle), authority.request, observation, action)
            case steps.AddSuccessor(authority=authority):
                made = action.provided or self.world.mint.authority(wanted, now)
                content = _content(authority, bundle=(*action.bundle, made), successor=made, has_successor=True,
                                   switched=None)
                yield from self._write_authority(authority.secret, content, action.request, observation, action)
            case steps.Switch(authority=authority):
                assert authority.successor is not None
                content = _content(authority, bundle=action.bundle, switched=authority.successor.fingerprint)
                yield from self._write_authority(authority.secret, content, authority.request, observation, action)
            case steps.Promote(authority=authority):
                content = model.AuthorityContent(
                    certificate=authority.successor, bundle=action.bundle, retired=action.retired)
                yield from self._write_authority(authority.secret, content, authority.request, observation, action)
            case steps.InjectBundle():
                yield from self._inject(action, observation)
            case steps.IssueLeaf():
                made = self.world.mint.leaf(wanted, action.signer, now)
                yield from self._write_secret(model.LEAF, action.replaces, observation, action, lambda old:
                    model.LeafContent(certificate=made, trusted=action.bundle, mark=made.fingerprint,
                                      generation=action.generation, static=static,
                                      request=action.request or (old.request if old else None)))

    def _write_secret(
        self, key: str, replaces: facts.Secret | None, observation: Observation, action: steps.Step,
        content: collections.abc.Callable[..., object],
    ) -> clockwork.Steps[None]:
        if replaces is not None and not replaces.recreate:
            yield from self.world.write(self.machine, self._replace, key, replaces, content, observation, action)
            return
        if replaces is not None:
            yield from self.world.write(self.machine, self._delete, key, replaces, observation)
        yield from self.world.write(self.machine, self._create, key, content(None), observation, action)

    def _write_authority(
        self, replaces: facts.Secret | None, content: model.AuthorityContent, request: str | None,
        observation: Observation, action: steps.Step,
    ) -> clockwork.Steps[None]:
        """The whole CA Secret each time; a patch leaves the mark of an earlier request where there is no new one."""
        yield from self._write_secret(model.AUTHORITY, replaces, observation, action, lambda old: dataclasses.replace(
            content, static=observation.certificate.value.wanted.compatibility is not None,
            request=request or (old.request if old else None)))

    def _freeze(self, key: str) -> None:
        """Without a resourceVersion; whose content it is does not change by it."""
        old = self.world.store.get(key)
        if old is None:
            raise model.Conflict(f"{key} is gone")
        if not old.value.static:
            self.world.store.update(
                key, dataclasses.replace(old.value, static=True), resource_version=None, author=old.author)

    def _create(self, key: str, value: object, observation: Observation, action: steps.Step) -> None:
        self._about_to_write(key, 0, observation, action)
        self.world.store.create(key, value, author=self.name)

    def _delete(self, key: str, secret: facts.Secret, observation: Observation) -> None:
        self._about_to_write(key, int(secret.resource_version), observation, None)
        self.world.store.delete(key, resource_version=int(secret.resource_version))
        observation.versions[key] = self.observed[key] = 0

    def _replace(
        self, key: str, secret: facts.Secret, change: collections.abc.Callable[..., object], observation: Observation,
        action: steps.Step,
    ) -> None:
        self._about_to_write(key, int(secret.resource_version), observation, action)
        old = self.world.store.get(key)
        if old is None or old.value.recreate:
            raise model.Conflict(f"{key} is gone or may not be changed")
        self.world.store.update(
            key, change(old.value), resource_version=int(secret.resource_version), author=self.name)

    def _inject(self, action: steps.InjectBundle, observation: Observation) -> clockwork.Steps[None]:
        key = model.CONFIGURATION + action.configuration.name
        version = int(action.configuration.resource_version)
        entries = tuple(dataclasses.replace(entry, trusted=action.bundle, readable=True)
                        for entry in action.configuration.entries)
        yield from self.world.write(self.machine, self._patch, key, entries, version, observation, action)

    def _patch(self, key: str, entries: tuple[facts.Entry, ...], version: int, observation: Observation,
               action: steps.InjectBundle) -> None:
        if (refusal := self.world.refusal(key)) is not None:
            raise (model.Rejected if refusal is facts.ConfigurationState.REJECTED else model.Forbidden)(key)
        self._about_to_write(key, version, observation, action)
        old = self.world.store.get(key)
        if old is None or old.uid != action.configuration.uid:
            raise model.Conflict(f"{key} is gone")
        self.world.store.update(key, entries, resource_version=version, author=self.name)

    def _about_to_write(self, key: str, version: int, observation: Observation, action: steps.Step | None) -> None:
        if self.world.checker is not None:
            self.world.checker.attempted(self, key, version, observation, action)

    def _report(
        self, certificate: model.Object, seen: facts.Seen, wanted: policy.Policy, decision: issuing.Decision
    ) -> clockwork.Steps[None]:
        fingerprint = seen.leaf.certificate.fingerprint if seen.leaf and seen.leaf.certificate else None
        entries = [entry for item in self.world.store.list(model.NODE) for entry in item.value]
        done = sum(1 for item in entries if fingerprint and item.get("fingerprint") == fingerprint)
        unserved_seconds = self.memory.unserved_seconds(
            self.world.monotonic(self.machine), done=done, total=len(entries))
        previous = certificate.value.status
        status = conditions.status(
            seen=seen, wanted=wanted, decision=decision,
            acknowledged=conditions.Acknowledged(
                done=done, total=len(entries), unserved_seconds=unserved_seconds), previous=previous,
            observed_generation=certificate.value.generation, now=self.world.utc(self.machine))
        if status == previous or not (yield from self._confirm()):
            return
        yield from self.world.write(
            self.machine, self.world.store.update, model.CERTIFICATE,
            dataclasses.replace(certificate.value, status=status), resource_version=certificate.resource_version,
            author=self.name)


def _content(authority: facts.Authority, **changes: Any) -> model.AuthorityContent:
    return model.AuthorityContent(**{
        "certificate": authority.certificate, "bundle": authority.bundle, "successor": authority.successor,
        "has_successor": authority.successor is not None, "retired": authority.retired,
        "switched": authority.successor.fingerprint if authority.switched and authority.successor else None, **changes})


def _configuration(
    item: model.Object, *, known: collections.abc.Container[str],
    states: collections.abc.Mapping[str, facts.ConfigurationState], by_listener: bool,
) -> facts.Configuration:
    return facts.Configuration(
        kind="Configuration", name=item.key.removeprefix(model.CONFIGURATION), uid=item.uid,
        resource_version=str(item.resource_version), entries=item.value, known=item.uid in known,
        state=facts.ConfigurationState.READ_ONLY if by_listener
        else states.get(item.uid, facts.ConfigurationState.OPEN if item.uid in known
                        else facts.ConfigurationState.UNTRIED))
