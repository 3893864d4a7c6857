"""Parsers for the answers to DESCRIBE.

A later version may add fields, and an older one leaves some out. So a field of the cluster that is missing,
or of another kind, counts as empty, and a row that does not have the expected form is left out.
"""

from collections.abc import Iterator
from typing import Any, Final, cast

from ckpt_protocol.creation_attributes import Attributes
from ckpt_protocol.descriptions.model import (
    Alarm,
    CheckpointDescription,
    ClusterDescription,
    Member,
    ReplicaDescription,
    UnseenLeader,
    Usage,
)
from ckpt_protocol.errors import FrameError
from ckpt_protocol.field_checks import U64_MAX, array, boolean, node_id, row, whole
from ckpt_protocol.limits import NODES_MAX, SECTIONS_MAX

_CHECKPOINT_FIELDS_MIN: Final = 7


def parse_cluster_description(payload: object) -> ClusterDescription:
    """Return the answer to DESCRIBE "cluster". Raises: FrameError if it is no map."""
    if type(payload) is not dict:
        raise FrameError("a description of the cluster is not a map")
    raw = cast(dict[str, Any], payload)
    witnesses = _texts(raw.get("witnesses"))
    voting = _texts(raw.get("voting_witnesses")) if "voting_witnesses" in raw else witnesses
    return ClusterDescription(
        node_id=_text(raw.get("node_id")),
        epoch=_number(raw.get("epoch")),
        coordinator=_text(raw.get("coordinator")),
        members=tuple(_member(fields) for fields in _rows(raw.get("members"), (str,))),
        serving=raw.get("serving") is True,
        waiting_for=_text(raw.get("waiting_for")),
        arbiter=_text(raw.get("arbiter")),
        on_silent_peer=_text(raw.get("on_silent_peer")),
        configured=_texts(raw.get("configured")),
        voters=_texts(raw.get("voters")),
        witnesses=witnesses,
        voting_witnesses=voting,
        feature_level=_number(raw.get("feature_level")),
        feature_level_waits_for=_texts(raw.get("feature_level_waits_for")),
        leaders_unseen=tuple(
            UnseenLeader(*fields[:2]) for fields in _rows(raw.get("leaders_unseen"), (bytes, str))
        ),
        alarms=tuple(_alarm(alarm) for alarm in _list(raw.get("alarms"))),
        counters=_counters(raw.get("counters")),
        limits=tuple(Usage(*fields[:3]) for fields in _rows(raw.get("limits"), (str, int, int))),
        memory_bytes=_number(raw.get("memory_bytes")),
        raw=raw,
    )


def _text(found: object) -> str:
    return found if isinstance(found, str) else ""


def _number(found: object) -> int:
    return found if type(found) is int else 0


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


def _texts(found: object) -> tuple[str, ...]:
    return tuple(each for each in _list(found) if isinstance(each, str))


def _rows(found: object, kinds: tuple[type, ...]) -> Iterator[list[Any]]:
    """Yield the rows that begin with fields of these types."""
    for fields in _list(found):
        if isinstance(fields, list) and tuple(map(type, fields[: len(kinds)])) == kinds:
            yield fields


def _member(fields: list[Any]) -> Member:
    name, incarnation, join_epoch, urls = [*fields, None, None, None][:4]
    return Member(name, _number(incarnation), _number(join_epoch), _texts(urls))


def _alarm(found: object) -> Alarm:
    fields = found if isinstance(found, list) else [found]
    return Alarm(_text(fields[0]) if fields else "", " ".join(_texts(fields[1:])))


def _counters(found: object) -> dict[str, int]:
    counters = found if isinstance(found, dict) else {}
    return {name: value for name, value in counters.items() if type(name) is str and type(value) is int}


def parse_checkpoint_descriptions(payload: object) -> tuple[CheckpointDescription, ...]:
    """Return the answer to DESCRIBE "checkpoints", or one page of it. Raises: FrameError."""
    return tuple(_checkpoint(fields) for fields in array(payload, "checkpoints", SECTIONS_MAX))


def _checkpoint(value: object) -> CheckpointDescription:
    fields = row(value, "a checkpoint", _CHECKPOINT_FIELDS_MIN)
    name, creation_id, attributes, active, replicas, opens, unlinked, waiting_for, closed = [
        *fields,
        None,
        None,
    ][:9]
    if type(name) is not bytes:
        raise FrameError("a checkpoint's name is not a byte string")
    return CheckpointDescription(
        name,
        whole(creation_id, "a creation id", U64_MAX),
        Attributes(*(whole(each, "an attribute") for each in row(attributes, "attributes", 6)[:6])),
        None if active is None else node_id(active, "the active replica's node"),
        tuple(_replica(each) for each in array(replicas, "replicas", NODES_MAX)),
        whole(opens, "a number of opens"),
        boolean(unlinked, "whether a checkpoint is unlinked"),
        _texts(waiting_for),
        _text(closed),
    )


def _replica(value: object) -> ReplicaDescription:
    name, in_sync = row(value, "a replica", 2)[:2]
    return ReplicaDescription(
        node_id(name, "a replica's node"), boolean(in_sync, "whether a replica is in sync")
    )
