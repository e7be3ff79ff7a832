"""steadyhook installed from the real manifests, in a namespace and on nodes of its own, beside others in a cluster."""
import collections
import contextlib
import dataclasses
import datetime
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from devcluster import api, audit, facade, lifecycle

MANIFESTS = pathlib.Path(__file__).parents[2] / "manifests"
DEFAULT_NAMESPACE = "steadyhook-system"
ISSUERS_NAMESPACE = "steadyhook-issuers"
HOMES = {"issuer": ISSUERS_NAMESPACE, "longhorn": ISSUERS_NAMESPACE, "rancher": ISSUERS_NAMESPACE}
"""The namespace of an overlay, where it is another one."""
SECRET = "steadyhook-webhook-tls"
AUTHORITY = f"{SECRET}-ca"
CERTIFICATE = "steadyhook-webhook"
WRITE_VERBS = ("create", "update", "patch", "delete")

JsonObject = dict[str, Any]


class Installation:
    """
    One layout of the manifests, renamed so that many can share a cluster, with ``nodes`` nodes of its own.

    ``env`` is added to each container's environment, ``modules`` of this folder to its handlers. Cluster-scoped objects
    get the namespace as a suffix. ``in_cluster``: the pods have the credentials of real pods, and no KUBECONFIG.
    """

    def __init__(
        self, cluster: facade.DevCluster, namespace: str, *, layout: str = "manager", nodes: int = 3,
        env: dict[str, str] | None = None, modules: tuple[str, ...] = (),
        without: Callable[[JsonObject], bool] = lambda item: False, in_cluster: bool = False,
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.apps_namespace = f"{namespace}-apps"
        self.node_names = [f"{namespace}-{number}" for number in range(1, nodes + 1)]
        self._layout = layout
        self._env = {"STEADYHOOK_DRAIN_SECONDS": "2", **(env or {})}
        self._modules = modules
        if modules:
            self._env["PYTHONPATH"] = f"{MANIFESTS.parent / 'operator'}:{pathlib.Path(__file__).parent}"
        self._without = without
        self._in_cluster = in_cluster
        self.objects: list[JsonObject] = []
        self.labels: dict[str, str] = {}  # of each ConfigMap that is sent through the webhooks

    # ---- life ----

    def install(self, *, at_once: bool = False) -> None:
        """Register the nodes and apply the manifests. ``at_once``: every pod's process starts at the same moment."""
        self.cluster.add_nodes(self.node_names, labels={"steadyhook.io/pool": self.namespace})
        self.cluster.kubectl("create", "namespace", self.apps_namespace)
        self.cluster.kubectl("label", "namespace", self.apps_namespace, f"steadyhook.io/example={self.namespace}")
        self.objects = [item for item in self.render() if not self._without(item)]
        if at_once:
            self.cluster.hold_pod_starts()
        try:
            self.apply(self.objects)
            if at_once:
                self.cluster.wait_for(lambda: sum(pod.held for pod in self.pods()) >= len(self.node_names), 60,
                                      "all pods to be bound")
        finally:
            if at_once:
                self.cluster.release_pod_starts()

    def apply(self, objects: list[JsonObject]) -> None:
        self.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(objects))

    def uninstall(self) -> None:
        """Take everything away and wait until no pod is left, so that the next test has the machine for itself."""
        scoped = [item for item in self.objects if "namespace" not in item["metadata"]]
        if scoped:
            self.cluster.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-",
                                 input=yaml.safe_dump_all(scoped))
        for kind in ("daemonset", "deployment"):
            self.cluster.kubectl("delete", kind, "--all", "-n", self.namespace, "--wait=false", check=False)
        self.cluster.kubectl("delete", "pod", "--all", "-n", self.namespace, "--grace-period=0", "--force", check=False)
        self.cluster.wait_for(lambda: not self.pods(), 60, "the pods to be gone")
        self.cluster.kubectl("delete", "namespace", self.apps_namespace, "--wait=false", check=False)
        for name in self.node_names:
            with contextlib.suppress(KeyError):
                self.cluster.remove_node(name)

    def render(self) -> list[JsonObject]:
        """The objects of the layout under the names of this installation."""
        text = self.cluster.kubectl("kustomize", str(MANIFESTS / "overlays" / self._layout))
        home = HOMES.get(self._layout, DEFAULT_NAMESPACE)
        objects = [item for item in yaml.safe_load_all(text.replace(home, self.namespace))
                   if item["kind"] not in ("Namespace", "CustomResourceDefinition")]
        for item in objects:
            self._rename(item)
            if item["kind"] in ("DaemonSet", "Deployment"):
                self._place(item["spec"]["template"])
        return objects

    def _rename(self, item: JsonObject) -> None:
        suffix = f"-{self.namespace}"
        kind = item["kind"]
        if "namespace" not in item["metadata"]:
            item["metadata"]["name"] += suffix
        if kind.endswith("RoleBinding") and item["roleRef"]["kind"] == "ClusterRole":
            item["roleRef"]["name"] += suffix
        if kind == "ClusterRole":
            for rule in item["rules"]:
                rule["resourceNames"] = [name + suffix for name in rule.get("resourceNames", [])]
        if kind == "ValidatingAdmissionPolicyBinding":
            item["spec"]["policyName"] += suffix
        for webhook in item.get("webhooks", []):
            webhook["namespaceSelector"]["matchLabels"] = {"steadyhook.io/example": self.namespace}

    def _place(self, template: JsonObject) -> None:
        pod = template["spec"]
        if self._in_cluster:
            template["metadata"].setdefault("annotations", {})[lifecycle.CREDENTIALS] = "in-cluster"
        pod["nodeSelector"] = {"steadyhook.io/pool": self.namespace}
        for container in pod["containers"]:
            container["args"].extend(f"--module={module}" for module in self._modules)
            container.setdefault("env", []).extend({"name": k, "value": v} for k, v in self._env.items())

    # ---- what is there ----

    def pods(self, component: str | None = None) -> list[facade.PodProcess]:
        """The processes of this installation, all or those of one component (manager, server, issuer)."""
        return [pod for pod in self.cluster.pods(self.namespace)
                if component in (None, pod.labels.get("app.kubernetes.io/component"))]

    def get(self, path: str) -> JsonObject:
        """An object in this installation's namespace, by the path below it (``api/v1 secrets/NAME``)."""
        group, rest = path.split(" ")
        prefix = "/api/v1" if group == "v1" else f"/apis/{group}"
        return self.cluster.request("GET", f"{prefix}/namespaces/{self.namespace}/{rest}")

    def secret(self, name: str = SECRET) -> JsonObject | None:
        """A Secret, or None."""
        try:
            return self.get(f"v1 secrets/{name}")
        except api.ApiError as error:
            if error.status != 404:
                raise
            return None

    def fingerprint(self) -> str | None:
        """The leaf that the Secret is marked ready for, or None."""
        secret = self.secret()
        return (secret["metadata"].get("annotations") or {}).get("steadyhook.io/ready") if secret else None

    def certificate(self) -> JsonObject:
        return self.get(f"steadyhook.io/v1alpha1 webhookcertificates/{CERTIFICATE}")

    def conditions(self) -> dict[str, JsonObject]:
        """The conditions of the WebhookCertificate by type."""
        return {item["type"]: item for item in (self.certificate().get("status") or {}).get("conditions", [])}

    def instances(self) -> list[JsonObject]:
        """The entries of all ManagerNodes, each with its ``node``."""
        nodes = self.get("steadyhook.io/v1alpha1 managernodes")["items"]
        return [{**item, "node": node["metadata"]["name"]} for node in nodes
                for item in (node.get("status") or {}).get("instances", [])]

    def peers(self) -> dict[str, int]:
        """The live records of the peering: priority by identity."""
        status = self.get("kopf.dev/v1 kopfpeerings/steadyhook").get("status") or {}
        now = datetime.datetime.now(datetime.UTC)
        return {identity: item["priority"] for identity, item in status.items()
                if datetime.datetime.fromisoformat(item["lastseen"])
                + datetime.timedelta(seconds=item["lifetime"]) > now}

    def active(self) -> facade.PodProcess:
        """The pod of the active instance. Raises LookupError if there is none."""
        peers = self.peers()
        name = max(peers, key=lambda identity: peers[identity], default=None)
        pod = next((pod for pod in self.pods() if pod.name == name), None)
        if pod is None:
            raise LookupError(f"no pod is active; the peers are {peers}")
        return pod

    def events(self, reason: str | None = None) -> list[JsonObject]:
        """The Events of this installation's own objects, all or those with one reason."""
        return [item for item in self.get("v1 events")["items"]
                if item["source"].get("component", "").startswith("steadyhook") and reason in (None, item["reason"])]

    def logs(self) -> str:
        return "\n".join(pod.log() for pod in self.pods())

    # ---- waiting ----

    def wait_serving(self, count: int | None = None, *, timeout: float = 90, but_not: str | None = None) -> str:
        """Wait until every serving instance serves the Secret's leaf; return its fingerprint."""
        expected = len(self.node_names) if count is None else count

        def serving() -> str | None:
            fingerprint = self.fingerprint()
            served = [item.get("fingerprint") for item in self.instances() if item["phase"] == "Serving"]
            assert fingerprint != but_not, f"still the leaf {but_not}"
            assert served == [fingerprint] * expected, f"{fingerprint} in the Secret, served: {served}"
            return fingerprint

        found = self.cluster.wait_for(serving, timeout, f"{expected} instances serving the Secret's leaf")
        assert found is not None
        return found

    def wait_ready(self, *, timeout: float = 90) -> None:
        """Wait until the Service has an endpoint on every node: only then the API server reaches all of them."""
        def endpoints() -> bool:
            slices = self.get("discovery.k8s.io/v1 endpointslices?labelSelector="
                              "kubernetes.io/service-name%3Dsteadyhook-webhook")["items"]
            ready = sum(bool(item["conditions"].get("ready")) for part in slices for item in part["endpoints"] or [])
            return ready >= len(self.node_names)

        self.cluster.wait_for(endpoints, timeout, f"{len(self.node_names)} ready endpoints")

    # ---- counting ----

    def position(self) -> int:
        return self.cluster.audit.position()

    def writes(self, resource: str, name: str | None = None, *, since: int = 0) -> list[JsonObject]:
        """
        The successful and failed writes of this installation's own accounts to a resource, from the audit log.

        A trial (dry run) is no write.
        """
        prefix = f"system:serviceaccount:{self.namespace}:"
        found = self.cluster.audit.select(verb=WRITE_VERBS, resource=resource, since=since)
        return [event for event in found if event["user"]["username"].startswith(prefix)
                and name in (None, audit.name_of(event)) and "dryRun=All" not in event["requestURI"]]

    def secret_writes(self, *, since: int = 0) -> list[tuple[str, int]]:
        """(verb, HTTP status) of every write to the leaf Secret by this installation."""
        return [(event["verb"], audit.code_of(event)) for event in self.writes("secrets", SECRET, since=since)]

    # ---- admission requests ----

    def admit(self, replicas: str = "3", *, name: str = "probe") -> JsonObject:
        """A dry-run create of a ConfigMap that passes through both example webhooks. Raises `api.ApiError`."""
        return self.cluster.request(
            "POST", f"/api/v1/namespaces/{self.apps_namespace}/configmaps",
            {"metadata": {"name": name, "labels": self.labels}, "data": {"replicas": replicas}},
            params={"dryRun": "All"})

    @contextlib.contextmanager
    def load(self, *, per_second: float = 20) -> Iterator["Load"]:
        """Admission requests at a steady rate as long as the context lasts."""
        load = Load()
        ended = threading.Event()
        thread = threading.Thread(target=self._send, args=(load, ended, 1 / per_second), daemon=True)
        thread.start()
        try:
            yield load
        finally:
            ended.set()
            thread.join(30)

    def _send(self, load: "Load", ended: threading.Event, interval: float) -> None:
        due = time.monotonic()
        while not ended.wait(max(0.0, due - time.monotonic())):
            due += interval
            try:
                self.admit(name=f"load-{load.sent}")
            except api.ApiError as error:
                load.failures[str(error)] += 1
            load.sent += 1


@dataclasses.dataclass(slots=True)
class Load:
    """How many admission requests were sent, and the errors by their text."""

    sent: int = 0
    failures: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def wait_for(self, more: int, *, timeout: float = 60) -> None:
        """Wait until so many more requests have been answered."""
        target = self.sent + more
        deadline = time.monotonic() + timeout
        while self.sent < target:
            assert time.monotonic() < deadline, f"only {self.sent} of {target} requests were answered in {timeout} s"
            time.sleep(0.02)
