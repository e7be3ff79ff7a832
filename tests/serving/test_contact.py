"""A server that was away for long is not called before it has read once."""
import asyncio

import pytest

from steadyhook.cluster import client
from steadyhook.serving import contact, readiness


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_long_silence_makes_a_serving_instance_not_ready_until_one_read() -> None:
    clock = Clock()
    touch = contact.Contact(clock)
    ready = readiness.Readiness(check=touch.trouble)
    ready.serve()
    clock.now += contact.LONGEST_SILENCE_SECONDS - 1
    assert ready.ready
    clock.now += 1
    assert not ready.ready
    assert "no contact to the API server for 3.0 h" in ready.reason
    touch.touch()
    assert ready.ready


def test_it_reads_now_and_then_and_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    touch = contact.Contact(clock)
    reads: list[float] = []

    async def read() -> None:
        reads.append(clock.now)
        if len(reads) == 1:
            raise client.Unreachable(method="GET", path="/", status=0, message="away")

    async def run() -> None:
        keeping = asyncio.create_task(touch.keep(read))
        while len(reads) < 3:
            clock.now += contact.READ_SECONDS
            await asyncio.sleep(0)
        keeping.cancel()

    monkeypatch.setattr(contact, "LOOK_SECONDS", 0.0)
    asyncio.run(asyncio.wait_for(run(), 10))
    assert len(reads) == 3
    assert touch.silence() < contact.LONGEST_SILENCE_SECONDS


def test_it_reads_at_once_when_the_clock_of_the_machine_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    in_doubt = True
    touch = contact.Contact(Clock(), is_in_doubt=lambda: in_doubt)
    reads = 0

    async def read() -> None:
        nonlocal reads, in_doubt
        reads += 1
        in_doubt = reads < 2  # the first answer has told no time

    async def run() -> None:
        keeping = asyncio.create_task(touch.keep(read))
        while in_doubt:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        keeping.cancel()

    monkeypatch.setattr(contact, "LOOK_SECONDS", 0.0)
    asyncio.run(asyncio.wait_for(run(), 10))
    assert reads == 2
