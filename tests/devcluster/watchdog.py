"""Ends a development cluster when its owner is gone, however the owner went. Standard library only.

Runs as `python watchdog.py MARKER FOLDER`, in a session of its own (Ctrl-C in a terminal does not reach it), with its
standard input held open by the owner. At the end of the input it kills every process that carries
`STEADYHOOK_DEVCLUSTER=MARKER` in its environment, which all processes of the cluster and their children do, and removes
the folder. Marks are used, not process ids that the owner reports: an id may be reused, a report may come too late.
"""

import os
import shutil
import signal
import sys
import time

VARIABLE = "STEADYHOOK_DEVCLUSTER"


def marked(marker: str) -> list[int]:
    """The ids of the processes that carry the marker. (One that is a zombie has no environment any more.)"""
    wanted = f"{VARIABLE}={marker}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if wanted in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue  # it ended just now, or it belongs to somebody else
    return found


def kill_marked(marker: str) -> None:
    """Kill until nothing is found twice in a row: a process may have been forked while /proc was being read."""
    clean_rounds = 0
    while clean_rounds < 2:
        processes = marked(marker)
        clean_rounds = 0 if processes else clean_rounds + 1
        for pid in processes:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(0.02)


def main(marker: str, folder: str) -> None:
    """Wait for the owner's end, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        continue
    kill_marked(marker)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
