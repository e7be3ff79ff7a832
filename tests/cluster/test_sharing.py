"""One read for many, and none that is older than the question."""
import asyncio

import pytest

from steadyhook.cluster import sharing


def test_who_asks_together_shares_a_read_and_who_asks_later_gets_a_later_one() -> None:
    async def scenario() -> None:
        shared: sharing.Shared[int] = sharing.Shared()
        reads = 0
        go_on = asyncio.Event()

        async def read() -> int:
            nonlocal reads
            reads += 1
            number = reads
            await go_on.wait()
            return number

        first = [asyncio.create_task(shared.get(read)) for _ in range(3)]
        while not reads:
            await asyncio.sleep(0)
        second = [asyncio.create_task(shared.get(read)) for _ in range(3)]  # the first read has begun before that
        await asyncio.sleep(0)
        go_on.set()
        assert await asyncio.gather(*first) == [1, 1, 1]
        assert await asyncio.gather(*second) == [2, 2, 2]
        assert await shared.get(read) == 3

    asyncio.run(scenario())


def test_one_who_gives_up_takes_it_from_nobody_and_an_error_is_everybodys() -> None:
    async def scenario() -> None:
        shared: sharing.Shared[int] = sharing.Shared()

        async def read() -> int:
            await asyncio.sleep(0.01)
            raise ZeroDivisionError

        tasks = [asyncio.create_task(shared.get(read)) for _ in range(2)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        with pytest.raises(ZeroDivisionError):
            await tasks[1]
        with pytest.raises(ZeroDivisionError):
            await shared.get(read)  # it is usable afterwards

    asyncio.run(scenario())
