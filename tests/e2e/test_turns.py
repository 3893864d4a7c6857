"""Real daemons and clients that ask for more than can be done at once: others are served, and nothing grows.

The bounds are generous, since the machine may be busy: without turns these took 8 to 20 s, and 2 to 6 GB.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.raw import Raw

from ckpt_client import AsyncTable, CheckpointError, Table
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.limits import SECTION_BYTES_MAX
from ckpt_protocol.messages import Kind, Op
from ckptd.testing import LocalCluster

pytestmark = pytest.mark.extended

MIB = 1 << 20
GROWTH_MIB_MAX = 300
QUICK_S = 2.0


def memory_mib(pid: int, field: str = "VmHWM") -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) // 1024


@contextmanager
def writing(table: Table) -> Iterator[list[float]]:
    """Another client that writes all the time; how long each write took, in s."""
    took: list[float] = []
    over = threading.Event()

    def write() -> None:
        while not over.wait(0.01):
            began = time.monotonic()
            table["k"] = b"w"
            took.append(time.monotonic() - began)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join()


def test_a_thousand_large_reads_at_once_are_answered_and_delay_no_other_client() -> None:
    """`asyncio.gather` over 1,000 reads of 1 MiB: a daemon grew by 1.8 GB, and the view changed 17 times."""
    with LocalCluster(3) as cluster:
        where = cluster.addresses()
        with (
            Table("large", 20, MIB, 32, address=where) as large,
            Table("small", 9, 9, 9, address=where) as small,
        ):
            for number in range(10):
                large[f"k{number}"] = bytes([number]) * MIB
            before = [memory_mib(cluster.pid(node_id)) for node_id in cluster.node_ids]
            epoch = cluster.describe().epoch

            async def read_all() -> list[bytes]:
                async with await AsyncTable.open("large", address=where, timeout=60) as table:
                    return await asyncio.gather(*(table.read(f"k{i % 10}") for i in range(1000)))

            with writing(small) as took:
                values = asyncio.run(read_all())
            assert all(value == bytes([i % 10]) * MIB for i, value in enumerate(values))
            after = [memory_mib(cluster.pid(node_id)) for node_id in cluster.node_ids]
            assert max(a - b for a, b in zip(after, before, strict=True)) < GROWTH_MIB_MAX
            assert max(took) < QUICK_S
            assert cluster.describe().epoch == epoch


@pytest.mark.parametrize("door", ["unix", pytest.param("tcp", marks=pytest.mark.slow)])
def test_answers_that_no_client_reads_are_not_made(door: str) -> None:
    """108 KB of READs became 6 GB of answers, and nobody was served for 16 s."""
    with LocalCluster(1) as cluster, Table("t", 9, MIB, 9, address=cluster.addresses()) as table:
        table["k"] = bytes(MIB)
        raw = Raw(cluster, "a", door)
        handle = raw.open(b"t")
        body = pack_body([[b"k", 0, None]])
        raw.send(b"".join(encode_frame(Kind.READ, 100 + i, handle, 100, body) for i in range(3000)))
        with writing(table) as took:
            time.sleep(1)
        assert len(took) > 2
        assert max(took) < QUICK_S
        assert memory_mib(cluster.pid("a")) < GROWTH_MIB_MAX
        # Who reads them after all gets every one.
        assert [raw.answer(100 + i)[0] for i in range(300)] == [codes.OK] * 300
        raw.close()


def test_an_update_that_would_outgrow_the_node_is_refused_before_it_is_built() -> None:
    """1.5 KB of PATCH operations asked for 6.4 GB, and got them."""
    flags = ("--memory-bytes-max", str(64 * MIB))
    with (
        LocalCluster(1, flags=flags) as cluster,
        Table("t", 1000, SECTION_BYTES_MAX, 9, address=cluster.addresses()) as table,
    ):
        raw = Raw(cluster, "a")
        handle = raw.open(b"t")
        ops = [[Op.PATCH, b"%d" % i, SECTION_BYTES_MAX - 1, b"x", None] for i in range(100)]
        assert raw.ask(Kind.UPDATE, handle, ops)[0] in (codes.NO_RESOURCES, codes.NO_MEMORY)
        assert memory_mib(cluster.pid("a")) < 200
        assert len(table) == 0
        raw.close()


def test_many_writes_under_way_do_not_hold_up_another_client() -> None:
    """One program's 10,000 writes raised another's p99 from 5 to 747 ms."""
    with LocalCluster(3) as cluster:
        where = cluster.addresses()
        with Table("busy", 100, 100, 9, address=where), Table("small", 9, 9, 9, address=where) as small:

            async def write_many() -> None:
                async with await AsyncTable.open("busy", address=where, timeout=60) as table:
                    await asyncio.gather(*(table.write(f"k{i % 100}", b"x") for i in range(10_000)))

            with writing(small) as took:
                asyncio.run(write_many())
            # (A machine that stands still for a moment holds up one of them.)
            assert sorted(took)[-2] < QUICK_S


def test_a_call_of_more_sections_than_a_turn_allows_is_refused_with_a_code() -> None:
    with LocalCluster(1) as cluster, Table("t", 20_000, 9, 9, address=cluster.addresses()) as table:
        pairs = {f"{number}": b"" for number in range(10_001)}
        with pytest.raises(CheckpointError) as caught:
            table.Write(pairs)
        assert caught.value.code == codes.NO_RESOURCES
        del pairs["0"]
        table.Write(pairs)
        assert len(table) == 10_000
