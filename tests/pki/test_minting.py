"""What is minted satisfies strict verifiers, for every algorithm."""
import datetime
import pathlib
import shutil
import subprocess

import pytest
from cryptography import x509
from cryptography.x509 import verification

from steadyhook.core import policy
from steadyhook.pki import certificates, minting

NOW = datetime.datetime.now(datetime.UTC)
ALGORITHMS = list(policy.KeyAlgorithm)


def wanted(**spec: object) -> policy.Policy:
    return policy.parse({"secretName": "tls", "service": {"name": "hook"}, **spec}, namespace="ns", name="cert")


@pytest.fixture(scope="module", params=ALGORITHMS)
def minted(request: pytest.FixtureRequest) -> tuple[certificates.KeyPair, certificates.KeyPair]:
    """An authority and a leaf of one algorithm."""
    spec = wanted(privateKey={"algorithm": request.param})
    authority = minting.mint_authority(spec, now=NOW)
    return authority, minting.mint_leaf(spec, signer=authority, now=NOW)


Minted = tuple[certificates.KeyPair, certificates.KeyPair]


def test_the_facts_are_those_of_the_policy(minted: Minted) -> None:
    authority, leaf = minted
    assert leaf.certificate.dns_names == wanted().dns_names
    assert authority.certificate.is_ca
    assert not leaf.certificate.is_ca
    assert leaf.certificate.key_algorithm == authority.certificate.key_algorithm
    assert certificates.matches(leaf)
    assert certificates.matches(authority)
    assert certificates.signers(leaf.certificate_pem, [authority.certificate]) == {authority.certificate.fingerprint}


def test_pythons_strict_verifier_accepts_the_chain(minted: Minted) -> None:
    authority, leaf = minted
    if leaf.certificate.key_algorithm == "Ed25519":
        pytest.skip("the web PKI's profile, which this verifier checks, has no Ed25519")
    store = verification.Store(certificates.load(authority.certificate_pem))
    verifier = verification.PolicyBuilder().store(store).build_server_verifier(x509.DNSName("hook.ns.svc"))
    assert len(verifier.verify(certificates.load(leaf.certificate_pem)[0], [])) == 2


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
def test_openssl_accepts_the_chain_in_its_strict_mode(minted: Minted, tmp_path: pathlib.Path) -> None:
    authority, leaf = minted
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
    (tmp_path / "leaf.pem").write_bytes(leaf.certificate_pem)
    subprocess.run(
        ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "hook.ns.svc",
         "-CAfile", "ca.pem", "leaf.pem"], cwd=tmp_path, check=True, capture_output=True)


def test_a_leaf_ends_with_its_signer_at_the_latest() -> None:
    spec = wanted(duration="10h", renewBefore="1h", caRenewBefore="11h", caDuration="12h")
    authority = minting.mint_authority(spec, now=NOW)
    later = NOW + datetime.timedelta(hours=5)
    leaf = minting.mint_leaf(spec, signer=authority, now=later)
    assert leaf.certificate.not_after == authority.certificate.not_after


def test_two_authorities_of_one_certificate_are_told_apart_in_either_order() -> None:
    first = minting.mint_authority(wanted(), now=NOW)
    second = minting.mint_authority(wanted(), now=NOW)
    leaf = minting.mint_leaf(wanted(), signer=second, now=NOW)
    for bundle in ([first, second], [second, first]):
        found = certificates.signers(leaf.certificate_pem, [item.certificate for item in bundle])
        assert found == {second.certificate.fingerprint}


def test_a_key_is_never_shown() -> None:
    authority = minting.mint_authority(wanted(), now=NOW)
    assert b"PRIVATE" in authority.key_pem
    assert "PRIVATE" not in repr(authority)


def test_a_leaf_does_not_begin_before_its_signer() -> None:
    ahead = NOW + datetime.timedelta(minutes=4)
    authority = minting.mint_authority(wanted(), now=ahead)
    leaf = minting.mint_leaf(wanted(), signer=authority, now=NOW)
    assert leaf.certificate.not_before == authority.certificate.not_before
    assert leaf.certificate.not_after == NOW.replace(microsecond=0) + wanted().duration
