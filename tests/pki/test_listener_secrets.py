"""Secrets in the form that programs with dynamiclistener read."""
import base64
import dataclasses
import datetime
import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from steadyhook.core import facts, policy
from steadyhook.pki import certificates, minting, secrets

NOW = datetime.datetime.now(datetime.UTC)
WANTED = policy.parse(
    {"secretName": "tls", "dnsNames": ["hook.ns.svc", "a-conversion-webhook.a-namespace-of-its-own.svc"],
     "privateKey": {"algorithm": "RSA-2048"}, "compatibility": "Dynamiclistener", "duration": "8760h",
     "renewBefore": "2400h"}, namespace="ns", name="cert")
FIRST = minting.mint_authority(WANTED, now=NOW)
SECOND = minting.mint_authority(WANTED, now=NOW)
LEAF = minting.mint_leaf(WANTED, signer=FIRST, now=NOW)
BUNDLE = (FIRST.certificate, SECOND.certificate)


def manifest(data: dict[str, str | None], **annotations: str) -> dict[str, Any]:
    return {"metadata": {"name": "tls", "uid": "u", "resourceVersion": "1", "annotations": annotations},
            "type": secrets.SECRET_TYPE, "data": {key: value for key, value in data.items() if value is not None}}


def text(data: dict[str, str | None], key: str) -> bytes:
    return base64.b64decode(data[key] or "")


def read(data: dict[str, str | None], **annotations: str) -> facts.Authority:
    return secrets.read_authority(manifest(data, **annotations), by_listener=True)


def test_the_ca_that_signs_is_first_with_its_rsa_key_in_pkcs8() -> None:
    data = secrets.authority_data(FIRST, BUNDLE, SECOND, for_listener=True)
    held = x509.load_pem_x509_certificates(text(data, "tls.crt"))
    key = text(data, "tls.key")
    assert key.startswith(b"-----BEGIN PRIVATE KEY-----")  # PKCS#8 (RFC 5958)
    loaded = serialization.load_pem_private_key(key, password=None)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    assert held[0].public_key() == loaded.public_key()
    assert len(held) == 2


@pytest.mark.parametrize("switched", [False, True])
def test_a_rotation_is_read_back_as_it_was_written(switched: bool) -> None:
    data = secrets.authority_data(FIRST, BUNDLE, SECOND, for_listener=True, switched=switched)
    mark = SECOND.certificate.fingerprint if switched else ""
    authority = read(data, **{secrets.SWITCHED: mark})
    assert authority.defect is None
    assert (authority.certificate, authority.successor, authority.switched) == (*BUNDLE, switched)
    assert set(authority.bundle) == set(BUNDLE)
    assert not authority.bundle_damaged
    signing = SECOND if switched else FIRST
    assert certificates.parse(text(data, "tls.crt"))[0] == signing.certificate
    assert secrets.signing_pairs(manifest(data)).keys() == {item.fingerprint for item in BUNDLE}


def test_after_a_rotation_only_the_new_ca_is_left() -> None:
    data = secrets.authority_data(SECOND, [SECOND.certificate], for_listener=True)
    authority = read(data)
    assert (authority.certificate, authority.successor) == (SECOND.certificate, None)
    assert authority.bundle == (SECOND.certificate,)
    assert (data["next.crt"], data["next.key"]) == (None, None)


def test_a_ca_secret_of_a_listener_is_complete() -> None:
    data = {"tls.crt": base64.b64encode(FIRST.certificate_pem).decode(),
            "tls.key": base64.b64encode(FIRST.key_pem).decode()}
    authority = read(data)
    assert (authority.defect, authority.certificate, authority.bundle_damaged) == (None, FIRST.certificate, False)


def test_the_annotations_are_those_of_a_listener() -> None:
    annotations = secrets.listener_annotations(LEAF)
    digest = x509.load_pem_x509_certificate(LEAF.certificate_pem).fingerprint(hashes.SHA1()).hex().upper()
    assert annotations["listener.cattle.io/static"] == "true"
    assert annotations["listener.cattle.io/fingerprint"] == f"SHA1={digest}"
    assert annotations["listener.cattle.io/cn-hook.ns.svc"] == "hook.ns.svc"
    long_name = "a-conversion-webhook.a-namespace-of-its-own.svc"
    key = f"listener.cattle.io/cn-{long_name}"
    assert len(key) >= 64
    assert annotations[f"{key[:56]}-{hashlib.sha256(key.encode()).hexdigest()[:6]}"] == long_name


def test_a_leaf_without_our_marks_is_adopted_if_a_listener_may_have_made_it() -> None:
    data = {key: value for key, value in secrets.leaf_data(LEAF, BUNDLE).items() if key != secrets.LEAF_TRUST}
    found = secrets.read_leaf(manifest(data), authorities=BUNDLE, by_listener=True)
    assert (found.defect, found.adopted, found.certificate) == (None, True, LEAF.certificate)
    assert found.signers == {FIRST.certificate.fingerprint}
    assert secrets.read_leaf(manifest(data), authorities=BUNDLE).defect is not None


def test_a_leaf_of_ours_is_not_called_adopted() -> None:
    marked = manifest(secrets.leaf_data(LEAF, BUNDLE), **{secrets.READY_MARK: LEAF.certificate.fingerprint})
    assert not secrets.read_leaf(marked, by_listener=True).adopted


@pytest.mark.parametrize(("name", "key"), [  # as they are found in clusters with Longhorn
    ("longhorn-admission-webhook.longhorn-system.svc", "cn-longhorn-admission-webhook.longhor-59584d"),
    ("longhorn-conversion-webhook.longhorn-system.svc", "cn-longhorn-conversion-webhook.longho-6a0089"),
])
def test_the_keys_of_long_names_are_those_of_longhorn(name: str, key: str) -> None:
    wanted = dataclasses.replace(WANTED, dns_names=frozenset({name}))
    leaf = minting.mint_leaf(wanted, signer=FIRST, now=NOW)
    assert secrets.listener_annotations(leaf)[f"listener.cattle.io/{key}"] == name
