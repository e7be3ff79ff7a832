"""
Server-side TLS whose certificate can be replaced while it is in use.

A live ``SSLContext`` is never reloaded: a pair that does not match would break it. Each certificate gets a context of
its own, and the listener's context hands it to every new handshake.
"""
import asyncio
import contextlib
import os
import ssl
import threading
from collections.abc import Callable, Iterator


def context_from_pem(certificate_pem: bytes, key_pem: bytes) -> ssl.SSLContext:
    """
    A server-side context for one certificate: TLS 1.2 or newer, HTTP/1.1, no session tickets.

    ``certificate_pem`` is the leaf and then its intermediates, if any; ``key_pem`` is unencrypted. The key gets to
    OpenSSL through anonymous memory (memfd_create(2)), never through a file on a disk.
    Raises :class:`ValueError` if the two cannot be used together, :class:`OSError` where there is no such memory.
    """
    context = _server_context()
    with _memory_file(certificate_pem) as certificate_path, _memory_file(key_pem) as key_path:
        try:
            context.load_cert_chain(certificate_path, key_path, password=_refuse_encrypted_key)
        except ssl.SSLError as error:
            raise ValueError(_explain(error)) from error
    return context


class SwappableContext:
    """
    The listener's TLS context and the certificate that new handshakes get, if there is one yet.

    All methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: ssl.SSLContext | None = None
        self._waiters: list[Callable[[], None]] = []
        self._accepting = self._accepting_context()

    @property
    def context(self) -> ssl.SSLContext:
        """
        The context for a connection that is accepted now; another one after each swap.

        OpenSSL keeps the sessions of TLS 1.2 in it, even without tickets: with a new one none outlives its certificate.
        """
        return self._accepting

    @property
    def has_certificate(self) -> bool:
        return self._current is not None

    def swap(self, certificate_pem: bytes, key_pem: bytes) -> None:
        """
        Let every handshake from now on get this certificate; those under way and open connections are left alone.

        Raises as :func:`context_from_pem` does; the certificate that was in use then stays.
        """
        fresh = context_from_pem(certificate_pem, key_pem)
        with self._lock:
            self._current = fresh
            self._accepting = self._accepting_context()
            waiters = tuple(self._waiters)
        for wake in waiters:
            wake()

    async def wait_for_certificate(self) -> None:
        """Return once there is a certificate."""
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(arrived.set)

        with self._lock:
            if self._current is not None:
                return
            self._waiters.append(wake)
        try:
            await arrived.wait()
        finally:
            with self._lock:
                self._waiters.remove(wake)

    def _accepting_context(self) -> ssl.SSLContext:
        # It never carries a certificate itself. OpenSSL takes the TLS versions, the ticket settings and the cache of
        # sessions from it, and the certificate from the context that the callback chooses: so a connection that was
        # accepted before a swap, and whose handshake begins after it, gets the new certificate.
        context = _server_context()
        context.sni_callback = self._hand_over
        return context

    def _hand_over(self, handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        # OpenSSL calls this for each ClientHello, also for one that names no server.
        current = self._current
        if current is None:
            return ssl.AlertDescription.ALERT_DESCRIPTION_INTERNAL_ERROR
        handshake.context = current
        return None


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # A resumed session goes on without looking at the certificate, so it could outlive it. These two turn tickets off
    # in TLS 1.2 and in TLS 1.3.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context


@contextlib.contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    """The path of an anonymous file in memory that nothing else can find, and that is gone afterwards."""
    if not hasattr(os, "memfd_create"):
        raise OSError("memfd_create(2) is missing, without which a private key would have to be written to a disk;"
                      " run on Linux 3.17 or newer")
    descriptor = os.memfd_create("steadyhook-tls")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        path = f"/proc/self/fd/{descriptor}"
        if not os.path.exists(path):
            raise OSError(f"{path} does not exist, through which OpenSSL reads the key; mount /proc")
        yield path
    finally:
        os.close(descriptor)


def _refuse_encrypted_key() -> str:
    # Without this OpenSSL would ask for the password on the terminal.
    raise ValueError("the private key is encrypted; store it without a password")


def _explain(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the private key does not belong to the certificate; expected the two of one pair"
    return f"OpenSSL cannot use the certificate or its key ({error.reason or error}); expected both as PEM"
