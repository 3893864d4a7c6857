"""Spoil a recorded frame: its numbers, its bytes, or the content of its body.

A change of the content keeps the msgpack well formed, so that it passes the codec and reaches the checks of
single fields. A change of bytes mostly ends in the codec, which has to withstand it too.
"""

import math
import random
import struct
from typing import Any, Final

import msgpack

from ckpt_protocol.framing import Frame

NUMBERS: Final = (0, 1, 2, 3, 2**16, 2**31, 2**32 - 1, 2**32, 2**40 + 2, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
ODD: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    *NUMBERS,
    -1,
    -(2**63),
    0.5,
    math.inf,
    -math.inf,
    math.nan,
    "",
    "b",
    "\ud7ff" * 40,
    b"",
    b"k",
    bytes(70_000),
    [],
    {},
    [[]],
    {"a": 1},
    {0: 0, 1: 1, 2: 2, 3: 3},
    [None] * 5000,
    [[]] * 20_000,
)
"""Values whose type or range a field does not expect."""

NESTED: Final = (100, 1000, 5000, 400_000)
GROWN_BYTES_MAX: Final = 4 * 1024 * 1024
"""How much the duplicates of a value add to a body at most. Of a larger body only the bytes are changed."""

ROUTES: Final = (0, 25, 48)
"""How many bytes come before the msgpack of a body: none, FORWARD_ROUTE's, REPLICATE_ROUTE's."""


def spoil(draw: random.Random, frame: Frame, kinds: tuple[int, ...]) -> Frame:
    """Return the frame with one to three changes."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        change = draw.random()
        if change < 0.18:
            number = draw.choice("abc")
            drawn = draw.choice((*NUMBERS, (getattr(frame, number) + 1) % 2**64))
            frame = _with_number(frame, number, drawn)
        elif change < 0.22:
            frame = frame._replace(kind=draw.choice(kinds))
        elif change < 0.35:
            frame = frame._replace(body=_spoil_bytes(draw, frame.body))
        else:
            frame = frame._replace(body=_spoil_content(draw, frame.body))
    return frame


def _with_number(frame: Frame, name: str, number: int) -> Frame:
    match name:
        case "a":
            return frame._replace(a=number)
        case "b":
            return frame._replace(b=number)
        case _:
            return frame._replace(c=number)


def _spoil_bytes(draw: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    match draw.randrange(6):
        case 0:
            return bytes(changed[: draw.randrange(len(changed) + 1)])
        case 1:
            return bytes(changed) + draw.randbytes(draw.choice((1, 8, 200)))
        case 2:
            return nested(draw.choice(NESTED), draw.choice((0x91, 0x81, 0x92)))
        case 3:
            return b"\xdd" + struct.pack(">I", draw.choice((5000, 10**6, 2**32 - 1))) + b"\x90" * 5000
        case 4 if changed:
            start = draw.randrange(len(changed))
            changed[start : start + 8] = struct.pack(">Q", draw.choice(NUMBERS))
        case _:
            for _ in range(draw.choice((1, 2, 8))):
                if changed:
                    changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def nested(depth: int, opens: int = 0x91) -> bytes:
    """Return a body of nested arrays (0x91) or maps (0x81)."""
    return bytes([opens]) * depth + b"\xc0" * (2 if opens == 0x81 else 1)


def _spoil_content(draw: random.Random, body: bytes) -> bytes:
    if len(body) > GROWN_BYTES_MAX:
        return _spoil_bytes(draw, body)
    for route in ROUTES:
        try:
            content = msgpack.unpackb(body[route:], strict_map_key=False)
        except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException):
            continue
        if type(content) in (list, dict):
            break
    else:
        return _spoil_bytes(draw, body)
    try:
        packed: bytes = msgpack.packb(_change(draw, content), use_bin_type=True)
    except (ValueError, OverflowError, TypeError):
        return _spoil_bytes(draw, body)
    return body[:route] + packed


def _change(draw: random.Random, content: Any) -> Any:
    """Return the tree with one place changed. Deep places are as likely as shallow ones."""
    if type(content) is bytes and len(content) > 3 and draw.random() < 0.3:
        return _spoil_content(draw, content)  # A packed body inside a body, such as INSTALL's directory.
    if type(content) is not list or not content or draw.random() < 0.15:
        if type(content) is int and draw.random() < 0.4:
            return max(-(2**63), min(2**64 - 1, content + draw.choice((-1, 1, 1000, -content, 2**40))))
        return draw.choice(ODD)
    changed = list(content)
    position = draw.randrange(len(changed))
    match draw.randrange(8):
        case 0:
            del changed[position]
        case 1:
            changed.insert(position, changed[position])
        case 2:
            changed.insert(position, draw.choice(ODD))
        case 3:
            other = draw.randrange(len(changed))
            changed[position], changed[other] = changed[other], changed[position]
        case 4:
            changed += [changed[position]] * min(
                draw.choice((1, 50, 5000)), _duplicates_max(changed[position])
            )
        case _:
            changed[position] = _change(draw, changed[position])
    return changed


def _duplicates_max(value: Any) -> int:
    return max(1, GROWN_BYTES_MAX // len(msgpack.packb(value, use_bin_type=True)))
