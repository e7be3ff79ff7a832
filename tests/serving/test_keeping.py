"""The keeper: what becomes of a Secret that the checks let through."""
import asyncio
import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from steadyhook import settings
from steadyhook.core import policy, reasons, serving
from steadyhook.pki import certificates, minting, secrets
from steadyhook.serving import keeping, readiness, tls

NOW = datetime.datetime.now(datetime.UTC)
WANTED = policy.parse({"secretName": "tls", "service": {"name": "hook"}}, namespace="ns", name="cert")
AUTHORITY = minting.mint_authority(WANTED, now=NOW)


def manifest(pair: certificates.KeyPair, *, generation: int) -> dict[str, Any]:
    return {
        "metadata": {"name": "tls", "uid": "u", "resourceVersion": str(generation), "annotations": {
            secrets.READY_MARK: pair.certificate.fingerprint, secrets.GENERATION: str(generation)}},
        "type": secrets.SECRET_TYPE, "data": secrets.leaf_data(pair, [AUTHORITY.certificate])}


def with_a_short_key() -> certificates.KeyPair:
    """A leaf that is right in every way, but for a key that no client of today would accept, and OpenSSL neither."""
    good = minting.mint_leaf(WANTED, signer=AUTHORITY, now=NOW)
    template = certificates.load(good.certificate_pem)[0]
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    builder = (x509.CertificateBuilder().subject_name(template.subject).issuer_name(template.issuer)
               .public_key(key.public_key()).serial_number(2)
               .not_valid_before(template.not_valid_before_utc).not_valid_after(template.not_valid_after_utc))
    for extension in template.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    signed = builder.sign(certificates.load_key(AUTHORITY.key_pem), hashes.SHA256())
    form = serialization.Encoding.PEM
    return certificates.KeyPair(
        certificate_pem=signed.public_bytes(form),
        key_pem=key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


@pytest.fixture
def verdicts() -> list[serving.Verdict]:
    return []


def keeper(verdicts: list[serving.Verdict]) -> keeping.Keeper:
    process = settings.load({"STEADYHOOK_SERVICE": "hook"}, namespaces=["ns"])
    return keeping.Keeper(settings=process, context=tls.SwappableContext(), ready=readiness.Readiness(),
                          on_verdict=verdicts.append)


@pytest.mark.parametrize("served_before", [True, False])
def test_what_openssl_refuses_is_not_served_and_is_told_of(
    verdicts: list[serving.Verdict], served_before: bool
) -> None:
    async def see() -> None:
        kept = keeper(verdicts)
        if served_before:
            kept.see(manifest(minting.mint_leaf(WANTED, signer=AUTHORITY, now=NOW), generation=1))
        kept.see(manifest(with_a_short_key(), generation=2))
        assert kept.certified is served_before

    asyncio.run(see())
    last = verdicts[-1]
    assert last.phase is (serving.Phase.DEGRADED if served_before else serving.Phase.WAITING)
    assert last.reason is reasons.Reason.NOT_USABLE
    assert "KEY_TOO_SMALL" in last.message


def test_a_read_that_was_overtaken_by_the_watch_changes_nothing(verdicts: list[serving.Verdict]) -> None:
    async def see() -> None:
        kept = keeper(verdicts)
        old, new = (minting.mint_leaf(WANTED, signer=AUTHORITY, now=NOW) for _ in range(2))
        kept.see(manifest(old, generation=1))
        kept.see(manifest(new, generation=2))
        kept.see(manifest(old, generation=1))  # the answer to a read from before
        kept.see(None)  # deleted
        kept.see(manifest(new, generation=2))

    asyncio.run(see())
    assert [(verdict.phase, verdict.reason) for verdict in verdicts] == [
        (serving.Phase.SERVING, reasons.Reason.SERVING), (serving.Phase.SERVING, reasons.Reason.SERVING),
        (serving.Phase.DEGRADED, reasons.Reason.SECRET_MISSING)]


@pytest.mark.parametrize("change", [
    pytest.param({"uid": "another one"}, id="of a Secret that was made anew"),
    pytest.param({"resourceVersion": "older-than-2"}, id="where versions are no numbers"),
])
def test_an_older_version_is_believed(verdicts: list[serving.Verdict], change: dict[str, str]) -> None:
    async def see() -> None:
        kept = keeper(verdicts)
        kept.see(manifest(minting.mint_leaf(WANTED, signer=AUTHORITY, now=NOW), generation=2))
        older = manifest(minting.mint_leaf(WANTED, signer=AUTHORITY, now=NOW), generation=1)
        older["metadata"] |= change
        kept.see(older)

    asyncio.run(see())
    assert verdicts[-1].reason is reasons.Reason.OLDER_GENERATION


def test_an_older_version_is_believed_after_a_while_as_etcd_may_have_been_restored(
    verdicts: list[serving.Verdict], monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(keeping.time, "monotonic", lambda: clock[0])

    async def see() -> None:
        kept = keeper(verdicts)
        kept.see(manifest(minting.mint_leaf(WANTED, signer=AUTHORITY, now=NOW), generation=2))
        clock[0] += keeping.OVERTAKEN_SECONDS
        kept.see(manifest(minting.mint_leaf(WANTED, signer=AUTHORITY, now=NOW), generation=1))

    asyncio.run(see())
    assert verdicts[-1].reason is reasons.Reason.OLDER_GENERATION
