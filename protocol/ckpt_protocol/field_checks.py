"""Checks for the fields of a body, one function each: first the type, then the range.

A value that passes has the type. Every check raises FrameError and names the field. None shows the value,
since that may be anything.
"""

from typing import Any

from ckpt_protocol.errors import FrameError
from ckpt_protocol.limits import NODE_ID_BYTES_MAX, SIZE_MAX

U64_MAX = 2**64 - 1


def whole(value: object, what: str, most: int = SIZE_MAX, least: int = 0) -> int:
    """Check an integer from `least` to `most`. (True and False are not integers here.)"""
    if type(value) is not int or not least <= value <= most:
        raise FrameError(f"{what} is not an integer from {least} to {most}")
    return value


def boolean(value: object, what: str) -> bool:
    """Check that a value is True or False."""
    if type(value) is not bool:
        raise FrameError(f"{what} is not true or false")
    return value


def octets(value: object, what: str, most: int) -> bytes:
    """Check bytes, at most `most` of them."""
    if type(value) is not bytes or len(value) > most:
        raise FrameError(f"{what} is not a byte string of at most {most} bytes")
    return value


def text(value: object, what: str, most: int) -> str:
    """Check a text of at most `most` bytes in UTF-8."""
    if type(value) is not str or len(value.encode(errors="replace")) > most:
        raise FrameError(f"{what} is not a text of at most {most} bytes")
    return value


def node_id(value: object, what: str) -> str:
    """Check a node's id: a text that is not empty."""
    named = text(value, what, NODE_ID_BYTES_MAX)
    if not named:
        raise FrameError(f"{what} is empty")
    return named


def array(value: object, what: str, most: int) -> list[Any]:
    """Check an array of at most `most` elements. The elements are not looked at."""
    if type(value) is not list or len(value) > most:
        raise FrameError(f"{what} is not an array of at most {most} elements")
    return value


def row(value: object, what: str, fields_min: int) -> list[Any]:
    """Check an array of at least `fields_min` fields. The fields are not looked at.

    Later versions may add further ones.
    """
    if type(value) is not list or len(value) < fields_min:
        raise FrameError(f"{what} is not an array of {fields_min} or more fields")
    return value


def texts(value: object, what: str, count_max: int, bytes_max: int) -> tuple[str, ...]:
    """Check an array of at most `count_max` texts, each of at most `bytes_max` bytes."""
    return tuple(text(element, what, bytes_max) for element in array(value, what, count_max))
