"""Secrets -> facts: whatever is in them, reading never raises, and what can be saved is saved."""
import base64
import datetime
from typing import Any

import hypothesis
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import strategies

from steadyhook.core import policy, reasons
from steadyhook.pki import certificates, minting, secrets

NOW = datetime.datetime.now(datetime.UTC)
WANTED = policy.parse({"secretName": "tls", "service": {"name": "hook"}}, namespace="ns", name="cert")
AUTHORITY = minting.mint_authority(WANTED, now=NOW)
OTHER = minting.mint_authority(WANTED, now=NOW)
LEAF = minting.mint_leaf(WANTED, signer=AUTHORITY, now=NOW)


def manifest(data: dict[str, str], **changes: Any) -> dict[str, Any]:
    return {"metadata": {"name": "tls", "uid": "u", "resourceVersion": "1", "annotations": {
        secrets.READY_MARK: LEAF.certificate.fingerprint, secrets.GENERATION: "5"}},
        "type": secrets.SECRET_TYPE, "data": data, **changes}


GOOD = secrets.leaf_data(LEAF, [AUTHORITY.certificate])
GOOD_CA = secrets.authority_data(AUTHORITY, [AUTHORITY.certificate, OTHER.certificate])


def encode(text: bytes) -> str:
    return base64.b64encode(text).decode()


def test_a_good_leaf_secret_is_read() -> None:
    leaf = secrets.read_leaf(manifest(GOOD))
    assert leaf.defect is None
    assert leaf.certificate == LEAF.certificate
    assert leaf.signers == {AUTHORITY.certificate.fingerprint}
    assert (leaf.ready_mark, leaf.generation) == (LEAF.certificate.fingerprint, 5)


@pytest.mark.parametrize(("change", "reason"), [
    ({"tls.crt": encode(b"not PEM")}, reasons.Reason.NOT_PEM),
    ({"tls.crt": ""}, reasons.Reason.KEY_MISSING),
    ({"tls.key": encode(b"not PEM")}, reasons.Reason.NOT_PEM),
    ({"tls.key": encode(OTHER.key_pem)}, reasons.Reason.KEY_MISMATCH),
    ({"ca.crt": ""}, reasons.Reason.KEY_MISSING),
    ({"ca.crt": encode(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")}, reasons.Reason.NOT_PEM),
])
def test_each_damage_has_its_reason(change: dict[str, str], reason: reasons.Reason) -> None:
    leaf = secrets.read_leaf(manifest({**GOOD, **change}))
    assert leaf.defect is not None
    assert leaf.defect.reason is reason
    assert "Secret tls" in leaf.defect.message


@pytest.mark.parametrize("change", [{"type": "Opaque"}, {"immutable": True}])
def test_what_no_update_can_mend_has_to_be_recreated(change: dict[str, Any]) -> None:
    assert secrets.read_leaf(manifest(GOOD, **change)).secret.recreate


def test_a_leaf_by_another_ca_than_the_one_beside_it_has_no_signer() -> None:
    leaf = secrets.read_leaf(manifest({**GOOD, "ca.crt": encode(OTHER.certificate_pem)}))
    assert leaf.signers == frozenset()


def test_a_good_ca_secret_is_read() -> None:
    authority = secrets.read_authority(manifest(GOOD_CA))
    assert authority.certificate == AUTHORITY.certificate
    assert set(authority.bundle) == {AUTHORITY.certificate, OTHER.certificate}
    assert not authority.bundle_damaged


def test_the_trust_survives_a_damaged_signer_and_a_damaged_block() -> None:
    damaged = AUTHORITY.certificate_pem.replace(b"MII", b"###", 1) + OTHER.certificate_pem
    data = {**GOOD_CA, "tls.key": encode(b"gone"), "ca-bundle.crt": encode(damaged)}
    authority = secrets.read_authority(manifest(data))
    assert authority.defect is not None
    assert set(authority.bundle) == {AUTHORITY.certificate, OTHER.certificate}


def test_a_damaged_bundle_is_told_from_a_damaged_signer() -> None:
    authority = secrets.read_authority(manifest({**GOOD_CA, "ca-bundle.crt": encode(b"gone")}))
    assert authority.defect is None
    assert authority.bundle_damaged


def test_a_leaf_is_no_authority() -> None:
    authority = secrets.read_authority(manifest({**GOOD_CA, **{k: GOOD[k] for k in ("tls.crt", "tls.key")}}))
    assert authority.defect is not None
    assert authority.defect.reason is reasons.Reason.NOT_A_CA


def self_signed(*, key: rsa.RSAPrivateKey, extensions: tuple[x509.ExtensionType, ...] = ()) -> certificates.KeyPair:
    """What some webhooks make for themselves: a certificate that is its own root, and no CA's."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old webhook")])
    builder = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
               .serial_number(1).not_valid_before(NOW).not_valid_after(NOW + datetime.timedelta(days=9)))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    form = serialization.Encoding.PEM
    return certificates.KeyPair(
        certificate_pem=builder.sign(key, hashes.SHA256()).public_bytes(form),
        key_pem=key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def test_a_bundle_keeps_the_self_signed_certificate_of_a_webhook_that_was_taken_over() -> None:
    old = self_signed(key=rsa.generate_private_key(public_exponent=65537, key_size=2048)).certificate
    assert not old.is_ca
    authority = secrets.read_authority(manifest(secrets.authority_data(AUTHORITY, [AUTHORITY.certificate, old])))
    assert set(authority.bundle) == {AUTHORITY.certificate, old}


def test_names_that_cannot_be_read_are_no_names() -> None:
    unreadable = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x04\xa3\x02\x30\x00")  # x400Address
    pair = self_signed(key=rsa.generate_private_key(public_exponent=65537, key_size=2048), extensions=(unreadable,))
    assert pair.certificate.dns_names == frozenset()


@pytest.mark.parametrize(("text", "generation"), [
    ("7", 7), ("9" * 18, 10**18 - 1), ("9" * 19, None), ("-1", None), ("one", None), ("", None)])
def test_a_generation_that_no_status_could_hold_is_none(text: str, generation: int | None) -> None:
    given = manifest(GOOD)
    given["metadata"]["annotations"][secrets.GENERATION] = text
    assert secrets.read_leaf(given).generation == generation


@hypothesis.given(strategies.dictionaries(
    strategies.sampled_from(["tls.crt", "tls.key", "ca.crt", "ca-bundle.crt"]), strategies.binary(max_size=200)))
def test_reading_never_raises(noise: dict[str, bytes]) -> None:
    data = {**GOOD, **{key: encode(value) for key, value in noise.items()}}
    secrets.read_leaf(manifest(data))
    secrets.read_authority(manifest(data))


def test_no_message_ever_holds_a_key() -> None:
    leaf = secrets.read_leaf(manifest({**GOOD, "tls.crt": GOOD["tls.key"], "tls.key": GOOD["tls.crt"]}))
    assert leaf.defect is not None
    body = LEAF.key_pem.decode().splitlines()[1]
    assert body not in leaf.defect.message


def test_a_ca_bundle_is_written_and_read_again() -> None:
    encoded = secrets.write_ca_bundle([AUTHORITY.certificate, OTHER.certificate])
    assert secrets.read_ca_bundle(encoded) == ((AUTHORITY.certificate, OTHER.certificate), True)
    assert secrets.read_ca_bundle(None) == ((), True)
    assert secrets.read_ca_bundle("!") == ((), False)


def test_a_ca_bundle_is_read_block_by_block_and_a_placeholder_is_empty() -> None:
    broken = AUTHORITY.certificate_pem.replace(b"MII", b"###", 1)
    assert secrets.read_ca_bundle(encode(broken + OTHER.certificate_pem)) == ((OTHER.certificate,), False)
    assert secrets.read_ca_bundle(encode(OTHER.certificate_pem + b"-----BEGIN CERTIFICATE-----\nMII")) == (
        (OTHER.certificate,), False)
    for placeholder in (b"\n", b"x"):
        assert secrets.read_ca_bundle(encode(placeholder)) == ((), True)
