"""A DaemonSet of twenty pods that contend for a Secret, for the repairs."""
import os
import sys
from collections.abc import Callable

import yaml

from cli import contender
from devcluster import audit, facade
from steadyhook.cli import contending

PODS = 20
NAME = "webhook"


class Workload:
    """In a namespace, on nodes of its own."""

    def __init__(self, cluster: facade.DevCluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.nodes = [f"{namespace}-{number}" for number in range(PODS)]

    def apply(self) -> None:
        """The nodes, the rights and the DaemonSet; the pods start by themselves."""
        self.cluster.add_nodes(self.nodes, labels={"steadyhook.io/pool": self.namespace})
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": NAME},
                "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "create", "update"]}]}
        binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": NAME},
                   "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
                   "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": self.namespace}]}
        labels = {"app": NAME}
        container = {
            "name": NAME, "image": "steadyhook", "command": ["python", "-m", "cli.contender"],
            "env": [{"name": "PYTHONPATH", "value": os.pathsep.join(item for item in sys.path if item)},
                    {"name": "POD_NAMESPACE", "value": self.namespace},
                    {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
            "readinessProbe": {"tcpSocket": {"port": contender.PORT}, "periodSeconds": 1}}
        daemonset = {
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": NAME}, "spec": {
                "selector": {"matchLabels": labels}, "updateStrategy": {"rollingUpdate": {"maxUnavailable": 5}},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "nodeSelector": {"steadyhook.io/pool": self.namespace}, "terminationGracePeriodSeconds": 1,
                    "containers": [container]}}}}
        self.cluster.kubectl("apply", "-n", self.namespace, "-f", "-",
                             input=yaml.safe_dump_all([role, binding, daemonset]))

    def remove(self) -> None:
        self.cluster.kubectl("delete", "daemonset", NAME, "-n", self.namespace, "--wait=false")
        self.delete_pods()
        self.wait(lambda: not self.cluster.pods(self.namespace), "the pods to be gone")
        for node in self.nodes:
            self.cluster.remove_node(node)

    def delete_pods(self) -> None:
        self.cluster.kubectl("delete", "pod", "--all", "-n", self.namespace, "--grace-period=0", "--force")

    def wait_ready(self) -> None:
        self.wait(lambda: self.ready() == PODS, "the pods")

    def wait(self, condition: Callable[[], object], what: str) -> None:
        self.cluster.wait_for(condition, 90, what)

    def ready(self) -> int:
        return sum(pod.ready for pod in self.cluster.pods(self.namespace))

    def uids(self) -> dict[str, str]:
        """Of the pods, by node."""
        items = self.cluster.request("GET", f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        return {item["spec"].get("nodeName", ""): item["metadata"]["uid"] for item in items}

    def daemonset(self) -> dict[str, object]:
        found: dict[str, object] = self.cluster.request(
            "GET", f"/apis/apps/v1/namespaces/{self.namespace}/daemonsets/{NAME}")
        return found

    def node_labels(self) -> set[str]:
        """The labels that a repair has put on nodes."""
        items = self.cluster.request("GET", f"/api/v1/nodes?labelSelector=steadyhook.io/pool={self.namespace}")["items"]
        return {key for item in items for key in item["metadata"]["labels"] if key.startswith("batches.")}

    def writes(self, *, since: int) -> tuple[int, int]:
        """What the pods have written to the Secret: done, and refused as a conflict."""
        found = self.cluster.audit.select(verb=("create", "update"), resource="secrets", namespace=self.namespace,
                                          since=since)
        codes = [audit.code_of(event) for event in found
                 if event["user"]["username"] == f"system:serviceaccount:{self.namespace}:default"]
        return sum(code < 300 for code in codes), sum(code == 409 for code in codes)

    def delete_secret(self) -> None:
        self.cluster.kubectl("delete", "secret", contending.SECRET, "-n", self.namespace)
