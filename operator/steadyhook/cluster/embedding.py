"""
A kopf operator inside another one: in a thread and an event loop of its own, with its own registry and peering.

In the main thread it would take over the signal handlers, and at its exit it cancels every task of its loop that it
does not know; hence the thread. Its handlers only hand over to the loop of the main operator.
"""
import asyncio
import collections.abc
import concurrent.futures
import dataclasses
import logging
import os
import ssl
import threading
from typing import Any

import kopf

from steadyhook import supervision

logger = logging.getLogger(__name__)

QUIET_PREFIX = "kopf-quiet-"
STOP_SECONDS = 10.0
"""How long a thread gets to end before it is given up: nothing waits for it any longer."""

# The client library names the files that it makes of a kubeconfig's certificates before it has written them: of two
# operators that log in at once one could read an empty file.
_LOGIN = threading.Lock()


class _SuccessIsSilent(logging.Filter):
    """kopf logs the success of each handler: of those that only hand over, and of each admission request."""

    def filter(self, record: logging.LogRecord) -> bool:
        own = str(record.threadName).startswith(QUIET_PREFIX)
        return record.levelno > logging.INFO or not (own or str(record.msg).startswith("Webhook "))


class _ThreadsAreMeant(logging.Filter):
    """kopf warns of an operator that gets no signals, at each start; here the stop flag is its signal."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("OS signals are ignored")


logging.getLogger("kopf.objects").addFilter(_SuccessIsSilent())
logging.getLogger("kopf._core.reactor.running").addFilter(_ThreadsAreMeant())


def configure(settings: kopf.OperatorSettings) -> None:
    """What every operator here needs, the main ones as well: it outlives outages, and watches no CRDs or namespaces."""
    settings.networking.error_backoffs = supervision.EndlessBackoffs()
    settings.networking.connect_timeout = 10.0
    settings.networking.request_timeout = 30.0
    settings.scanning.disabled = True
    settings.posting.enabled = False


def registry() -> kopf.OperatorRegistry:
    """A registry of its own for an embedded operator: empty but for the login."""
    result = kopf.OperatorRegistry()
    kopf.on.login(registry=result, errors=kopf.ErrorsMode.PERMANENT)(login)
    return result


class _Connection(kopf.ConnectionInfo):
    """A connection that trusts the CA of a cluster as kubectl, the kubelet and every other Go program does."""

    def as_ssl_context(self) -> ssl.SSLContext:
        context = super().as_ssl_context()
        # On by default from Python 3.13 on. Go accepts a CA without the key usage extension, and clusters have such.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """
    Log in with the ServiceAccount of the pod, or else with a kubeconfig.

    The entry modules log in by this function as well: kopf's own choice includes pykube-ng, which leaves the private
    key of a kubeconfig in the temporary folder, for everybody to read.
    """
    with _LOGIN:
        found = kopf.login_with_service_account(**kwargs)
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if found is not None and host:
            # By address, as the other clients in a pod do. kopf's own choice is a name and needs the cluster's DNS,
            # whose pods may themselves wait for the webhook that is served here.
            address = f"[{host}]" if ":" in host else host
            found = dataclasses.replace(found, server=f"https://{address}:{port}")
        found = found or kopf.login_via_client(**kwargs)
    if found is None:
        return None
    return _Connection(**{field.name: getattr(found, field.name) for field in dataclasses.fields(found)})


class EmbeddedOperator:
    """
    One kopf operator; :meth:`run` it as a supervised part.

    ``namespace``: None for the whole cluster. ``configure`` is called with the settings of each run. ``quiet``: whether
    the success of its handlers is no news. ``stop_seconds``: how long it gets to end.
    """

    def __init__(
        self, *, name: str, registry: kopf.OperatorRegistry, namespace: str | None,
        configure: collections.abc.Callable[[kopf.OperatorSettings], None],
        identity: str | None = None, peering_name: str | None = None, priority: int | None = None,
        quiet: bool = True, stop_seconds: float = STOP_SECONDS,
    ) -> None:
        self._name = name
        self._registry = registry
        self._namespace = namespace
        self._configure = configure
        self._identity = identity
        self._peering_name = peering_name
        self._priority = priority
        self._quiet = quiet
        self._stop_seconds = stop_seconds
        self._interruption: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """
        Run ``kopf.operator()`` until cancelled; a peer then removes its own record from the peering on the way out.

        Raises :class:`supervision.Ended` when the operator ends for any other reason, or is interrupted, RuntimeError
        when no thread can be started.
        """
        thread = _Thread((QUIET_PREFIX if self._quiet else "kopf-") + self._name, self._operate)
        interruption = self._interruption = asyncio.get_running_loop().create_future()
        thread.start()
        try:
            await asyncio.wait({thread.ended, interruption}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._interruption = None
            await thread.stop(seconds=self._stop_seconds)
        if interruption.done():
            await interruption
        raise supervision.Ended(f"kopf ended it: {thread.problem or 'without saying why'}")

    def interrupt(self, reason: str) -> None:
        """Let :meth:`run` raise, for its supervisor to start it again. From the loop in which it runs."""
        if self._interruption is not None and not self._interruption.done():
            self._interruption.set_exception(supervision.Ended(reason))

    async def _operate(self, stop_flag: asyncio.Event) -> None:
        settings = kopf.OperatorSettings()
        configure(settings)
        # Else kopf kills the whole process when an operator that has ended takes ten minutes to tidy up.
        settings.process.ultimate_exiting_timeout = None
        self._configure(settings)
        await kopf.operator(
            registry=self._registry,
            settings=settings,
            namespaces=[self._namespace] if self._namespace is not None else [],
            clusterwide=self._namespace is None,
            identity=self._identity,  # type: ignore[arg-type]
            standalone=self._peering_name is None,
            peering_name=self._peering_name,
            priority=self._priority,
            stop_flag=stop_flag,
        )


class _Thread:
    """A thread with an event loop of its own, which runs one coroutine and then ends."""

    def __init__(
        self, name: str, target: collections.abc.Callable[[asyncio.Event], collections.abc.Coroutine[Any, Any, None]],
    ) -> None:
        self._target = target
        self._outcome: concurrent.futures.Future[BaseException | None] = concurrent.futures.Future()
        self._lock = threading.Lock()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flag: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self.ended = asyncio.wrap_future(self._outcome)
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """What the coroutine raised."""
        error = self._outcome.result() if self._outcome.done() else None
        return (str(error) or type(error).__name__) if error is not None else None

    async def stop(self, *, seconds: float) -> None:
        """Set the stop flag, and wait until the thread has ended; not for ever, though."""
        with self._lock:
            self._stopping = True
            # An event of its own loop: kopf waits for one of `threading` in an executor's thread, for which asyncio
            # then waits at the end of the loop. An operator that ends by itself would never be noticed.
            if self._loop is not None and self._flag is not None:
                self._loop.call_soon_threadsafe(self._flag.set)
        done, _ = await asyncio.wait({self.ended}, timeout=seconds)
        if not done:
            logger.error("The thread %s has not ended within %.0f s; it is given up.", self._thread.name, seconds)

    def _run(self) -> None:
        problem = None
        try:
            asyncio.run(self._enter())
        except BaseException as error:
            problem = error
        self._outcome.set_result(problem)

    async def _enter(self) -> None:
        with self._lock:
            self._loop, self._flag = asyncio.get_running_loop(), asyncio.Event()
            if self._stopping:
                return
            flag = self._flag
        try:
            await self._target(flag)
        finally:
            with self._lock:
                self._loop = self._flag = None
