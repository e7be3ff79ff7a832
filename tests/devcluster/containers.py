"""One container as a process: started, probed, restarted with back-off, stopped with grace."""

import asyncio
import contextlib
import datetime
import os
import pathlib
import signal
from collections.abc import Callable
from typing import Any

from devcluster import podspec, probing

JsonObject = dict[str, Any]

BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 10.0)
# A process that ran for so long starts the back-off anew.
BACKOFF_RESET_SECONDS = 30.0


class ContainerProcess:
    """Runs one container of a pod. Its state changes are told by `on_change()`.

    All methods belong to the kubelet's event loop.
    """

    def __init__(
        self,
        spec: podspec.Container,
        *,
        host: str,
        environment: dict[str, str],
        folder: pathlib.Path,
        log: pathlib.Path,
        prober: probing.Prober,
        on_change: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.log = log
        self.state: JsonObject = {"waiting": {"reason": "ContainerCreating"}}
        self.last_state: JsonObject = {}
        self.restarts = 0
        self.started = False
        self.ready = False
        self._host = host
        self._environment = environment
        self._folder = folder
        self._prober = prober
        self._on_change = on_change
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._kill_message = ""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def exit_code(self) -> int | None:
        """The exit code of a container that will not be started again, else None."""
        terminated = self.state.get("terminated")
        return int(terminated["exitCode"]) if terminated and self._ended.is_set() else None

    async def run(self, restart_policy: str) -> None:
        """Run until `stop`, or until the policy (Always, OnFailure or Never) says that it is done."""
        attempts = 0
        try:
            while not self._stopping.is_set():
                began = asyncio.get_running_loop().time()
                code = await self._run_once()
                if self._stopping.is_set() or restart_policy == "Never":
                    return
                if restart_policy == "OnFailure" and code == 0:
                    return
                if asyncio.get_running_loop().time() - began >= BACKOFF_RESET_SECONDS:
                    attempts = 0
                await self._back_off(BACKOFF_SECONDS[min(attempts, len(BACKOFF_SECONDS) - 1)])
                attempts += 1
        finally:
            self._ended.set()
            self._on_change()

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM to the process, after preStop; SIGKILL to its group when the grace period is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_seconds
        if self._process is not None and self.spec.stop_delay_seconds:
            await self._wait_ended(min(self.spec.stop_delay_seconds, grace_seconds))
        self._stopping.set()
        self._signal(signal.SIGTERM)
        if not await self._wait_ended(max(deadline - loop.time(), 0.0)):
            self.kill()
            await self._ended.wait()

    def kill(self) -> None:
        """SIGKILL to the whole process group; it is started again unless `stop` was called."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def send(self, number: int) -> None:
        """Send a signal to the process. Raises ProcessLookupError if it does not run."""
        if self._process is None:
            raise ProcessLookupError(f"container {self.spec.name!r} has no process now: {self.state}")
        self._process.send_signal(number)

    async def _wait_ended(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def _run_once(self) -> int:
        self._kill_message = ""
        try:
            self._process = await self._spawn()
        except OSError as error:
            self._terminated(128, "StartError", f"cannot run {self.spec.command[0]!r}: {error}", now())
            return 128
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        began = now()
        self.state = {"running": {"startedAt": began}}
        self._changed(started=self.spec.startup is None)
        health = asyncio.create_task(self._watch_health())
        try:
            code = await self._process.wait()
        except asyncio.CancelledError:
            self.kill()
            await self._process.wait()  # an abandoned child is reaped behind asyncio's back, which it complains about
            raise
        finally:
            health.cancel()
            self.kill()  # its children, which would go with the container's PID 1
            self._process = None
        code = 128 - code if code < 0 else code
        self._terminated(code, "Completed" if code == 0 else "Error", self._kill_message, began)
        return code

    async def _spawn(self) -> asyncio.subprocess.Process:
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self.spec.command,
                env=self._environment,
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _terminated(self, code: int, reason: str, message: str, began: str) -> None:
        terminated: JsonObject = {"exitCode": code, "reason": reason, "startedAt": began, "finishedAt": now()}
        if message:
            terminated["message"] = message
        self.state = {"terminated": terminated}
        self._changed(started=False, ready=False)

    async def _back_off(self, seconds: float) -> None:
        self.last_state = self.state
        self.state = {"waiting": {"reason": "CrashLoopBackOff", "message": f"starting again in {seconds:g} s"}}
        self._changed()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        if not self._stopping.is_set():
            self.restarts += 1

    async def _watch_health(self) -> None:
        """The probes of one run of the process."""
        if self.spec.startup is not None:
            async for well, message in self._prober.results(self.spec.startup, self._host):
                if well:
                    break
                self._unhealthy("startup", message)
            self._changed(started=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_readiness())
            group.create_task(self._watch_liveness())

    async def _watch_readiness(self) -> None:
        if self.spec.readiness is None:
            self._changed(ready=True)
            return
        async for well, _ in self._prober.results(self.spec.readiness, self._host):
            self._changed(ready=well)

    async def _watch_liveness(self) -> None:
        if self.spec.liveness is None:
            return
        async for well, message in self._prober.results(self.spec.liveness, self._host):
            if not well and not self._stopping.is_set():
                self._unhealthy("liveness", message)
                return

    def _unhealthy(self, probe: str, message: str) -> None:
        if self._stopping.is_set():
            return
        self._kill_message = f"{probe} probe failed: {message}"
        self.kill()

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _changed(self, *, started: bool | None = None, ready: bool | None = None) -> None:
        self.started = self.started if started is None else started
        self.ready = self.ready if ready is None else ready
        self._on_change()


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
