"""Mutants of the rules about resizes (ADR 33)."""

from typing import Any, Final

from ckptd.core.content.resize_state import ResizeState
from ckptd.core.replication.resizing import Resizing
from ckptd.core.replication.resync import ResyncSender
from ckptd.sim.mutants.mutant import MutantTable, Patch

TABLE: Final = MutantTable()


@TABLE.mutant("log first when it grows", "no limit grows before the directory has it", "resizes")
def _(patch: Patch) -> None:
    patch(ResizeState, "resize", lambda state, limits: ResizeState(state.number + 1, limits, limits))


@TABLE.mutant(
    "directory first when it shrinks", "what shrinks is in force before the directory has it", "resizes"
)
def _(patch: Patch) -> None:
    patch(ResizeState, "resize", lambda state, limits: ResizeState(state.number + 1, state.in_force, limits))


@TABLE.mutant(
    "resize not finished after fail-over",
    "a new active replica finishes what its predecessor began",
    "resizes",
)
def _(patch: Patch) -> None:
    original = Resizing.advance_resizes

    def advance_resizes(resizing: Any) -> None:
        if resizing.resizes or resizing.settling:
            original(resizing)

    patch(Resizing, "advance_resizes", advance_resizes)


@TABLE.mutant("limits left behind", "a replica that joins gets the limits", "resizes")
def _(patch: Patch) -> None:
    original = ResyncSender._send_chunk

    def send_chunk(sender: Any, *rest: Any) -> Any:
        sections = sender.replica.sections
        state = sections.resize_state
        sections.resize_state = state._replace(number=0)
        try:
            return original(sender, *rest)
        finally:
            sections.resize_state = state

    patch(ResyncSender, "_send_chunk", send_chunk)


# Not here: "the directory takes smaller limits once every in-sync replica has them". To show it, an active
# replica has to die in the same millisecond, with the update still on its way to the next one: none of 60
# seeds of the shape had that. A scenario of the core shows it (tests/sim/test_rules_switched_off.py).
