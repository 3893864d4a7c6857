"""One interface to `Table` and `AsyncTable`, so that a scenario is written once for both.

Its methods have the names of `AsyncTable`, and block.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from ckpt_client import AsyncTable, Table

NAMES_OF_TABLE = {
    "write": "Write",
    "delete": "Delete",
    "read": "__getitem__",
    "contains": "__contains__",
}


class Both:
    """A table of either kind. Iterations come as lists."""

    def __init__(self, table: Any, run: Callable[[Any], Any], is_async: bool) -> None:
        self.table = table
        self.is_async = is_async
        self._run = run

    def __getattr__(self, name: str) -> Any:
        if self.is_async:
            found = getattr(self.table, name)
            return lambda *args, **named: self._run(found(*args, **named))
        return getattr(self.table, NAMES_OF_TABLE.get(name, name))

    def write_many(self, values: Any, **named: Any) -> None:
        if self.is_async:
            self._run(self.table.write_many(values, **named))
        else:
            self.table.Write(values, **named)

    def listed(self, name: str) -> list[Any]:
        """What `keys`, `values` or `items` yields."""
        if not self.is_async:
            return list(getattr(self.table, name)())

        async def collect() -> list[Any]:
            return [each async for each in getattr(self.table, name)()]

        found: list[Any] = self._run(collect())
        return found

    def batch(self, change: Callable[[Any], None]) -> None:
        """Make the changes of a function in one batch."""
        if not self.is_async:
            with self.table.batch() as batch:
                change(batch)
            return

        async def make() -> None:
            async with self.table.batch() as batch:
                change(batch)

        self._run(make())


@contextlib.contextmanager
def open_either(kind: str, name: str, limits: tuple[int, int, int], **named: Any) -> Iterator[Both]:
    """Open a `Table` ("table") or an `AsyncTable` ("async")."""
    if kind == "table":
        with Table(name, *limits, **named) as table:
            yield Both(table, lambda done: done, False)
        return
    with asyncio.Runner() as runner:

        async def begin() -> Any:
            return await AsyncTable.open(name, *limits, **named)

        opened = runner.run(begin())

        async def carry_out(awaitable: Any) -> Any:
            return await awaitable

        try:
            yield Both(opened, lambda call: runner.run(carry_out(call)), True)
        finally:
            runner.run(opened.close())
