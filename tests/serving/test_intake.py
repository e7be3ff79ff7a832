"""The memory that requests may take: who waits for it, for how long, and how it is counted."""
import asyncio
import gc
import json
import tracemalloc

import pytest

from steadyhook.serving import intake


def test_who_wants_more_than_is_free_waits_and_nobody_goes_before_them() -> None:
    async def main() -> None:
        budget, order = intake.Budget(10), []

        async def use(name: str, amount: int, done: asyncio.Event) -> None:
            async with budget.reserve(amount):
                order.append(name)
                await done.wait()

        first_done, others_done = asyncio.Event(), asyncio.Event()
        others_done.set()
        tasks = [asyncio.create_task(use("first", 6, first_done))]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(use(name, amount, others_done)) for name, amount in (("large", 10), ("small", 1))]
        for _ in range(10):
            await asyncio.sleep(0)
        assert order == ["first"]
        first_done.set()
        await asyncio.gather(*tasks)
        assert order == ["first", "large", "small"]
        assert budget.free == 10

    asyncio.run(main())


def test_who_waits_too_long_gets_503_and_those_behind_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "WAIT_SECONDS", 0.05)

    async def main() -> None:
        budget = intake.Budget(10)
        async with budget.reserve(6):
            with pytest.raises(intake.Refused) as caught:
                async with budget.reserve(10):
                    pass
            assert caught.value.status == 503
            async with budget.reserve(4):
                assert budget.free == 0
        assert budget.free == 10

    asyncio.run(main())


def test_one_that_is_cancelled_while_it_waits_or_just_as_it_gets_its_turn_takes_nothing() -> None:
    async def main() -> None:
        budget = intake.Budget(10)

        async def use() -> None:
            async with budget.reserve(10):
                pass

        for release_first in (False, True):
            held = budget.reserve(10)
            await held.__aenter__()
            waiting = asyncio.create_task(use())
            await asyncio.sleep(0)
            if release_first:
                await held.__aexit__(None, None, None)
            waiting.cancel()
            await asyncio.wait({waiting})
            if not release_first:
                await held.__aexit__(None, None, None)
            assert waiting.cancelled()
            assert budget.free == 10

    asyncio.run(main())


SHAPES = {
    "empty objects": b"{},", "empty lists": b"[],", "small objects": b'{"a":1},', "nested objects": b'{"":{}},',
    "lists": b"[1],", "nested lists": b"[[]],", "integers": b"12345678,", "strings": b'"abcdefg%d",',
    "fractions": b"1.5,",
}


@pytest.mark.parametrize("element", SHAPES.values(), ids=SHAPES.keys())
def test_what_json_takes_once_it_is_parsed_is_estimated_and_never_too_low(element: bytes) -> None:
    parts = [element.replace(b"%d", str(number).encode()) for number in range(20_000)]
    body = b"[" + b"".join(parts) + b"1]"
    taken = memory_taken(body)
    assert taken <= intake.weigh(body)
    assert intake.weigh(body) < 4 * taken + 2 * len(body)


@pytest.mark.parametrize("keys", [20_000, 21_846])  # the latter is just more than the table of the former holds
def test_an_object_of_many_keys_is_estimated_too(keys: int) -> None:
    body = json.dumps({f"key-{number}": number for number in range(keys)}).encode()
    assert memory_taken(body) <= intake.weigh(body)


def memory_taken(body: bytes) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        parsed = intake.loads(body)
        taken = tracemalloc.get_traced_memory()[0]
        del parsed
        return taken
    finally:
        tracemalloc.stop()


def test_the_largest_objects_that_an_api_server_takes_are_within_the_limits_unless_they_are_all_tiny_lists() -> None:
    for shape, element in SHAPES.items():
        old, new = (b"[" + element * (size // len(element)) + b"1]" for size in (3 * 2**19, 3 * 2**20))
        body = b'{"request":{"object":' + new + b',"oldObject":' + old + b"}}"
        assert len(body) < intake.REQUEST_BYTES
        if shape not in ("nested objects", "lists", "nested lists"):
            assert intake.weigh(body) < intake.PARSED_BYTES, shape


def test_the_collector_is_as_it_was_after_parsing() -> None:
    intake.loads(b"{}")
    assert gc.isenabled()
    with pytest.raises(intake.Refused):
        intake.loads(b"{")
    assert gc.isenabled()


def test_large_bodies_are_parsed_with_as_much_time_between_them_as_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    spans: list[tuple[float, float]] = []

    def parse(body: bytes) -> None:
        began = clock[0]
        clock[0] += 3.0
        spans.append((began, clock[0]))

    async def sleep(seconds: float) -> None:
        clock[0] += seconds

    async def main() -> None:
        taken = intake.Intake()
        for _ in range(3):
            async with taken.parse(b" " * (intake.SMALL_BYTES + 1)):
                pass

    with monkeypatch.context() as patch:
        patch.setattr(intake, "loads", parse)
        patch.setattr(intake.time, "monotonic", lambda: clock[0])
        patch.setattr(intake.asyncio, "sleep", sleep)
        runner = main()
        with pytest.raises(StopIteration):
            runner.send(None)
    assert spans == [(100.0, 103.0), (106.0, 109.0), (112.0, 115.0)]
