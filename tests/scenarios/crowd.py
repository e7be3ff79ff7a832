"""Many WebhookCertificates for one installation of issuers, and what they cost."""
import collections
import contextlib
import pathlib
import time
from typing import Any

from devcluster import api, audit, facade
from scenarios import installation

OF_A_NAMESPACE = 10
GROUP = "/apis/steadyhook.io/v1alpha1"
JsonObject = dict[str, Any]


class Crowd:
    """
    ``permitted`` certificates that the issuers may look after, and ``forbidden`` ones, ten in each namespace.

    ``for_listeners``: whether they are for listeners of dynamiclistener, with RSA keys, or else for servers of ours.
    To be made before the issuers are installed or after; a context manager, which deletes the namespaces.
    """

    def __init__(
        self, installed: installation.Installation, *, permitted: int, forbidden: int, for_listeners: bool = True
    ) -> None:
        self._kind: JsonObject = {
            "compatibility": "Dynamiclistener", "privateKey": {"algorithm": "RSA-2048"}, "duration": "8760h",
            "renewBefore": "2400h"} if for_listeners else {}
        self.cluster = installed.cluster
        self.installed = installed
        self.permitted = self._names("may", permitted)
        self.forbidden = self._names("may-not", forbidden)

    def _names(self, what: str, count: int) -> list[tuple[str, str]]:
        return [(f"{self.installed.namespace}-{what}-{number // OF_A_NAMESPACE}", f"crowd-{number}")
                for number in range(count)]

    def __enter__(self) -> "Crowd":
        for namespace in self._namespaces():
            self.cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        for namespace in sorted({namespace for namespace, _ in self.permitted}):
            self._permit(namespace)
        for namespace, name in [*self.permitted, *self.forbidden]:
            self._ask(namespace, name)
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in self._namespaces():
            with contextlib.suppress(api.ApiError):
                self.cluster.request("DELETE", f"/api/v1/namespaces/{namespace}")

    def _namespaces(self) -> list[str]:
        return sorted({namespace for namespace, _ in [*self.permitted, *self.forbidden]})

    def _permit(self, namespace: str) -> None:
        names = [secret for home, name in self.permitted if home == namespace for secret in (f"{name}-tls",
                                                                                            f"{name}-tls-ca")]
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        verbs = ["get", "list", "watch"]
        self.cluster.request("POST", f"{path}/roles", {"metadata": {"name": "issuing"}, "rules": [
            {"apiGroups": [""], "resources": ["secrets", "events"], "verbs": ["create"]},
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": names,
             "verbs": [*verbs, "update", "patch", "delete"]},
            {"apiGroups": ["steadyhook.io"], "resources": ["managernodes"], "verbs": verbs},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})
        self.cluster.request("POST", f"{path}/rolebindings", {
            "metadata": {"name": "issuing"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "issuing"},
            "subjects": [{"kind": "ServiceAccount", "name": "steadyhook-issuer",
                          "namespace": self.installed.namespace}]})

    def _ask(self, namespace: str, name: str) -> None:
        self.cluster.request("POST", f"{GROUP}/namespaces/{namespace}/webhookcertificates", {
            "apiVersion": "steadyhook.io/v1alpha1", "kind": "WebhookCertificate", "metadata": {"name": name},
            "spec": {"secretName": f"{name}-tls", "dnsNames": [f"{name}.{namespace}.svc"], **self._kind}})

    def annotate(self, namespace: str, name: str, key: str, value: str) -> None:
        self.cluster.request(
            "PATCH", f"{GROUP}/namespaces/{namespace}/webhookcertificates/{name}",
            {"metadata": {"annotations": {key: value}}}, content_type=api.MERGE_PATCH)

    def conditions(self) -> dict[tuple[str, str], dict[str, JsonObject]]:
        """By certificate, the conditions by type."""
        items = self.cluster.request("GET", f"{GROUP}/webhookcertificates")["items"]
        return {(item["metadata"]["namespace"], item["metadata"]["name"]): {
            one["type"]: one for one in (item.get("status") or {}).get("conditions", [])} for item in items}

    def wait_issued(self, seconds: float) -> None:
        """Until each that is permitted is ready, and of each that is forbidden it is said."""
        def issued() -> bool:
            found = self.conditions()
            ready = sum(found[one].get("Ready", {}).get("status") == "True" for one in self.permitted)
            told = sum(found[one].get("Degraded", {}).get("reason") == "Forbidden" for one in self.forbidden)
            assert (ready, told) == (len(self.permitted), len(self.forbidden)), f"{ready} ready, {told} forbidden"
            return True

        self.cluster.wait_for(issued, seconds, "all certificates to be issued", interval=1.0)

    def leaf(self, namespace: str, name: str) -> str:
        """The resourceVersion of the leaf Secret."""
        found = self.cluster.request("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}-tls")
        return str(found["metadata"]["resourceVersion"])

    # ---- costs ----

    def active(self) -> facade.PodProcess:
        found = self.cluster.wait_for(self.installed.active, 60, "an active issuer")
        assert found is not None
        return found

    def requests(self, since: int) -> collections.Counter[str]:
        """What the issuers have asked the API server for, by verb and resource; a watch counts when it begins."""
        user = f"system:serviceaccount:{self.installed.namespace}:steadyhook-issuer"
        counts: collections.Counter[str] = collections.Counter()
        for event in self.cluster.audit.events(since, stages=(*audit.COMPLETE, "ResponseStarted")):
            if event["user"]["username"] == user and (event["verb"] == "watch") != (event["stage"] in audit.COMPLETE):
                target = event.get("objectRef") or {}
                counts[f"{event['verb']} {target.get('resource', event['requestURI'])}"] += 1
        return counts

    def looked_at(self, since: int) -> collections.Counter[tuple[str, str]]:
        """How often each certificate was read."""
        user = f"system:serviceaccount:{self.installed.namespace}:steadyhook-issuer"
        found = self.cluster.audit.events(since)
        return collections.Counter(
            (event["objectRef"]["namespace"], event["objectRef"]["name"]) for event in found
            if event["user"]["username"] == user and event["verb"] == "get"
            and (event.get("objectRef") or {}).get("resource") == "webhookcertificates")

    def wait_quiet(self, seconds: float, *, quiet_seconds: float = 5.0) -> None:
        """Until no permitted certificate was looked at for some seconds."""
        deadline = time.monotonic() + seconds
        while True:
            since = self.cluster.audit.position()
            time.sleep(quiet_seconds)
            busy = set(self.looked_at(since)) & set(self.permitted)
            if not busy:
                return
            assert time.monotonic() < deadline, f"{len(busy)} certificates are still looked at"


def resident_mib(pod: facade.PodProcess) -> float:
    """The resident memory of a pod's process."""
    status = pathlib.Path(f"/proc/{pod.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
