"""Makes the arbiter of a node."""

from ckptd.core.arbiter.base_arbiter import Arbiter
from ckptd.core.arbiter.etcd import EtcdArbiter
from ckptd.core.arbiter.paxos import PaxosArbiter
from ckptd.core.arbiter.single_and_pair import LocalArbiter
from ckptd.core.arbiter.wait_for_disk import RecordStore
from ckptd.core.context import Context
from ckptd.core.hub import VoterHub
from ckptd.core.liveness.liveness import Liveness


def make_arbiter(context: Context, store: RecordStore, hub: VoterHub, liveness: Liveness) -> Arbiter:
    """Return the arbiter that the settings name."""
    match context.settings.arbiter_name:
        case "majority":
            return PaxosArbiter(context, store, hub, liveness)
        case "etcd":
            return EtcdArbiter(context, store, hub)
        case _:
            return LocalArbiter(context, store, hub)
