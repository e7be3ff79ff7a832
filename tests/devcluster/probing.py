"""Probes of a pod's process: HTTP and TCP, on the pod's loopback address."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp

from devcluster import podspec


class Prober:
    """Asks processes whether they are well. One for all pods."""

    def __init__(self) -> None:
        # As with a kubelet: a new connection for each probe, and the certificate is not verified.
        connector = aiohttp.TCPConnector(ssl=False, force_close=True, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, headers={"User-Agent": "kube-probe/devcluster"})

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()

    async def results(self, probe: podspec.Probe, host: str) -> AsyncIterator[tuple[bool, str]]:
        """Yield whether the process is well and why not, each time that a threshold is reached; for ever."""
        await asyncio.sleep(probe.initial_delay_seconds)
        loop = asyncio.get_running_loop()
        successes = failures = 0
        due = loop.time()
        while True:
            failure = await self._ask(probe, host)
            successes, failures = (0, failures + 1) if failure else (successes + 1, 0)
            if successes >= probe.success_threshold:
                yield True, ""
            elif failures >= probe.failure_threshold:
                yield False, failure
            due = max(due + probe.period_seconds, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _ask(self, probe: podspec.Probe, host: str) -> str:
        """Return "" for success, else what went wrong."""
        try:
            async with asyncio.timeout(probe.timeout_seconds):
                if probe.path is None:
                    _, writer = await asyncio.open_connection(host, probe.port)
                    writer.close()
                    return ""
                return await self._get(probe, host)
        except TimeoutError:
            return f"no answer from {host}:{probe.port} within {probe.timeout_seconds:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return f"{host}:{probe.port}: {error}"

    async def _get(self, probe: podspec.Probe, host: str) -> str:
        assert probe.path is not None
        url = f"{probe.scheme}://{host}:{probe.port}/{probe.path.removeprefix('/')}"
        async with self._session.get(url, headers=dict(probe.headers)) as response:
            if 200 <= response.status < 400:
                return ""
            body = (await response.content.read(200)).decode(errors="replace")
            return f"HTTP status {response.status} from {url}: {body}"
