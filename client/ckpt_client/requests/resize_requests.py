"""Encode the request that resizes a checkpoint, and read its answer: pure functions."""

from typing import Any, Final

from ckpt_client.requests.table_requests import Attributes, raise_malformed, refuse
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.limits import SIZE_MAX
from ckpt_protocol.messages import Op

Limits = tuple[int | None, int | None, int | None]
"""The number of sections, the bytes of a section and the bytes of an id; None leaves one as it is."""

_NAMES: Final = ("maxSections", "maxSectionSize", "maxSectionIdSize")


def limits_of(attributes: Attributes) -> tuple[int, int, int]:
    """Return the limits that a resize changes."""
    return attributes.sections_max, attributes.section_bytes_max, attributes.section_id_bytes_max


def resize_body(limits: Limits, at_least: bool) -> bytes:
    """UPDATE: change the limits of the checkpoint; with `at_least` make none smaller.

    Raises: SaAisError INVALID_PARAM.
    """
    if limits == (None, None, None):
        refuse(codes.INVALID_PARAM, "give at least one limit")
    for limit in limits:
        if limit is not None and (type(limit) is not int or not 0 <= limit <= SIZE_MAX):
            refuse(codes.INVALID_PARAM, f"a limit must be an integer from 0 to 2^63-1, not {limit!r}")
    return pack_body([[Op.RESIZE, *limits, at_least]])


def resized(attributes: Attributes, payload: Any) -> Attributes:
    """Return the attributes after a resize, from its answer. Raises: SaAisError LIBRARY."""
    if type(payload) is not list or len(payload) < 3 or any(type(limit) is not int for limit in payload[:3]):
        raise_malformed("a resize")
    sections_max, section_bytes_max, section_id_bytes_max = payload[:3]
    return attributes._replace(
        checkpoint_size=min(sections_max * section_bytes_max, SIZE_MAX),
        sections_max=sections_max,
        section_bytes_max=section_bytes_max,
        section_id_bytes_max=section_id_bytes_max,
    )


def resized_text(name: bytes, asked: Attributes | None, in_force: Attributes) -> str:
    """Return the log line of a client that opened a checkpoint with former limits; "" if it did not."""
    if asked is None:
        return ""
    pairs = zip(_NAMES, limits_of(in_force), limits_of(asked), strict=True)
    others = [f"{what} is {now} now, not {wanted}" for what, now, wanted in pairs if now != wanted]
    return f"checkpoint {name.decode()!r} was resized: {', '.join(others)}" if others else ""
