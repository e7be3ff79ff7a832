"""Starting programs of the cluster, and making sure that none of them outlives it."""

import os
import pathlib
import signal
import subprocess
import sys

from devcluster import watchdog


class Watchdog:
    """The owner's side of watchdog.py: closing it, or dying, ends every process that carries the marker."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.marker = str(folder)
        self._process = subprocess.Popen(
            [sys.executable, "-E", "-S", watchdog.__file__, self.marker, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def environment(self) -> dict[str, str]:
        """The variable that each process of the cluster must carry."""
        return {watchdog.VARIABLE: self.marker}

    def close(self) -> None:
        """Kill what is left and remove the folder; return when it is done."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Program:
    """One program of the control plane: it may be ended and started again with the same arguments and log file."""

    def __init__(self, name: str, command: list[str], log: pathlib.Path, environment: dict[str, str]) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.pid is not None:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it at once and wait for that. These programs take long on SIGTERM, and their data is thrown away."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, such as SIGSTOP."""
        if self.pid is None:
            raise ProcessLookupError(f"{self.name} does not run")
        os.kill(self.pid, number)

    def exit_code(self) -> int | None:
        """The exit code once it has ended by itself or was killed, else None."""
        return self._process.poll() if self._process is not None else None

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
