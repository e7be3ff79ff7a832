"""
Listeners of the real dynamiclistener, many in one process, as the pods of Longhorn and of Rancher's webhook run them.

The program is built from ``dynamiclistener/`` once, into the per-user cache of the control plane's programs.
"""
import contextlib
import dataclasses
import hashlib
import json
import pathlib
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable
from typing import Any

from devcluster import addresses, binaries, facade
from peers import building

SOURCE = pathlib.Path(__file__).parent / "dynamiclistener"
PORT = 9443
READY_SECONDS = 120.0


def find(progress: binaries.Progress) -> pathlib.Path:
    """The program's path; it is built if it is not in the cache. Raises :class:`binaries.BinariesError`."""
    return building.find(SOURCE, package=".", progress=progress) / "dynamiclistener"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One that is ready. ``fingerprint``: of the leaf that it served then (SHA-256)."""

    number: int
    address: str
    fingerprint: str


class Listeners:
    """A running program; a context manager."""

    def __init__(
        self, cluster: facade.DevCluster, *, kubeconfig: pathlib.Path, namespace: str, secret: str, ca_secret: str,
        names: Iterable[str], count: int, lease: str | None = None,
    ) -> None:
        self._pool = addresses.Pool()
        self.pod_addresses = [self._pool.take() for _ in range(count)]
        self._program = find(building.say)
        self._arguments = [
            f"--kubeconfig={kubeconfig}", f"--namespace={namespace}", f"--secret={secret}", f"--ca-secret={ca_secret}",
            f"--names={','.join(names)}", f"--port={PORT}",
            f"--addresses={','.join(addresses.to_loopback(item) for item in self.pod_addresses)}",
            *([f"--lease={lease}"] if lease else [])]
        self._cluster = cluster
        self.ready: dict[int, Listener] = {}
        self.crashes = 0
        self.seconds_until_ready: dict[int, float] = {}

    def __enter__(self) -> "Listeners":
        self._log = tempfile.TemporaryFile(mode="w+")
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [str(self._program), *self._arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            text=True, env=self._cluster.env())
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._log.close()
        self._pool.close()

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Until every listener serves a certificate. Raises TimeoutError."""
        self._cluster.wait_for(
            lambda: len(self.ready) == len(self.pod_addresses) or self._process.poll() is not None, seconds,
            f"{len(self.pod_addresses)} listeners to be ready")
        assert self._process.poll() is None, self._end_of_log()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            if event["what"] == "crashed":
                self.crashes += 1
                continue
            number = event["listener"]
            self.seconds_until_ready[number] = time.monotonic() - self._began
            self.ready[number] = Listener(
                number=number, address=event["address"], fingerprint=event["fingerprint"])

    def _end_of_log(self) -> str:
        self._log.seek(0)
        return self._log.read()[-2000:]


def handshake(pod_address: str, *, name: str, trusted_pem: str, seconds: float = 5.0) -> str:
    """
    The SHA-256 of the leaf that a listener serves, verified for ``name``; of a client that calls for the first time.

    Raises OSError (ssl.SSLError among them).
    """
    context = ssl.create_default_context(cadata=trusted_pem)
    with contextlib.closing(socket.create_connection((addresses.to_loopback(pod_address), PORT), seconds)) as plain, \
            context.wrap_socket(plain, server_hostname=name) as connection:
        certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None
    return hashlib.sha256(certificate).hexdigest()


def endpoint_slice(name: str, service: str, pod_addresses: Iterable[str]) -> dict[str, Any]:
    """An EndpointSlice of a Service without a selector, as the listeners are no pods."""
    return {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"port": PORT, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in pod_addresses],
    }
