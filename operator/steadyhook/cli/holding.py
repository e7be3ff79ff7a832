"""
Holding back the pods of a DaemonSet, so that they can be started in batches.

Each node has a label that says whether its pod is held back or started, and the DaemonSet a nodeSelector for the
latter and the strategy OnDelete, so that nothing else is replaced. What it was before is in an annotation of the
DaemonSet: all of it is in the cluster, and whoever comes next goes on from there.
"""
import collections.abc
import dataclasses
import enum
import json
import urllib.parse
from typing import Any

from steadyhook.cli import cluster

FORMER = "steadyhook.io/strategy-before-batches"
STARTED, HELD = "started", "held"
NODES = "/api/v1/nodes"
NAMES_SHOWN = 5


class Stage(enum.Enum):
    """How far it has come."""

    NOTHING = "nothing is to be done"
    BEGIN = "nothing is held back yet"
    STARTING = "batches are being started"
    RELEASED = "all are started; the DaemonSet's own strategy is at work"


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    stage: Stage
    text: str  # what would be done, after "would"


class Hold:
    """Of one DaemonSet, by its path."""

    def __init__(self, found: cluster.Cluster, path: str, *, size: int) -> None:
        self._found = found
        self._path = path
        self._size = size
        uid = found.get(path)["metadata"]["uid"]
        self._label = f"batches.steadyhook.io/{uid}"

    def plan(self, held: cluster.Manifest) -> Plan:
        """What is to be done, from what the DaemonSet is like now."""
        if FORMER in (held["metadata"].get("annotations") or {}):
            waiting = self._nodes(HELD)
            if self._label in _selector(held):
                return Plan(Stage.STARTING, f"start {len(waiting)} pods that are held back, {self._size} at a time")
            return Plan(Stage.RELEASED, "wait until the DaemonSet's own strategy has replaced its pods")
        if (held["spec"].get("updateStrategy") or {}).get("type") == "OnDelete":
            raise cluster.Failed(f"{held['metadata']['name']} has the update strategy OnDelete, expected RollingUpdate:"
                                 " its pods could not be brought back to its template afterwards; delete them in"
                                 " batches by hand")
        ready, others = self._pods(held)
        if not others:
            return Plan(Stage.NOTHING, f"all {len(ready)} pods are ready")
        return Plan(Stage.BEGIN, f"leave {len(ready)} pods that are ready, stop the other {len(others)}, and start them"
                                 f" {self._size} at a time")

    def begin(self, held: cluster.Manifest) -> None:
        """Stop the pods that are not ready. Raises :class:`cluster.Conflict` if the DaemonSet has changed."""
        ready, others = self._pods(held)
        for node in sorted(ready):
            self._mark(node, STARTED)
        for node in sorted(others):
            self._mark(node, HELD)
        former = held["spec"].get("updateStrategy") or {}
        self._found.merge(self._path, {
            "metadata": {"resourceVersion": held["metadata"]["resourceVersion"],
                         "annotations": {FORMER: json.dumps(former)}},
            "spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None},
                     "template": {"spec": {"nodeSelector": {self._label: STARTED}}}}})

    def next_batch(self) -> list[str]:
        """
        Let the next pods start, and tell their nodes.

        After an interruption that is the batch that was under way. Empty: all are started.
        """
        held = self._found.get(self._path)
        if self._label not in _selector(held):
            return []
        ready, _ = self._pods(held)
        under_way = sorted(set(self._nodes(STARTED)) - ready)
        if under_way:
            return under_way
        batch = self._nodes(HELD)[:self._size]
        for node in batch:
            self._mark(node, STARTED)
        return batch

    def stopping(self) -> str | None:
        """Which pods have still to stop, in words."""
        ready, others = self._pods(self._found.get(self._path))
        still = (ready | others) & set(self._nodes(HELD))
        return f"{len(still)} pods have not stopped yet" if still else None

    def missing(self, batch: collections.abc.Collection[str]) -> str | None:
        """What is still to come of a batch, in words."""
        ready, _ = self._pods(self._found.get(self._path))
        waiting = [node for node in batch if node not in ready]
        if not waiting:
            return None
        more = f" and {len(waiting) - NAMES_SHOWN} more" if len(waiting) > NAMES_SHOWN else ""
        return (f"{len(ready)} pods ready, {len(self._nodes(HELD))} held back, waiting for"
                f" {', '.join(waiting[:NAMES_SHOWN])}{more}")

    def standing(self) -> str:
        """How far it has come, in words, for whoever interrupts it."""
        held = self._found.get(self._path)
        if FORMER not in (held["metadata"].get("annotations") or {}):
            return "no pod is held back, and the DaemonSet is as it was before"
        if self._label not in _selector(held):
            return "all pods are started, and the DaemonSet's own strategy is at work"
        waiting = self._nodes(HELD)
        more = f" and {len(waiting) - NAMES_SHOWN} more" if len(waiting) > NAMES_SHOWN else ""
        nodes = f" ({', '.join(waiting[:NAMES_SHOWN])}{more})" if waiting else ""
        return (f"{len(waiting)} pods are still held back, on nodes with the label {self._label}={HELD}{nodes}, and the"
                " DaemonSet replaces no pod by itself until that is ended")

    def release(self) -> None:
        """Give the DaemonSet back its template and its strategy; the annotation stays until :meth:`forget`."""
        held = self._found.get(self._path)
        if self._label not in _selector(held):
            return
        former = json.loads(held["metadata"]["annotations"][FORMER])
        self._found.merge(self._path, {
            "metadata": {"resourceVersion": held["metadata"]["resourceVersion"]},
            "spec": {"updateStrategy": former, "template": {"spec": {"nodeSelector": {self._label: None}}}}})

    def forget(self) -> None:
        """Take away the labels, then the annotation."""
        for node in [*self._nodes(HELD), *self._nodes(STARTED)]:
            self._mark(node, None)
        self._found.merge(self._path, {"metadata": {"annotations": {FORMER: None}}})

    def _nodes(self, state: str) -> list[str]:
        query = urllib.parse.urlencode({"labelSelector": f"{self._label}={state}"})
        return sorted(item["metadata"]["name"] for item in self._found.list(f"{NODES}?{query}"))

    def _mark(self, node: str, state: str | None) -> None:
        self._found.merge(f"{NODES}/{node}", {"metadata": {"labels": {self._label: state}}})

    def _pods(self, held: cluster.Manifest) -> tuple[set[str], set[str]]:
        """The nodes whose pod is ready, and those with another one."""
        namespace, uid = held["metadata"]["namespace"], held["metadata"]["uid"]
        query = urllib.parse.urlencode({"labelSelector": _selection(held["spec"]["selector"])})
        pods = [item for item in self._found.list(f"/api/v1/namespaces/{namespace}/pods?{query}")
                if any(owner.get("uid") == uid for owner in item["metadata"].get("ownerReferences") or [])]
        ready = {_node(item) for item in pods if _is_ready(item)}
        return ready - {""}, {_node(item) for item in pods} - ready - {""}


def _selection(selector: dict[str, Any]) -> str:
    """As a query has it; without expressions, which only widen it to pods that the owner tells apart."""
    return ",".join(f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items())


def _selector(held: cluster.Manifest) -> dict[str, str]:
    return held["spec"]["template"]["spec"].get("nodeSelector") or {}


def _is_ready(pod: cluster.Manifest) -> bool:
    gone = "deletionTimestamp" in pod["metadata"]
    conditions = (pod.get("status") or {}).get("conditions") or []
    return not gone and any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _node(pod: cluster.Manifest) -> str:
    """Where it is, or where its DaemonSet wants it."""
    if name := pod["spec"].get("nodeName"):
        return str(name)
    required = pod["spec"].get("affinity", {}).get("nodeAffinity", {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution", {})
    return next((str(field["values"][0]) for term in required.get("nodeSelectorTerms", ())
                 for field in term.get("matchFields", ()) if field["key"] == "metadata.name"), "")
