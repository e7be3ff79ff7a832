"""Bound sockets, and errors that say which setting to change."""
import errno
import socket

_REMEDIES = {
    errno.EADDRINUSE: "set {setting} to a free port, or stop the process that holds this one",
    errno.EACCES: "set {setting} to a port from 1024 up; lower ones need a privilege",
    errno.EADDRNOTAVAIL: "set STEADYHOOK_LISTEN_ADDRESS to an address of this machine, or leave it out",
}


class ListenError(Exception):
    """A port cannot be listened on. The text names the address, the port, the cause and the remedy."""

    def __init__(self, *, address: str | None, port: int, setting: str, error: OSError) -> None:
        self.address, self.port, self.setting, self.errno = address, port, setting, error.errno
        remedy = _REMEDIES.get(error.errno or 0, "check STEADYHOOK_LISTEN_ADDRESS and {setting}")
        where = f"{address or 'any address'}, port {port}"
        super().__init__(f"cannot listen on {where}: {error.strerror or error}; {remedy.format(setting=setting)}")


def bind(address: str | None, port: int, *, setting: str) -> socket.socket:
    """
    A TCP socket that is bound but does not listen yet. ``address`` None: all of IPv4 and IPv6; ``port`` 0: any free.

    ``setting`` is the environment variable that the port came from. Raises :class:`ListenError`.
    """
    try:
        return _bind_everywhere(port) if address is None else _bind_to(address, port)
    except OSError as error:
        raise ListenError(address=address, port=port, setting=setting, error=error) from error


def listen(bound: socket.socket, *, address: str | None, setting: str, backlog: int) -> None:
    """Listen on what :func:`bind` gave. Raises :class:`ListenError`: two sockets may be bound, one may listen."""
    try:
        bound.listen(backlog)
    except OSError as error:
        raise ListenError(address=address, port=bound.getsockname()[1], setting=setting, error=error) from error


def _bind_everywhere(port: int) -> socket.socket:
    try:
        return _bound(socket.AF_INET6, ("::", port))
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
    return _bound(socket.AF_INET, ("0.0.0.0", port))  # a node without IPv6


def _bind_to(address: str, port: int) -> socket.socket:
    family, _, _, _, name = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return _bound(family, name)


def _bound(family: int, name: tuple[str | int, ...] | tuple[int, bytes]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Else the closed connections of a process that has just gone (TIME_WAIT) would keep the port for a minute.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(name)
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
    return bound
