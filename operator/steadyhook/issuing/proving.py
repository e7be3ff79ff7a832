"""
Proof on the wire: a handshake with each endpoint, to see that what it serves will still be trusted.

An instance's word is its own; this is what the API server would meet.
"""
import asyncio
import collections.abc
import contextlib
import logging
import ssl

from steadyhook.core import facts

logger = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 5.0
AT_ONCE = 20


async def prove(
    addresses: collections.abc.Mapping[str, tuple[str, int]], *, trusted_pem: str, server_name: str,
    proxy: tuple[str, int] | None,
) -> dict[str, facts.Proof]:
    """
    Shake hands with each address; the result is by the same key.

    GOOD: the certificate verifies under ``trusted_pem`` for ``server_name``. WRONG: it does not. UNREACHABLE: there was
    no answer to judge. ``proxy``: an HTTP proxy for CONNECT (RFC 9110, 9.3.6), where pods cannot be dialed directly.
    """
    context = ssl.create_default_context(cadata=trusted_pem)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as Go does: an intermediate CA in the bundle is trusted
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(address: tuple[str, int]) -> facts.Proof:
        async with limit:
            return await _prove_one(address, context=context, server_name=server_name, proxy=proxy)

    results = await asyncio.gather(*(one(address) for address in addresses.values()))
    return dict(zip(addresses, results, strict=True))


async def _prove_one(
    address: tuple[str, int], *, context: ssl.SSLContext, server_name: str, proxy: tuple[str, int] | None
) -> facts.Proof:
    writer = None
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            reader, writer = await asyncio.open_connection(*(proxy or address))
            if proxy is not None:
                await _connect(reader, writer, address)
            await writer.start_tls(context, server_hostname=server_name)
        return facts.Proof.GOOD
    except ssl.SSLCertVerificationError as error:
        logger.warning("%s port %d serves a certificate that does not verify: %s", *address, error.verify_message)
        return facts.Proof.WRONG
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        logger.info("%s port %d could not be looked at: %s", *address, error or type(error).__name__)
        return facts.Proof.UNREACHABLE
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await writer.wait_closed()


async def _connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: tuple[str, int]) -> None:
    host, port = address
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode("ascii"))
    head = await reader.readuntil(b"\r\n\r\n")
    if head.split(b" ", 2)[1] != b"200":
        raise OSError(f"the proxy answered {head.splitlines()[0].decode('latin-1')}")
