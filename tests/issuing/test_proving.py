"""Proof on the wire: what is good to Go is good here, and a thousand endpoints that do not answer hold nothing up."""
import asyncio
import contextlib
import datetime
import time
from collections.abc import AsyncIterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from serving import support
from steadyhook.core import facts, proofs
from steadyhook.issuing import proving
from steadyhook.serving import tls


class Plain:
    """
    A CA as plain ``openssl req -x509`` makes it, and older programs do: basic constraints alone (``bare``), or with
    key identifiers, but without a key usage. Go verifies under either.
    """

    def __init__(self, *, bare: bool) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "plain CA")])
        self._bare = bare
        self.pem = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=None)).decode()

    def issue(self) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, support.NAME)])
        return self._sign(name, key, x509.SubjectAlternativeName([x509.DNSName(support.NAME)])), support.key_pem(key)

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(
            key.public_key()).serial_number(x509.random_serial_number()).not_valid_before(
            now - datetime.timedelta(minutes=5)).not_valid_after(now + datetime.timedelta(hours=1)).add_extension(
            extension, critical=False)
        if not self._bare:
            builder = builder.add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False).add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@contextlib.asynccontextmanager
async def listening(certificate_pem: bytes, key_pem: bytes) -> AsyncIterator[proofs.Address]:
    context = tls.context_from_pem(certificate_pem, key_pem)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), support.HOST, 0, ssl=context)
    async with server:
        yield support.HOST, server.sockets[0].getsockname()[1]


async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def look(address: proofs.Address, trusted_pem: str) -> facts.Proof | None:
    prover = proving.Prover()
    found = await prover.look({address}, proving.How(trusted_pem=trusted_pem, server_name=support.NAME))
    return found.get(address)


@pytest.mark.parametrize("bare", [True, False])
def test_a_ca_without_key_usage_and_key_identifiers_is_good_as_it_is_to_go(bare: bool) -> None:
    authority = Plain(bare=bare)

    async def main() -> None:
        async with listening(*authority.issue()) as address:
            assert await look(address, authority.pem) is facts.Proof.GOOD
            assert await look(address, support.Authority().pem) is facts.Proof.WRONG

    asyncio.run(main())


def test_an_endpoint_that_refuses_can_not_be_judged() -> None:
    async def main() -> None:
        async with listening(*support.Authority().issue()) as address:
            pass
        assert await look(address, support.Authority().pem) is facts.Proof.UNREACHABLE

    asyncio.run(main())


def test_what_is_no_host_name_to_python_can_not_be_judged_and_hides_no_other() -> None:
    async def main() -> None:
        authority = support.Authority()
        odd = "a" * 64 + ".example", 443  # the API server takes it for an endpoint of the type FQDN
        async with listening(*authority.issue()) as address:
            how = proving.How(trusted_pem=authority.pem, server_name=support.NAME)
            found = await proving.Prover().look({address, odd}, how)
        assert found == {address: facts.Proof.GOOD, odd: facts.Proof.UNREACHABLE}

    asyncio.run(main())


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "HANDSHAKE_SECONDS", 0.5)
    monkeypatch.setattr(proving, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(proving, "AT_ONCE", 2)


def test_what_takes_long_goes_on_beside_the_loop_and_wakes_it(hasty: None) -> None:
    authority = support.Authority()

    async def main() -> None:
        woken = asyncio.Event()
        prover = proving.Prover(wake=woken.set)
        how = proving.How(trusted_pem=authority.pem, server_name=support.NAME)
        deaf = await asyncio.start_server(never_answer, support.HOST, 0)
        async with deaf, listening(*authority.issue()) as good:
            dark = support.HOST, deaf.sockets[0].getsockname()[1]
            addresses = frozenset({good, dark})
            began = time.monotonic()
            first = await prover.look(addresses, how)
            assert time.monotonic() - began < 0.4
            assert dark not in first  # nothing is known of it yet, and that is said
            await asyncio.wait_for(woken.wait(), 10)
            second = await prover.look(addresses, how)
            assert second == {good: facts.Proof.GOOD, dark: facts.Proof.UNREACHABLE}
            prover.stop()

    asyncio.run(main())


def test_each_look_is_a_new_one_where_that_is_quick() -> None:
    old, new = support.Authority(), support.Authority()

    async def main() -> None:
        prover = proving.Prover()
        how = proving.How(trusted_pem=new.pem, server_name=support.NAME)
        async with listening(*old.issue()) as (host, port):
            assert await prover.look({(host, port)}, how) == {(host, port): facts.Proof.WRONG}
        context = tls.context_from_pem(*new.issue())
        server = await asyncio.start_server(lambda reader, writer: writer.close(), host, port, ssl=context)
        async with server:
            assert await prover.look({(host, port)}, how) == {(host, port): facts.Proof.GOOD}

    asyncio.run(main())


def test_another_question_is_not_answered_from_the_memory(hasty: None) -> None:
    old, new = support.Authority(), support.Authority()

    async def main() -> None:
        prover = proving.Prover()
        async with listening(*old.issue()) as address:
            for authority, expected in ((old, facts.Proof.GOOD), (new, facts.Proof.WRONG), (old, facts.Proof.GOOD)):
                how = proving.How(trusted_pem=authority.pem, server_name=support.NAME)
                found: dict[proofs.Address, facts.Proof] = {}
                while not found:
                    found = await prover.look({address}, how)
                assert found == {address: expected}

    asyncio.run(main())
