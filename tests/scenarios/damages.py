"""Ways to damage the Secrets of an installation, and the means of whoever does so: its own and foreign certificates."""
import base64
import dataclasses
import datetime
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from devcluster import api
from scenarios import installation
from steadyhook.core import policy
from steadyhook.pki import certificates, minting, secrets

JsonObject = dict[str, Any]

FREEZER = "a-person"


class Culprit:
    """Has read both Secrets, with the rights of the administrator."""

    def __init__(self, installed: installation.Installation) -> None:
        self._installed = installed
        self._namespace = installed.namespace
        self._cluster = installed.cluster
        leaf, authority = installed.secret(), installed.secret(installation.AUTHORITY)
        assert leaf is not None and authority is not None
        self.leaf = leaf
        self.authority = secrets.key_pair(authority)
        self.wanted = policy.parse(
            installed.certificate()["spec"], namespace=self._namespace, name=installation.CERTIFICATE)

    def mint_leaf(
        self, *, signer: certificates.KeyPair | None = None, now: datetime.datetime | None = None, **changes: Any
    ) -> certificates.KeyPair:
        """A leaf as the issuer would make it, except for the changes to the policy."""
        return minting.mint_leaf(dataclasses.replace(self.wanted, **changes), signer=signer or self.authority,
                                 now=now or _now())

    def mint_authority(self) -> certificates.KeyPair:
        return minting.mint_authority(self.wanted, now=_now())

    def put(self, pair: certificates.KeyPair, *, trusted: certificates.KeyPair | None = None) -> None:
        """This pair in the leaf Secret, marked ready; ``ca.crt`` stays unless ``trusted`` is given."""
        data = secrets.leaf_data(pair, [trusted.certificate] if trusted else [])
        if trusted is None:
            del data[secrets.LEAF_TRUST]
        self.patch({"data": data, "metadata": {"annotations": {secrets.READY_MARK: pair.certificate.fingerprint}}})

    def put_data(self, data: dict[str, bytes | None], *, name: str = installation.SECRET, **changes: Any) -> None:
        """Some of the data; None removes a key."""
        encoded = {key: None if value is None else base64.b64encode(value).decode() for key, value in data.items()}
        self.patch({"data": encoded, **changes}, name=name)

    def pair_data(self, pair: certificates.KeyPair) -> dict[str, bytes | None]:
        return {secrets.CERTIFICATE: pair.certificate_pem, secrets.KEY: pair.key_pem}

    def read(self, name: str) -> JsonObject:
        return self._cluster.request("GET", self._path(name))

    def annotate(self, **annotations: str | None) -> None:
        self.patch({"metadata": {"annotations": {f"steadyhook.io/{key}": text for key, text in annotations.items()}}})

    def patch(self, patch: JsonObject, *, name: str = installation.SECRET) -> None:
        self._cluster.request("PATCH", self._path(name), patch, content_type=api.MERGE_PATCH)

    def delete(self, name: str = installation.SECRET) -> None:
        self._cluster.request("DELETE", self._path(name))

    def restore(self, backup: JsonObject, **changes: Any) -> None:
        """Put a manifest back as a backup program does: what is there goes, what is stored is created."""
        kept = ("name", "namespace", "labels", "annotations")
        metadata = {key: backup["metadata"][key] for key in kept if key in backup["metadata"]}
        self.delete(backup["metadata"]["name"])
        self._cluster.request("POST", self._path(""), {**backup, "metadata": metadata, **changes})

    def _path(self, name: str) -> str:
        return f"/api/v1/namespaces/{self._namespace}/secrets/{name}".removesuffix("/")


def self_signed() -> certificates.KeyPair:
    """What some webhooks make for themselves: a certificate that is its own root, and no CA's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "former webhook")])
    builder = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
               .serial_number(x509.random_serial_number())
               .not_valid_before(_now()).not_valid_after(_now() + datetime.timedelta(days=9)))
    form = serialization.Encoding.PEM
    return certificates.KeyPair(
        certificate_pem=builder.sign(key, hashes.SHA256()).public_bytes(form),
        key_pem=key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def freeze(installed: installation.Installation) -> None:
    """Pause the issuing for a minute, as ``kopf freeze`` does: a peer of a higher priority that does nothing."""
    record = {"priority": 100, "lifetime": 60, "lastseen": _now().isoformat()}
    _patch_peering(installed, {FREEZER: record})


def resume(installed: installation.Installation) -> None:
    """As ``kopf resume`` does."""
    _patch_peering(installed, {FREEZER: None})


def wake(installed: installation.Installation, why: str) -> None:
    """Have the active issuer look at once, by an annotation on the WebhookCertificate."""
    patch_certificate(installed, {"metadata": {"annotations": {policy.LOOK: why}}})


def patch_certificate(installed: installation.Installation, patch: JsonObject) -> None:
    installed.cluster.request(
        "PATCH", f"/apis/steadyhook.io/v1alpha1/namespaces/{installed.namespace}/webhookcertificates/"
        f"{installation.CERTIFICATE}", patch, content_type=api.MERGE_PATCH)


def _patch_peering(installed: installation.Installation, status: JsonObject) -> None:
    installed.cluster.request(
        "PATCH", f"/apis/kopf.dev/v1/namespaces/{installed.namespace}/kopfpeerings/steadyhook", {"status": status},
        content_type=api.MERGE_PATCH)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


# ---- the leaf Secret ----

Damage = Callable[[Culprit], None]


def delete(culprit: Culprit) -> None:
    culprit.delete()


def not_pem(culprit: Culprit) -> None:
    culprit.put_data({"tls.crt": b"this is no certificate"})


def key_of_another_pair(culprit: Culprit) -> None:
    culprit.put_data({"tls.key": culprit.mint_leaf().key_pem})


def foreign_leaf(culprit: Culprit) -> None:
    culprit.put(culprit.mint_leaf(signer=culprit.mint_authority()))


def foreign_leaf_and_authority(culprit: Culprit) -> None:
    foreign = culprit.mint_authority()
    culprit.put(culprit.mint_leaf(signer=foreign), trusted=foreign)


def expired(culprit: Culprit) -> None:
    # Its CA began five minutes before the test at the earliest, and no leaf begins before its CA.
    culprit.put(culprit.mint_leaf(now=_now() - datetime.timedelta(minutes=4), duration=datetime.timedelta(minutes=2)))


def wrong_names(culprit: Culprit) -> None:
    culprit.put(culprit.mint_leaf(dns_names=frozenset({"another.example"})))


def mark_missing(culprit: Culprit) -> None:
    culprit.annotate(ready=None)


def mark_stale(culprit: Culprit) -> None:
    """What a person does who replaces the pair by hand: a good one, but not the one that is marked."""
    pair = culprit.mint_leaf()
    culprit.put_data({"tls.crt": pair.certificate_pem, "tls.key": pair.key_pem})


def generation_missing(culprit: Culprit) -> None:
    culprit.annotate(generation=None)


def generation_absurd(culprit: Culprit) -> None:
    culprit.annotate(generation="9" * 40)


def bundle_missing(culprit: Culprit) -> None:
    culprit.put_data({"ca.crt": None})


def certificate_empty(culprit: Culprit) -> None:
    """The API server refuses to remove the key from a Secret of this type, but not to empty it."""
    culprit.put_data({"tls.crt": b""})


def wrong_type(culprit: Culprit) -> None:
    culprit.restore(culprit.leaf, type="Opaque")


def immutable_and_not_marked(culprit: Culprit) -> None:
    culprit.patch({"immutable": True, "metadata": {"annotations": {secrets.READY_MARK: None}}})
