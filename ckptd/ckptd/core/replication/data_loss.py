"""What an asynchronous checkpoint lost with its active replica's node, as far as anybody was told.

Heartbeats tell how far an active replica has ordered what somebody may lack. Whoever takes
over compares that with what it went on from: a lower bound, said at once.
"""

from typing import TYPE_CHECKING, Final

from ckptd.core.liveness.heartbeat import Unacknowledged

if TYPE_CHECKING:
    from ckptd.core.replication.active_replica import ActiveReplica
    from ckptd.core.replication.replica import Replica

UNACKNOWLEDGED_MAX: Final = 32
"""Checkpoints that a heartbeat tells of; with more a reported loss is still a lower bound."""


def report_loss(replica: "Replica") -> None:
    """A replica has taken over: say how many updates the lost one had ordered that nobody has."""
    context, log = replica.context, replica.log
    known_seq = max((heard for _, _, heard in replica.reports.values()), default=0)
    lost = max(known_seq, replica.heard_seq) - log.seq
    replica.heard_seq = 0
    if lost > 0 and not replica.sync:
        name = replica.name.decode(errors="replace")
        context.count("updates_lost_at_least", lost)
        context.log(f"checkpoint {name!r}: at least {lost} of its last updates are lost", "warning")
        replica.losses.append((log.seq, lost))


def unacknowledged(watched: "dict[int, ActiveReplica]", node_id: str) -> Unacknowledged:
    """How far the asynchronous active replicas here have ordered, where that node may lack some of it."""
    ordered: Unacknowledged = []
    for creation_id, active in watched.items():
        seq = active.replica.log.seq
        if not active.replica.sync and active.ready and active.acked.get(node_id, seq) < seq:
            ordered.append((creation_id, seq))
            if len(ordered) == UNACKNOWLEDGED_MAX:
                break
    return ordered


def note_unacknowledged(held: "dict[int, Replica]", epoch: int, ordered: Unacknowledged) -> None:
    """Remember it: should that node be lost, it tells how much is lost with it, at least."""
    for creation_id, seq in ordered:
        replica = held.get(creation_id)
        if replica is not None and replica.active is None:
            replica.heard_seq = max(replica.heard_seq, seq)
            replica.heard_epoch = epoch
