"""Which arbiter a node goes by."""

from ckptd.core.arbiter import Arbiter, LocalArbiter
from ckptd.core.context import Context
from ckptd.core.heartbeat import Heartbeats
from ckptd.core.majority import MajorityArbiter
from ckptd.core.record import Disk
from ckptd.core.register import RegisterArbiter


def make_arbiter(context: Context, disk: Disk, heartbeats: Heartbeats) -> Arbiter:
    """The arbiter that the settings name."""
    match context.settings.arbiter_name:
        case "majority":
            return MajorityArbiter(context, disk, heartbeats)
        case "etcd":
            return RegisterArbiter(context, disk)
        case _:
            return LocalArbiter(context, disk)
