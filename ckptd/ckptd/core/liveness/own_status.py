"""What this node says of itself in its heartbeats. The parts that know it set it here."""

from dataclasses import dataclass


@dataclass(slots=True)
class OwnStatus:
    """What the next heartbeat says of its sender. `Peer` has the same of each other node."""

    stall_reported_ns: int
    """When `stall_reports` last had a reason."""
    stall_reports: tuple[str, ...] = ()
    """The members that this node has waited for too long."""
    leaving: bool = False
    left: bool = False
    """This node serves no more, and will not in this incarnation."""
    member: bool = False
    amnesiac: bool = False
    full: bool = False
    disk_failing: bool = False
    outlived_command: bool = False
    disk_epoch: int = 0
    decided_epoch: int = 0
