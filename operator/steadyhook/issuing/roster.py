"""
One issuer for the certificates of all namespaces: a reconcile loop for each, one election, one event loop.

A kopf operator of several namespaces would look for its peering in each of them, and one for each certificate would be
a thread and some MiB. So the seat is kept at home by a kopf operator, and everything else is watched from here, by
coroutines: the certificates, the configurations, and of each certificate that may be looked after its two Secrets.

Anybody who may create a WebhookCertificate somewhere has a part in this process. So nothing of a certificate may cost
the others more than its share: see ``pacing`` for how often and how many, and here what is kept of each.
"""
import asyncio
import collections.abc
import contextlib
import dataclasses
import datetime
import logging
import random
import time

from steadyhook import supervision
from steadyhook.cluster import asking, client, observing, paths, sharing, watching
from steadyhook.core import policy, rivals
from steadyhook.issuing import operator, pacing, reconciling
from steadyhook.settings import Settings

logger = logging.getLogger(__name__)

LOOK_SECONDS = 60.0
"""How often to see whether this is still the active instance, if nothing wakes it."""
SPREAD_SECONDS = 2.0
"""A change that concerns all certificates is not looked at by all of them at the same moment."""
APPEAR_SECONDS = 0.05
"""For so long certificates that appear or go are gathered, before the list of them is made anew."""
GATHER_SECONDS = 1.0
"""Changes of configurations are looked at together: an application that starts writes all its definitions."""

Name = tuple[str, str]
"""Namespace and name of a WebhookCertificate."""


@dataclasses.dataclass(slots=True, kw_only=True)
class _Entry:
    """What is done for one certificate: a loop, and once it may be looked after, watches by the path and the name."""

    target: reconciling.Target
    reconciler: reconciling.Reconciler
    tasks: dict[Name, asyncio.Task[None]]
    watches: dict[Name, watching.Watch] = dataclasses.field(default_factory=dict)
    wanted: policy.Policy | None = None


def targets(manifests: collections.abc.Collection[client.Manifest]) -> frozenset[reconciling.Target]:
    """What is to be looked after, and whose rival each is."""
    found = rivals.find(manifests)
    return frozenset(
        reconciling.Target(
            namespace=item["metadata"]["namespace"], certificate=item["metadata"]["name"],
            secret_name=(item.get("spec") or {}).get("secretName", ""),
            rival=found[item["metadata"]["namespace"], item["metadata"]["name"]])
        for item in manifests)


def outline(manifest: client.Manifest) -> client.Manifest:
    """What is kept of a WebhookCertificate: whoever writes big ones does not fill the memory."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    kept = {key: metadata[key] for key in (
        "namespace", "name", "uid", "generation", "creationTimestamp", "deletionTimestamp") if key in metadata}
    kept["annotations"] = policy.requests(metadata.get("annotations") or {})
    return {"metadata": kept, "spec": manifest.get("spec") or {},
            "status": {key: status[key] for key in ("fingerprint",) if key in status}}


class Roster:
    """To be run by the event loop in which it was made; only :meth:`wake` may be called from other threads."""

    def __init__(self, *, cluster: client.Cluster, settings: Settings, confirm: reconciling.Confirm) -> None:
        self._cluster = cluster
        self._settings = settings
        self._ask = confirm
        self._asking: sharing.Shared[bool] = sharing.Shared()
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._configured = asyncio.Event()
        self._calls = observing.Calls(on_change=self._wake_called)
        self._turns = pacing.Turns()
        self._manifests: dict[Name, client.Manifest] = {}
        self._entries: dict[Name, _Entry] = {}
        self._update_due: asyncio.TimerHandle | None = None
        self._asked: dict[Name, str] = {}  # by kind and uid of a configuration: what its annotation asks for
        self._nodes: dict[str, tuple[watching.Watch, asyncio.Task[None]]] = {}  # by namespace
        self._instances: dict[Name, frozenset[str]] = {}  # of a ManagerNode: the certificates that are served there
        self._overview: list[watching.Watch] = []
        self._was_refused = False  # whether somebody has been told that this is not the active instance, and rests
        self._completed = time.monotonic()
        self._unserved_since: float | None = None
        self.completed_at: datetime.datetime | None = None
        """When the loop came round last, by UTC; None if it did not yet."""

    def wake(self, delay: float = 0.0) -> None:
        """Let every certificate be looked at again within ``delay`` and some seconds. From any thread."""
        self._loop.call_soon_threadsafe(self._wake_all, delay)

    # ---- health: of the loop that has them all; of each certificate's there is a time limit ----

    def seconds_since_pass(self) -> float:
        """For how long the loop has not come round."""
        return time.monotonic() - self._completed

    def woken_unserved_seconds(self) -> float:
        """For how long it has been woken without having come round, 0.0 if it was not."""
        return time.monotonic() - self._unserved_since if self._unserved_since is not None else 0.0

    def trouble(self) -> str | None:
        """What keeps this from seeing the certificates at all, so that no condition of one can tell it."""
        refusal = next((item.refusal for item in self._overview if item.refusal is not None), None)
        return f"what there is cannot be watched: {refusal}; apply the manifests of this version" if refusal else None

    # ---- the loop ----

    async def run(self) -> None:
        """Until cancelled. An instance that stands by watches nothing."""
        overview: list[asyncio.Task[None]] = []
        try:
            while True:
                self._woken.clear()
                try:
                    is_active = await self._confirm()
                except client.APIError as error:
                    logger.warning("Whether this instance is active could not be read: %s", error)
                else:
                    if is_active and not overview:
                        overview = self._start_overview()
                    elif is_active and self._was_refused:
                        self._wake_entries(0.0)  # the record was renewed late: who asked meanwhile would rest for long
                    elif not is_active and overview:
                        await self._end(overview)
                        overview = []
                    self._was_refused = False
                self._completed, self._unserved_since = time.monotonic(), None
                self.completed_at = datetime.datetime.now(datetime.UTC)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS * random.uniform(0.8, 1.2)):
                        await self._woken.wait()
                self._unserved_since = time.monotonic()
        finally:
            await asyncio.shield(self._end(overview))

    async def _confirm(self) -> bool:
        """As fresh as a read of one's own, and one read for all that want to know at the same time."""
        result = await self._asking.get(self._ask)
        if not result and self._entries:
            self._was_refused = True
            self._woken.set()
        return result

    def _wake_all(self, delay: float) -> None:
        if self._unserved_since is None:
            self._unserved_since = time.monotonic()
        self._woken.set()
        self._wake_entries(delay)

    def _wake_entries(self, delay: float) -> None:
        for entry in self._entries.values():
            entry.reconciler.wake(delay + random.uniform(0.0, SPREAD_SECONDS))

    # ---- what all certificates have in common ----

    def _start_overview(self) -> list[asyncio.Task[None]]:
        certificates = watching.Watch(
            self._cluster, paths.all_certificates(), whole=True, kept=outline, listed=self._list_certificates,
            changed=self._change_certificate)
        self._overview = [certificates, *(self._watch_kind(kind) for kind in paths.CONFIGURATION_KINDS)]
        parts = [("watch of all certificates", certificates.run),
                 *(("watch of configurations", item.run) for item in self._overview[1:]),
                 ("look at configurations", self._follow_configurations)]
        return [asyncio.create_task(supervision.keep(part, run), name=part) for part, run in parts]

    def _watch_kind(self, kind: str) -> watching.Watch:
        def listed(items: list[client.Manifest]) -> None:
            present = {item["metadata"]["uid"] for item in items}
            for one, uid in [key for key in self._asked if key[0] == kind and key[1] not in present]:
                self._change_configuration(one, {"metadata": {"uid": uid}}, gone=True)
            for item in items:
                changed("MODIFIED", item)

        def changed(event: str, item: client.Manifest) -> None:
            self._change_configuration(kind, item, gone=event == "DELETED")

        return watching.Watch(self._cluster, paths.configurations(kind), listed=listed, changed=changed)

    async def _end(self, overview: list[asyncio.Task[None]]) -> None:
        """End everything, and forget it."""
        nodes = [task for _, task in self._nodes.values()]
        tasks = [*overview, *nodes, *(task for entry in self._entries.values() for task in entry.tasks.values())]
        if self._update_due is not None:
            self._update_due.cancel()
            self._update_due = None
        self._entries.clear()
        self._manifests.clear()
        self._nodes.clear()
        self._instances.clear()
        self._overview = []
        await _cancel(tasks)

    def _list_certificates(self, items: list[client.Manifest]) -> None:
        self._manifests = {_name(item): outline(item) for item in items}
        self._update_soon()

    def _change_certificate(self, event: str, item: client.Manifest) -> None:
        name = _name(item)
        before = self._manifests.pop(name, None)
        if event != "DELETED":
            self._manifests[name] = outline(item)
            if before is not None and _role(before) == _role(self._manifests[name]) and name in self._entries:
                self._see(name)
                return
        self._update_soon()

    def _update_soon(self) -> None:
        if self._update_due is None:
            self._update_due = self._loop.call_later(APPEAR_SECONDS, self._update)

    def _update(self) -> None:
        """Start what has appeared, end what has gone."""
        self._update_due = None
        wanted = {(item.namespace, item.certificate): item for item in targets(self._manifests.values())}
        others = {namespace for namespace, _ in wanted.keys() ^ self._entries.keys()}
        for name in [name for name, entry in self._entries.items() if wanted.get(name) != entry.target]:
            for task in self._entries.pop(name).tasks.values():
                task.cancel()
        for name, target in wanted.items():
            if name not in self._entries:
                self._entries[name] = self._start(target)
            self._see(name)
            if name[0] in others and _is_ours(self._entries[name]):
                self._entries[name].reconciler.wake()  # a configuration may ask for one that is, or is no more
        needed = {namespace for (namespace, _), entry in self._entries.items() if _is_ours(entry)}
        for namespace in self._nodes.keys() - needed:
            self._nodes.pop(namespace)[1].cancel()
            self._instances = {node: names for node, names in self._instances.items() if node[0] != namespace}

    def _see(self, name: Name) -> None:
        """Tell the loop of a certificate how it looks; it knows by itself whether that is news."""
        self._entries[name].reconciler.see(self._manifests[name])

    # ---- configurations ----

    def _change_configuration(self, kind: str, item: client.Manifest, *, gone: bool) -> None:
        """Wake the one that is asked for by annotation; who is called otherwise has to be read."""
        metadata = item["metadata"]
        uid, asked = metadata["uid"], (metadata.get("annotations") or {}).get(asking.INJECT_FROM, "")
        before = self._asked.pop((kind, uid), "")
        if asked and not gone:
            self._asked[kind, uid] = asked
        for text in {asked, before} - {""}:
            namespace, _, name = text.partition("/")
            if entry := self._entries.get((namespace, name)):
                entry.reconciler.changed(kind, uid, None if gone else metadata["resourceVersion"])
        self._configured.set()

    async def _follow_configurations(self) -> None:
        """Read what has changed, once for all certificates: whom it concerns is woken by that."""
        self._configured.set()  # what it may have missed, if it has ended by itself
        while True:
            await self._configured.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._configured.clear()
            if not any(_is_a_listeners(entry) for entry in self._entries.values()):
                continue  # nobody wants to know
            try:
                await self._calls.refresh(self._cluster)
            except client.APIError as error:
                logger.debug("The configurations could not be read: %s", error)
                self._configured.set()
                await asyncio.sleep(random.uniform(1.0, 5.0))

    def _wake_called(self, services: observing.Services) -> None:
        for entry in self._entries.values():
            if entry.wanted is not None and _is_a_listeners(entry) and entry.wanted.services & services:
                entry.reconciler.wake()

    # ---- one certificate ----

    def _start(self, target: reconciling.Target) -> _Entry:
        reconciler = reconciling.Reconciler(
            cluster=self._cluster, settings=self._settings, target=target, confirm=self._confirm,
            manifest=self._manifests[target.namespace, target.certificate], calls=self._calls, turns=self._turns,
            on_look=lambda wanted: self._watch(target, wanted), is_watched=lambda: self._is_watched(target))
        task = asyncio.create_task(supervision.keep("issuing of one certificate", reconciler.run),
                                   name=f"{target.namespace}/{target.certificate}")
        return _Entry(target=target, reconciler=reconciler, tasks={("", ""): task})

    def _watch(self, target: reconciling.Target, wanted: policy.Policy) -> None:
        """Begin to watch what belongs to a certificate, now that it could be read."""
        entry = self._entries.get((target.namespace, target.certificate))
        if entry is None or entry.target != target:
            return
        entry.wanted = wanted
        names = {("secrets", wanted.secret_name), ("secrets", wanted.authority_secret_name)}
        for key in names - entry.watches.keys():
            entry.watches[key] = watch = self._watch_secret(entry.reconciler, target.namespace, key[1])
            entry.tasks[key] = asyncio.create_task(supervision.keep("watch of a Secret", watch.run))
        for key in entry.watches.keys() - names:
            del entry.watches[key]
            entry.tasks.pop(key).cancel()
        if _is_ours(entry) and target.namespace not in self._nodes:
            nodes = self._watch_nodes(target.namespace)
            self._nodes[target.namespace] = nodes, asyncio.create_task(
                supervision.keep("watch of ManagerNodes", nodes.run))

    def _watch_secret(
        self, reconciler: reconciling.Reconciler, namespace: str, name: str
    ) -> watching.Watch:
        def listed(items: list[client.Manifest]) -> None:
            reconciler.changed("Secret", name, items[0]["metadata"]["resourceVersion"] if items else None)

        def changed(event: str, item: client.Manifest) -> None:
            reconciler.changed("Secret", name, None if event == "DELETED" else item["metadata"]["resourceVersion"])

        return watching.Watch(self._cluster, paths.secrets(namespace), name=name, listed=listed, changed=changed)

    def _watch_nodes(self, namespace: str) -> watching.Watch:
        def listed(items: list[client.Manifest]) -> None:
            present = {item["metadata"]["name"] for item in items}
            for one in [one for space, one in self._instances if space == namespace and one not in present]:
                changed("DELETED", {"metadata": {"name": one}})
            for item in items:
                changed("MODIFIED", item)

        def changed(event: str, item: client.Manifest) -> None:
            node = namespace, item["metadata"]["name"]
            before = self._instances.pop(node, frozenset())
            after = frozenset(one.get("certificate", "") for one in (item.get("status") or {}).get("instances", []))
            if event != "DELETED":
                self._instances[node] = after
            for name in before | after:
                if entry := self._entries.get((namespace, name)):
                    entry.reconciler.wake(operator.GATHER_SECONDS)

        return watching.Watch(self._cluster, paths.manager_nodes(namespace), whole=True, listed=listed, changed=changed)

    def _is_watched(self, target: reconciling.Target) -> bool:
        """Whether a change of anything that belongs to the certificate would be told."""
        entry = self._entries.get((target.namespace, target.certificate))
        if entry is None or not entry.watches:
            return False
        own = [*entry.watches.values(), *self._overview]
        if _is_ours(entry):
            own += [self._nodes[target.namespace][0]] if target.namespace in self._nodes else []
        return all(item.current for item in own)


def _name(manifest: client.Manifest) -> Name:
    return manifest["metadata"]["namespace"], manifest["metadata"]["name"]


def _role(manifest: client.Manifest) -> tuple[object, ...]:
    """What decides which Secrets are whose."""
    return manifest["metadata"]["uid"], rivals.claim(manifest)


def _is_ours(entry: _Entry) -> bool:
    """Whether the certificate is served by instances of ours, which tell what they serve by ManagerNodes."""
    return entry.wanted is not None and entry.wanted.compatibility is None


def _is_a_listeners(entry: _Entry) -> bool:
    """Whether it is served by programs that nothing in the metadata of a configuration tells of."""
    return entry.wanted is not None and entry.wanted.compatibility is not None


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
