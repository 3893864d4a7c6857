"""What a node says about its cluster and its checkpoints: the types. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ckpt_protocol.creation_attributes import Attributes


class Member(NamedTuple):
    """A node of the view. `join_epoch`: the epoch in which it joined."""

    node_id: str
    incarnation: int
    join_epoch: int
    addresses: tuple[str, ...]
    """The URLs at which it accepts clients."""


class UnseenLeader(NamedTuple):
    """A leader whose death the service does not see at once: the next one waits for its ttl."""

    checkpoint: bytes
    program: str


class Alarm(NamedTuple):
    """Something that an operator has to look at."""

    name: str
    text: str


class Usage(NamedTuple):
    """A limit, and how much of it is used."""

    name: str
    used: int
    most: int


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """The answer to DESCRIBE "cluster". docs/protocol.md has the meaning of every field.

    `description["epoch"]` is a field as it arrived, also one that has no attribute here.
    """

    node_id: str
    """The node that answers."""

    epoch: int
    """The epoch of the last view that it installed; 0 for none."""

    coordinator: str
    """The coordinator of that view; "" for none."""

    members: tuple[Member, ...]
    """The members of that view."""

    serving: bool
    waiting_for: str
    """What the node waits for if it does not serve."""

    arbiter: str
    on_silent_peer: str
    configured: tuple[str, ...]
    """The data nodes in the configuration."""

    voters: tuple[str, ...]
    """Data nodes and witnesses."""

    witnesses: tuple[str, ...]
    voting_witnesses: tuple[str, ...]
    """The witnesses whose votes count now; all of them if an older node does not say."""

    feature_level: int
    feature_level_waits_for: tuple[str, ...]
    leaders_unseen: tuple[UnseenLeader, ...]
    alarms: tuple[Alarm, ...]
    counters: Mapping[str, int]
    """What was counted since the start of the daemon."""

    limits: tuple[Usage, ...]
    memory_bytes: int
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The answer as it arrived."""

    def __getitem__(self, name: str) -> Any:
        return self.raw[name]

    def __contains__(self, name: object) -> bool:
        return name in self.raw


class ReplicaDescription(NamedTuple):
    """A replica of a checkpoint: its node, and whether it is in sync."""

    node_id: str
    in_sync: bool


class CheckpointDescription(NamedTuple):
    """One checkpoint in the answer to DESCRIBE "checkpoints"."""

    name: bytes
    creation_id: int
    attributes: Attributes
    active: str | None
    """The node with the active replica; None for none."""

    replicas: tuple[ReplicaDescription, ...]
    opens: int
    unlinked: bool
    waiting_for: tuple[str, ...]
    """The nodes for whose return an unavailable checkpoint waits; () if it is available."""

    closed: str
    """Why the node does not serve the checkpoint; "" if it does."""

    @property
    def in_sync_nodes(self) -> tuple[str, ...]:
        """The nodes whose replicas are in sync."""
        return tuple(replica.node_id for replica in self.replicas if replica.in_sync)
