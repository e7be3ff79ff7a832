"""A user's module with ordinary handlers: they say in the log what they handle, from when to when."""
import asyncio
import os
import sys
from typing import Any

import kopf

SECONDS = float(os.environ.get("COUNTING_SECONDS", "0"))
COUNTED = {"counted": "yes"}


@kopf.on.startup()
async def begin(memo: kopf.Memo, **_: Any) -> None:
    memo.greeting = "hello"


@kopf.on.cleanup()
async def end(**_: Any) -> None:
    print("the operator of the handlers is tidied up", flush=True)


@kopf.on.create("", "v1", "configmaps", labels=COUNTED)
async def count(name: str, memo: kopf.Memo, logger: Any, **_: Any) -> dict[str, str]:
    say("begins", name)
    logger.info("%s from a user's handler", memo.greeting)
    await asyncio.sleep(SECONDS)
    say("ends", name)
    return {"by": os.environ["POD_NAME"]}


@kopf.timer("", "v1", "configmaps", labels=COUNTED, interval=0.5)
async def tick(name: str, **_: Any) -> None:
    say("ticks", name)


@kopf.index("", "v1", "configmaps", labels=COUNTED)
async def names(name: str, **_: Any) -> dict[str, bool]:
    sys.stdout.write(f"INDEXED {name}\n")
    sys.stdout.flush()
    return {name: True}


@kopf.on.validate("", "v1", "configmaps", id="validate-counted", labels=COUNTED)
async def allow(**_: Any) -> None:
    """An admission handler beside the others, which every instance serves, and which may look into the index."""


def say(what: str, name: str) -> None:
    # With its end in one write: print() makes two, and a line of another thread's log may come between them.
    sys.stdout.write(f"COUNTING {asyncio.get_running_loop().time():.3f} {what} {name}\n")
    sys.stdout.flush()
