"""
One issuer for the certificates of all namespaces: a reconcile loop and a small operator for each, one election.

A kopf operator of several namespaces would look for its peering in each of them. So the seat is kept at home, and what
belongs to one certificate is watched by an operator of its own, which is no peer.
"""
import asyncio
import collections.abc
import dataclasses
import logging
import random
from typing import NoReturn

from steadyhook import supervision
from steadyhook.cluster import client, paths
from steadyhook.issuing import operator, reconciling
from steadyhook.settings import Settings

logger = logging.getLogger(__name__)

RELIST_SECONDS = 60.0
SPREAD_SECONDS = 2.0
"""A change that concerns all certificates is not looked at by all of them at the same moment."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    reconciler: reconciling.Reconciler
    tasks: tuple[asyncio.Task[NoReturn], ...]


def _age(manifest: client.Manifest) -> tuple[str, bool, str]:
    """The oldest first; of those made in the same second, the one for which a leaf was issued."""
    metadata = manifest["metadata"]
    issued = bool((manifest.get("status") or {}).get("fingerprint"))
    return metadata["creationTimestamp"], not issued, metadata["name"]


def targets(manifests: collections.abc.Iterable[client.Manifest]) -> frozenset[reconciling.Target]:
    """What is to be looked after. Of two WebhookCertificates that name one Secret, the older one has it."""
    owners: dict[tuple[str, str], str] = {}
    found = set()
    for item in sorted(manifests, key=_age):
        metadata, secret_name = item["metadata"], (item.get("spec") or {}).get("secretName", "")
        rival = owners.setdefault((metadata["namespace"], secret_name), metadata["name"])
        found.add(reconciling.Target(
            namespace=metadata["namespace"], certificate=metadata["name"], secret_name=secret_name,
            rival=rival if rival != metadata["name"] else None))
    return frozenset(found)


class Roster:
    """To be run by the event loop in which it was made; only :meth:`wake` may be called from other threads."""

    def __init__(self, *, cluster: client.Cluster, settings: Settings, confirm: reconciling.Confirm) -> None:
        self._cluster = cluster
        self._settings = settings
        self._confirm = confirm
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._entries: dict[reconciling.Target, _Entry] = {}

    def wake(self, delay: float = 0.0) -> None:
        """Let every certificate be looked at again within ``delay`` and some seconds. From any thread."""
        self._loop.call_soon_threadsafe(self._wake_all, delay)

    async def run(self) -> None:
        """Until cancelled."""
        overview = operator.build_overview(self._settings, listed=self._list_again, configured=self.wake)
        watching = asyncio.create_task(supervision.keep("operator that watches all certificates", overview.run))
        try:
            while True:
                self._woken.clear()
                await self._update()
                try:
                    async with asyncio.timeout(RELIST_SECONDS * random.uniform(0.8, 1.2)):
                        await self._woken.wait()
                except TimeoutError:
                    continue
        finally:
            gone = list(self._entries.values())
            self._entries.clear()
            await asyncio.shield(self._end(watching, *(task for entry in gone for task in entry.tasks)))

    def _list_again(self, delay: float) -> None:
        self._loop.call_soon_threadsafe(self._woken.set)

    def _wake_all(self, delay: float) -> None:
        for entry in self._entries.values():
            entry.reconciler.wake(delay + random.uniform(0.0, SPREAD_SECONDS))

    async def _update(self) -> None:
        """Start what has appeared, end what has gone, and let the others look again, as any of them has changed."""
        try:
            listed = (await self._cluster.get(paths.all_certificates()))["items"]
        except client.APIError as error:
            logger.error("The WebhookCertificates could not be listed: %s. If a permission is missing, apply"
                         " manifests/overlays/issuer.", error)
            return
        wanted = targets(listed)
        gone = [self._entries.pop(item) for item in self._entries.keys() - wanted]
        await self._end(*(task for entry in gone for task in entry.tasks))
        for entry in self._entries.values():
            entry.reconciler.wake()
        for item in wanted - self._entries.keys():
            self._entries[item] = self._start(item)

    def _start(self, target: reconciling.Target) -> _Entry:
        reconciler = reconciling.Reconciler(
            cluster=self._cluster, settings=self._settings, target=target, confirm=self._confirm)
        watching = operator.build_one(
            self._settings, namespace=target.namespace, secret_name=target.secret_name, wake=reconciler.wake)
        tasks = (
            asyncio.create_task(supervision.keep("operator that watches one certificate", watching.run)),
            asyncio.create_task(supervision.keep("reconcile loop", reconciler.run)),
        )
        return _Entry(reconciler=reconciler, tasks=tasks)

    async def _end(self, *tasks: asyncio.Task[NoReturn]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
