"""What `AsyncTable.track` returns may be awaited, iterated over or made a task, and may begin again."""

import asyncio
import gc
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ckpt_client.checkpoint.following import Following


class Numbers:
    """Items that count up, each when it is asked for."""

    def __init__(self, first: int) -> None:
        self.next = first

    async def __anext__(self) -> int:
        self.next += 1
        return self.next - 1


class Service:
    """A beginning that waits until it is allowed to, or fails."""

    def __init__(self) -> None:
        self.begun = 0
        self.serves = asyncio.Event()
        self.errors: list[Exception] = []

    async def begin(self) -> Numbers:
        await self.serves.wait()
        if self.errors:
            raise self.errors.pop()
        self.begun += 1
        return Numbers(100 * self.begun)


def run(scenario: Callable[[Service], Coroutine[Any, Any, None]]) -> None:
    async def carry_out() -> None:
        await scenario(Service())

    asyncio.run(carry_out())


def test_an_item_that_takes_too_long_while_no_node_serves_may_be_asked_for_again() -> None:
    """It raised "cannot reuse already awaited coroutine" for ever."""

    async def scenario(service: Service) -> None:
        items = Following(service.begin)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(items), 0.01)
        service.serves.set()
        assert [await anext(items), await anext(items)] == [100, 101]

    run(scenario)


def test_a_beginning_that_failed_is_made_again() -> None:
    async def scenario(service: Service) -> None:
        service.serves.set()
        service.errors = [ConnectionError()]
        items = Following(service.begin)
        with pytest.raises(ConnectionError):
            await anext(items)
        assert await anext(items) == 100

    run(scenario)


def test_what_was_awaited_may_be_awaited_again_and_continues() -> None:
    async def scenario(service: Service) -> None:
        service.serves.set()
        items = await Following(service.begin)
        assert service.begun == 1
        assert await anext(items) == 100
        assert await items is items  # type: ignore[misc]
        async for item in items:
            assert item == 101
            break
        assert service.begun == 1

    run(scenario)


def test_tasks_that_begin_at_once_share_the_items() -> None:
    async def scenario(service: Service) -> None:
        items = Following(service.begin)
        tasks = [asyncio.create_task(items.__anext__()) for _ in range(2)]
        await asyncio.sleep(0)
        service.serves.set()
        assert sorted(await asyncio.gather(*tasks)) == [100, 101]

    run(scenario)


def test_it_is_a_coroutine_for_a_task() -> None:
    async def scenario(service: Service) -> None:
        service.serves.set()
        assert await anext(await asyncio.create_task(Following(service.begin))) == 100
        task = asyncio.create_task(Following(Service().begin))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario)


def test_one_that_is_iterated_over_or_never_used_warns_of_nothing() -> None:
    async def scenario(service: Service) -> None:
        service.serves.set()
        Following(service.begin)
        await anext(Following(service.begin))
        gc.collect()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(scenario)
