"""An issuer in the test's own process, on the real API server, with the rights that the manifests give."""
import asyncio
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from devcluster import api, facade
from steadyhook import settings
from steadyhook.cluster import client, paths
from steadyhook.issuing import reconciling

JsonObject = dict[str, Any]

MANIFESTS = pathlib.Path(__file__).parents[2] / "manifests"
ACCOUNT = "issuer"
MERGE = "application/merge-patch+json"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


class Issuer:
    """
    An account in ``home`` and its kubeconfig; :meth:`run` looks after one WebhookCertificate with its rights.

    Everything cluster-scoped has ``home`` in its name, and :meth:`close` takes it away.
    """

    def __init__(self, cluster: facade.DevCluster, home: str, folder: pathlib.Path) -> None:
        self.cluster = cluster
        self.home = home
        self._made: list[str] = []
        accounts = f"/api/v1/namespaces/{home}/serviceaccounts"
        cluster.request("POST", accounts, {"metadata": {"name": ACCOUNT}})
        answer = cluster.request("POST", f"{accounts}/{ACCOUNT}/token", {
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}})
        (folder / "ca.pem").write_bytes(cluster.ca_pem)
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump({
            "current-context": "main", "contexts": [{"name": "main", "context": {"cluster": "main", "user": "main"}}],
            "users": [{"name": "main", "user": {"token": answer["status"]["token"]}}],
            "clusters": [{"name": "main", "cluster": {
                "server": cluster.server, "certificate-authority": str(folder / "ca.pem")}}]}))

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.home}:{ACCOUNT}"

    def close(self) -> None:
        for path in self._made:
            try:
                self.cluster.request("DELETE", path)
            except api.ApiError as error:
                if error.status != 404:
                    raise

    def create(self, path: str, manifest: JsonObject) -> JsonObject:
        """Make something cluster-scoped, until :meth:`close`."""
        self._made.append(f"{path}/{manifest['metadata']['name']}")
        return self.cluster.request("POST", path, manifest)

    def grant(self, namespace: str, secrets: tuple[str, str], *, without: tuple[str, ...] = ()) -> None:
        """The Role of the issuing half in a namespace, for these two Secrets; ``without``: resources left out."""
        text = (MANIFESTS / "base" / "issuing" / "role.yaml").read_text()
        for name, instead in zip(("steadyhook-webhook-tls-ca", "steadyhook-webhook-tls"), reversed(secrets),
                                 strict=True):
            text = text.replace(name, instead)
        (role,) = [item for item in yaml.safe_load_all(text) if item["kind"] == "Role"]
        rules = [{**rule, "resources": [one for one in rule["resources"] if one not in without]}
                 for rule in role["rules"]]
        self._bind(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}", "Role",
                   [rule for rule in rules if rule["resources"]])

    def grant_everywhere(self, *configurations: str) -> None:
        """The ClusterRole of the issuing half: all certificates, and the right to patch these configurations."""
        role = yaml.safe_load((MANIFESTS / "base" / "issuing" / "clusterrole.yaml").read_text())
        for rule in role["rules"]:
            if "resourceNames" in rule:
                rule["resourceNames"] = list(configurations) or ["none"]
        certificates = {"apiGroups": [paths.GROUP]}
        self._bind("/apis/rbac.authorization.k8s.io/v1", "ClusterRole", [
            *role["rules"],
            {**certificates, "resources": ["webhookcertificates"], "verbs": ["get", "list", "watch"]},
            {**certificates, "resources": ["webhookcertificates/status"], "verbs": ["update", "patch"]}])

    def _bind(self, path: str, kind: str, rules: list[JsonObject]) -> None:
        name = f"{self.home}-issuing"
        make = self.create if kind == "ClusterRole" else self._create_in_namespace
        make(f"{path}/{kind.lower()}s", {"metadata": {"name": name}, "rules": rules})
        make(f"{path}/{kind.lower()}bindings", {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.home}]})

    def _create_in_namespace(self, path: str, manifest: JsonObject) -> JsonObject:
        """It goes with its namespace; a second grant replaces the first."""
        try:
            return self.cluster.request("POST", path, manifest)
        except api.ApiError as error:
            if error.status != 409:
                raise
        return self.cluster.request("PATCH", f"{path}/{manifest['metadata']['name']}", manifest, content_type=MERGE)

    def run(
        self, namespace: str, certificate: str, secret: str, *, everywhere: bool = False,
        make: Callable[[], client.Cluster] = client.Cluster,
    ) -> "Running":
        """A context manager: one reconcile loop, that of the active instance, in a thread."""
        loaded = settings.load({
            "POD_NAMESPACE": namespace, "STEADYHOOK_CERTIFICATE": certificate, "STEADYHOOK_SECRET": secret,
            "STEADYHOOK_CERTIFICATES": "all" if everywhere else "own", "STEADYHOOK_DIAL": "off"})
        target = reconciling.Target(namespace=namespace, certificate=certificate, secret_name=secret)
        return Running(loaded, target, make)

    # ---- what is there ----

    def certify(self, namespace: str, name: str, **spec: Any) -> JsonObject:
        """Apply a WebhookCertificate for the Service "hook" that settles at once."""
        return self.cluster.request("POST", paths.certificates(namespace), {
            "apiVersion": "steadyhook.io/v1alpha1", "kind": "WebhookCertificate", "metadata": {"name": name},
            "spec": {"service": {"name": "hook"}, "settleSeconds": 0, **spec}})

    def status(self, namespace: str, name: str) -> JsonObject:
        return self.cluster.request("GET", paths.certificate(namespace, name)).get("status") or {}

    def condition(self, namespace: str, name: str, kind: str) -> tuple[str, str, str]:
        """(status, reason, message). Raises StopIteration as long as there is none."""
        found = next(item for item in self.status(namespace, name).get("conditions", []) if item["type"] == kind)
        return found["status"], found["reason"], found["message"]

    def wait_for_condition(self, namespace: str, name: str, kind: str, *expected: str) -> str:
        """Wait for this status and reason; returns the message."""
        def told() -> str | None:
            found = {item["type"]: item for item in self.status(namespace, name).get("conditions", [])}.get(kind)
            is_it = found is not None and (found["status"], found["reason"]) == expected
            return str(found["message"]) if found is not None and is_it else None

        message = self.cluster.wait_for(told, 30, f"{kind} to be {expected}")
        assert message is not None
        return message

    def secret(self, namespace: str, name: str) -> JsonObject | None:
        try:
            return self.cluster.request("GET", paths.secret(namespace, name))
        except api.ApiError as error:
            if error.status != 404:
                raise
            return None


class Running:
    """A reconcile loop in a thread and an event loop of its own."""

    def __init__(
        self, loaded: settings.Settings, target: reconciling.Target, make: Callable[[], client.Cluster]
    ) -> None:
        self._settings = loaded
        self._target = target
        self._make = make
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._reconciler: reconciling.Reconciler

    def __enter__(self) -> "Running":
        self._thread.start()
        assert self._ready.wait(10), "the loop did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def wake(self) -> None:
        """As the watches do."""
        self._reconciler.wake()

    async def _run(self) -> None:
        async def confirm() -> bool:
            return True

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self._make() as cluster:
            self._reconciler = reconciling.Reconciler(
                cluster=cluster, settings=self._settings, target=self._target, confirm=confirm)
            task = asyncio.create_task(self._reconciler.run())
            self._ready.set()
            await self._stop.wait()
            task.cancel()
            await asyncio.wait({task})


def webhook(name: str, asks: str, *, ca_bundle: str | None = None, service: str = "hook") -> JsonObject:
    """A configuration of one webhook that is never called, as it selects nothing that exists."""
    config: JsonObject = {"service": {"namespace": asks.partition("/")[0], "name": service}}
    if ca_bundle is not None:
        config["caBundle"] = ca_bundle
    return {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name, "annotations": {"steadyhook.io/inject-ca-from": asks}},
        "webhooks": [{
            "name": "never.example.io", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "failurePolicy": "Ignore", "clientConfig": config,
            "objectSelector": {"matchLabels": {"example.io/nobody": "has-this"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                       "resources": ["configmaps"]}]}]}


def namespaces(cluster: facade.DevCluster, prefix: str, *names: str) -> Iterator[list[str]]:
    """More namespaces than the fixture's own."""
    made = [f"{prefix}-{name}" for name in names]
    for name in made:
        cluster.kubectl("create", "namespace", name)
    yield made
    for name in made:
        cluster.kubectl("delete", "namespace", name, "--wait=false")
