"""
Of several WebhookCertificates that would write one Secret, whose it is: the oldest one's.

Two that share one would take each other's trust away, or hand the key of a CA to those who may read a leaf.
"""
import collections.abc
import dataclasses
from typing import Any

Manifest = collections.abc.Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one WebhookCertificate writes."""

    namespace: str
    name: str
    created: str  # RFC 3339, in UTC, so that the texts are in the order of time
    issued: bool
    secrets: frozenset[str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """Who has a Secret already: the name of the WebhookCertificate, and of the Secret."""

    name: str
    secret: str


def claim(manifest: Manifest) -> Claim:
    """The claim of one object, whatever its spec holds."""
    metadata, spec = manifest["metadata"], manifest.get("spec") or {}
    leaf = str(spec.get("secretName", ""))
    return Claim(
        namespace=metadata["namespace"], name=metadata["name"], created=str(metadata.get("creationTimestamp", "")),
        issued=bool((manifest.get("status") or {}).get("fingerprint")),
        secrets=frozenset({leaf, str(spec.get("caSecretName") or f"{leaf}-ca")}))


def find(manifests: collections.abc.Iterable[Manifest]) -> dict[tuple[str, str], Rival | None]:
    """
    For each (namespace, name) the older one that has a Secret of it, None if there is no such.

    Of two made in the same second the one goes first that has issued a leaf, then by name. One that has a rival
    writes nothing, so it stands in nobody's way.
    """
    owners: dict[tuple[str, str], str] = {}
    found: dict[tuple[str, str], Rival | None] = {}
    for item in sorted(map(claim, manifests), key=lambda one: (one.created, not one.issued, one.name)):
        taken = next((secret for secret in sorted(item.secrets) if (item.namespace, secret) in owners), None)
        if taken is None:
            owners |= {(item.namespace, secret): item.name for secret in item.secrets}
        found[item.namespace, item.name] = Rival(
            name=owners[item.namespace, taken], secret=taken) if taken is not None else None
    return found
