"""
A kopf operator inside another one: in a thread and an event loop of its own, with its own registry and peering.

In the main thread it would take over the signal handlers, and at its exit it cancels every task of its loop that it
does not know; hence the thread. Its handlers only hand over to the loop of the main operator.
"""
import asyncio
import collections.abc
import logging
import random
import threading
import time

import kopf

logger = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 10.0
"""After an outage everything is as it should be within about this time; no more often than a kubelet's own reports."""

THREAD_PREFIX = "kopf-"

# The client library names the files that it makes of a kubeconfig's certificates before it has written them: of two
# operators that log in at once one could read an empty file.
_LOGIN = threading.Lock()


class EndlessBackoffs(collections.abc.Iterable[float]):
    """
    Retry delays in seconds that grow to LONGEST_PAUSE_SECONDS and never end, with jitter.

    With kopf's own finite list an operator exits after about a minute of a failing API server.
    """

    def __iter__(self) -> collections.abc.Iterator[float]:
        pause = 0.5
        while True:
            yield pause * random.uniform(0.5, 1.0)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


class _SuccessIsSilent(logging.Filter):
    """kopf logs the success of each handler: of those that only hand over, and of each admission request."""

    def filter(self, record: logging.LogRecord) -> bool:
        own = str(record.threadName).startswith(THREAD_PREFIX)
        return record.levelno > logging.INFO or not (own or str(record.msg).startswith("Webhook "))


class _ThreadsAreMeant(logging.Filter):
    """kopf warns of an operator that gets no signals, at each start; here the stop flag is its signal."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("OS signals are ignored")


logging.getLogger("kopf.objects").addFilter(_SuccessIsSilent())
logging.getLogger("kopf._core.reactor.running").addFilter(_ThreadsAreMeant())


def configure(settings: kopf.OperatorSettings) -> None:
    """What every operator here needs, the main ones as well: it outlives outages, and watches no CRDs or namespaces."""
    settings.networking.error_backoffs = EndlessBackoffs()
    settings.networking.connect_timeout = 10.0
    settings.networking.request_timeout = 30.0
    settings.scanning.disabled = True
    settings.posting.enabled = False


def registry() -> kopf.OperatorRegistry:
    """A registry of its own for an embedded operator: empty but for the login."""
    result = kopf.OperatorRegistry()
    kopf.on.login(registry=result, errors=kopf.ErrorsMode.PERMANENT)(login)
    return result


def login(**kwargs: object) -> kopf.ConnectionInfo | None:
    """
    With the ServiceAccount of the pod, or else a kubeconfig.

    The entry modules log in by it as well: kopf's own choice includes pykube-ng, which leaves the private key of a
    kubeconfig in the temporary folder, for everybody to read.
    """
    with _LOGIN:
        return kopf.login_with_service_account(**kwargs) or kopf.login_via_client(**kwargs)  # type: ignore[arg-type]


class EmbeddedOperator:
    """
    Runs ``kopf.operator()`` until stopped; if it exits for any other reason, it is started again after a pause.

    ``namespace``: None for the whole cluster.
    """

    def __init__(
        self, *, name: str, registry: kopf.OperatorRegistry, namespace: str | None,
        configure: collections.abc.Callable[[kopf.OperatorSettings], None],
        identity: str | None = None, peering_name: str | None = None, priority: int | None = None,
    ) -> None:
        self._name = name
        self._registry = registry
        self._namespace = namespace
        self._configure = configure
        self._identity = identity
        self._peering_name = peering_name
        self._priority = priority
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=THREAD_PREFIX + name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    async def stop(self, *, seconds: float = 10.0) -> None:
        """Ask it to stop and wait for it: a peer removes its own record from the peering on the way out."""
        self._stop.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, seconds)

    def _run(self) -> None:
        pauses = iter(EndlessBackoffs())
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                asyncio.run(self._operate())
            except Exception:
                logger.exception("The embedded operator %s failed; it is started again.", self._name)
            if time.monotonic() - began > LONGEST_PAUSE_SECONDS:
                pauses = iter(EndlessBackoffs())  # it did work
            if not self._stop.is_set():
                self._stop.wait(next(pauses))

    async def _operate(self) -> None:
        settings = kopf.OperatorSettings()
        configure(settings)
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
            stop_flag=self._stop,
        )
