"""
``python -m benchmarks.handshakes PLAN``: TLS handshakes at a steady rate, in a process of its own.

PLAN is a JSON file that may be replaced at any time: ``{"targets": [[host, port], ...], "bundle": PEM, "name": DNS
name, "per_second": number}``. Each handshake verifies as the API server would: by that bundle, for that name. At
SIGTERM the results go to stdout, as JSON: ``{"sent": n, "failures": {text: count}, "seconds": [latency, ...]}``.
"""
import asyncio
import collections
import json
import pathlib
import signal
import ssl
import sys
import time
from typing import Any

TIMEOUT_SECONDS = 10.0
AT_ONCE = 32


class Prober:
    """Shakes hands with the targets in turn, by the newest plan."""

    def __init__(self, plan: pathlib.Path) -> None:
        self._path = plan
        self._read = 0.0
        self._plan: dict[str, Any] = {}
        self._context = ssl.create_default_context()
        self._turn = 0
        self.sent = 0
        self.failures: collections.Counter[str] = collections.Counter()
        self.seconds: list[float] = []

    async def run(self, ended: asyncio.Event) -> None:
        limit = asyncio.Semaphore(AT_ONCE)
        due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while not ended.is_set():
                self._refresh()
                due = max(due + 1 / self._plan["per_second"], time.monotonic() - 1)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if self._plan["targets"]:
                    await limit.acquire()
                    self._turn += 1
                    host, port = self._plan["targets"][self._turn % len(self._plan["targets"])]
                    group.create_task(self._shake(host, port)).add_done_callback(lambda _: limit.release())

    def _refresh(self) -> None:
        changed = self._path.stat().st_mtime_ns
        if changed != self._read:
            self._read = changed
            self._plan = json.loads(self._path.read_text())
            self._context = ssl.create_default_context(cadata=self._plan["bundle"])

    async def _shake(self, host: str, port: int) -> None:
        began = time.monotonic()
        self.sent += 1
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                _, writer = await asyncio.open_connection(
                    host, port, ssl=self._context, server_hostname=self._plan["name"])
        except (OSError, TimeoutError) as error:
            self.failures[f"{type(error).__name__}: {error}"[:160]] += 1
            return
        self.seconds.append(time.monotonic() - began)
        writer.transport.abort()


async def main(plan: pathlib.Path) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    prober = Prober(plan)
    await prober.run(ended)
    json.dump({"sent": prober.sent, "failures": prober.failures, "seconds": prober.seconds}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main(pathlib.Path(sys.argv[1])))
