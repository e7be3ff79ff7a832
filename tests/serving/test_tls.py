"""The certificate is replaced under a running listener; nobody is cut off, and the key stays in memory."""
import asyncio
import contextlib
import os
import ssl
import sys
import warnings
from collections.abc import AsyncIterator, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from serving import support
from steadyhook.serving import tls


@pytest.fixture(scope="module")
def authority() -> support.Authority:
    return support.Authority()


@contextlib.asynccontextmanager
async def echo_server(context: ssl.SSLContext) -> AsyncIterator[int]:
    """Sends back each line; gives the port."""
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(line)
            writer.close()

    server = await asyncio.start_server(echo, support.HOST, 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def served_certificate(port: int, client: ssl.SSLContext, name: str | None = support.NAME) -> bytes:
    connection = await support.Connection.open(port, client, name)
    await connection.close()
    return connection.certificate


def test_swaps_under_load_drop_no_handshake(authority: support.Authority) -> None:
    async def main() -> None:
        context, client = tls.SwappableContext(), authority.client()
        pairs = [authority.issue() for _ in range(8)]
        context.swap(*pairs[0])
        seen: set[bytes] = set()
        swapping = True
        count = 0

        async def connect_again_and_again(port: int) -> None:
            nonlocal count
            while swapping:
                seen.add(await served_certificate(port, client))
                count += 1

        async with echo_server(context.context) as port:
            clients = [asyncio.create_task(connect_again_and_again(port)) for _ in range(4)]
            swaps = 0
            while (swaps < 100 or count < 100 or len(seen) < len(pairs)) and not any(item.done() for item in clients):
                await asyncio.to_thread(context.swap, *pairs[swaps % len(pairs)])
                swaps += 1
                await asyncio.sleep(0.005)
            swapping = False
            await asyncio.gather(*clients)  # raises if any handshake failed
        assert seen <= {support.der(certificate) for certificate, _ in pairs}
        assert len(seen) == len(pairs)

    asyncio.run(main())


def test_an_open_connection_goes_on_through_a_swap_and_the_next_one_gets_the_new_certificate(
    authority: support.Authority,
) -> None:
    async def main() -> None:
        context, client = tls.SwappableContext(), authority.client()
        (old, old_key), (new, new_key) = authority.issue(), authority.issue()
        context.swap(old, old_key)
        async with echo_server(context.context) as port:
            reader, writer = await asyncio.open_connection(
                support.HOST, port, ssl=client, server_hostname=support.NAME)
            context.swap(new, new_key)
            writer.write(b"still here\n")
            assert await reader.readline() == b"still here\n"
            assert writer.get_extra_info("ssl_object").getpeercert(True) == support.der(old)
            assert await served_certificate(port, client) == support.der(new)
            writer.close()

    asyncio.run(main())


def test_a_handshake_under_way_at_a_swap_is_completed(authority: support.Authority) -> None:
    context, client = tls.SwappableContext(), authority.client()
    old, new = authority.issue(), authority.issue()
    context.swap(*old)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = context.context.wrap_bio(to_server, to_client, server_side=True)
    client_side = client.wrap_bio(to_client, to_server, server_hostname=support.NAME)
    with pytest.raises(ssl.SSLWantReadError):
        client_side.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        server_side.do_handshake()
    context.swap(*new)
    client_side.do_handshake()
    server_side.do_handshake()
    assert client_side.getpeercert(True) == support.der(old[0])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", [support.NAME, support.HOST, None], ids=["by name", "by address", "without SNI"])
def test_every_client_gets_the_current_certificate(
    authority: support.Authority, version: ssl.TLSVersion, name: str | None,
) -> None:
    async def main() -> None:
        context = tls.SwappableContext()
        client = authority.client(check_hostname=name is not None, minimum_version=version, maximum_version=version)
        async with echo_server(context.context) as port:
            for _ in range(2):
                certificate, key = authority.issue()
                context.swap(certificate, key)
                assert await served_certificate(port, client, name) == support.der(certificate)

    asyncio.run(main())


def test_a_client_that_knows_no_tls_1_2_is_refused(authority: support.Authority) -> None:
    async def main() -> None:
        context = tls.SwappableContext()
        context.swap(*authority.issue())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            client = authority.client(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
        client.set_ciphers("ALL:@SECLEVEL=0")
        async with echo_server(context.context) as port:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await served_certificate(port, client)

    asyncio.run(main())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_is_resumed_so_none_outlives_its_certificate(
    authority: support.Authority, version: ssl.TLSVersion,
) -> None:
    context = tls.SwappableContext()
    client = authority.client(minimum_version=version, maximum_version=version)
    session = None
    for _ in range(3):
        certificate, key = authority.issue()
        context.swap(certificate, key)
        client_side = _handshake(context.context, client, session)
        assert not client_side.session_reused
        assert client_side.getpeercert(True) == support.der(certificate)
        session = client_side.session


def test_http_1_1_is_agreed_on_with_a_client_that_prefers_http_2(authority: support.Authority) -> None:
    context, client = tls.SwappableContext(), authority.client()
    context.swap(*authority.issue())
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert _handshake(context.context, client).selected_alpn_protocol() == "http/1.1"


def test_without_a_certificate_a_handshake_is_refused_with_an_alert(authority: support.Authority) -> None:
    context = tls.SwappableContext()
    assert not context.has_certificate
    with pytest.raises(ssl.SSLError, match=r"TLSV1_ALERT_INTERNAL_ERROR|CALLBACK_FAILED"):
        _handshake(context.context, authority.client())


def test_a_pair_that_does_not_match_is_refused_and_the_old_one_stays(authority: support.Authority) -> None:
    async def main() -> None:
        context = tls.SwappableContext()
        (old, old_key), (other, _) = authority.issue(), authority.issue()
        context.swap(old, old_key)
        with pytest.raises(ValueError, match="the private key does not belong to the certificate"):
            context.swap(other, old_key)
        async with echo_server(context.context) as port:
            assert await served_certificate(port, authority.client()) == support.der(old)

    asyncio.run(main())


def test_what_is_not_pem_is_refused_as_such(authority: support.Authority) -> None:
    certificate, key = authority.issue()
    for pair in [(b"", key), (b"nonsense", key), (certificate, b""), (certificate, b"nonsense"), (key, key)]:
        context = tls.SwappableContext()
        with pytest.raises(ValueError, match="OpenSSL cannot use the certificate or its key"):
            context.swap(*pair)
        assert not context.has_certificate


def test_an_encrypted_key_is_refused_and_no_password_is_asked_for(authority: support.Authority) -> None:
    certificate, _ = authority.issue()
    encrypted = support.key_pem(ec.generate_private_key(ec.SECP256R1()), password=b"secret")
    with pytest.raises(ValueError, match="the private key is encrypted; store it without a password"):
        tls.context_from_pem(certificate, encrypted)


def test_the_key_is_written_to_no_file_that_has_a_name(authority: support.Authority) -> None:
    certificate, key = authority.issue()
    with _opened_for_writing() as opened:
        tls.context_from_pem(certificate, key)
    assert opened
    assert all(isinstance(file, int) for file in opened), "expected descriptors of anonymous memory only"


def test_no_descriptor_is_left_behind_by_good_or_bad_swaps(authority: support.Authority) -> None:
    context = tls.SwappableContext()
    pair = authority.issue()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        context.swap(*pair)
        with pytest.raises(ValueError, match="OpenSSL cannot use"):
            context.swap(pair[0], b"nonsense")
    assert len(os.listdir("/proc/self/fd")) == before


def test_where_there_is_no_anonymous_memory_the_error_says_so(
    authority: support.Authority, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(OSError, match=r"memfd_create.* is missing"):
        tls.context_from_pem(*authority.issue())


def test_whoever_waits_is_woken_by_a_swap_from_another_thread(authority: support.Authority) -> None:
    async def main() -> None:
        context = tls.SwappableContext()
        waiters = [asyncio.create_task(context.wait_for_certificate()) for _ in range(2)]
        given_up = asyncio.create_task(context.wait_for_certificate())
        for _ in range(5):
            await asyncio.sleep(0)
        given_up.cancel()
        assert not any(waiter.done() for waiter in waiters)
        await asyncio.to_thread(context.swap, *authority.issue())
        await asyncio.wait_for(asyncio.gather(*waiters), 30)
        await context.wait_for_certificate()

    asyncio.run(main())


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLObject:
    """The client's side of a handshake that needs no network."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    client_side = client.wrap_bio(to_client, to_server, server_hostname=support.NAME, session=session)
    pending = [client_side, server_side]
    while pending:
        side = pending.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pending.append(side)
    with contextlib.suppress(ssl.SSLWantReadError):
        client_side.read(1)  # takes in session tickets, if the server sent any
    return client_side


_opened: list[object] | None = None


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and event == "open" and arguments[1] is not None and "w" in str(arguments[1]):
        _opened.append(arguments[0])


@contextlib.contextmanager
def _opened_for_writing() -> Iterator[list[object]]:
    """Collects what is opened for writing meanwhile. An audit hook cannot be taken out, so it is switched off."""
    global _opened
    sys.addaudithook(_audit)
    _opened = collected = []
    try:
        yield collected
    finally:
        _opened = None
