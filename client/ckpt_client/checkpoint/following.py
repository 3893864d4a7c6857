"""What begins when it is awaited, entered or iterated over: `AsyncTable.open`, `track`, `track_leader`.

So `async with` and `async for` need no `await` of their own. They are coroutines as well, for
`asyncio.create_task(AsyncTable.open(…))`.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from functools import cached_property
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

Item = TypeVar("Item", covariant=True)
Result = TypeVar("Result", covariant=True)


class _Begins(Coroutine[Any, Any, Result]):
    """A coroutine that does what another one does."""

    def __init__(self, begin: Coroutine[Any, Any, Result]) -> None:
        self._begin = begin

    def __await__(self) -> Generator[Any, Any, Result]:
        return self._begin.__await__()

    def send(self, value: Any, /) -> Any:
        """See `collections.abc.Coroutine`."""
        return self._begin.send(value)

    def throw(self, *error: Any) -> Any:
        """See `collections.abc.Coroutine`."""
        return self._begin.throw(*error)

    def close(self) -> None:
        """See `collections.abc.Coroutine`."""
        self._begin.close()


class Items(Protocol[Item]):
    """An iterator that is no generator: a generator ends when its task is cancelled."""

    async def __anext__(self) -> Item: ...


class Following(_Begins[AsyncIterator[Item]], AsyncIterator[Item]):
    """`async for item in table.track():`. It begins then; `await table.track()` begins at once.

    A beginning that is cancelled, or fails, is made again by the next `anext`: a program may give each item a
    time-out.
    """

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, Items[Item]]]) -> None:
        """For the table only."""
        self._begin_items = begin
        self._items: Items[Item] | None = None

    @cached_property
    def _begin(self) -> Coroutine[Any, Any, Self]:  # type: ignore[override]  # (Made when it is needed.)
        return self._begin_following()

    async def _begin_following(self) -> Self:
        await self._begun()
        return self

    async def _begun(self) -> Items[Item]:
        if self._items is None:
            items = await self._begin_items()
            if self._items is None:  # (Another task may have begun meanwhile.)
                self._items = items
        return self._items

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._begin_following().__await__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        return await (self._items or await self._begun()).__anext__()


class Block(Protocol):
    """What can be entered with `async with`, and is the same inside."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


Opened = TypeVar("Opened", bound=Block, covariant=True)


class Opening(_Begins[Opened]):
    """`async with AsyncTable.open(…) as table:`, or `table = await AsyncTable.open(…)`."""

    _opened: Any = None

    async def __aenter__(self) -> Opened:
        opened: Opened = await self._begin
        self._opened = opened
        return opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._opened.__aexit__(kind, error, trace)
