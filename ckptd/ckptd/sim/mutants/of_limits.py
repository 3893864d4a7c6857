"""Mutants of the rules about memory limits, refused connections and the operator's commands."""

from dataclasses import replace
from typing import Any, Final

from ckpt_protocol.errors import RequestError
from ckptd.core.arbiter.wait_for_disk import RecordStore
from ckptd.core.liveness.failure_detector import FailureDetector
from ckptd.core.liveness.proofs_of_death import ProofsOfDeath
from ckptd.core.membership import pair_policy
from ckptd.core.membership.reconfiguration import Reconfiguration
from ckptd.core.operations import forced_views
from ckptd.core.operations.operator_commands import OperatorCommands
from ckptd.core.replication import active_replica
from ckptd.core.replication.memory_capacity import check_capacity
from ckptd.core.view import EPOCH_JUMP_DATA_LOSS
from ckptd.sim.mutants.mutant import MutantTable, Patch

TABLE: Final = MutantTable()


@TABLE.mutant("growth on full nodes", "growth is refused on a node whose memory is full", "short of memory")
def _(patch: Patch) -> None:
    patch(active_replica, "check_capacity", lambda replica, session, streaming, ops: None)


@TABLE.mutant(
    "refused though done", "an update beyond the capacity is refused before it is applied", "short of memory"
)
def _(patch: Patch) -> None:
    def apply_and_check(replica: Any, session: int, streaming: Any, ops: Any) -> None:
        try:
            check_capacity(replica, session, streaming, ops)
        except RequestError:
            replica.sections.apply(ops, replica.context.now_ns, replica.log.seq + 1, {})
            raise

    patch(active_replica, "check_capacity", apply_and_check)


@TABLE.mutant("refusals believed", "without trust_rst a refused connection proves nothing", "forged refusals")
def _(patch: Patch) -> None:
    original = ProofsOfDeath.on_connection_refused

    def refused(deaths: Any, node_id: str) -> bool:
        settings = deaths.context.settings
        deaths.context.settings = replace(settings, trust_rst=True)
        try:
            return original(deaths, node_id)
        finally:
            deaths.context.settings = settings

    patch(ProofsOfDeath, "on_connection_refused", refused)


@TABLE.mutant(
    "the living declared dead",
    "a node is declared dead only while its heartbeats do not arrive",
    "operated by hand",
)
def _(patch: Patch) -> None:
    original = OperatorCommands._accept_loss

    def accept_loss(operating: Any, node_id: str) -> str:
        inner = Patch()
        inner(FailureDetector, "recently_heard", lambda detector, peer: False)
        try:
            return original(operating, node_id)
        finally:
            inner.restore()

    patch(OperatorCommands, "_accept_loss", accept_loss)


@TABLE.mutant(
    "bootstrap over data",
    "no node is bootstrapped while a member with data sends it heartbeats",
    "operated by hand",
)
def _(patch: Patch) -> None:
    patch(forced_views.ForcedViews, "_find_data_holder", lambda commands: "")


@TABLE.mutant(
    "decided late",
    "a view that waited for the disk is discarded once another one is decided",
    "declared dead alive",
)
def _(patch: Patch) -> None:
    original = RecordStore._complete
    patch(RecordStore, "discard_pending", lambda store, reason: None)
    patch(RecordStore, "_complete", lambda store, view: original(store, replace(view, objection=lambda: "")))


@TABLE.mutant("commands of one epoch", "no two nodes continue by commands with one epoch", "operated by hand")
def _(patch: Patch) -> None:
    def epoch_of_command(settings: Any, last_epoch: int) -> int:
        return last_epoch + 1 + EPOCH_JUMP_DATA_LOSS

    patch(forced_views, "epoch_of_command", epoch_of_command)
    patch(pair_policy, "epoch_of_command", epoch_of_command)


# Not here: "a voter that forgot what it promised since a command abstains". To show it, a disk has to be
# lost, one side has to miss the last view, and a forced view has to be the newest that this side knows: none
# of 100 seeds had that. A scenario of the core shows it (tests/sim/test_rules_switched_off.py).


@TABLE.mutant(
    "outranked continue",
    "a node that was declared dead admits no node that knows a later view",
    "declared dead alive",
)
def _(patch: Patch) -> None:
    patch(Reconfiguration, "_is_behind", lambda reconfiguration, current: False)
