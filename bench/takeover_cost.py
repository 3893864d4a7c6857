"""The cost of a leader's write, and of a write with a condition, next to that of a plain one.

Two tables of the same kind, on the same nodes: a program leads one of them. The contenders take turns in
rounds, and each round of one is compared with the plain round before it.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from bench.measure import percentile
from ckpt_client import Table
from ckptd.testing import LocalCluster

VALUE: Final = bytes(1024)
WRITES_OF_ROUND: Final = 200
WARM_UP_ROUNDS: Final = 3
GOAL_RATIO: Final = 1.03
PLAIN: Final = "plain"
LEADER: Final = "leader"


@dataclass(slots=True)
class Costs:
    """The median latency of each round, in µs, by contender."""

    rounds: dict[str, list[float]] = field(default_factory=dict)

    def p50_us(self, name: str) -> float:
        """Return the median of the rounds' medians."""
        return median(self.rounds[name])

    def ratio(self, name: str) -> float:
        """Return the median ratio to the plain round of the same turn."""
        pairs = zip(self.rounds[name], self.rounds[PLAIN], strict=True)
        return median(one / plain for one, plain in pairs)


def measure_costs(cluster: LocalCluster, rounds: int) -> Costs:
    """Measure all contenders in turns."""
    with ExitStack() as ends:
        plain, led, conditional = (
            ends.enter_context(Table(f"cost-{name}", 10, len(VALUE), 16, address=cluster.address(0)))
            for name in (PLAIN, LEADER, "conditional")
        )
        actives = {cluster.active_node(f"cost-{name}") for name in (PLAIN, LEADER, "conditional")}
        assert len(actives) == 1, f"all of them take the same way, not to {actives}"
        ends.enter_context(led.lead(math.inf))
        conditional["key"] = conditional["other key"] = VALUE
        versioned = conditional.get_versioned("key")
        assert versioned is not None, "it was written just now"
        version = [versioned.version]

        def write_if_version() -> None:
            version[0] = conditional.Write("key", VALUE, if_version=version[0])

        def write_in_transaction() -> None:
            with conditional.transaction() as t:
                t.require_present("other key")
                t["other key"] = VALUE

        contenders: dict[str, Callable[[], object]] = {
            PLAIN: lambda: plain.Write("key", VALUE),
            LEADER: lambda: led.Write("key", VALUE),
            "if_version=": write_if_version,
            "transaction": write_in_transaction,
        }
        return _in_turns(contenders, rounds)


def _in_turns(contenders: dict[str, Callable[[], object]], rounds: int) -> Costs:
    costs = Costs({name: [] for name in contenders})
    names: Sequence[str] = tuple(contenders)
    for number in range(WARM_UP_ROUNDS + rounds):
        # The order changes, so that none always runs right after the same one.
        turn = names if number % 2 == 0 else names[::-1]
        for name in turn:
            p50_us = _round_us(contenders[name])
            if number >= WARM_UP_ROUNDS:
                costs.rounds[name].append(p50_us)
    return costs


def _round_us(write: Callable[[], object]) -> float:
    clock, latencies = time.perf_counter_ns, []
    for _ in range(WRITES_OF_ROUND):
        began = clock()
        write()
        latencies.append(clock() - began)
    return percentile(latencies, 50) / 1e3
