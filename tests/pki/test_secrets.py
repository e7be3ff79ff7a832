"""Secrets -> facts: whatever is in them, reading never raises, and what can be saved is saved."""
import base64
import datetime
from collections.abc import Mapping
from typing import Any

import hypothesis
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import strategies

from pki import oddities
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


@pytest.mark.parametrize(("first", "second"), [
    (9689, 9941),  # to validate it takes minutes, in the loop that looks after all certificates
    (4253, 4423),
    (2281, 607),  # of 2,888 bits, but one prime is as long as that of a larger key
])
def test_a_key_that_takes_long_to_validate_is_refused_unvalidated(first: int, second: int) -> None:
    key = encode(oddities.rsa_key_pem(2**first - 1, 2**second - 1))  # Mersenne primes
    for found in (secrets.read_leaf(manifest({**GOOD, "tls.key": key})),
                  secrets.read_authority(manifest({**GOOD_CA, "tls.key": key}))):
        assert found.defect is not None
        assert found.defect.reason is reasons.Reason.NOT_PEM
        assert "expected" in found.defect.message


def test_a_key_is_validated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = policy.parse({"secretName": "tls", "service": {"name": "hook"}, "privateKey": {"algorithm": "RSA-2048"}},
                          namespace="ns", name="cert")
    data = secrets.leaf_data(minting.mint_leaf(wanted, signer=AUTHORITY, now=NOW), [AUTHORITY.certificate])
    validated = []
    load = serialization.load_pem_private_key

    def note(pem: bytes, password: None, *, unsafe_skip_rsa_key_validation: bool) -> object:
        if not unsafe_skip_rsa_key_validation:
            validated.append(pem)
        return load(pem, password, unsafe_skip_rsa_key_validation=unsafe_skip_rsa_key_validation)

    monkeypatch.setattr(serialization, "load_pem_private_key", note)
    for _ in range(3):
        assert secrets.read_leaf(manifest(data)).defect is None
    assert len(validated) == 1


def test_an_rsa_key_that_is_none_is_refused() -> None:
    broken = oddities.rsa_key_pem(2**521 - 1, 2**607 - 3)  # not a prime
    with pytest.raises(certificates.NotPem):
        certificates.load_key(broken)


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


# ---- what nobody should have made ----

EC_KEY = ec.generate_private_key(ec.SECP256R1())
IS_CA = ((x509.BasicConstraints(ca=True, path_length=None), True),)
UNDESCRIBABLE = oddities.rebuilt(EC_KEY, subject="year 0", now=NOW, days=11_000, replace=oddities.year_zero(
    NOW + datetime.timedelta(days=11_000)))


@pytest.mark.parametrize("chain", [UNDESCRIBABLE, LEAF.certificate_pem + UNDESCRIBABLE], ids=["first", "second"])
def test_a_certificate_that_loads_but_cannot_be_described_is_a_defect(chain: bytes) -> None:
    with pytest.raises(certificates.NotPem):
        certificates.parse(chain)
    key = oddities.key_pem(EC_KEY) if chain == UNDESCRIBABLE else LEAF.key_pem
    damaged = manifest({**GOOD, "tls.crt": encode(chain), "tls.key": encode(key)})
    for by_listener in (False, True):
        leaf = secrets.read_leaf(damaged, by_listener=by_listener)
        assert leaf.defect is not None
        assert leaf.defect.reason is reasons.Reason.NOT_PEM
        authority = secrets.read_authority(damaged, by_listener=by_listener)
        assert authority.defect is not None
    assert secrets.signing_pairs(damaged) == {}
    with pytest.raises(ValueError, match="cannot be read"):
        secrets.key_pair(damaged)


def test_a_certificate_that_cannot_be_described_beside_a_good_leaf_is_a_defect() -> None:
    leaf = secrets.read_leaf(manifest({**GOOD, "ca.crt": encode(AUTHORITY.certificate_pem + UNDESCRIBABLE)}))
    assert leaf.defect is not None
    assert leaf.trusted == (AUTHORITY.certificate,)


def listeners_pair(replace: tuple[bytes, bytes] | None = oddities.SERIAL_ZERO) -> certificates.KeyPair:
    return oddities.pair(EC_KEY, subject="dynamiclistener-ca@1704861915", organization="dynamiclistener-org",
                         now=NOW, extensions=IS_CA, replace=replace)


@pytest.mark.filterwarnings("ignore")
def test_a_ca_of_a_listener_with_the_serial_number_zero_is_adopted_and_signs() -> None:
    pair = listeners_pair()
    assert certificates.load(pair.certificate_pem)[0].serial_number == 0
    held = secrets.read_authority(bare(secrets.authority_data(pair, [])), by_listener=True)
    assert held.defect is None
    assert held.certificate == pair.certificate
    assert held.secret.ours
    leaf = minting.mint_leaf(WANTED, signer=pair, now=NOW)
    assert certificates.signers(leaf.certificate_pem, [pair.certificate]) == {pair.certificate.fingerprint}


def test_a_ca_that_a_later_library_refuses_to_load_is_a_defect_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pem: bytes) -> list[x509.Certificate]:
        raise ValueError("serial number must be positive")

    data = secrets.authority_data(listeners_pair(None), [])
    monkeypatch.setattr(x509, "load_pem_x509_certificates", refuse)
    held = secrets.read_authority(bare(data), by_listener=True)
    assert held.defect is not None
    assert "serial number must be positive" in held.defect.message


# ---- whose it is ----

def bare(data: Mapping[str, str | None], **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "tls", "uid": "u", "resourceVersion": "1", **metadata}, "type": secrets.SECRET_TYPE,
            "data": {key: value for key, value in data.items() if value is not None}}


@pytest.mark.parametrize(("metadata", "ours", "ours_by_listener"), [
    ({}, False, False),
    ({"labels": {"app.kubernetes.io/managed-by": "steadyhook"}}, True, True),
    ({"labels": {"app.kubernetes.io/managed-by": "cert-manager"}}, False, False),
    ({"annotations": {"steadyhook.io/adopt": "true"}}, True, True),
    ({"annotations": {"steadyhook.io/adopt": "no"}}, False, False),
    ({"annotations": {"steadyhook.io/ready": "00"}}, True, True),
    ({"annotations": {"steadyhook.io/retired": "", "steadyhook.io/switched": ""}}, True, True),  # an adopted CA Secret
    ({"annotations": {"listener.cattle.io/cn-hook.ns.svc": "hook.ns.svc"}}, False, True),
    ({"annotations": {"listener.cattle.io/static": "true"}}, False, False),
])
def test_a_secret_is_ours_by_our_marks_or_by_a_persons_leave(
    metadata: dict[str, Any], ours: bool, ours_by_listener: bool
) -> None:
    for by_listener, expected in ((False, ours), (True, ours_by_listener)):
        assert secrets.read_leaf(bare(GOOD, **metadata), by_listener=by_listener).secret.ours is expected
        assert secrets.read_authority(bare(GOOD_CA, **metadata), by_listener=by_listener).secret.ours is expected


# ---- the layout of the CA Secret ----

def test_a_switched_ca_secret_of_either_layout_is_read_the_same_whatever_is_wanted_now() -> None:
    for for_listener in (True, False):
        data = secrets.authority_data(AUTHORITY, [AUTHORITY.certificate, OTHER.certificate], OTHER,
                                      for_listener=for_listener, switched=True)
        given = bare(data, annotations={secrets.SWITCHED: OTHER.certificate.fingerprint})
        for by_listener in (True, False):
            held = secrets.read_authority(given, by_listener=by_listener)
            assert (held.certificate, held.successor, held.switched, held.defect) == (
                AUTHORITY.certificate, OTHER.certificate, True, None)
            assert set(held.bundle) == {AUTHORITY.certificate, OTHER.certificate}
            assert not held.bundle_damaged
