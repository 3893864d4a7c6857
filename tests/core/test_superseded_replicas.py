"""A replica that others continued without does not become active with what it held (ADR 6)."""

import pytest
from tests.core.cluster import Cluster, three_nodes

from ckpt_protocol import codes
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
)


def members(cluster: Cluster, node_id: str) -> list[str]:
    """Return the members of the view in which a node serves; none if it does not."""
    view = cluster.node(node_id).view
    return sorted(view.members) if view is not None and cluster.serving(node_id) else []


@pytest.mark.parametrize("flags", [SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK])
@pytest.mark.parametrize("writes", [0, 1, 6])
def test_a_superseded_replica_is_replaced_before_it_is_activated(flags: int, writes: int) -> None:
    """Seed 9540921: b had ordered more while it was cut off than c did without it, and brought that back."""
    cluster = three_nodes()
    at_b = cluster.client("b").open(flags=flags | SA_CKPT_CHECKPOINT_COLLOCATED)
    at_c = cluster.client("c").open_existing()
    assert at_b.set_active().code == codes.OK
    at_b.write(b"k", b"kept")
    cluster.settle()
    cluster.run(50)
    cluster.cut("b", "ac")
    for number in range(3):
        at_b.write(b"k", b"lost %d" % number)
    cluster.until(lambda: members(cluster, "c") == ["a", "c"])
    assert at_c.set_active().code == codes.OK
    assert at_c.read(b"k") == b"kept"
    for number in range(writes):
        at_c.write(b"k", b"later %d" % number)
    cluster.heal()
    cluster.cut("c", "ab")
    cluster.until(lambda: members(cluster, "b") == ["a", "b"])
    cluster.heal()
    cluster.until(lambda: members(cluster, "b") == ["a", "b", "c"])
    assert at_b.set_active().code == codes.OK
    assert at_b.read(b"k") == (b"later %d" % (writes - 1) if writes else b"kept"), "what c served holds"
    assert [node_id for node_id, _ in cluster.quarantined] == ["b"]
    cluster.check()
