"""
Proof on the wire: a handshake with each endpoint, to see that what it serves will still be trusted.

An instance's word is its own; this is what the API server would meet.
"""
import asyncio
import collections.abc
import contextlib
import dataclasses
import logging
import ssl
import time

from steadyhook.core import facts, proofs

logger = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 5.0
AT_ONCE = 50
PATIENCE_SECONDS = HANDSHAKE_SECONDS + 1.0
"""How long one look waits for its handshakes; what takes longer goes on beside it, and the next look finds it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """
    What a good certificate is, and the way to the endpoints.

    ``trusted_pem``: the CA that it has to verify under, for ``server_name``. ``proxy``: an HTTP proxy for CONNECT (RFC
    9110, 9.3.6), where pods cannot be dialed directly.
    """

    trusted_pem: str
    server_name: str
    proxy: proofs.Address | None = None


class Prover:
    """
    Looks at endpoints, in a task beside the loop that asks: a thousand that do not answer take minutes.

    A round that ends while the loop waits is used once, so that the next look is a new one; of a longer round the
    results are kept for twice as long as it took. To be used by the event loop in which it was made.
    """

    def __init__(self, *, wake: collections.abc.Callable[[], None] = lambda: None) -> None:
        self._wake = wake
        self._how: How | None = None
        self._results: dict[proofs.Address, tuple[facts.Proof, float]] = {}
        self._task: asyncio.Task[None] | None = None
        self._kept_seconds = 0.0

    async def look(
        self, addresses: collections.abc.Set[proofs.Address], how: How
    ) -> dict[proofs.Address, facts.Proof]:
        """What is known of these addresses within PATIENCE_SECONDS; it may be called again for the rest."""
        if how != self._how:
            self.stop()
            self._how = how
        how = self._how
        now = time.monotonic()
        self._results = {address: item for address, item in self._results.items() if (
            address in addresses and now - item[1] <= self._kept_seconds)}
        if self._task is None or self._task.done():
            missing = addresses - self._results.keys()
            self._task = asyncio.create_task(self._prove(missing, how), name="proving") if missing else None
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=PATIENCE_SECONDS)
            if not self._task.done():
                self._task.add_done_callback(self._say_done)
        return {address: proof for address, (proof, _) in self._results.items() if address in addresses}

    def stop(self) -> None:
        """Forget everything, and end what is under way."""
        if self._task is not None:
            self._task.remove_done_callback(self._say_done)
            self._task.cancel()
        self._task = None
        self._results.clear()
        self._kept_seconds = 0.0

    def _say_done(self, task: asyncio.Task[None]) -> None:
        self._wake()

    async def _prove(self, addresses: collections.abc.Set[proofs.Address], how: How) -> None:
        began = time.monotonic()
        self._kept_seconds = float("inf")  # a round is used as a whole

        def note(address: proofs.Address, proof: facts.Proof) -> None:
            self._results[address] = proof, time.monotonic()

        try:
            await prove(addresses, how, note)
        finally:
            lasted = time.monotonic() - began
            if how is self._how:
                self._kept_seconds = 2 * lasted if lasted > PATIENCE_SECONDS else 0.0


async def prove(
    addresses: collections.abc.Iterable[proofs.Address], how: How,
    note: collections.abc.Callable[[proofs.Address, facts.Proof], None],
) -> None:
    """
    Shake hands with each address, and note what it has shown.

    GOOD: the certificate verifies. WRONG: it does not. UNREACHABLE: there was no answer to judge.
    """
    context = ssl.create_default_context(cadata=how.trusted_pem)
    # As Go verifies, which API servers are written in: an intermediate CA in the bundle is trusted, and a CA needs
    # neither a key usage nor key identifiers, which Python from 3.13 on wants by default.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(address: proofs.Address) -> None:
        async with limit:
            note(address, await _prove_one(address, context=context, server_name=how.server_name, proxy=how.proxy))

    async with asyncio.TaskGroup() as group:
        for address in addresses:
            group.create_task(one(address))


async def _prove_one(
    address: proofs.Address, *, context: ssl.SSLContext, server_name: str, proxy: proofs.Address | None
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
    # A ValueError is for what is no host name to Python, though it is one to the API server: a label of 64 letters.
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
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
