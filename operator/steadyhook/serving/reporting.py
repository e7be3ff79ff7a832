"""
The reporter: keeps this instance's entry in its node's ManagerNode, and posts an Event when the phase changes.

It writes on change only; there is no heartbeat.
"""
import asyncio
import contextlib
import datetime
import logging
import random

from steadyhook import metrics, supervision
from steadyhook.cluster import client, events, paths, servers
from steadyhook.core import election, reasons, reporting, serving
from steadyhook.settings import Settings

logger = logging.getLogger(__name__)

RETRACT_SECONDS = 2.0
NEIGHBOUR_SECONDS = 60.0
"""How often to look whether the other pods in the list still exist; one that was killed cannot say goodbye."""


class Reporter:
    """To be used in the event loop in which it was made; run :meth:`run` as a task."""

    def __init__(self, *, cluster: client.Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._verdict = serving.Verdict(
            phase=serving.Phase.WAITING, reason=reasons.Reason.WAITING_FOR_SECRET, message="starting")
        self._role: election.Role | None = None
        self._problem: str | None = None
        self._notices: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._has_looked = False
        self._has_neighbours = False
        self._announced: tuple[serving.Phase, reasons.Reason] | None = None

    def set_verdict(self, verdict: serving.Verdict) -> None:
        self._verdict = verdict
        self._changed.set()

    def set_role(self, role: election.Role | None) -> None:
        self._role = role
        self._changed.set()

    def set_problem(self, problem: str | None) -> None:
        if problem != self._problem:  # it is told at each look for a seat
            self._problem = problem
            self._changed.set()

    def set_notice(self, key: str, text: str | None) -> None:
        """What a person has to know of, whatever is served; None when that is over."""
        if text is None:
            if self._notices.pop(key, None) is not None:
                self._changed.set()
        elif key not in self._notices:  # the first text will do: a new number in it is no news
            self._notices[key] = text
            logger.warning("%s.", text)
            self._changed.set()

    def look_again(self) -> None:
        """Someone has touched the ManagerNode: make sure that it still says what is true."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        pause = 1.0
        while True:
            await self._wait_for_change()
            try:
                await self._report()
                pause = 1.0
            except client.Conflict:
                self._changed.set()  # another pod of this node, or the first write of this one: look at it afresh
                await asyncio.sleep(random.uniform(0.0, 0.2))
            except client.APIError as error:
                logger.warning("ManagerNode %s could not be written, trying again: %s",
                               self._settings.instance.node_name, error)
                self._changed.set()
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, supervision.LONGEST_PAUSE_SECONDS)
            except Exception:
                self._changed.set()  # whoever starts this again has that to tell
                raise

    async def _wait_for_change(self) -> None:
        pause = NEIGHBOUR_SECONDS * random.uniform(0.5, 1.0) if self._has_neighbours else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._changed.wait()
        self._changed.clear()

    async def retract(self) -> None:
        """Take this instance's entry out, as far as that is possible within two seconds."""
        try:
            async with asyncio.timeout(RETRACT_SECONDS):
                manifest = await self._cluster.find(self._path)
                if manifest is not None:
                    await self._write(manifest, own=None, gone=frozenset())
        except (client.APIError, TimeoutError) as error:
            logger.info("The entry in ManagerNode %s stays behind: %s", self._settings.instance.node_name, error)

    async def _report(self) -> None:
        manifest = await self._cluster.find(self._path) or await self._create()
        instances = (manifest.get("status") or {}).get("instances", [])
        gone = await self._find_gone(instances)
        instance = self._settings.instance
        own = reporting.entry(
            pod_uid=instance.pod_uid, pod_name=instance.pod_name, address=instance.address,
            certificate=self._settings.certificate, verdict=self._verdict, role=self._role, problem=self._problem,
            notices=self._notices.values(),
            previous=reporting.find(instances, instance.pod_uid), now=_now())
        await self._write(manifest, own=own, gone=gone)
        await self._announce(manifest)

    async def _write(self, manifest: client.Manifest, *, own: reporting.Entry | None, gone: frozenset[str]) -> None:
        status = manifest.get("status") or {}
        before = status.get("instances", [])
        after = reporting.merge(before, pod_uid=self._settings.instance.pod_uid, own=own, gone=gone)
        if after == before:
            return
        await self._cluster.replace(f"{self._path}/status", {**manifest, "status": {**status, "instances": after}})
        metrics.WRITES.labels(object="ManagerNode", verb="update").inc()

    async def _create(self) -> client.Manifest:
        """Owned, so that it goes with what it speaks of. Raises Conflict when it was created meanwhile."""
        name = self._settings.instance.node_name
        created = await self._cluster.create(paths.manager_nodes(self._settings.namespace), {
            "apiVersion": f"{paths.GROUP}/{paths.VERSION}", "kind": "ManagerNode",
            "metadata": {"name": name, "namespace": self._settings.namespace,
                         "ownerReferences": await self._find_owners()},
            "spec": {"nodeName": name},
        })
        metrics.WRITES.labels(object="ManagerNode", verb="create").inc()
        return created

    async def _find_owners(self) -> list[client.Manifest]:
        """The Node; the pod, if its Node is gone before it; on a workstation nothing."""
        instance = self._settings.instance
        for kind, name, path in (("Node", instance.node_name, paths.node(instance.node_name)),
                                 ("Pod", instance.pod_name, paths.pod(self._settings.namespace, instance.pod_name))):
            with contextlib.suppress(client.Forbidden):
                owner = await self._cluster.find(path)
                if owner is not None:
                    return [{"apiVersion": "v1", "kind": kind, "name": name, "uid": owner["metadata"]["uid"]}]
        return []

    async def _find_gone(self, instances: list[reporting.Entry]) -> frozenset[str]:
        """The other pods in the list that are gone: the former one of this node, as a rule."""
        neighbours = [item for item in instances if self._is_neighbour(item)]
        gone: set[str] = set()
        for item in neighbours:
            try:
                pod = await self._cluster.find(paths.pod(self._settings.namespace, item["podName"]))
            except client.Forbidden:
                self._has_neighbours = False
                return frozenset(gone)
            except client.Malformed:  # no pod has such a name
                gone.add(item["podUID"])
                continue
            if servers.is_gone(pod, item["podUID"]):
                gone.add(item["podUID"])
        self._has_neighbours = len(neighbours) > len(gone)
        self._has_looked = True
        return frozenset(gone)

    def _is_neighbour(self, item: reporting.Entry) -> bool:
        # Of a process that is no pod nobody can say whether it is gone. Once, what it may have left is cleared; two
        # that live would clear each other's entries for ever.
        is_pod = item["podUID"] != item["podName"]
        return item["podUID"] != self._settings.instance.pod_uid and (is_pod or not self._has_looked)

    async def _announce(self, manifest: client.Manifest) -> None:
        """An Event for what a person would want to know: not that all is well from the start, on every node."""
        verdict = self._verdict
        before, self._announced = self._announced, (verdict.phase, verdict.reason)
        usual = (serving.Phase.WAITING, reasons.Reason.WAITING_FOR_SECRET)
        if self._announced in (before, usual) or (verdict.phase is serving.Phase.SERVING and before in (None, usual)):
            return
        kind = events.WARNING if verdict.phase is serving.Phase.DEGRADED else events.NORMAL
        await events.post(self._cluster, manifest, kind=kind, reason=verdict.reason,
                          message=f"{self._settings.instance.pod_name}: {verdict.message}",
                          component="steadyhook-server", now=_now())

    @property
    def _path(self) -> str:
        return paths.manager_node(self._settings.namespace, self._settings.instance.node_name)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
