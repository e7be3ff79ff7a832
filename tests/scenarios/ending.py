"""
A module for ``kopf run``: each embedded operator of the process ends by itself, in one way after the other.

``ENDING`` names the ways, separated by commas; ENDING_SECONDS is how long each run lasts before its end.
"""
import asyncio
import os
import threading
from typing import Any

import kopf

WAYS = [way for way in os.environ.get("ENDING", "").split(",") if way]
SECONDS = float(os.environ.get("ENDING_SECONDS", "1"))

_operator = kopf.operator
_runs: dict[str, int] = {}


async def _ending(**options: Any) -> None:
    name = threading.current_thread().name
    run = _runs[name] = _runs.get(name, -1) + 1
    if run >= len(WAYS):
        await _operator(**options)
        return
    print(f"embedded operator {name} is going to end: {WAYS[run]}", flush=True)
    match WAYS[run]:
        case "login":  # as kopf ends where every login handler fails
            raise kopf.LoginError("refused by the test")
        case "raises":
            task = asyncio.ensure_future(_operator(**options))
            await asyncio.sleep(SECONDS)
            task.cancel()
            raise RuntimeError("ended by the test")
        case "returns":
            task = asyncio.ensure_future(_operator(**options))
            await asyncio.sleep(SECONDS)
            task.cancel()
        case "cancelled":
            raise asyncio.CancelledError


kopf.operator = _ending


_start = threading.Thread.start
_refused: set[str] = set()


def _refuse_once(thread: threading.Thread) -> None:
    """The first thread of each embedded operator cannot be started, as at a limit of processes."""
    if thread.name.startswith("kopf-") and thread.name not in _refused:
        _refused.add(thread.name)
        raise RuntimeError("can't start new thread")
    _start(thread)


if os.environ.get("ENDING_THREADS"):
    threading.Thread.start = _refuse_once  # type: ignore[method-assign, assignment]
