"""Values that were read with the keys are those of one instruction: `dict(table)`, and no other call."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.client.fake_service import FakeNode
from tests.client.fixtures import Start, service, start

from ckpt_client import Table

__all__ = ["service", "start"]


@pytest.fixture
def node(start: Start) -> FakeNode:
    return start("a", "unix")


@pytest.fixture
def table(node: FakeNode) -> Iterator[Table]:
    """A table of two sections, "1" each."""
    with Table("phones", 10, 1000, 20, address=node.url) as opened:
        opened.update(a="1", b="1")
        yield opened


@pytest.fixture
def other(node: FakeNode, table: Table) -> Iterator[Table]:
    """The same checkpoint, opened by another program."""
    with Table("phones", address=node.url) as opened:
        yield opened


def in_one_wrapper(function: Callable[..., Any], *arguments: Any) -> Any:
    """As a retry does: every call of a program comes from one instruction of this function."""
    return function(*arguments)


def test_calls_that_come_from_one_wrapper_are_several_instructions(table: Table, other: Table) -> None:
    """A new frame often has the id of the one before; values of the past were returned."""
    keys = in_one_wrapper(list, in_one_wrapper(table.keys))
    other.update(a="2", b="2")
    assert [in_one_wrapper(table.__getitem__, key) for key in keys] == [b"2", b"2"]


def test_calls_in_the_thread_of_an_executor_are_several_instructions(table: Table, other: Table) -> None:
    with ThreadPoolExecutor(1) as executor:
        keys = executor.submit(list, executor.submit(table.keys).result()).result()
        other.update(a="2", b="2")
        assert [executor.submit(table.__getitem__, key).result() for key in keys] == [b"2", b"2"]


class Interrupting(bytes):
    """A key that is in the dict already: while the next one is compared with it, something else happens."""

    def __new__(cls, key: bytes, happens: Callable[[], object]) -> "Interrupting":
        made = super().__new__(cls, key)
        made.happens = happens  # type: ignore[attr-defined]
        return made

    def __hash__(self) -> int:
        return hash(bytes(self))

    def __eq__(self, other: object) -> bool:
        self.happens()  # type: ignore[attr-defined]
        return bytes(self) == other


def test_what_interrupts_a_dict_may_read_the_same_table(table: Table, other: Table) -> None:
    """As a signal handler does."""
    seen: list[Any] = []
    merged: dict[Any, Any] = {Interrupting(b"a", lambda: seen.append((table["b"], dict(table)))): b"0"}
    merged.update(table)
    assert seen and all(each == (b"1", {b"a": b"1", b"b": b"1"}) for each in seen)
    assert merged == {b"a": b"1", b"b": b"1"}


def test_values_of_a_dict_that_was_interrupted_are_not_kept(table: Table) -> None:
    def raise_error() -> None:
        raise ZeroDivisionError

    merged: dict[Any, Any] = {Interrupting(b"a", raise_error): b"0"}
    with pytest.raises(ZeroDivisionError):
        merged.update(table)
    assert table["a"] == b"1"
    assert table._one_instruction.ready is None
    with pytest.raises(ZeroDivisionError):
        merged.update(table)
    kept = []
    thread = threading.Thread(target=lambda: kept.append(table._one_instruction.ready))
    thread.start()
    thread.join()
    assert kept == [None]


def test_a_view_that_is_kept_does_not_keep_what_its_maker_used(table: Table) -> None:
    class Large:
        pass

    views = []

    def look() -> "weakref.ref[Large]":
        large = Large()
        views.append(table.keys())
        assert len(list(views[-1])) == 2
        return weakref.ref(large)

    large = look()
    gc.collect()
    assert large() is None


class Halving(Table):
    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key)[:1]


def test_a_subclass_that_reads_otherwise_is_asked_for_each_value(node: FakeNode, table: Table) -> None:
    table.update(a="12", b="34")
    with Halving("phones", address=node.url) as halving:
        assert dict(halving) == {b"a": b"1", b"b": b"3"}
