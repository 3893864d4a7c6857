"""Changes of one key or of a prefix, with the value: `Table.track` and `AsyncTable.track` report the same."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ckpt_client import (
    AsyncTable,
    CheckpointError,
    SectionChange,
    SectionChangeT,
    Table,
    UndecodableValue,
    codecs,
)
from ckpt_protocol import codes
from ckpt_protocol.constants import UPDATE_FLAGS
from ckptd.testing import LocalCluster

LIMITS = 200, 1_000, 1_000
CREATED, OVERWRITTEN, DELETED = SectionChangeT.CREATED, SectionChangeT.OVERWRITTEN, SectionChangeT.DELETED
SECONDS = 20
OTHERS = [pytest.param(flags, marks=pytest.mark.extended) for flags in UPDATE_FLAGS[1:]]
KINDS = pytest.mark.parametrize("table", [UPDATE_FLAGS[0], *OTHERS], indirect=True)


class Watch:
    """What a tracking reports, in a queue."""

    def __init__(self) -> None:
        self.changes: queue.Queue[SectionChange[Any]] = queue.Queue()

    def told(self, count: int) -> list[tuple[SectionChangeT, bytes, Any]]:
        """The next changes: what happened, the key, and the value."""
        found = [self.changes.get(timeout=SECONDS) for _ in range(count)]
        return [(change.change, change.section_id, change.value) for change in found]

    def nothing(self) -> bool:
        """True if there is nothing more."""
        time.sleep(0.1)
        return self.changes.empty()


Begin = Callable[..., Watch]


@pytest.fixture(params=["table", "callback", "async"])
def watch(request: pytest.FixtureRequest, cluster: LocalCluster, name: str) -> Iterator[Begin]:
    """Begin to track, at node b: in a loop, by a callback, or for asyncio."""
    ends: list[Callable[[], Any]] = []

    def begin(codec: Any = None, **chosen: Any) -> Watch:
        seen = Watch()
        where = cluster.address("b")
        if request.param != "async":
            table = Table(name, address=where, codec=codec)
            ends.append(table.close)
            if request.param == "callback":
                tracking = table.track(lambda changes: [seen.changes.put(one) for one in changes], **chosen)
            else:
                tracking = table.track(**chosen)
                threading.Thread(target=lambda: [seen.changes.put(one) for one in tracking]).start()
            ends.append(tracking.stop)
            return seen
        begun = threading.Event()
        loop = asyncio.new_event_loop()

        async def follow() -> None:
            async with AsyncTable.open(name, address=where, codec=codec) as table:
                changes = await table.track(**chosen)
                begun.set()
                async for change in changes:
                    seen.changes.put(change)

        task = loop.create_task(follow())

        def run() -> None:
            try:
                loop.run_until_complete(asyncio.wait({task}))
            finally:
                loop.close()

        thread = threading.Thread(target=run)
        thread.start()
        ends.append(thread.join)
        ends.append(lambda: loop.call_soon_threadsafe(task.cancel))
        assert begun.wait(SECONDS)
        return seen

    yield begin
    for end in reversed(ends):
        end()


@pytest.fixture
def table(request: pytest.FixtureRequest, cluster: LocalCluster, name: str) -> Iterator[Table]:
    flags = getattr(request, "param", UPDATE_FLAGS[0])
    with Table(name, *LIMITS, flags, address=cluster.address("a")) as table:
        yield table


@KINDS
def test_every_change_comes_with_its_value(table: Table, watch: Begin) -> None:
    table["before"] = "v"
    seen = watch(values=True)
    table["k"] = "1"
    assert seen.told(1) == [(CREATED, b"k", b"1")]
    table["k"] = "2"
    assert seen.told(1) == [(OVERWRITTEN, b"k", b"2")]
    del table["k"]
    assert seen.told(1) == [(DELETED, b"k", None)]
    table["before"] = "w"
    assert seen.told(1) == [(OVERWRITTEN, b"before", b"w")]


def test_without_values_a_change_has_none(table: Table, watch: Begin) -> None:
    seen = watch()
    table["k"] = "1"
    assert seen.told(1) == [(CREATED, b"k", None)]


@KINDS
def test_one_key_is_followed(table: Table, watch: Begin) -> None:
    seen = watch(key="job", values=True)
    table.update({"job": "1", "job:1": "1", "jo": "1", "other": "1"})
    assert seen.told(1) == [(CREATED, b"job", b"1")]
    assert seen.nothing()


@pytest.mark.parametrize("prefix", ["job:", b"\xff", b"\x00\x00", b"a\xff\xff", b"p" * 700])
def test_a_prefix_is_followed(table: Table, watch: Begin, prefix: str | bytes) -> None:
    first = prefix.encode() if isinstance(prefix, str) else prefix
    inside = [first, first + b"1", first + b"\xff\xff"]
    outside = [
        key for key in (first[:-1], first[:-1] + b"\x01", b"\xfe") if key and not key.startswith(first)
    ]
    table[inside[0]] = "before"
    seen = watch(prefix=prefix, values=True)
    table.update(dict.fromkeys([*outside, *inside], b"v"))
    told = seen.told(3)
    assert sorted(told, key=lambda one: one[1]) == [
        (OVERWRITTEN, inside[0], b"v"),
        (CREATED, inside[1], b"v"),
        (CREATED, inside[2], b"v"),
    ]
    assert seen.nothing()


def test_the_changes_of_the_table_itself_are_reported(cluster: LocalCluster, name: str) -> None:
    async def look() -> list[Any]:
        async with AsyncTable.open(name, *LIMITS, address=cluster.address("a")) as table:
            changes = await table.track(values=True)
            await table.write("k", "v")
            async for change in changes:
                return [change.section_id, change.value]
        return []

    assert asyncio.run(look()) == [b"k", b"v"]


def test_a_loop_begins_to_track_on_its_own(cluster: LocalCluster, name: str) -> None:
    async def look() -> bytes:
        async with AsyncTable.open(name, *LIMITS, address=cluster.address("a")) as table:

            async def write() -> None:
                while True:
                    await table.write("k", "v")
                    await asyncio.sleep(0.01)

            task = asyncio.create_task(write())
            try:
                async for change in table.track():
                    return change.section_id
            finally:
                task.cancel()
        return b""

    assert asyncio.run(look()) == b"k"


def test_a_value_that_does_not_decode_does_not_end_the_tracking(table: Table, watch: Begin) -> None:
    seen = watch(codecs.json, values=True)
    table["k"] = "{"
    bad = seen.changes.get(timeout=SECONDS)
    assert bad.content == b"{"
    with pytest.raises(UndecodableValue) as caught:
        print(bad.value)
    assert caught.value.key == b"k"
    table["k"] = "[1]"
    assert seen.told(1) == [(OVERWRITTEN, b"k", [1])]


@KINDS
def test_nothing_is_missed_when_the_trackers_node_dies(
    table: Table, watch: Begin, cluster: LocalCluster
) -> None:
    seen = watch(prefix="job:", values=True)
    table["job:0"] = "0"
    assert seen.told(1) == [(CREATED, b"job:0", b"0")]
    cluster.kill("b")
    for number in range(1, 6):
        table[f"job:{number}"] = str(number)
        table[f"other:{number}"] = str(number)
    try:
        assert [told[1:] for told in seen.told(5)] == [
            (b"job:%d" % number, b"%d" % number) for number in range(1, 6)
        ]
    finally:
        cluster.start("b")
        cluster.wait_serving()


@pytest.mark.parametrize(
    "chosen", [{"key": 5}, {"prefix": 5}, {"key": "k", "prefix": "k"}, {"key": "\ud800"}]
)
def test_a_wrong_choice_is_refused(cluster: LocalCluster, name: str, chosen: dict[str, Any]) -> None:
    with Table(name, *LIMITS, address=cluster.address("a")) as table:
        with pytest.raises(CheckpointError) as caught:
            table.track(**chosen)
        assert caught.value.code == codes.INVALID_PARAM

    async def look() -> None:
        async with AsyncTable.open(name, *LIMITS, address=cluster.address("a")) as table:
            with pytest.raises(CheckpointError) as caught:
                await table.track(**chosen)
            assert caught.value.code == codes.INVALID_PARAM

    asyncio.run(look())


def test_a_table_with_one_section_reports_it_under_any_key(cluster: LocalCluster, name: str) -> None:
    with (
        Table(name, 1, 100, 0, address=cluster.address("a")) as table,
        table.track(key="any", values=True) as seen,
    ):
        table["other"] = "v"
        for change in seen:
            assert (change.section_id, change.value) == (b"", b"v")
            break
