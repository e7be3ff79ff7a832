"""kopf's own webhook server with a certificate from files, in a process of its own, for comparison."""
import datetime
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from steadyhook.core import policy
from steadyhook.pki import certificates, minting

NAME = "hook.comparison.svc"
PORT_FILE = "port"
PROGRAM = """
import asyncio, pathlib, socket, sys, kopf
folder = pathlib.Path(sys.argv[1])
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
async def answer(*_, **__):
    return {}
async def main():
    server = kopf.WebhookServer(addr="127.0.0.1", port=port, certfile=folder / "tls.crt", pkeyfile=folder / "tls.key",
                                file_check_interval=1.0)
    async for _ in server(answer):
        (folder / "port").write_text(str(port))
asyncio.run(main())
"""


class Server:
    """A context manager; ``look`` is what the handshakes' plan is made from."""

    def __init__(self) -> None:
        self._wanted = policy.parse({"secretName": "x", "service": {"name": "hook", "namespace": "comparison"}},
                                    namespace="comparison", name="comparison")
        self._authorities = [self._mint_authority(), self._mint_authority()]
        self._folder = tempfile.TemporaryDirectory(prefix="steadyhook-")

    def __enter__(self) -> "Server":
        self.renew()
        self._process = subprocess.Popen([sys.executable, "-c", PROGRAM, self._folder.name])
        deadline = time.monotonic() + 30
        while not (self._path / PORT_FILE).exists():
            if time.monotonic() > deadline:
                raise TimeoutError("kopf's webhook server did not start within 30 s")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def renew(self) -> None:
        """A new leaf by the first CA."""
        self._write(self._authorities[0])

    def rotate(self) -> None:
        """A new leaf by the second CA."""
        self._write(self._authorities[1])

    def look(self) -> tuple[list[tuple[str, int]], str]:
        bundle = certificates.bundle_pem(pair.certificate for pair in self._authorities).decode("ascii")
        return [("127.0.0.1", int((self._path / PORT_FILE).read_text()))], bundle

    @property
    def _path(self) -> pathlib.Path:
        return pathlib.Path(self._folder.name)

    def _mint_authority(self) -> certificates.KeyPair:
        return minting.mint_authority(self._wanted, now=datetime.datetime.now(datetime.UTC))

    def _write(self, authority: certificates.KeyPair) -> None:
        pair = minting.mint_leaf(self._wanted, signer=authority, now=datetime.datetime.now(datetime.UTC))
        for name, content in (("tls.crt", pair.certificate_pem), ("tls.key", pair.key_pem)):
            fresh = self._path / f"{name}.new"
            fresh.write_bytes(content)
            os.replace(fresh, self._path / name)
