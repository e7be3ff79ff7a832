"""Addresses and ports of the cluster, all of them in the loopback range.

A pod has the address 10.244.a.b in the Kubernetes API (which refuses loopback addresses in Services) and binds
127.244.a.b. Nothing dials 10.244.a.b itself: it would leave by the network card. The egress
proxy maps one to the other.
"""

import random
import socket

POD_PREFIX = "10.244."
LOOPBACK_PREFIX = "127.244."
SERVICE_RANGE = "10.96.0.0/16"

# Above the usual ephemeral range, so that no outgoing connection can hold it by accident.
_CLAIM_PORT = 64244
# Below the ephemeral range: a port that is free for minutes, while a test has a server stopped, must stay free.
_PORTS = range(15000, 32000)


class AddressesExhausted(RuntimeError):
    """No pod address or port is free."""


def to_loopback(address: str) -> str:
    """Map the pod address 10.244.a.b to 127.244.a.b. Raises ValueError for any other address."""
    if not address.startswith(POD_PREFIX):
        raise ValueError(f"{address!r} is not an address of a pod ({POD_PREFIX}a.b)")
    return LOOPBACK_PREFIX + address.removeprefix(POD_PREFIX)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free now. Another program may still take one first: be ready to try again."""
    chosen: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise AddressesExhausted(f"fewer than {count} free ports of 127.0.0.1 in {_PORTS.start}-{_PORTS.stop - 1}")


class Pool:
    """Hands out pod addresses that no other development cluster of this machine uses.

    The pool claims blocks 10.244.a.0/24, one at a time as it needs them. A claim is a bound socket at 127.244.a.1, so
    the kernel arbitrates between clusters, and frees the block when the process that holds it dies.
    """

    def __init__(self) -> None:
        self._claims: list[socket.socket] = []
        self._free: list[str] = []

    def take(self) -> str:
        """An address like 10.244.7.2. One that was given back is reused as late as possible."""
        if not self._free:
            self._claim_block()
        return self._free.pop(0)

    def give_back(self, address: str) -> None:
        """Return an address whose processes have ended."""
        self._free.append(address)

    def close(self) -> None:
        """Give up all blocks."""
        for claim in self._claims:
            claim.close()

    def _claim_block(self) -> None:
        for block in random.sample(range(256), 256):
            claim = socket.socket()
            try:
                claim.bind((f"{LOOPBACK_PREFIX}{block}.1", _CLAIM_PORT))
            except OSError:
                claim.close()
                continue
            self._claims.append(claim)
            self._free.extend(f"{POD_PREFIX}{block}.{host}" for host in range(2, 255))
            return
        raise AddressesExhausted("all 256 blocks of pod addresses are in use on this machine")
