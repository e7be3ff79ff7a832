"""Namespaces of other programs whose certificate the issuers of an installation look after."""
from typing import Any

import yaml

from devcluster import api, audit
from scenarios import installation

LEAF, AUTHORITY, CERTIFICATE = "longhorn-webhook-tls", "longhorn-webhook-ca", "longhorn-webhook"
ISSUER = "steadyhook-issuer"

JsonObject = dict[str, Any]


class Application:
    """A namespace with what the component for Longhorn brings into it."""

    def __init__(self, installed: installation.Installation, name: str) -> None:
        self.cluster = installed.cluster
        self.namespace = f"{installed.namespace}-{name}"
        self.installed = installed
        self.cluster.kubectl("create", "namespace", self.namespace)

    def render(self) -> list[JsonObject]:
        """The objects of the component."""
        text = self.cluster.kubectl("kustomize", str(installation.MANIFESTS / "overlays" / "longhorn"))
        text = text.replace("longhorn-system", self.namespace)
        return [item for item in yaml.safe_load_all(text.replace(
                    installation.ISSUERS_NAMESPACE, self.installed.namespace))
                if item["metadata"].get("namespace") == self.namespace]

    def apply(self, *kinds: str) -> None:
        """Objects of the component; of all kinds unless some are named."""
        objects = [item for item in self.render() if not kinds or item["kind"] in kinds]
        assert objects
        self.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(objects))

    def conditions(self, name: str = CERTIFICATE) -> dict[str, JsonObject]:
        path = f"/apis/steadyhook.io/v1alpha1/namespaces/{self.namespace}/webhookcertificates/{name}"
        return {item["type"]: item for item in (self.cluster.request("GET", path).get("status") or {}).get(
            "conditions", [])}

    def wait_ready(self) -> None:
        self.cluster.wait_for(lambda: self.conditions().get("Ready", {}).get("status") == "True", 60,
                              f"the certificate of {self.namespace} to be ready")

    def secret_uid(self) -> str | None:
        try:
            path = f"/api/v1/namespaces/{self.namespace}/secrets/{LEAF}"
            return str(self.cluster.request("GET", path)["metadata"]["uid"])
        except api.ApiError as error:
            if error.status != 404:
                raise
            return None

    def delete_secret(self) -> str:
        """Delete the leaf Secret; the uid that it had."""
        uid = self.secret_uid()
        assert uid is not None
        self.cluster.kubectl("delete", "secret", LEAF, "-n", self.namespace)
        return uid

    def wait_issued_anew(self, uid: str) -> None:
        self.cluster.wait_for(lambda: self.secret_uid() not in (None, uid), 60, "another Secret")

    def writes(self) -> list[int]:
        """The codes of all writes of issuers to Secrets."""
        return [audit.code_of(event) for event in self.cluster.audit.select(
            resource="secrets", namespace=self.namespace, verb=installation.WRITE_VERBS, user=ISSUER)]
