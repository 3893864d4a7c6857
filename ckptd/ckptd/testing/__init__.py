"""A cluster of real `ckptd` processes on loopback, for tests and other programs that need one temporarily.

    from ckpt_client import Table
    from ckptd.testing import LocalCluster

    with LocalCluster(nodes=3) as cluster:
        table = Table("state", 100, 1024, 32, address=cluster.addresses())
        table.Write("k", "v")
        cluster.kill(cluster.active_node("state"))
        assert table.Read(["k"]) == b"v"

Entering the block waits until the nodes serve as one cluster. Leaving it kills every process and removes the
cluster's directory. The daemons also end when this process ends in any other way.

This package does not use the client library; it asks the daemons with DESCRIBE, as any program may.
"""

from ckpt_protocol.descriptions import (
    Alarm,
    CheckpointDescription,
    ClusterDescription,
    Member,
    ReplicaDescription,
    UnseenLeader,
    Usage,
)
from ckptd.testing.describe_node import describe
from ckptd.testing.errors import ClusterError, NodeEnded
from ckptd.testing.held_port import HeldPort
from ckptd.testing.local_cluster import LocalCluster

__all__ = [
    "Alarm",
    "CheckpointDescription",
    "ClusterDescription",
    "ClusterError",
    "HeldPort",
    "LocalCluster",
    "Member",
    "NodeEnded",
    "ReplicaDescription",
    "UnseenLeader",
    "Usage",
    "describe",
]


def __dir__() -> list[str]:
    return sorted(__all__)
