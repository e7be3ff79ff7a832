"""The serving half of an instance: the listener, the keeper of its certificate, the watch and the reporter."""
import asyncio
import collections.abc
import contextlib
import functools
import logging
from typing import Any, NoReturn

import kopf

from steadyhook import settings as process_settings
from steadyhook import supervision
from steadyhook.cluster import client, embedding, paths
from steadyhook.core import election, reasons, serving
from steadyhook.serving import (
    _kopf,
    admission,
    contact,
    endpoints,
    issuers,
    keeping,
    readiness,
    reporting,
    routing,
    tls,
)

logger = logging.getLogger(__name__)

WATCH_DELAY_SECONDS = 30.0
"""A watch that has not told what a read has found for so long is deaf."""
WATCH_DELAY_LOOKS = 3

WAITING = serving.Verdict(
    phase=serving.Phase.WAITING, reason=reasons.Reason.WAITING_FOR_SECRET, message="the Secret was not judged yet")


class AdmissionServer(admission.AdmissionServer):
    """
    An admission server for a kopf operator: every replica serves, whichever is active in the peering.

    Give it to ``settings.admission.server`` in a startup handler. It serves the certificate in the leaf Secret of a
    WebhookCertificate once that is marked ready, and reports to the ManagerNode of its node. ``settings`` are read
    from the environment when left out (see the README); leave kopf's ``settings.admission.managed`` unset.

    ``routes``: aiohttp handlers by path, for requests that are not kopf's, besides those of :func:`steadyhook.route`.
    Raises :class:`steadyhook.settings.SettingsError`.
    """

    def __init__(
        self, *, settings: process_settings.Settings | None = None, on_drain: admission.Callback | None = None,
        routes: collections.abc.Mapping[str, admission.Handler] | None = None,
    ) -> None:
        self._settings = settings or process_settings.from_command_line(elects=False)
        self._cluster = client.Cluster()
        self._reporter = reporting.Reporter(cluster=self._cluster, settings=self._settings)
        self._contact = contact.Contact(is_in_doubt=lambda: self._cluster.clock.was_set)
        context, ready = tls.SwappableContext(), readiness.Readiness(check=self._contact.trouble)
        self._keeper = keeping.Keeper(
            settings=self._settings, context=context, ready=ready, on_verdict=self._reporter.set_verdict,
            now=self._cluster.clock.now)
        self._issuers = issuers.Issuers(
            cluster=self._cluster, settings=self._settings,
            on_absence=functools.partial(self._reporter.set_notice, "issuer"))
        self._told: str | None = None  # the version of the Secret that the watch has told of last
        self._is_forbidden = False
        self._watching: embedding.EmbeddedOperator | None = None
        self._tasks: list[asyncio.Task[NoReturn]] = []
        self._stack = contextlib.AsyncExitStack()
        super().__init__(
            tls=context,
            readiness=ready,
            address=self._settings.listen_address,
            port=self._settings.webhook_port,
            health_port=self._settings.health_port,
            drain_seconds=self._settings.drain_seconds,
            max_connections=self._settings.max_connections,
            routes={**routing.ROUTES, **(routes or {})},
            on_start=self._start,
            on_drain=on_drain,
        )

    async def __call__(self, fn: kopf.WebhookFn) -> collections.abc.AsyncIterator[kopf.WebhookClientConfig]:
        _kopf.tell_apart(fn)
        try:
            async with contextlib.aclosing(super().__call__(fn)) as configs:  # type: ignore[type-var]
                async for config in configs:
                    yield config
        finally:
            await self._stop()

    async def open(self) -> None:
        """
        Serve the health endpoints from now on, until :meth:`close` or the end of the iteration.

        kopf iterates an admission server only after it has reached the API server; without this, the probes of a pod
        that starts during an outage would find nobody. Raises :class:`steadyhook.serving.sockets.ListenError`.
        """
        await self._stack.enter_async_context(endpoints.serve(
            self._settings.listen_address, self._settings.health_port, self.readiness))
        self.health_port = None

    async def close(self) -> None:
        """Stop what :meth:`open` started. May be called again."""
        await self._stack.aclose()

    @property
    def certified(self) -> bool:
        """Whether a certificate that is still good is being served."""
        return self._keeper.certified

    def set_role(self, role: election.Role | None) -> None:
        """What this instance does about issuing, for its report."""
        self._reporter.set_role(role)

    def set_problem(self, problem: str | None) -> None:
        """What keeps this instance from issuing, for its report."""
        self._reporter.set_problem(problem)

    async def _start(self) -> None:
        await self._stack.enter_async_context(self._cluster)
        self._watching = embedding.EmbeddedOperator(
            name="serving", registry=self._registry(), namespace=self._settings.namespace, configure=self._configure)
        self._tasks = [asyncio.create_task(supervision.keep(part, run)) for part, run in (
            ("reporter", self._reporter.run),
            ("watch of the Secret", self._watch),
            ("contact to the API server", functools.partial(self._contact.keep, self._read_regularly)),
            ("look for an issuer", functools.partial(self._issuers.look, self._is_in_need)),
        )]

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
            await self._reporter.retract()
        await self._stack.aclose()

    async def _watch(self) -> None:
        """Read the Secret once, so that what is missing or forbidden is told at once; then watch it."""
        assert self._watching is not None
        await self._look()
        await self._watching.run()

    def _is_in_need(self) -> bool:
        """Whether this server waits for an issuer: there is nothing good to serve, or not for long any more."""
        return self._keeper.verdict is None or self._keeper.verdict.phase is not serving.Phase.SERVING or (
            self._keeper.overdue)

    async def _read(self) -> client.Manifest | None:
        """The leaf Secret, which is judged at once. Raises :class:`client.APIError`."""
        try:
            manifest = await self._cluster.find(paths.secret(self._settings.namespace, self._settings.secret_name))
        except client.Forbidden as error:
            # Whom the API server refuses by name it knows: this pod is still one of those that a rotation waits for.
            self._contact.touch()
            self._tell_forbidden(error)
            raise
        self._see(manifest)
        self._reporter.set_notice("clock", election.clock_problem(
            self._cluster.clock.skew_seconds, lifetime_seconds=0.0, others=False))
        return manifest

    async def _read_regularly(self) -> None:
        """Read the Secret, and start the watch anew if that has not told what is there."""
        manifest = await self._read()
        assert self._watching is not None
        for _ in range(WATCH_DELAY_LOOKS):
            if self._told == _version(manifest):
                return
            await asyncio.sleep(WATCH_DELAY_SECONDS / WATCH_DELAY_LOOKS)
            manifest = await self._read()
        self._watching.interrupt(f"the watch has told of version {self._told} of Secret {self._settings.secret_name},"
                                 f" which is at {_version(manifest)}")

    def _see(self, manifest: client.Manifest | None) -> None:
        self._contact.touch()
        if self._is_forbidden:
            self._is_forbidden = False
            self._reporter.set_verdict(self._keeper.verdict or WAITING)
        self._keeper.see(manifest)

    def _see_told(self, manifest: client.Manifest | None) -> None:
        """What the watch tells."""
        self._told = _version(manifest)
        self._see(manifest)

    def _tell_forbidden(self, error: client.Forbidden) -> None:
        problem = (f"this instance may not read Secret {self._settings.namespace}/{self._settings.secret_name}"
                   f" ({error.message}); apply the manifests of this version, and let STEADYHOOK_SECRET name"
                   " the Secret that their Role names")
        if not self._is_forbidden:  # it is found every few seconds
            logger.error("%s.", problem)
        self._is_forbidden = True
        if not self.certified:
            self.readiness.wait(problem)
        self._reporter.set_verdict(serving.Verdict(
            phase=serving.Phase.DEGRADED if self.certified else serving.Phase.WAITING,
            reason=reasons.Reason.FORBIDDEN, message=problem,
            served=self._keeper.verdict.served if self._keeper.verdict else None))

    async def _look(self) -> None:
        pauses = iter(supervision.EndlessBackoffs())
        while True:
            try:
                await self._read()
                return
            except client.Forbidden:
                pass  # it is told
            except client.APIError as error:
                logger.warning("The Secret could not be read, trying again: %s", error)
            await asyncio.sleep(next(pauses))

    def _configure(self, settings: kopf.OperatorSettings) -> None:
        selectors = settings.watching.field_selectors
        selectors["secrets"] = f"metadata.name={self._settings.secret_name}"
        selectors["managernodes"] = f"metadata.name={self._settings.instance.node_name}"

    def _registry(self) -> kopf.OperatorRegistry:
        registry = embedding.registry()
        hand_over = asyncio.get_running_loop().call_soon_threadsafe

        @kopf.on.event("", "v1", "secrets", registry=registry)
        async def secret_changed(event: kopf.RawEvent, **_: Any) -> None:
            hand_over(self._see_told, None if event["type"] == "DELETED" else dict(event["object"]))

        @kopf.on.event(paths.GROUP, "managernodes", registry=registry)
        async def node_changed(**_: Any) -> None:
            hand_over(self._reporter.look_again)

        return registry


def _version(manifest: client.Manifest | None) -> str | None:
    return manifest["metadata"]["resourceVersion"] if manifest is not None else None
