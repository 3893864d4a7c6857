"""Parses and checks HEARTBEAT: anyone who can reach the UDP port can send one if no key is set.

A heartbeat is used only after all of it was checked, so one that is half valid changes nothing.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from ckpt_protocol.body_codec import bounded_array
from ckpt_protocol.bounds_by_kind import BOUNDS
from ckpt_protocol.errors import parser
from ckpt_protocol.field_checks import U64_MAX, array, boolean, node_id, row, text, whole
from ckpt_protocol.framing import Frame
from ckpt_protocol.limits import (
    ADVERTISED_POSITIONS_MAX,
    CLUSTER_NAME_BYTES_MAX,
    EPOCH_MAX,
    NODES_MAX,
    SEQ_MAX,
)
from ckpt_protocol.messages import Kind

_LEVEL_MAX: Final = 1_000


class Heartbeat(NamedTuple):
    """The content of a heartbeat."""

    node_id: str
    incarnation: int
    decided_epoch: int
    disk_epoch: int
    flags: int
    heard: dict[str, int]
    """The nodes that the sender hears, each with its incarnation."""
    links: dict[str, int]
    """Those of them that the sender has a link to."""
    stall_reports: tuple[str, ...]
    of_incarnation: int
    cluster: str
    declared_dead: dict[str, int]
    advertised_positions: list[tuple[int, int]]
    feature_level: int
    required_level: int


@parser
def parse_heartbeat(frame: Frame, known: Mapping[bytes, Heartbeat]) -> Heartbeat:
    """Parse a heartbeat; `known` holds earlier ones by their bodies. Raises: FrameError."""
    whole(frame.b, "an epoch", EPOCH_MAX)
    return known.get(frame.body) or _parse(frame.body)


def _parse(body: bytes) -> Heartbeat:
    fields = bounded_array(body, BOUNDS[Kind.HEARTBEAT], 9)
    heard = [_heard_node(heard) for heard in array(fields[5], "the peers in a heartbeat", NODES_MAX)]
    return Heartbeat(
        node_id(fields[0], "a node's id"),
        whole(fields[1], "an incarnation"),
        whole(fields[2], "an epoch", EPOCH_MAX),
        whole(fields[3], "an epoch", EPOCH_MAX),
        whole(fields[4], "flags"),
        {other: incarnation for other, incarnation, _ in heard},
        {other: incarnation for other, incarnation, linked in heard if linked},
        tuple(node_id(stalled, "a node's id") for stalled in array(fields[6], "complaints", NODES_MAX)),
        whole(fields[7], "an incarnation"),
        text(fields[8], "a cluster's name", CLUSTER_NAME_BYTES_MAX),
        dict(
            _declared_dead(declared)
            for declared in array(fields[9], "the nodes that are declared dead", NODES_MAX)
        )
        if len(fields) > 9
        else {},
        [
            _position(position)
            for position in array(fields[10], "the unacknowledged updates", ADVERTISED_POSITIONS_MAX)
        ]
        if len(fields) > 10
        else [],
        *_levels(fields[11:13]),
    )


def _levels(fields: list[object]) -> tuple[int, int]:
    """Parse the sender's own feature level and that of its view; a node of an earlier version sends none."""
    if len(fields) < 2:
        return 0, 0
    own, required = fields
    return whole(own, "a feature level", _LEVEL_MAX), whole(required, "a feature level", _LEVEL_MAX)


def _heard_node(fields: object) -> tuple[str, int, bool]:
    heard = row(fields, "a peer in a heartbeat", 3)
    linked = boolean(heard[2], "the connected flag of a peer")
    return node_id(heard[0], "a node's id"), whole(heard[1], "an incarnation"), linked


def _declared_dead(fields: object) -> tuple[str, int]:
    declared = row(fields, "a node that is declared dead", 2)
    return node_id(declared[0], "a node's id"), whole(declared[1], "an incarnation")


def _position(fields: object) -> tuple[int, int]:
    position = row(fields, "an unacknowledged update", 2)
    return whole(position[0], "a creation id", U64_MAX), whole(position[1], "a seq", SEQ_MAX)
