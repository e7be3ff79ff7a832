"""A CA of the user's own is tried before anybody serves what it signs."""
import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import oid

from pki import oddities
from steadyhook.core import facts, policy, reasons
from steadyhook.pki import certificates, minting, secrets, trial

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
WANTED = policy.parse({"secretName": "tls", "service": {"name": "hook"}, "authority": {"secretName": "own"}},
                      namespace="ns", name="cert")
KEY = ec.generate_private_key(ec.SECP256R1())
IS_CA = (x509.BasicConstraints(ca=True, path_length=None), True)


def usage(**wanted: bool) -> tuple[x509.KeyUsage, bool]:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in names}), True


def constrained(*to: str) -> tuple[x509.NameConstraints, bool]:
    return x509.NameConstraints(permitted_subtrees=[x509.DNSName(name) for name in to], excluded_subtrees=None), True


def own(*extensions: tuple[x509.ExtensionType, bool], **changes: object) -> certificates.KeyPair:
    return oddities.pair(KEY, subject="a CA of my own", now=NOW, extensions=extensions, **changes)


def read(pair: certificates.KeyPair, now: datetime.datetime = NOW) -> facts.Certificate | facts.Defect:
    data = secrets.authority_data(pair, [])
    return secrets.read_provided(
        {"metadata": {"name": "own", "uid": "u", "resourceVersion": "1"}, "type": secrets.SECRET_TYPE, "data": data},
        wanted=WANTED, now=now)


@pytest.mark.parametrize("extensions", [
    (IS_CA, usage(key_cert_sign=True)),
    (IS_CA,),  # as from plain `openssl req -x509`, without a key usage: Go accepts it
    (IS_CA, constrained("hook.ns", "svc", "cluster.local")),
    (IS_CA, usage(key_cert_sign=True), (x509.ExtendedKeyUsage([oid.ExtendedKeyUsageOID.SERVER_AUTH]), False)),
], ids=["key usage", "plain", "constrained to our names", "for servers"])
def test_a_ca_that_can_sign_is_taken(extensions: tuple[tuple[x509.ExtensionType, bool], ...]) -> None:
    pair = own(*extensions)
    assert read(pair) == pair.certificate


@pytest.mark.parametrize(("extensions", "why"), [
    ((IS_CA, usage(digital_signature=True)), "invalid CA certificate"),
    ((IS_CA, constrained("example.com")), "permitted subtree violation"),
    ((IS_CA, (x509.ExtendedKeyUsage([oid.ExtendedKeyUsageOID.CLIENT_AUTH]), False)), "certificate purpose"),
    ((IS_CA, (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)), "critical extension"),
], ids=["no keyCertSign", "constrained to other names", "for clients only", "an unknown critical extension"])
def test_a_ca_whose_leaves_no_client_would_accept_is_a_defect_with_the_clients_words(
    extensions: tuple[tuple[x509.ExtensionType, bool], ...], why: str
) -> None:
    found = read(own(*extensions))
    assert isinstance(found, facts.Defect)
    assert found.reason is reasons.Reason.NOT_USABLE
    assert why in found.message
    assert "Secret own holds a CA that is of no use" in found.message


def test_a_ca_that_has_yet_to_begin_is_tried_as_of_then() -> None:
    monday = minting.mint_authority(WANTED, now=NOW + 30 * DAY)
    assert read(monday) == monday.certificate


def test_a_ca_that_has_ended_is_a_defect() -> None:
    ended = minting.mint_authority(WANTED, now=NOW - 20_000 * DAY)
    found = read(ended)
    assert isinstance(found, facts.Defect)
    assert found.reason is reasons.Reason.EXPIRED


def test_an_intermediate_ca_is_taken_without_its_root() -> None:
    root = ec.generate_private_key(ec.SECP256R1())
    intermediate = oddities.pair(KEY, subject="intermediate", issuer=("root", root), now=NOW,
                                 extensions=(IS_CA, usage(key_cert_sign=True)))
    assert read(intermediate) == intermediate.certificate


@pytest.mark.parametrize("algorithm", list(policy.KeyAlgorithm)[:4])
def test_what_is_minted_here_stands_the_trial(algorithm: policy.KeyAlgorithm) -> None:
    wanted = policy.parse({"secretName": "tls", "dnsNames": ["*.ns.svc"], "privateKey": {"algorithm": algorithm}},
                          namespace="ns", name="cert")
    assert trial.defect(minting.mint_authority(wanted, now=NOW), wanted, now=NOW) is None
