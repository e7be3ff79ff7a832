"""What ends by itself is started again, counted and told; what is cancelled ends."""
import asyncio
import logging

import prometheus_client
import pytest

from steadyhook import supervision


def restarts(part: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value("steadyhook_restarts_total", {"part": part}) or 0.0


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision.random, "uniform", lambda lowest, highest: 0.0)


class Part:
    """Runs for a moment and ends in the given ways, one after the other; then it goes on."""

    def __init__(self, *ends: BaseException | None) -> None:
        self.ends = list(ends)
        self.runs = 0
        self.goes_on = asyncio.Event()
        self.cancelled = False

    async def run(self) -> None:
        self.runs += 1
        await asyncio.sleep(0)
        if self.ends:
            end = self.ends.pop(0)
            if end is not None:
                raise end
            return
        self.goes_on.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def keep(part: Part, name: str) -> None:
    task = asyncio.create_task(supervision.keep(name, part.run))
    await asyncio.wait_for(part.goes_on.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("end", [
    None, RuntimeError("can't start new thread"), supervision.Ended("it is deaf"), asyncio.CancelledError(),
], ids=["returns", "fails", "gives up", "is cancelled from inside"])
def test_a_part_that_ends_in_any_way_is_started_again_and_counted(end: BaseException | None) -> None:
    name = f"part {type(end).__name__}"
    before = restarts(name)

    async def run() -> Part:
        part = Part(end, end)
        await keep(part, name)
        return part

    part = asyncio.run(run())
    assert part.runs == 3
    assert part.cancelled
    assert restarts(name) - before == 2


def test_an_unexpected_end_is_told_with_its_traceback_and_a_known_one_without(
    caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        await keep(Part(RuntimeError("out of threads"), supervision.Ended("the watch is deaf")), "part that tells")

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    unexpected, known = caplog.records
    assert "part that tells has ended by itself (out of threads)" in unexpected.message
    assert unexpected.exc_info is not None
    assert "(the watch is deaf)" in known.message
    assert known.exc_info is None


def test_the_pauses_grow_to_their_longest_and_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision.random, "uniform", lambda lowest, highest: highest)
    pauses = iter(supervision.EndlessBackoffs())
    found = [next(pauses) for _ in range(100)]
    assert found[:6] == [0.5, 1.0, 2.0, 4.0, 8.0, supervision.LONGEST_PAUSE_SECONDS]
    assert set(found[6:]) == {supervision.LONGEST_PAUSE_SECONDS}


def test_whoever_ends_tasks_waits_for_them_though_it_is_cancelled_meanwhile() -> None:
    async def run() -> None:
        go_on, tidied = asyncio.Event(), []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await go_on.wait()
                tidied.append(True)

        tasks = [asyncio.create_task(work()) for _ in range(2)]
        await asyncio.sleep(0)
        ending = asyncio.create_task(supervision.end(tasks))
        for _ in range(3):
            await asyncio.sleep(0)
            ending.cancel()
        await asyncio.sleep(0)
        assert not ending.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(ending, 10)
        assert tidied == [True, True]
        await supervision.end([])

    asyncio.run(run())
