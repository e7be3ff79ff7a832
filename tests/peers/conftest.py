"""Fixtures: the CRDs once, an issuer of a namespace, listeners that share its Secrets."""
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devcluster import addresses, facade
from peers import webhook
from scenarios import installation


@pytest.fixture(scope="session")
def definitions(devcluster: facade.DevCluster) -> None:
    """The CRDs, established."""
    devcluster.kubectl("apply", "-k", str(installation.MANIFESTS / "crds"))
    devcluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")


@pytest.fixture
def hook(devcluster: facade.DevCluster, definitions: None, namespace: str) -> Iterator[webhook.Webhook]:
    """A webhook of the namespace that nobody looks after yet."""
    made = webhook.Webhook(devcluster, namespace)
    yield made
    made.remove()


@pytest.fixture
def issuer(devcluster: facade.DevCluster, hook: webhook.Webhook) -> Iterator[Callable[[], None]]:
    """Start the issuing half for the namespace, as a process of this machine."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(
            issuing(devcluster, hook.namespace, certificate=webhook.CERTIFICATE, secret=webhook.SECRET))


@contextlib.contextmanager
def issuing(cluster: facade.DevCluster, namespace: str, *, certificate: str, secret: str) -> Iterator[None]:
    """The issuing half for one certificate, with an election of its own."""
    cluster.kubectl("apply", "-f", "-", "-n", namespace, input=json.dumps({
        "apiVersion": "kopf.dev/v1", "kind": "KopfPeering",
        "metadata": {"name": "steadyhook", "labels": {"app.kubernetes.io/name": "steadyhook"}}}))
    environment: dict[str, Any] = {
        **cluster.env(), "POD_NAME": f"issuer-{namespace}", "STEADYHOOK_CERTIFICATE": certificate,
        "STEADYHOOK_SECRET": secret, "STEADYHOOK_LISTEN_ADDRESS": "127.0.0.1",
        "STEADYHOOK_HEALTH_PORT": str(addresses.free_ports(1)[0]), "STEADYHOOK_DIAL_PROXY": cluster.http_proxy,
        "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "kopf", "run", "-m", "steadyhook.issuer", "--peering=steadyhook", "-n", namespace]
    with tempfile.TemporaryFile(mode="w+") as log, tempfile.TemporaryDirectory() as folder:
        environment["TMPDIR"] = folder
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   start_new_session=True)
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            log.seek(0)
            # The client library's own files, which a process that is stopped at its start leaves.
            assert [item.name for item in pathlib.Path(folder).iterdir() if item.stat().st_mode & 0o077] == []
            print(f"--- the issuer of {namespace}\n{log.read()[-6000:]}")
