"""
Whether anybody issues: a server looks into the election now and then, more often while it needs a certificate.

An issuer that is gone cannot say so itself.
"""
import asyncio
import collections.abc
import logging
import random

from steadyhook import metrics
from steadyhook.cluster import client, paths
from steadyhook.core import election
from steadyhook.serving import contact
from steadyhook.settings import Settings

logger = logging.getLogger(__name__)

NEED_SECONDS = 60.0
"""How often a server looks that has nothing good to serve, or not for long any more."""


class Issuers:
    """``on_absence`` is told what is wrong while nobody issues, and None when somebody does."""

    def __init__(
        self, *, cluster: client.Cluster, settings: Settings,
        on_absence: collections.abc.Callable[[str | None], None],
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._on_absence = on_absence
        self._looked_in_vain = False

    async def look(self, is_in_need: collections.abc.Callable[[], bool]) -> None:
        """Look now and then, until cancelled."""
        while True:
            await self._wait(is_in_need)
            await self._look()

    async def _wait(self, is_in_need: collections.abc.Callable[[], bool]) -> None:
        """Rarely while all is well. An election without a live record is looked at once more soon."""
        loop = asyncio.get_running_loop()
        began, factor = loop.time(), random.uniform(0.8, 1.2)
        while True:
            soon = self._looked_in_vain or is_in_need()
            remaining = (NEED_SECONDS if soon else contact.READ_SECONDS) * factor - (loop.time() - began)
            if remaining <= 0:
                return
            await asyncio.sleep(min(remaining, NEED_SECONDS / 2))

    async def _look(self) -> None:
        where = f"KopfPeering {self._settings.namespace}/{self._settings.peering_name}"
        try:
            manifest = await self._cluster.get(paths.peering(self._settings.namespace, self._settings.peering_name))
        except (client.NotFound, client.Forbidden):
            # The issuers are elsewhere: those of all certificates, or of another operator.
            self._looked_in_vain = False
            self._on_absence(None)
            return
        except client.APIError as error:
            logger.debug("%s could not be read: %s", where, error)
            return
        now = self._cluster.clock.now()
        live = sum(record.is_live(now) for record in election.parse(manifest))
        metrics.observe_peering(records=live)
        if live:
            self._looked_in_vain = False
            self._on_absence(None)
        elif self._looked_in_vain:
            self._on_absence(f"NobodyIssues: {where} holds no live record, so no certificate is renewed; look after the"
                             " pods that issue")
        else:
            self._looked_in_vain = True  # it may change hands at this moment
