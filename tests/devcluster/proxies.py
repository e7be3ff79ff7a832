"""The two proxies of the cluster, which are also where faults are put into its network.

`EgressProxy` stands between the API server and the pods (webhook calls), `Relay` between one pod and the API server.
Both pass bytes; TLS goes through them untouched.
"""

import asyncio
import dataclasses
import logging
import pathlib
import socket
import struct

from devcluster import addresses

_log = logging.getLogger(__name__)
_CHUNK = 65536


@dataclasses.dataclass(slots=True, kw_only=True)
class Faults:
    """What happens to the connections of one pod; may be changed at any time.

    reset: existing connections are reset, and new ones as soon as they are accepted.
    passing: while it is not set, connections stay open and nothing gets through.
    delay_seconds: how long each piece of data is held back, in both directions.
    """

    reset: bool = False
    delay_seconds: float = 0.0
    passing: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.passing.set()


class Link:
    """The connections of one pod through one proxy, with their faults."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._writers: set[asyncio.StreamWriter] = set()

    def partition(self, *, stall: bool = False) -> None:
        """Cut the pod off: by resets, or silently."""
        if stall:
            self.faults.passing.clear()
            return
        self.faults.reset = True
        for writer in tuple(self._writers):
            reset(writer)

    def drop(self) -> None:
        """Reset all connections, stalled ones too, for good."""
        self.faults.passing.set()
        self.partition()

    def heal(self) -> None:
        """Take back all faults."""
        self.faults.reset = False
        self.faults.delay_seconds = 0.0
        self.faults.passing.set()

    async def join(
        self,
        here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Pass bytes between two connections until both directions have ended."""
        writers = (here[1], there[1])
        self._writers.update(writers)
        try:
            await asyncio.gather(self._pump(here[0], there[1]), self._pump(there[0], here[1]))
        except OSError:
            for writer in writers:
                reset(writer)
        finally:
            self._writers.difference_update(writers)
            for writer in writers:
                writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            if self.faults.delay_seconds:
                await asyncio.sleep(self.faults.delay_seconds)
            await self.faults.passing.wait()
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


class Relay:
    """A TCP port of 127.0.0.1 in front of the API server, for one pod."""

    def __init__(self, target_port: int) -> None:
        self.link = Link()
        self._target_port = target_port
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; return the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening and drop the connections."""
        if self._server is not None:
            self._server.close()
        self.link.drop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.link.faults.reset:
            reset(writer)
            return
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            reset(writer)
            return
        await self.link.join((reader, writer), upstream)


class EgressProxy:
    """An HTTP CONNECT proxy to pods: on a Unix socket for the API server, and on a TCP port for tests.

    CONNECT 10.244.a.b:PORT leads to 127.244.a.b:PORT. The port of the kubelet leads to the kubelet's own server,
    whatever the address. Everything else is refused: nothing may leave the loopback range.
    """

    def __init__(self, kubelet_port: int) -> None:
        self._links: dict[str, Link] = {}
        self._kubelet_port = kubelet_port
        self.kubelet_server: tuple[str, int] | None = None
        self._servers: list[asyncio.Server] = []

    def link(self, address: str) -> Link:
        """The connections to the pod with this address (10.244.a.b)."""
        return self._links.setdefault(address, Link())

    def forget(self, address: str) -> None:
        """The address no longer belongs to a pod: drop its connections and faults."""
        if link := self._links.pop(address, None):
            link.drop()

    async def start(self, unix_socket: pathlib.Path) -> str:
        """Listen; return HOST:PORT of the TCP listener."""
        unix = await asyncio.start_unix_server(self._serve, unix_socket)
        tcp = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._servers = [unix, tcp]
        return f"127.0.0.1:{tcp.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stop listening and drop the connections."""
        for server in self._servers:
            server.close()
        for address in tuple(self._links):
            self.forget(address)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            _log.info("a connection to the egress proxy ended: %s", error)
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, _, rest = head.partition(" ")
        host, _, port = rest.partition(" ")[0].rpartition(":")
        if method != "CONNECT" or not port.isdigit():
            _refuse(writer, "405 Method Not Allowed", "this proxy takes CONNECT HOST:PORT only")
            return
        try:
            target = self._target(host, int(port))
        except ValueError as error:
            _refuse(writer, "403 Forbidden", str(error))
            return
        link = self.link(host)
        if link.faults.reset:
            reset(writer)
            return
        await link.faults.passing.wait()
        try:
            upstream = await asyncio.open_connection(*target)
        except OSError as error:
            _refuse(writer, "502 Bad Gateway", f"{host}:{port} ({target[0]}:{target[1]}): {error}")
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await link.join((reader, writer), upstream)

    def _target(self, host: str, port: int) -> tuple[str, int]:
        if port == self._kubelet_port and self.kubelet_server is not None:
            return self.kubelet_server
        return addresses.to_loopback(host), port


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that the other side sees a reset, not an orderly end."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_INET and not writer.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _refuse(writer: asyncio.StreamWriter, status: str, message: str) -> None:
    body = message.encode()
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    writer.close()
