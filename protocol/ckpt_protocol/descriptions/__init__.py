"""A node's answers to DESCRIBE as typed values: the cluster and its checkpoints as that node sees them."""

from ckpt_protocol.descriptions.model import (
    Alarm,
    CheckpointDescription,
    ClusterDescription,
    Member,
    ReplicaDescription,
    UnseenLeader,
    Usage,
)
from ckpt_protocol.descriptions.parse import parse_checkpoint_descriptions, parse_cluster_description

__all__ = [
    "Alarm",
    "CheckpointDescription",
    "ClusterDescription",
    "Member",
    "ReplicaDescription",
    "UnseenLeader",
    "Usage",
    "parse_checkpoint_descriptions",
    "parse_cluster_description",
]
