"""Somebody on the pod network does what the ports allow, while the API server calls the webhook."""
import asyncio
import pathlib
import re
import ssl
import time

import pytest

from devcluster import facade
from scenarios.conftest import Install

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PORT = 9443
LIMIT_MIB = 512  # of the manifests
MANY_SMALL = b"[" + b'{"":{}},' * (3 * 2**20 // 8) + b"1]"


def anybody() -> ssl.SSLContext:
    """A client that does not ask whom it talks to."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def memory_mib(pod: facade.PodProcess, what: str = "VmHWM") -> float:
    found = re.search(rf"{what}:\s+(\d+) kB", pathlib.Path(f"/proc/{pod.pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


async def flood(pods: list[facade.PodProcess], seconds: float) -> int:
    """Connections that are held for nothing, and large bodies of many small values; how many of both."""
    count, ends_at, client = 0, time.monotonic() + seconds, anybody()
    head = f"POST /validate-configmap HTTP/1.1\r\nHost: a\r\nContent-Length: {len(MANY_SMALL)}\r\n\r\n".encode()

    async def go_on(pod: facade.PodProcess, content: bytes, hold_seconds: float) -> None:
        nonlocal count
        while time.monotonic() < ends_at:
            try:
                _, writer = await asyncio.open_connection(pod.loopback, PORT, ssl=client)
                writer.write(content)
                await asyncio.sleep(hold_seconds)
                writer.transport.abort()
                count += 1
            except OSError:
                await asyncio.sleep(0.01)

    kinds = [(b"", 3.0)] * 300 + [(head + MANY_SMALL, 2.0)] * 4
    await asyncio.gather(*(go_on(pod, *kind) for pod in pods for kind in kinds))
    return count


def test_no_request_fails_and_no_server_outgrows_its_memory_in_a_flood(install: Install) -> None:
    installed = install(nodes=2)
    installed.wait_serving()
    installed.wait_ready()
    pods = installed.pods()
    print("at rest:", [f"{memory_mib(pod, 'VmRSS'):.0f} MiB" for pod in pods])
    with installed.load(per_second=5) as load:
        load.wait_for(5)
        flooded = asyncio.run(flood(pods, 12))
        load.wait_for(5)
    print(f"{flooded} connections, {load.sent} requests; at most",
          [f"{memory_mib(pod):.0f} MiB" for pod in pods])
    assert flooded > 600
    assert not load.failures
    assert load.sent > 30
    assert max(memory_mib(pod) for pod in pods) < LIMIT_MIB
    assert [(pod.uid, pod.restarts) for pod in installed.pods()] == [(pod.uid, 0) for pod in pods]
    assert "Traceback" not in installed.logs()
