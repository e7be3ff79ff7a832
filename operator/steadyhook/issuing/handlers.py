"""
Ordinary kopf handlers of the user's modules: the active instance alone runs them, under the same election.

They are taken out of the main operator, which every instance runs, and put into an embedded one. That starts when the
instance becomes active, and ends when it is active no longer.
"""
import asyncio
import collections.abc
import logging

import kopf

from steadyhook import supervision
from steadyhook.cluster import embedding, registries

logger = logging.getLogger(__name__)

END_SECONDS = 10.0
"""kopf's own time to end an operator, besides that of the handlers. With what ends after it, a pod has 30 s in all."""


class RefusedHandlers(Exception):
    """Ordinary handlers in a process that is never active. The text names them and the remedy."""

    def __init__(self, names: collections.abc.Sequence[str]) -> None:
        super().__init__(
            f"{'handler' if len(names) == 1 else 'handlers'} {', '.join(names)}: steadyhook.server runs admission"
            " handlers alone, as every instance of it serves; load the module beside steadyhook.manager or"
            " steadyhook.issuer, whose active instance runs the others")
        self.names = tuple(names)


def refuse(registry: kopf.OperatorRegistry) -> None:
    """Raises :class:`RefusedHandlers` if the registry holds any but admission handlers."""
    if names := registries.ordinary_handlers(registry):
        raise RefusedHandlers(names)


class Handlers:
    """To be used in one event loop; :meth:`run` it as long as this instance holds a seat."""

    def __init__(
        self, *, registry: kopf.OperatorRegistry, namespace: str | None, grace_seconds: float
    ) -> None:
        self._is_active = False
        self._changed = asyncio.Event()
        self._grace_seconds = grace_seconds
        self._operator = embedding.EmbeddedOperator(
            name="handlers", registry=registry, namespace=namespace, configure=self._configure, quiet=False,
            stop_seconds=grace_seconds + END_SECONDS)

    def set_active(self, active: bool) -> None:
        """Whether this instance is the active one."""
        self._is_active = active
        self._changed.set()

    async def run(self) -> None:
        """Run the handlers whenever this instance is active, until cancelled; those that run then get their grace."""
        while True:
            await self._wait(True)
            logger.info("This instance is active: its handlers run from now on.")
            task = asyncio.create_task(supervision.keep("operator of the handlers", self._operator.run))
            try:
                await self._wait(False)
            finally:
                try:
                    await supervision.end([task])
                finally:
                    logger.info("This instance is active no longer: its handlers have ended.")

    async def _wait(self, active: bool) -> None:
        while self._is_active is not active:
            self._changed.clear()
            await self._changed.wait()

    def _configure(self, settings: kopf.OperatorSettings) -> None:
        """What the user's own startup handlers find, and may change."""
        settings.posting.enabled = True
        settings.queueing.exit_timeout = self._grace_seconds


def take(
    registry: kopf.OperatorRegistry, *, namespace: str | None, grace_seconds: float,
    without: collections.abc.Container[str],
) -> Handlers | None:
    """
    Take the ordinary handlers out of a registry; None if there are none.

    ``without``: the modules whose startup and cleanup handlers are not the user's. ``namespace``: None for all.
    """
    names = registries.ordinary_handlers(registry)
    if not names:
        return None
    logger.info("The active instance runs the handlers %s.", ", ".join(names))
    return Handlers(registry=registries.split(registry, without=without), namespace=namespace,
                    grace_seconds=grace_seconds)
