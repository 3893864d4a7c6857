"""What an asynchronous checkpoint lost with the node of its active replica, as far as other nodes know.

Heartbeats say how far an active replica has ordered updates that the receiver may lack. The next active
replica compares that with the update that it continues from. The result is a lower bound, reported at once.
"""

from collections.abc import Mapping

from ckptd.core.content.replica_content import ReplicaContent
from ckptd.core.hub import Positions


def report_data_loss(replica: ReplicaContent) -> None:
    """After a take-over, report how many updates the lost active replica had ordered that no replica has."""
    context, log = replica.context, replica.log
    known_seq = max((advertised_seq for _, _, advertised_seq in replica.replica_reports.values()), default=0)
    lost = max(known_seq, replica.advertised_seq) - log.seq
    replica.advertised_seq = 0
    if lost > 0 and not replica.sync:
        name = replica.name.decode(errors="replace")
        context.count("updates_lost_at_least", lost)
        context.log(f"checkpoint {name!r}: at least {lost} of its last updates are lost", "warning")
        replica.known_losses.append((log.seq, lost))


def note_advertised_positions(
    replicas: Mapping[int, ReplicaContent], epoch: int, positions: Positions
) -> None:
    """Remember how far a node has ordered: a lower bound of the loss, should that node be lost."""
    for creation_id, seq in positions:
        replica = replicas.get(creation_id)
        if replica is not None and not replica.is_active:
            replica.advertised_seq = max(replica.advertised_seq, seq)
            replica.advertised_epoch = epoch
