"""
A writer as the problem has many of: each wants its own name in the one certificate, and writes until it is there.

This is an algorithm of our own, after what dynamiclistener does: read, sign a leaf for the names that are there and
one's own, update with the resourceVersion that was read, and on a conflict do it all again at once.
"""
import base64
import dataclasses
import datetime
import enum
from typing import Any

from steadyhook.cli import cluster
from steadyhook.core import policy
from steadyhook.pki import certificates, minting, secrets

SECRET = "storm-tls"
DURATION = "8760h"


class Outcome(enum.StrEnum):
    """What came of one attempt."""

    READY = "ready"  # nothing to write: the name is there, or the Secret is static
    WRITTEN = "written"
    CONFLICT = "conflict"


@dataclasses.dataclass(frozen=True, slots=True)
class Writer:
    """One that contends for the Secret ``storm-tls`` of a namespace."""

    found: cluster.Cluster
    name: str  # a DNS label
    authority: certificates.KeyPair

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.found.namespace}/secrets"

    def attempt(self) -> Outcome:
        """Once. Raises :class:`steadyhook.cli.cluster.Failed`."""
        held = self.found.find(f"{self.path}/{SECRET}")
        mine = f"{self.name}.{self.found.namespace}.svc"
        if held is not None:
            certificate = secrets.read_leaf(held, by_listener=True).certificate
            names = set(certificate.dns_names) if certificate is not None else set()
            if mine in names or (held["metadata"].get("annotations") or {}).get(secrets.STATIC) == "true":
                return Outcome.READY
        else:
            names = set()
        content = leaf(sorted(names | {mine}), namespace=self.found.namespace, authority=self.authority)
        mark = {secrets.LISTENER_FINGERPRINT: _fingerprint(content)}  # by which dynamiclistener knows its Secrets
        try:
            if held is None:
                self.found.create(self.path, {**content, "metadata": {"name": SECRET, "annotations": mark}})
            else:
                annotations = {**(held["metadata"].get("annotations") or {}), **mark}
                self.found.replace(f"{self.path}/{SECRET}", {
                    **held, **content, "metadata": {**held["metadata"], "annotations": annotations}})
        except cluster.Conflict:
            return Outcome.CONFLICT
        return Outcome.WRITTEN


def new_authority(namespace: str) -> certificates.KeyPair:
    """A CA for all writers of a namespace."""
    return minting.mint_authority(_wanted(["storm"], namespace), now=datetime.datetime.now(datetime.UTC))


def leaf(names: list[str], *, namespace: str, authority: certificates.KeyPair) -> dict[str, Any]:
    """A Secret's type and data, with a new leaf for these names."""
    pair = minting.mint_leaf(_wanted(names, namespace), signer=authority, now=datetime.datetime.now(datetime.UTC))
    return {"type": "kubernetes.io/tls", "data": secrets.leaf_data(pair, bundle=[authority.certificate])}


def _fingerprint(content: dict[str, Any]) -> str:
    return f"SHA1={certificates.sha1(base64.b64decode(content['data']['tls.crt']))}"


def _wanted(names: list[str], namespace: str) -> policy.Policy:
    return policy.parse({"secretName": SECRET, "dnsNames": names, "duration": DURATION}, namespace=namespace,
                        name="storm")
