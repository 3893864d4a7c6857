"""Encode a table's younger requests and read the answers, as `table_requests` does with the older ones."""

from typing import Any, Final

from ckpt_client.requests.table_requests import (
    Attributes,
    Key,
    check_expiration,
    item_of,
    positioned_page_of,
    raise_malformed,
    refuse,
    section_id,
)
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import SA_CKPT_SECTIONS_ANY
from ckpt_protocol.errors import FrameError
from ckpt_protocol.messages import Op
from ckpt_protocol.parse_answers import Changes, parse_changes, parse_element

_SECOND_NS: Final = 1_000_000_000
_VERSION_FIELD: Final = 6


def touch_body(attributes: Attributes, key: Key, at_ns: int | None, after_ns: int) -> bytes:
    """UPDATE: a section expires at a time, or if `after_ns` is not 0, so long after the update."""
    check_expiration(at_ns)
    name = section_id(attributes, key)
    return pack_body([[Op.EXPIRE_AFTER, name, after_ns] if after_ns else [Op.EXPIRATION_SET, name, at_ns]])


def time_left_body(attributes: Attributes, key: Key) -> bytes:
    """READ: no byte of a section, but the time until it expires."""
    return pack_body([[section_id(attributes, key), 0, 0, False, True]])


def first_body() -> bytes:
    """ITERATE: the first section, with value and version."""
    return pack_body([SA_CKPT_SECTIONS_ANY, 0, None, True, 1, True])


def track_body(
    sequence: int | None, lineage: int, with_values: bool = False, prefix: bytes = b"", exact: bool = False
) -> bytes:
    """TRACK: what came after a position; of all sections, or of those with a prefix, or of one."""
    more = [with_values, prefix, exact] if with_values or prefix or exact else []
    return pack_body([sequence, lineage, *more])


def first_of(payload: Any) -> tuple[bytes, bytes, Any] | None:
    """Return (key, value, version) from the answer to `first_body`; None if there is no section."""
    page = positioned_page_of(payload)
    if not page.sections:
        return None
    row = payload[0][0]
    if len(row) <= _VERSION_FIELD:
        refuse(codes.NOT_SUPPORTED, "the node that answers runs a version of ckptd that shows no versions")
    return *item_of(page.sections[0]), row[_VERSION_FIELD]


def changes_of(payload: Any) -> Changes:
    """Return the changes in the answer to TRACK."""
    try:
        return parse_changes(payload)
    except FrameError:
        raise_malformed("TRACK")


def time_left_of(payload: Any) -> float | None:
    """Return the seconds until a section expires, from the answer to READ; None for never.

    Raises: SaAisError NOT_SUPPORTED.
    """
    if type(payload) is list and len(payload) == 1 and type(payload[0]) is bytes:
        refuse(codes.NOT_SUPPORTED, "the node that answers runs a version of ckptd that does not tell this")
    try:
        left_ns = parse_element(payload).left_ns
    except FrameError:
        raise_malformed("READ")
    return None if left_ns is None else left_ns / _SECOND_NS
