"""Fields of a body, one check for each: its type first, then its range. A value that passes is of its type.

Every check raises FrameError and names the field. None of them shows the value: it may be anything.
"""

from typing import Any

from ckpt_protocol.framing import FrameError
from ckpt_protocol.limits import NODE_ID_BYTES_MAX, SIZE_MAX

U64_MAX = 2**64 - 1


def whole(value: object, what: str, most: int = SIZE_MAX, least: int = 0) -> int:
    """An integer from `least` to `most`. (True is none.)"""
    if type(value) is not int or not least <= value <= most:
        raise FrameError(f"{what} is no integer from {least} to {most}")
    return value


def boolean(value: object, what: str) -> bool:
    """True or False."""
    if type(value) is not bool:
        raise FrameError(f"{what} is not true or false")
    return value


def octets(value: object, what: str, most: int) -> bytes:
    """Bytes, at most so many."""
    if type(value) is not bytes or len(value) > most:
        raise FrameError(f"{what} is not up to {most} bytes")
    return value


def text(value: object, what: str, most: int) -> str:
    """A text of at most so many bytes in UTF-8."""
    if type(value) is not str or len(value.encode(errors="replace")) > most:
        raise FrameError(f"{what} is no text of up to {most} bytes")
    return value


def node_id(value: object, what: str) -> str:
    """A node's id: a text that is not empty."""
    named = text(value, what, NODE_ID_BYTES_MAX)
    if not named:
        raise FrameError(f"{what} is empty")
    return named


def array(value: object, what: str, most: int) -> list[Any]:
    """An array of at most so many elements; they are not looked at."""
    if type(value) is not list or len(value) > most:
        raise FrameError(f"{what} is no array of up to {most} elements")
    return value


def row(value: object, what: str, fields_min: int) -> list[Any]:
    """An array of at least so many fields; they are not looked at, and further ones are left to later
    versions."""
    if type(value) is not list or len(value) < fields_min:
        raise FrameError(f"{what} is no array of {fields_min} fields")
    return value


def texts(value: object, what: str, count_max: int, bytes_max: int) -> tuple[str, ...]:
    """An array of texts."""
    return tuple(text(element, what, bytes_max) for element in array(value, what, count_max))
