"""
The reconcile loop of one certificate: observe, decide, confirm that this is the active instance, write, observe again.

A failure is logged and the loop looks again after a pause; a conflict only means that the world has moved.
"""
import asyncio
import collections.abc
import dataclasses
import datetime
import logging
import random
import time
from typing import Any

from steadyhook import metrics
from steadyhook.cluster import applying, client, events, observing, paths, servers
from steadyhook.core import conditions, facts, issuing, memory, policy, reasons, rotation, steps
from steadyhook.issuing import proving
from steadyhook.pki import certificates
from steadyhook.settings import Settings

logger = logging.getLogger(__name__)

RESYNC_SECONDS = 60.0
"""How often the active instance looks without being woken: the CA Secret is read, not watched."""

PAUSE_AFTER_ERROR_SECONDS = 5.0
CONTENDED_SECONDS = 5.0
"""How often to see whether listeners of dynamiclistener, which may write the CA Secret too, have done so."""
FREEZE_CHECK_SECONDS = 1.0
FREEZE_DOUBT_SECONDS = 20.0
"""For so long after a freeze a listener that was just starting may undo it: then nothing is to be waited for."""

STEPS = 12
"""A fresh start takes three steps, a repair at most four. More in one pass means that they do not lead anywhere."""

Confirm = collections.abc.Callable[[], collections.abc.Awaitable[bool]]
"""Whether this instance is the active one, by a fresh read."""


class Unsettled(Exception):
    """Each decision was carried out, and there was always another one: going on would be a storm of our own."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """
    A certificate to look after: the namespace and name of its WebhookCertificate, and the Secret that is watched.

    ``rival``: an older WebhookCertificate that names the same Secret, whose it is.
    """

    namespace: str
    certificate: str
    secret_name: str
    rival: str | None = None


class Reconciler:
    """To be run by the event loop in which it was made; only :meth:`wake` may be called from other threads."""

    def __init__(self, *, cluster: client.Cluster, settings: Settings, target: Target, confirm: Confirm) -> None:
        self._cluster = cluster
        self._settings = settings
        self._target = target
        self._confirm = confirm
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._due = 0.0
        self._memory = memory.Memory()
        self._calls = observing.Calls()
        self._frozen_at = float("-inf")
        self._contended: tuple[str, str | None] | None = None
        self._announced: reasons.Reason | None = None
        self._absent = False

    def wake(self, delay: float = 0.0) -> None:
        """Look again, ``delay`` seconds from now at the latest. From any thread."""
        self._loop.call_soon_threadsafe(self._hasten, delay)

    async def run(self) -> None:
        """Until cancelled; the first look is at once, also after an end."""
        try:
            await self._run()
        finally:
            metrics.forget_certificate(self._target.namespace, self._target.certificate)

    async def _run(self) -> None:
        self._due = 0.0
        while True:
            await self._sleep_until_due()
            try:
                pause = await self._reconcile()
            except client.Conflict as error:
                logger.info("The world has changed, looking again: %s", error)
                pause = random.uniform(0.0, 0.5)
            except client.Forbidden as error:
                await self._say_forbidden(f"a permission is missing: {error}; apply the manifests of this version,"
                                          f" which grant it, for namespace {self._target.namespace} too")
                pause = PAUSE_AFTER_ERROR_SECONDS
            except client.Invalid as error:
                logger.error("The API server refuses what is to be written: %s. Look for an admission policy or webhook"
                             " that is against it.", error)
                pause = PAUSE_AFTER_ERROR_SECONDS
            except client.APIError as error:
                logger.warning("The API server did not answer, looking again soon: %s", error)
                pause = PAUSE_AFTER_ERROR_SECONDS
            except Unsettled as error:
                logger.error("%s; pausing for %.0f s.", error, RESYNC_SECONDS)
                await asyncio.sleep(RESYNC_SECONDS)
                pause = 0.0
            except Exception:
                logger.exception("Reconciling failed, looking again soon.")
                pause = PAUSE_AFTER_ERROR_SECONDS
            self._hasten(pause * random.uniform(0.8, 1.0))

    def _hasten(self, delay: float) -> None:
        self._due = min(self._due, time.monotonic() + delay)
        self._woken.set()

    async def _sleep_until_due(self) -> None:
        while (pause := self._due - time.monotonic()) > 0:
            self._woken.clear()
            try:
                async with asyncio.timeout(min(pause, CONTENDED_SECONDS) if self._contended else pause):
                    await self._woken.wait()
            except TimeoutError:
                if await self._contended_has_changed():
                    break
        self._due = float("inf")

    async def _contended_has_changed(self) -> bool:
        """Whether others have written the CA Secret, which is not watched, since the last look."""
        if self._contended is None:
            return False
        path, version = self._contended
        try:
            manifest = await self._cluster.find(path)
        except client.APIError:
            return False
        return _version(manifest) != version

    async def _reconcile(self) -> float:
        """One pass; returns after how many seconds to look again."""
        self._contended = None
        if not await self._confirm():
            self._memory.forget_waits()
            return RESYNC_SECONDS
        manifest = await self._cluster.find(paths.certificate(self._target.namespace, self._target.certificate))
        if manifest is None:
            self._say_absent()
            return RESYNC_SECONDS
        self._absent = False
        try:
            wanted = policy.parse(
                manifest.get("spec") or {}, namespace=self._target.namespace, name=self._target.certificate,
                annotations=manifest["metadata"].get("annotations"))
            self._check_secret_name(wanted)
        except policy.InvalidSpec as problem:
            await self._refuse(manifest, problem)
            return RESYNC_SECONDS
        seen, decision = await self._take_steps(manifest, wanted)
        await self._report(manifest, seen, wanted, decision)
        if wanted.compatibility is not None:
            self._contended = (paths.secret(wanted.namespace, wanted.authority_secret_name),
                               seen.authority.secret.resource_version if seen.authority is not None else None)
        clock = time.monotonic()
        in_doubt = clock - self._frozen_at < FREEZE_DOUBT_SECONDS
        dates = [FREEZE_CHECK_SECONDS if in_doubt else RESYNC_SECONDS, *self._memory.seconds_until_open(clock)]
        if decision.wake_at is not None:
            dates.append((decision.wake_at - _now()).total_seconds())
        return max(0.1, min(dates))

    def _check_secret_name(self, wanted: policy.Policy) -> None:
        """The servers have the name from their settings: what is written elsewhere nobody would serve, or watch."""
        if wanted.secret_name != self._target.secret_name:
            raise policy.InvalidSpec(
                field="spec.secretName", found=wanted.secret_name,
                expected=f"{self._target.secret_name!r}, the Secret that this instance watches",
                remedy="set STEADYHOOK_SECRET and the names in the Roles to it, or create the WebhookCertificate anew")
        if self._target.rival is not None:
            raise policy.InvalidSpec(
                field="spec.secretName", found=wanted.secret_name,
                expected=f"a Secret that is not WebhookCertificate {self._target.rival}'s already",
                remedy="name another Secret, or delete one of the two")

    async def _take_steps(
        self, manifest: client.Manifest, wanted: policy.Policy
    ) -> tuple[facts.Seen, issuing.Decision]:
        """Observe, decide and act until there is nothing to do; each decision is carried out as a whole."""
        for _ in range(STEPS):
            observation = await self._observe(manifest, wanted)
            seen = self._memory.note(observation.seen, time.monotonic())
            decision = issuing.decide(seen, wanted, _now())
            if not decision.actions:
                return seen, decision
            for action in decision.actions:
                if not await self._confirm():
                    logger.info("No longer the active instance; leaving the rest to the one that is.")
                    return seen, decision
                await self._carry_out(manifest, action, wanted, observation)
            logger.info("%s: %s", decision.reason, decision.message)
            await self._post(manifest, events.NORMAL, decision.reason, decision.message)
        raise Unsettled(f"{STEPS} steps have not brought WebhookCertificate {wanted.namespace}/{wanted.name} to rest;"
                        f" the last one was {decision.reason}: {decision.message}")

    async def _observe(self, manifest: client.Manifest, wanted: policy.Policy) -> observing.Observation:
        """What the API server says, and during a rotation also what is seen on the wire."""
        observation = await observing.observe(
            self._cluster, manifest, wanted, states=self._memory.states(time.monotonic()),
            last_generation=self._memory.last_generation, calls=self._calls)
        doubtful = rotation.to_be_proven(observation.seen)
        if not doubtful:
            return observation
        proofs = await self._prove(observation, wanted, doubtful)
        return dataclasses.replace(observation, seen=dataclasses.replace(
            observation.seen, servers=tuple(dataclasses.replace(item, proof=proofs.get(item.pod_uid, item.proof))
                                            for item in observation.seen.servers)))

    async def _prove(
        self, observation: observing.Observation, wanted: policy.Policy, doubtful: tuple[facts.Server, ...]
    ) -> dict[str, facts.Proof]:
        authority = observation.seen.authority
        assert authority is not None and authority.successor is not None
        if not self._settings.dial:
            return {item.pod_uid: facts.Proof.SKIPPED for item in doubtful}
        addresses = {item.pod_uid: observation.addresses[item.pod_uid] for item in doubtful
                     if item.pod_uid in observation.addresses}
        found = await proving.prove(
            addresses, trusted_pem=certificates.bundle_pem([authority.successor]).decode("ascii"),
            server_name=_server_name(wanted), proxy=self._settings.dial_proxy)
        # Who is no endpoint is called by nobody.
        return {item.pod_uid: found.get(item.pod_uid, facts.Proof.SKIPPED) for item in doubtful}

    async def _carry_out(
        self, manifest: client.Manifest, action: steps.Step, wanted: policy.Policy,
        observation: observing.Observation,
    ) -> None:
        if isinstance(action, steps.Freeze):
            self._frozen_at = time.monotonic()
        if isinstance(action, steps.IssueLeaf):
            self._memory.last_generation = action.generation  # written or not: the answer may get lost
        try:
            await applying.apply(self._cluster, action, wanted, pairs=observation.pairs, now=_now())
        except client.Conflict:
            metrics.CONFLICTS.labels(object=_object(action)).inc()
            raise
        except client.Forbidden as error:
            if not isinstance(action, steps.InjectBundle):
                raise
            # Others go on: a configuration that cannot be written blocks nothing.
            self._memory.note_refusal(action.configuration.uid, time.monotonic())
            logger.warning("%s; not tried again for %.0f s.", error, memory.FORBIDDEN_SECONDS)
            await self._post(manifest, events.WARNING, facts.ConfigurationState.FORBIDDEN, str(error))
            return
        if isinstance(action, steps.InjectBundle):
            await self._note_injection(manifest, action)

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
        """An Event for each phase of a rotation that is waited in."""
        before, self._announced = self._announced, decision.reason
        if decision.reason is before or rotation.phase(seen) is reasons.Reason.NOT_ROTATING:
            return
        stuck = decision.reason in (reasons.Reason.OVERDUE, reasons.Reason.WRONG_CERTIFICATE)
        await self._post(manifest, events.WARNING if stuck else events.NORMAL, decision.reason, decision.message)

    async def _acknowledged(self, seen: facts.Seen) -> conditions.Acknowledged:
        # From the API server's cache: the count may lag a little, and many nodes make a long list.
        nodes = await self._cluster.get(paths.manager_nodes(self._target.namespace) + "?resourceVersion=0")
        fingerprint = seen.leaf.certificate.fingerprint if seen.leaf and seen.leaf.certificate else None
        done, total = servers.count(nodes["items"], self._target.certificate, fingerprint)
        return conditions.Acknowledged(done=done, total=total)

    async def _refuse(self, manifest: client.Manifest, problem: policy.InvalidSpec) -> None:
        logger.error("WebhookCertificate %s/%s: %s.", self._target.namespace, self._target.certificate, problem)
        previous = manifest.get("status") or {}
        status = conditions.invalid_spec_status(
            problem, previous=previous, observed_generation=manifest["metadata"]["generation"], now=_now())
        if await self._write_status(manifest, previous, status):
            await self._post(manifest, events.WARNING, "InvalidSpec", str(problem))

    async def _say_forbidden(self, message: str) -> None:
        """In the log, and as a condition if that at least is allowed."""
        logger.error("WebhookCertificate %s/%s: %s.", self._target.namespace, self._target.certificate, message)
        try:
            manifest = await self._cluster.find(paths.certificate(self._target.namespace, self._target.certificate))
            if manifest is None:
                return
            previous = manifest.get("status") or {}
            status = conditions.blocked_status(
                reasons.Reason.FORBIDDEN, message, previous=previous,
                observed_generation=manifest["metadata"]["generation"], now=_now())
            if await self._write_status(manifest, previous, status):
                await self._warn(manifest, previous, status)
        except client.APIError as error:
            logger.debug("The condition could not be written: %s", error)

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

    def _say_absent(self) -> None:
        metrics.forget_certificate(self._target.namespace, self._target.certificate)
        if not self._absent:
            logger.warning("WebhookCertificate %s/%s does not exist; nothing is issued until it is applied.",
                           self._target.namespace, self._target.certificate)
        self._absent = True


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
