"""The cases: what is done, on how many nodes, and the goal for each figure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bench.measure import Contender, Figures, Ratios, Run, measure
from bench.rigs import CkptdRig, FloorRig


@dataclass(slots=True, frozen=True)
class Goal:
    """Goals for ratios to the floor; None if there is no goal."""

    cpu_max: float | None = None
    p50_max: float | None = None
    rate_min: float | None = None

    def judge(self, floor: Figures, ckptd: Figures) -> list[tuple[str, float, bool]]:
        """Return for each goal its text, the measured ratio, and True if it is met."""
        found = []
        ratios = Ratios.of(floor, ckptd)
        if self.cpu_max is not None:
            found.append((f"CPU ≤ {self.cpu_max:g} x", ratios.cpu, ratios.cpu <= self.cpu_max))
        if self.p50_max is not None:
            found.append((f"p50 ≤ {self.p50_max:g} x", ratios.p50, ratios.p50 <= self.p50_max))
        if self.rate_min is not None:
            found.append((f"ops/s ≥ {self.rate_min:g} x", ratios.rate, ratios.rate >= self.rate_min))
        return found


@dataclass(slots=True, frozen=True)
class Case:
    """One thing that is measured."""

    name: str
    nodes: int
    value_bytes: int
    operations: int
    """How many operations one contender does in one round."""

    start: Callable[[FloorRig | CkptdRig, bytes], Run]
    goal: Goal = field(default_factory=Goal)
    remote: bool = False

    @property
    def title(self) -> str:
        """The name with the size."""
        size = self.value_bytes
        return f"{self.name}, {size // 1024} KiB" if size >= 1024 else f"{self.name}, {size} B"


@dataclass(slots=True, frozen=True)
class Outcome:
    """A case with its measured figures."""

    case: Case
    floor: Figures
    ckptd: Figures


_B100, _K1, _K64 = 100, 1024, 64 * 1024
_WRITE_GOAL = Goal(cpu_max=1.6, p50_max=1.6)
_READ_GOAL = Goal(cpu_max=2.5, p50_max=2.5)


def _sync(rig: FloorRig | CkptdRig, value: bytes) -> Run:
    return rig.write(value)


def _async(rig: FloorRig | CkptdRig, value: bytes) -> Run:
    return rig.write(value, sync=False)


def _read_remote(rig: FloorRig | CkptdRig, value: bytes) -> Run:
    return rig.read(value, remote=True)


CASES: Final = (
    Case("write, sync, 1 replica", 1, _K1, 300, _sync),
    Case("write, sync, 2 replicas", 2, _K1, 300, _sync),
    Case("write, sync, 3 replicas", 3, _B100, 300, _sync),
    Case("write, sync, 3 replicas", 3, _K1, 300, _sync, _WRITE_GOAL),
    Case("write, sync, 3 replicas", 3, _K64, 120, _sync),
    Case("write, async, 3 replicas", 3, _B100, 300, _async),
    Case("write, async, 3 replicas", 3, _K1, 300, _async, _WRITE_GOAL),
    Case("write, async, 3 replicas", 3, _K64, 120, _async),
    Case("read, local", 3, _B100, 1500, lambda rig, value: rig.read(value)),
    Case("read, local", 3, _K1, 1500, lambda rig, value: rig.read(value), _READ_GOAL),
    Case("read, local", 3, _K64, 200, lambda rig, value: rig.read(value)),
    Case("read, remote", 3, _K1, 300, _read_remote, remote=True),
    Case("read, remote", 3, _K64, 120, _read_remote, remote=True),
    Case("100 sections in one update, sync", 3, _B100, 60, lambda rig, value: rig.write_hundred(value)),
    Case(
        "100 sections in one update, sync",
        3,
        _K1,
        60,
        lambda rig, value: rig.write_hundred(value),
        Goal(cpu_max=2.5, p50_max=2.5),
    ),
    Case("SAF service, overwrite, sync", 3, _K1, 300, lambda rig, value: rig.saf_write(value)),
    Case("SAF service, read, local", 3, _K1, 1000, lambda rig, value: rig.saf_read(value)),
    Case(
        "32 callers, write, sync",
        3,
        _K1,
        960,
        lambda rig, value: rig.callers_write(value),
        Goal(rate_min=0.5),
    ),
    Case("32 callers, read, local", 3, _K1, 1600, lambda rig, value: rig.callers_read(value)),
)


def run_case(case: Case, floor: FloorRig, ckptd: CkptdRig, rounds: int) -> Outcome:
    """Measure one case on clusters that already run."""
    value = (bytes(range(256)) * (case.value_bytes // 256 + 1))[: case.value_bytes]
    contenders = [Contender(case.start(rig, value), rig.pids(case.remote)) for rig in (floor, ckptd)]
    return Outcome(case, *measure(contenders, rounds, case.operations))
