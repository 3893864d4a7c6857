"""`python -m bench.mapping`: what the calls of a mapping cost next to the calls that they are made of.

Contenders take turns in rounds; each is compared with its floor in the same round. At the end, snapshots of a
table of several pages are taken while three programs write to it.
"""

import argparse
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from rich.console import Console

from bench.layout import Rows
from ckpt_client import Table, codecs
from ckptd.testing import LocalCluster

KEYS: Final = 500
BATCH: Final = 100
LARGE: Final = 4_000
LARGE_KEYS: Final = 1_000
SNAPSHOT_SECONDS: Final = 3.0
ORDER: Final = {"item": "tea", "count": 3, "paid": True, "to": "somebody in some street"}


@dataclass(slots=True, frozen=True)
class Pair:
    """A call, its floor, and how often a round makes each."""

    name: str
    call: Callable[[], Any]
    floor: Callable[[], Any]
    goal: str
    times: int


def round_us(call: Callable[[], Any], times: int) -> float:
    """Return the median latency of some calls, in µs."""
    clock, latencies = time.perf_counter_ns, []
    for _ in range(times):
        began = clock()
        call()
        latencies.append(clock() - began)
    return median(latencies) / 1000


def pairs_of(table: Table, typed: "Table[Any]", raw: Table) -> list[Pair]:
    """Return what is compared."""
    hundred = {b"%d" % number: b"v" * 50 for number in range(BATCH)}

    def one_update() -> None:
        with table.batch() as batch:
            for key, value in hundred.items():
                batch[key] = value

    def write() -> None:
        raw["w"] = b"v"

    def keep() -> None:
        raw.Write("w", b"v", keep_expiry=True)

    def expire() -> None:
        raw.Write("x", b"v", expires_in=30)

    return [
        Pair("dict(table), 500 keys / read_all()", lambda: dict(table), table.read_all, "<= 1.3", 10),
        Pair("snapshot(), one page / read_all()", table.snapshot, table.read_all, "", 10),
        Pair("typed get (JSON) / get of bytes", lambda: typed["k"], lambda: raw["k"], "+ <= 10 us", 300),
        Pair("update() of 100 / a batch of 100", lambda: table.update(hundred), one_update, "1.0", 30),
        Pair("t[k] = v / Write(keep_expiry=True)", write, keep, "", 300),
        Pair("Write(expires_in=30) / t[k] = v", expire, write, "", 300),
    ]


def measure_pairs(cluster: LocalCluster, rounds: int) -> Rows:
    """Measure all pairs in turns."""
    where = cluster.address(0)
    rows = Rows(("us", "call", "floor", "more", "ratio", "goal"))
    with (
        Table("mapping", 1_000, 1_000, 32, address=where) as table,
        Table("typed", 10, 1_000, 32, address=where, codec=codecs.json) as typed,
        Table("typed", address=where) as raw,
    ):
        table.update({b"%05d" % number: b"v" * 50 for number in range(KEYS)})
        typed["k"] = ORDER
        for pair in pairs_of(table, typed, raw):
            calls: list[float] = []
            floors: list[float] = []
            for turn in range(rounds):
                for which in (0, 1) if turn % 2 else (1, 0):
                    (calls, floors)[which].append(round_us((pair.call, pair.floor)[which], pair.times))
            more = median(a - b for a, b in zip(calls, floors, strict=True))
            ratio = median(a / b for a, b in zip(calls, floors, strict=True))
            figures = (median(calls), median(floors), more)
            rows.row(pair.name, *(f"{figure:,.1f}" for figure in figures), f"{ratio:.2f}", pair.goal)
    return rows


def measure_snapshots(cluster: LocalCluster) -> str:
    """Take snapshots of 4 MB while three programs write; return what came of it."""
    stop, written = threading.Event(), [0, 0, 0]

    def write(number: int) -> None:
        with Table("snapshots", address=cluster.address(number)) as table:
            while not stop.is_set():
                table[b"%05d" % (written[number] * 7 % LARGE_KEYS)] = bytes(LARGE)
                written[number] += 1

    with Table("snapshots", LARGE_KEYS, LARGE, 32, address=cluster.address(0)) as table:
        for first in range(0, LARGE_KEYS, BATCH):
            table.update({b"%05d" % number: bytes(LARGE) for number in range(first, first + BATCH)})
        threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        latencies, began = [], time.perf_counter()
        try:
            while time.perf_counter() - began < SNAPSHOT_SECONDS:
                before = time.perf_counter()
                assert len(table.snapshot()) == LARGE_KEYS, "a snapshot has every section"
                latencies.append(time.perf_counter() - before)
            seconds = time.perf_counter() - began
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    rate = sum(written) * LARGE / seconds / 1e6
    return (
        f"{len(latencies)} snapshots of 4 MB, p50 {median(latencies) * 1e3:.0f} ms, longest "
        f"{max(latencies) * 1e3:.0f} ms, while three programs wrote {rate:.0f} MB/s"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.mapping", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, metavar="N", help="rounds of each contender")
    rounds = parser.parse_args().rounds
    console = Console()
    with LocalCluster(3) as cluster:
        measure_pairs(cluster, rounds).print(console)
        console.print(measure_snapshots(cluster))


if __name__ == "__main__":
    main()
