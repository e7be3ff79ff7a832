"""
The reconcile loop of one certificate: observe, decide, confirm that this is the active instance, write, observe again.

Whatever fails, the loop goes on: it looks again after a pause, which grows as long as the same certificate fails, and
says so in a condition where it does not go away by itself. A conflict only means that the world has moved.
"""
import asyncio
import collections.abc
import contextlib
import dataclasses
import datetime
import logging
import random
import time
from typing import Any

from steadyhook import metrics
from steadyhook.cluster import applying, asking, client, events, observing, paths, servers
from steadyhook.core import conditions, facts, issuing, memory, policy, proofs, reasons, rivals, rotation, steps
from steadyhook.issuing import freezing, marks, pacing, proving
from steadyhook.pki import certificates
from steadyhook.settings import Settings

logger = logging.getLogger(__name__)

RESYNC_SECONDS = 60.0
"""How often the active instance looks without being woken: the CA Secret is read, not watched."""
WATCHED_RESYNC_SECONDS = 600.0
"""The same where everything that matters is watched."""

CONTENDED_SECONDS = 5.0
"""How often to see whether listeners of dynamiclistener, which may write the CA Secret too, have done so."""
FREEZE_CHECK_SECONDS = 1.0
FREEZE_DOUBT_SECONDS = 20.0
"""For so long after a freeze a listener that was just starting may undo it: then nothing is to be waited for."""

TRIALS = 20
"""So many configurations that are new are tried in one look: whoever may make many shall not keep the loop busy."""

STEPS = 12
"""A fresh start takes three steps, a repair at most four. More in one pass means that they do not lead anywhere."""

PASS_SECONDS = 180.0
"""How long one pass may take, whatever it waits for."""
TELL_SECONDS = 30.0
LONGEST_ALONE_SECONDS = 15.0

Confirm = collections.abc.Callable[[], collections.abc.Awaitable[bool]]
"""Whether this instance is the active one, by a fresh read."""

Key = tuple[str, str]
"""What is watched: "Secret" and its name, or the kind and the uid of a configuration."""


class Unsettled(Exception):
    """Each decision was carried out, and there was always another one: going on would be a storm of our own."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """
    A certificate to look after: the namespace and name of its WebhookCertificate, and the Secret that is watched.

    ``rival``: an older WebhookCertificate that has a Secret of this one, None if there is none or nobody has looked.
    """

    namespace: str
    certificate: str
    secret_name: str
    rival: rivals.Rival | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """
    A way in which a pass can fail: the pause after it, growing from the first to the longest, and what is said of it.

    ``told_after``: so many in a row are worth a condition, as they may wait for a person; None for never.
    ``is_served``: whether the loop has done what it can, so that another instance would do no better.
    """

    reason: reasons.Reason
    first_seconds: float
    longest_seconds: float
    told_after: int
    is_served: bool = True
    level: int = logging.ERROR


_CHANGED = _Failure(reason=reasons.Reason.CHANGED_BY_OTHERS, first_seconds=0.5, longest_seconds=30.0, told_after=8,
                    level=logging.INFO)
_FORBIDDEN = _Failure(reason=reasons.Reason.FORBIDDEN, first_seconds=5.0, longest_seconds=300.0, told_after=1)
_REFUSED = _Failure(reason=reasons.Reason.REFUSED, first_seconds=5.0, longest_seconds=300.0, told_after=3)
_NOT_ANSWERED = _Failure(reason=reasons.Reason.NOT_ANSWERED, first_seconds=1.0, longest_seconds=10.0, told_after=10,
                         level=logging.WARNING)
_UNSETTLED = _Failure(reason=reasons.Reason.UNSETTLED, first_seconds=RESYNC_SECONDS, longest_seconds=600.0,
                      told_after=1)
_TOO_LONG = _Failure(reason=reasons.Reason.FAILING, first_seconds=10.0, longest_seconds=120.0, told_after=2,
                     is_served=False)
_UNEXPECTED = _Failure(reason=reasons.Reason.FAILING, first_seconds=5.0, longest_seconds=300.0, told_after=3,
                       is_served=False)


class Reconciler:
    """
    To be run by the event loop in which it was made; :meth:`wake`, :meth:`see`, :meth:`changed` from any thread.

    ``manifest``: the WebhookCertificate, if it was seen already.
    For one of many certificates: ``calls`` is what all share, ``turns`` whose turn it is. ``on_look`` is told each time
    that everything could be read; ``is_watched`` says whether whatever may change is watched.
    """

    def __init__(
        self, *, cluster: client.Cluster, settings: Settings, target: Target, confirm: Confirm,
        manifest: client.Manifest | None = None,
        calls: observing.Calls | None = None, turns: pacing.Turns | None = None,
        on_look: collections.abc.Callable[[policy.Policy], None] = lambda wanted: None,
        is_watched: collections.abc.Callable[[], bool] = lambda: False,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._target = target
        self._confirm = confirm
        self._on_look = on_look
        self._is_watched = is_watched
        self._turns = turns
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._due = self._looked_at = time.monotonic()
        self._jitter = 1.0
        self._is_resting = False
        self._not_before = 0.0
        self._memory = memory.Memory()
        self._calls = calls if calls is not None else observing.Calls()
        self._keys = pacing.Keys()
        self._failures = pacing.Failures()
        self._complaint: str | None = None  # what was told last, if it still holds
        self._looks = pacing.Bucket(pacing.LOOKS_AT_ONCE, pacing.LOOK_SECONDS)
        self._mark: marks.Mark | None = None
        self._urgent: policy.Policy | None = None
        self._versions: dict[Key, str | None] = {}  # of what the last look has seen
        self._told: dict[Key, str | None] = {}  # by a watch, since then
        self._asking = asking.Asking()
        self._prover = proving.Prover(wake=self.wake)
        self._frozen_at = float("-inf")
        self._unposted: list[tuple[str, str]] = []
        self._contended: tuple[str, str | None] | None = None
        self._lacks_provided = False  # a CA of the user's own, which is read and never watched
        self._announced: reasons.Reason | None = None
        self._left_out: str | None = None
        self._absent = False
        self._completed = time.monotonic()
        self._unserved_since: float | None = None
        self.completed_at: datetime.datetime | None = None
        """When the last pass was completed, by UTC; None if none was."""
        self._note_certificate(manifest)

    # ---- from any thread ----

    def wake(self, delay: float = 0.0) -> None:
        """Look again, ``delay`` seconds from now at the latest, or when the pause after a failure has passed."""
        self._loop.call_soon_threadsafe(self._hasten, delay)

    def see(self, manifest: client.Manifest | None) -> None:
        """The WebhookCertificate as a watch has shown it; None: it is gone. A new status alone is no reason to look."""
        self._loop.call_soon_threadsafe(self._note_certificate, manifest)

    def changed(self, kind: str, name: str, version: str | None) -> None:
        """A Secret (by name) or a configuration (by uid) has this resourceVersion now; None: it is gone."""
        self._loop.call_soon_threadsafe(self._note_change, (kind, name), version)

    # ---- health ----

    def seconds_since_pass(self) -> float:
        """For how long no pass was completed."""
        return time.monotonic() - self._completed

    def woken_unserved_seconds(self) -> float:
        """For how long a look has been due that was not completed, 0.0 if none is."""
        now = time.monotonic()
        since = self._unserved_since if self._unserved_since is not None else max(self._due, self._not_before)
        return max(0.0, now - since)

    def trouble(self) -> str | None:
        """Nothing: a condition of the certificate tells what goes wrong."""
        return None

    # ---- the loop ----

    async def run(self) -> None:
        """Until cancelled; the first look is at once, also after an end."""
        self._due = time.monotonic()
        try:
            while True:
                await self._sleep_until_due()
                pause = await self._pass()
                self._looked_at = time.monotonic()
                self._hasten(pause * self._jitter)
        finally:
            self._prover.stop()
            metrics.forget_certificate(self._target.namespace, self._target.certificate)

    async def _pass(self) -> float:
        """Look once, with what follows from it; returns after how many seconds to look again. Never raises."""
        try:
            pause = await self._look()
        except client.Conflict as error:
            return await self._failed(_CHANGED, f"the world has changed, looking again: {error}")
        except client.Forbidden as error:
            return await self._failed(_FORBIDDEN, f"a permission is missing: {error}; apply the manifests of this"
                                      f" version, which grant it, for namespace {self._target.namespace} too")
        except client.Unreachable as error:
            return await self._failed(_NOT_ANSWERED, f"the API server did not answer, looking again soon: {error}")
        except client.APIError as error:
            return await self._failed(
                _REFUSED, f"the API server refuses a request: {error}; look for an admission policy or webhook that is"
                " against it")
        except Unsettled as error:
            return await self._failed(_UNSETTLED, str(error))
        except TimeoutError:
            return await self._failed(_TOO_LONG, f"a look was not complete after {PASS_SECONDS:.0f} s")
        except Exception as error:
            if self._failures.count == 0:
                logger.exception("Reconciling %s failed.", self._name)
            return await self._failed(_UNEXPECTED, f"reconciling failed: {type(error).__name__}: {error}")
        self._failures.count = 0
        self._complaint = None
        self._complete()
        return pause

    async def _look(self) -> float:
        """One pass; returns after how many seconds to look again. What is urgent waits for no turn."""
        is_frozen = self._urgent is not None
        if self._urgent is not None:
            async with self._turns.urgent if self._turns is not None else contextlib.nullcontext():
                if not await self._freeze(self._urgent):
                    return self._stand_by()
        async with self._turns.take(self._target.namespace) if self._turns is not None else contextlib.nullcontext():
            async with asyncio.timeout(PASS_SECONDS):
                return await self._reconcile(is_frozen=is_frozen)

    def _stand_by(self) -> float:
        self._memory.forget_waits()
        return self._rest()

    def _rest(self) -> float:
        """Only the certificate itself, or the election, can change anything: of many both are always watched."""
        self._is_resting = self._turns is not None
        return float("inf")

    def _complete(self) -> None:
        self._completed = time.monotonic()
        self.completed_at = _now()
        self._unserved_since = None

    async def _failed(self, failure: _Failure, message: str) -> float:
        """How long to wait after a failure, which is told in the log and, if it does not go away, as a condition."""
        pause = self._failures.next_pause(failure.first_seconds, self._longest_seconds(failure))
        if self._failures.is_worth_a_line:
            logger.log(failure.level, "WebhookCertificate %s: %s (%d in a row).", self._name, message,
                       self._failures.count)
        if failure.is_served:
            self._complete()
        # Before anything is waited for: a change of the certificate that is told meanwhile ends this pause.
        self._not_before = time.monotonic() + pause
        # What is in the condition already is seen to now and then, should somebody have taken it away.
        if self._failures.count >= failure.told_after and (
                message != self._complaint or self._failures.is_worth_a_line):
            self._complaint = message
            await self._tell(failure.reason, message)
        return pause

    def _longest_seconds(self, failure: _Failure) -> float:
        """The only certificate of a process costs little, and what it lacks may be applied at any moment."""
        if self._turns is not None:
            return failure.longest_seconds
        return max(failure.first_seconds, min(failure.longest_seconds, LONGEST_ALONE_SECONDS))

    def _hasten(self, delay: float) -> None:
        self._due = min(self._due, time.monotonic() + delay)
        self._woken.set()

    def _note_certificate(self, manifest: client.Manifest | None) -> None:
        mark = marks.mark(manifest) if manifest is not None else None
        if mark == self._mark:
            return
        self._take_up(mark, manifest)
        self._not_before = 0.0
        self._hasten(0.0)

    def _take_up(self, mark: marks.Mark | None, manifest: client.Manifest | None) -> None:
        """What a watch or a look has found to be new: a look that has seen it is not told of it once more."""
        if mark != self._mark:
            self._mark = mark
            self._failures.count = 0
            self._complaint = None
            self._urgent = self._urgency(manifest) if manifest is not None else None

    def _urgency(self, manifest: client.Manifest) -> policy.Policy | None:
        """The policy of a certificate whose Secrets others may be fighting over."""
        try:
            wanted = self._parse(manifest)
            self._check_rival(wanted, self._target.rival)
        except Exception:
            return None  # the look that comes says what is wrong with it
        return wanted if wanted.compatibility is policy.Compatibility.DYNAMICLISTENER else None

    def _note_change(self, key: Key, version: str | None) -> None:
        self._told[key] = version
        if self._has_news(key):
            self._hasten(0.0)

    def _has_news(self, key: Key) -> bool:
        """Whether the watch has told something that the last look has not seen: our own writes it has."""
        return key not in self._versions or self._told[key] != self._versions[key]

    def _remember(self, seen: facts.Seen, wanted: policy.Policy) -> None:
        """What the last look has seen; what a watch has told of that meanwhile is no news."""
        self._versions = {
            ("Secret", wanted.secret_name): seen.leaf.secret.resource_version if seen.leaf else None,
            ("Secret", wanted.authority_secret_name):
                seen.authority.secret.resource_version if seen.authority else None,
            **{(item.kind, item.uid): item.resource_version for item in seen.configurations}}
        if any(self._has_news(key) for key in self._told):
            self._hasten(0.1)
        self._told.clear()

    async def _sleep_until_due(self) -> None:
        while (pause := self._seconds_until_due()) > 0:
            self._woken.clear()
            polled = self._contended is not None and not self._is_watched()
            try:
                async with asyncio.timeout(min(pause, CONTENDED_SECONDS if polled else RESYNC_SECONDS)):
                    await self._woken.wait()
            except TimeoutError:
                if await self._contended_has_changed():
                    self._hasten(0.0)
        if self._unserved_since is None:
            self._unserved_since = time.monotonic()
        self._due, self._jitter, self._is_resting = float("inf"), random.uniform(0.8, 1.0), False
        self._looks.take(time.monotonic())

    def _seconds_until_due(self) -> float:
        """Whoever changes something again and again is answered once for many changes."""
        now = time.monotonic()
        due = min(self._due, self._looked_at + self._resync_seconds() * self._jitter)
        return max(due - now, self._not_before - now, self._looks.wait_seconds(now))

    async def _contended_has_changed(self) -> bool:
        """Whether others have written the CA Secret, which is not watched, since the last look."""
        if self._contended is None or self._is_watched():
            return False
        path, version = self._contended
        try:
            manifest = await self._cluster.find_metadata(path)
        except client.APIError:
            return False
        return _version(manifest) != version

    async def _reconcile(self, *, is_frozen: bool) -> float:
        """``is_frozen``: whether this pass has begun with a freeze, which has asked whether this one is active."""
        self._contended = None
        if not is_frozen and not await self._confirm():
            return self._stand_by()
        manifest = await self._cluster.find(paths.certificate(self._target.namespace, self._target.certificate))
        if manifest is None:
            self._say_absent()
            return self._rest()
        self._absent = False
        self._take_up(marks.mark(manifest), manifest)
        try:
            wanted = self._parse(manifest)
            self._check_rival(wanted, await self._find_rival())
        except policy.InvalidSpec as problem:
            await self._refuse(manifest, problem)
            return self._rest()
        if self._urgent is not None and not is_frozen:
            await self._freeze(wanted)
        seen, decision = await self._take_steps(manifest, wanted)
        self._on_look(wanted)
        await self._report(manifest, seen, wanted, decision)
        self._remember(seen, wanted)
        return self._pause(seen, wanted, decision)

    def _pause(self, seen: facts.Seen, wanted: policy.Policy, decision: issuing.Decision) -> float:
        """Until something is due by the clock; the rest is :meth:`_resync_seconds`."""
        if wanted.compatibility is not None:
            self._contended = (paths.secret(wanted.namespace, wanted.authority_secret_name),
                               seen.authority.secret.resource_version if seen.authority is not None else None)
        self._lacks_provided = wanted.authority_name is not None and seen.provided is None
        dates = self._memory.seconds_until_open(time.monotonic())
        if decision.wake_at is not None:
            dates.append((decision.wake_at - _now()).total_seconds())
        return max(0.1, min(dates, default=float("inf")))

    def _resync_seconds(self) -> float:
        """How long after a look the next one is due, though nothing tells of a change."""
        if self._is_resting or (self._is_watched() and not self._lacks_provided):
            return WATCHED_RESYNC_SECONDS
        in_doubt = time.monotonic() - self._frozen_at < FREEZE_DOUBT_SECONDS
        return FREEZE_CHECK_SECONDS if in_doubt else RESYNC_SECONDS

    def _parse(self, manifest: client.Manifest) -> policy.Policy:
        wanted = policy.parse(
            manifest.get("spec") or {}, namespace=self._target.namespace, name=self._target.certificate,
            annotations=manifest["metadata"].get("annotations"))
        self._check_secret_name(wanted)
        return wanted

    async def _freeze(self, wanted: policy.Policy) -> bool:
        """Before anything else is read: see :mod:`freezing`. Whether this is the active instance."""
        frozen = await freezing.freeze(self._cluster, wanted, self._confirm)
        if frozen:
            self._frozen_at = time.monotonic()
            message = "listeners shall leave alone " + " and ".join(f"Secret {name}" for name in frozen)
            logger.info("%s: %s", reasons.Reason.FREEZING, message)
            self._unposted = [(reasons.Reason.FREEZING, message)]  # an Event can wait
        return frozen is not None

    def _check_secret_name(self, wanted: policy.Policy) -> None:
        """The servers have the name from their settings: what is written elsewhere nobody would serve, or watch."""
        if wanted.secret_name != self._target.secret_name:
            raise policy.InvalidSpec(
                field="spec.secretName", found=wanted.secret_name,
                expected=f"{self._target.secret_name!r}, the Secret that this instance watches",
                remedy="set STEADYHOOK_SECRET and the names in the Roles to it, or create the WebhookCertificate anew")

    async def _find_rival(self) -> rivals.Rival | None:
        """Who looks after all certificates knows it already."""
        if self._settings.all_certificates:
            return self._target.rival
        return await observing.find_rival(self._cluster, self._target.namespace, self._target.certificate)

    def _check_rival(self, wanted: policy.Policy, rival: rivals.Rival | None) -> None:
        if rival is not None:
            field = "spec.secretName" if rival.secret == wanted.secret_name else "spec.caSecretName"
            raise policy.InvalidSpec(
                field=field, found=rival.secret,
                expected=f"a Secret that WebhookCertificate {rival.name}, which is older, does not write",
                remedy="name another Secret, or delete one of the two")

    async def _take_steps(
        self, manifest: client.Manifest, wanted: policy.Policy
    ) -> tuple[facts.Seen, issuing.Decision]:
        """Observe, decide and act until there is nothing to do; each decision is carried out as a whole."""
        switched: observing.Observation | None = None  # what a Switch was decided from, right after it
        prepared: applying.Prepared | None = None
        for _ in range(STEPS):
            observation = await self._observe(manifest, wanted) if switched is None else (
                await observing.observe_switched(self._cluster, wanted, switched))
            if observation is None:
                switched = None
                continue
            # Of a look at two Secrets nothing is remembered: who serves what was not seen by it.
            seen = self._memory.note(observation.seen, time.monotonic()) if switched is None else observation.seen
            decision = self._keys.put_off(issuing.decide(seen, wanted, _now()), clock=time.monotonic(), now=_now())
            if switched is not None and not _is_a_leaf(decision):
                switched = None  # anything else needs a look at everything
                continue
            if not decision.actions:
                await self._post_all(manifest)
                return seen, decision
            if isinstance(last := decision.actions[-1], steps.Switch) and last.authority.successor is not None:
                # Before the switch, as the Secrets do not go together until the leaf follows, and keys take time.
                prepared = await applying.prepare_leaf(
                    wanted, last.authority.successor, pairs=observation.pairs, now=_now())
            for action in decision.actions:
                if not await self._confirm():
                    logger.info("No longer the active instance; leaving the rest to the one that is.")
                    return seen, decision
                await self._carry_out(manifest, action, wanted, observation, prepared)
            logger.info("%s: %s", decision.reason, decision.message)
            self._unposted.append((decision.reason, decision.message))
            switched = dataclasses.replace(observation, seen=seen) if isinstance(last, steps.Switch) else None
            if switched is None:  # between the CA Secret and the leaf nothing is to be waited for
                await self._post_all(manifest)
        raise Unsettled(f"{STEPS} steps have not brought WebhookCertificate {wanted.namespace}/{wanted.name} to rest;"
                        f" the last one was {decision.reason}: {decision.message}")

    async def _post_all(self, manifest: client.Manifest) -> None:
        while self._unposted:
            await self._post(manifest, events.NORMAL, *self._unposted.pop(0))

    async def _observe(self, manifest: client.Manifest, wanted: policy.Policy) -> observing.Observation:
        """What the API server says, and during a rotation also what is seen on the wire."""
        observation = await observing.observe(
            self._cluster, manifest, wanted, states=self._memory.states(time.monotonic()),
            last_generation=self._memory.last_generation, calls=self._calls, asked=self._asking)
        observation = dataclasses.replace(observation, seen=await self._try(manifest, observation.seen))
        doubtful = rotation.to_be_proven(observation.seen)
        if not doubtful:
            return observation
        shown = await self._prove(observation, wanted, doubtful)
        return dataclasses.replace(observation, seen=dataclasses.replace(
            observation.seen, servers=tuple(dataclasses.replace(item, proof=shown.get(item.pod_uid, item.proof))
                                            for item in observation.seen.servers)))

    async def _try(self, manifest: client.Manifest, seen: facts.Seen) -> facts.Seen:
        """Find out about each configuration that nobody has tried to write yet whether that is allowed."""
        remembered = self._memory.states(time.monotonic())
        untried = [item for item in seen.configurations
                   if item.state is facts.ConfigurationState.UNTRIED and item.uid not in remembered]
        bundle = seen.authority.bundle if seen.authority is not None else ()
        for item in untried[:TRIALS]:
            refusal = await applying.try_injection(self._cluster, item, bundle)
            state = _state(refusal)
            self._memory.note_trial(item.uid, state, time.monotonic())
            if state in (facts.ConfigurationState.FORBIDDEN, facts.ConfigurationState.REJECTED):
                await self._tell_refusal(manifest, state, refusal)
        for item in untried[TRIALS:]:
            self._memory.note_trial(item.uid, facts.ConfigurationState.UNTRIED, time.monotonic())
        states = self._memory.states(time.monotonic())
        return dataclasses.replace(seen, configurations=tuple(
            dataclasses.replace(item, state=states.get(item.uid, item.state)) if item in untried else item
            for item in seen.configurations))

    async def _tell_refusal(
        self, manifest: client.Manifest, state: facts.ConfigurationState, refusal: client.APIError | None
    ) -> None:
        logger.warning("%s; not tried again for %.0f s.", refusal, memory.FORBIDDEN_SECONDS)
        await self._post(manifest, events.WARNING, state, str(refusal))

    async def _prove(
        self, observation: observing.Observation, wanted: policy.Policy, doubtful: tuple[facts.Server, ...]
    ) -> dict[str, facts.Proof]:
        authority = observation.seen.authority
        assert authority is not None and authority.successor is not None
        if not self._settings.dial:
            return {item.pod_uid: facts.Proof.SKIPPED for item in doubtful}
        listeners = {item.pod_uid: observation.listeners.get(item.pod_uid, ()) for item in doubtful}
        found = await self._prover.look(
            {address for some in listeners.values() for one in some for address in one}, proving.How(
                trusted_pem=certificates.bundle_pem([authority.successor]).decode("ascii"),
                server_name=_server_name(wanted), proxy=self._settings.dial_proxy))
        shown = {uid: proofs.of_server(some, found) for uid, some in listeners.items()}
        return {uid: proof for uid, proof in shown.items() if proof is not None}

    async def _carry_out(
        self, manifest: client.Manifest, action: steps.Step, wanted: policy.Policy,
        observation: observing.Observation, prepared: applying.Prepared | None = None,
    ) -> None:
        if isinstance(action, steps.Freeze):
            self._frozen_at = time.monotonic()
        self._keys.note(action, clock=time.monotonic())
        if isinstance(action, steps.IssueLeaf):
            self._memory.last_generation = action.generation  # written or not: the answer may get lost
        try:
            await applying.apply(
                self._cluster, action, wanted, pairs=observation.pairs, now=_now(), prepared=prepared)
        except client.Conflict:
            metrics.CONFLICTS.labels(object=_object(action)).inc()
            raise
        except (client.Forbidden, client.Rejected) as error:
            if not isinstance(action, steps.InjectBundle):
                raise
            # Others go on: a configuration that cannot be written blocks nothing.
            self._memory.note_refusal(action.configuration.uid, time.monotonic(), _state(error))
            await self._tell_refusal(manifest, _state(error), error)
            return
        if isinstance(action, steps.InjectBundle):
            await self._note_injection(manifest, action)
        contested = self._memory.note_repair(action, wanted, time.monotonic())
        if contested is not None:
            logger.warning("%s.", contested)
            await self._post(manifest, events.WARNING, reasons.Reason.CONTESTED, contested)

    async def _note_injection(self, manifest: client.Manifest, action: steps.InjectBundle) -> None:
        configuration = action.configuration
        overwritten = self._memory.note_injection(configuration.uid, action.bundle, time.monotonic())
        if overwritten is None:
            return
        message = (f"{configuration.kind} {configuration.name} was overwritten {overwritten} times within"
                   f" {memory.CONTEST_SECONDS:.0f} s; it is left alone for a while")
        logger.warning("%s.", message)
        await self._post(manifest, events.WARNING, facts.ConfigurationState.CONTESTED, message)

    async def _report(
        self, manifest: client.Manifest, seen: facts.Seen, wanted: policy.Policy, decision: issuing.Decision
    ) -> None:
        previous = manifest.get("status") or {}
        status = conditions.status(
            seen=seen, wanted=wanted, decision=decision, acknowledged=await self._acknowledged(seen),
            previous=previous, observed_generation=manifest["metadata"]["generation"], now=_now())
        if await self._write_status(manifest, previous, status):
            await self._warn(manifest, previous, status)
        metrics.observe_look(
            self._target.namespace, self._target.certificate, now=_now(),
            bundle=(item.not_after for item in issuing.trust_bundle(seen, _now())))
        await self._announce(manifest, seen, decision)

    async def _warn(
        self, manifest: client.Manifest, previous: collections.abc.Mapping[str, Any], status: dict[str, Any]
    ) -> None:
        """An Event when something begins to wait for a person."""
        before, now = _degraded(previous), _degraded(status)
        if now.get("status") == "True" and now.get("reason") != before.get("reason"):
            await self._post(manifest, events.WARNING, now["reason"], now["message"])

    async def _announce(self, manifest: client.Manifest, seen: facts.Seen, decision: issuing.Decision) -> None:
        """An Event for each phase of a rotation that is waited in, and for what is not trusted though it is there."""
        if decision.left_out is not None and decision.left_out != self._left_out:
            await self._post(manifest, events.WARNING, reasons.Reason.LEFT_OUT, decision.left_out)
        self._left_out = decision.left_out
        before, self._announced = self._announced, decision.reason
        if decision.reason is before or rotation.phase(seen) is reasons.Reason.NOT_ROTATING:
            return
        stuck = decision.reason in (
            reasons.Reason.OVERDUE, reasons.Reason.TRUST_OVERDUE, reasons.Reason.WRONG_CERTIFICATE)
        await self._post(manifest, events.WARNING if stuck else events.NORMAL, decision.reason, decision.message)

    async def _acknowledged(self, seen: facts.Seen) -> conditions.Acknowledged:
        if self._urgent is not None:
            return conditions.Acknowledged(done=0, total=0)  # listeners have no ManagerNodes
        # From the API server's cache: the count may lag a little, and many nodes make a long list.
        nodes = await self._cluster.get(paths.manager_nodes(self._target.namespace) + "?resourceVersion=0")
        fingerprint = seen.leaf.certificate.fingerprint if seen.leaf and seen.leaf.certificate else None
        done, total = servers.count(nodes["items"], self._target.certificate, fingerprint)
        return conditions.Acknowledged(done=done, total=total, unserved_seconds=self._memory.unserved_seconds(
            time.monotonic(), done=done, total=total))

    async def _refuse(self, manifest: client.Manifest, problem: policy.InvalidSpec) -> None:
        logger.error("WebhookCertificate %s/%s: %s.", self._target.namespace, self._target.certificate, problem)
        previous = manifest.get("status") or {}
        status = conditions.invalid_spec_status(
            problem, previous=previous, observed_generation=manifest["metadata"]["generation"], now=_now())
        if await self._write_status(manifest, previous, status):
            await self._post(manifest, events.WARNING, "InvalidSpec", str(problem))

    async def _tell(self, reason: reasons.Reason, message: str) -> None:
        """As a condition, if that at least can be written. Never raises."""
        try:
            async with asyncio.timeout(TELL_SECONDS):
                manifest = await self._cluster.find(
                    paths.certificate(self._target.namespace, self._target.certificate))
                if manifest is None:
                    return
                previous = manifest.get("status") or {}
                status = conditions.blocked_status(
                    reason, message, previous=previous, observed_generation=manifest["metadata"]["generation"],
                    now=_now())
                if await self._write_status(manifest, previous, status):
                    await self._warn(manifest, previous, status)
        except (client.APIError, TimeoutError) as error:
            logger.debug("The condition of %s could not be written: %s", self._name, error)
        except Exception:
            logger.exception("The condition of %s could not be written.", self._name)

    async def _write_status(
        self, manifest: client.Manifest, previous: collections.abc.Mapping[str, Any], status: dict[str, Any]
    ) -> bool:
        metrics.observe_certificate(self._target.namespace, self._target.certificate, status)
        if status == previous or not await self._confirm():
            return False
        path = paths.certificate(self._target.namespace, self._target.certificate) + "/status"
        await self._cluster.replace(path, {**manifest, "status": status})
        metrics.WRITES.labels(object="WebhookCertificate", verb="update").inc()
        return True

    async def _post(self, manifest: client.Manifest, kind: str, reason: str, message: str) -> None:
        await events.post(self._cluster, manifest, kind=kind, reason=reason, message=message,
                          component="steadyhook-issuer", now=_now())

    @property
    def _name(self) -> str:
        return f"{self._target.namespace}/{self._target.certificate}"

    def _say_absent(self) -> None:
        metrics.forget_certificate(self._target.namespace, self._target.certificate)
        if not self._absent:
            logger.warning("WebhookCertificate %s/%s does not exist; nothing is issued until it is applied.",
                           self._target.namespace, self._target.certificate)
        self._absent = True


def _is_a_leaf(decision: issuing.Decision) -> bool:
    """Whether to write the leaf, and nothing else."""
    return bool(decision.actions) and all(isinstance(item, steps.IssueLeaf) for item in decision.actions)


def _state(refusal: client.APIError | None) -> facts.ConfigurationState:
    """What the answer to a patch says of the right to write."""
    if refusal is None:
        return facts.ConfigurationState.OPEN
    if isinstance(refusal, client.Forbidden):
        return facts.ConfigurationState.FORBIDDEN
    return (facts.ConfigurationState.REJECTED if isinstance(refusal, client.Rejected)
            else facts.ConfigurationState.UNTRIED)


def _degraded(status: collections.abc.Mapping[str, Any]) -> dict[str, Any]:
    """The condition Degraded, empty if there is none yet."""
    return next((dict(item) for item in status.get("conditions", []) if item["type"] == "Degraded"), {})


def _object(action: steps.Step) -> str:
    return action.configuration.kind if isinstance(action, steps.InjectBundle) else "Secret"


def _server_name(wanted: policy.Policy) -> str:
    """The name that an endpoint has to be good for: the Service's, by which the API server calls."""
    names = sorted(f"{name}.{namespace}.svc" for namespace, name in wanted.services)
    return next((name for name in names if name in wanted.dns_names), min(wanted.dns_names))


def _version(manifest: client.Manifest | None) -> str | None:
    return manifest["metadata"]["resourceVersion"] if manifest is not None else None


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
