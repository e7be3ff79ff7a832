"""
A trial of a CA that somebody else has made: can it sign a leaf that clients accept?

The trial leaf exists in memory only. A TLS handshake in memory (no socket) judges it, as the API server would judge a
leaf that is served. The dates are left to the decision: a CA may be given before it begins.
"""
import contextlib
import dataclasses
import datetime
import os
import ssl
from collections.abc import Iterator

from steadyhook.core import policy
from steadyhook.pki import certificates, minting

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL, for which Python has no name
_FLIGHTS = 10
"""How often the two sides may answer each other; a handshake of TLS 1.3 needs three times."""


def defect(authority: certificates.KeyPair, wanted: policy.Policy, *, now: datetime.datetime) -> str | None:
    """Why no client would accept a leaf that this CA signs for the policy's names, or None."""
    # The kind of the leaf's key does not matter here, and this kind is made fastest.
    quick = dataclasses.replace(wanted, algorithm=policy.KeyAlgorithm.ECDSA_P256)
    begins = max(now, authority.certificate.not_before + datetime.timedelta(seconds=1))
    try:
        leaf = minting.mint_leaf(quick, signer=authority, now=begins)
        return _refusal(leaf, authority, server_name=_server_name(wanted))
    except (ValueError, TypeError, OSError) as error:
        return f"it cannot sign: {error}"


def _refusal(leaf: certificates.KeyPair, authority: certificates.KeyPair, *, server_name: str) -> str | None:
    """What a client that trusts the CA has against the leaf."""
    client_in, server_in = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = _client_context(authority).wrap_bio(client_in, server_in, server_hostname=server_name)
    server = _server_context(leaf).wrap_bio(server_in, client_in, server_side=True)
    for _ in range(_FLIGHTS):
        try:
            client.do_handshake()
            return None
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError as error:
            return f"a client that trusts it refuses its leaf: {error.verify_message}"
        with contextlib.suppress(ssl.SSLWantReadError):
            server.do_handshake()
    return "a client that trusts it does not finish a handshake"


def _server_name(wanted: policy.Policy) -> str:
    """The name of the Service, by which the API server calls; any other name if there is none."""
    names = sorted(f"{name}.{namespace}.svc" for namespace, name in wanted.services)
    name = next((name for name in names if name in wanted.dns_names), min(wanted.dns_names))
    return name.replace("*", "any")


def _client_context(authority: certificates.KeyPair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=certificates.bundle_pem([authority.certificate]).decode("ascii"))
    # As a Go program does: whatever is in the bundle is trusted, and RFC 5280 is not taken to the letter.
    wanted = context.verify_flags & ~ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags = ssl.VerifyFlags(wanted | _NO_CHECK_TIME)
    return context


def _server_context(leaf: certificates.KeyPair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with _memory_file(leaf.certificate_pem + leaf.key_pem) as path:
        context.load_cert_chain(path)
    return context


@contextlib.contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    """OpenSSL takes a pair from files only; this one is on no disk."""
    descriptor = os.memfd_create("steadyhook-trial")
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
