"""What an asynchronous checkpoint lost with its active replica's node, as far as anybody was told.

Heartbeats tell how far an active replica has ordered what somebody may lack. Whoever takes
over compares that with what it went on from: a lower bound, said at once.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptd.core.replica import Replica


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
