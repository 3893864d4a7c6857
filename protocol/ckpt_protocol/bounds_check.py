"""Checks the depth and the size of a body before anything of it is built.

It walks over the bytes of the msgpack object and counts levels and objects. How many a kind of frame may have
is in `bounds_by_kind`.
"""

from typing import Final

from ckpt_protocol.errors import FrameError

_ARRAY, _MAP, _BYTES_1, _BYTES_2, _BYTES_4, _EXTENSION, _EXTENSION_N, _NEVER = range(-8, 0)


def _token(byte: int) -> int:
    """Return the whole size of a scalar that begins with this byte, or a constant for anything else."""
    if byte < 0x80 or byte >= 0xE0 or byte in (0xC0, 0xC2, 0xC3):
        return 1
    if byte in (0xDE, 0xDF) or byte <= 0x8F:
        return _MAP
    if byte in (0xDC, 0xDD) or byte <= 0x9F:
        return _ARRAY
    if byte <= 0xBF:
        return 1 + (byte & 0x1F)
    named = {0xC4: _BYTES_1, 0xD9: _BYTES_1, 0xC5: _BYTES_2, 0xDA: _BYTES_2, 0xC6: _BYTES_4, 0xDB: _BYTES_4}
    numbers = {0xCC: 2, 0xD0: 2, 0xCD: 3, 0xD1: 3, 0xCA: 5, 0xCE: 5, 0xD2: 5, 0xCB: 9, 0xCF: 9, 0xD3: 9}
    return {**named, **numbers}.get(byte, _NEVER if byte == 0xC1 else _EXTENSION)


_TOKENS: Final = tuple(_token(byte) for byte in range(256))
_COUNT_BYTES: Final = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}


def check_bounds(body: bytes, depth_max: int, objects_max: int) -> int:
    """Walk over one whole msgpack object without building anything; return the number of objects in it.

    Raises: FrameError if it nests deeper, has more objects, uses an extension type, or is not whole.
    """
    tokens, size = _TOKENS, len(body)
    at, left, objects = 0, 1, 1
    outer: list[int] = []
    while True:
        while left:
            if at >= size:
                raise FrameError(f"a body of {size} bytes is incomplete")
            left -= 1
            byte = body[at]
            token = tokens[byte]
            if token > 0:
                at += token
            elif token == _BYTES_1:
                at += 2 + (body[at + 1] if at + 1 < size else size)
            elif token in (_ARRAY, _MAP):
                wide = _COUNT_BYTES.get(byte, 0)
                count = int.from_bytes(body[at + 1 : at + 1 + wide], "big") if wide else byte & 0x0F
                at += 1 + wide
                count *= 2 if token == _MAP else 1
                objects += count
                if objects > objects_max:
                    raise FrameError(f"a body has more than {objects_max} objects")
                outer.append(left)
                if len(outer) > depth_max:
                    raise FrameError(f"a body is nested deeper than {depth_max} levels")
                left = count
            elif token == _BYTES_2:
                at += 3 + int.from_bytes(body[at + 1 : at + 3], "big")
            elif token == _BYTES_4:
                at += 5 + int.from_bytes(body[at + 1 : at + 5], "big")
            else:
                raise FrameError(f"a body contains an extension type or the invalid byte {byte:#x}")
        if not outer:
            break
        left = outer.pop()
    if at != size:
        raise FrameError(f"a body of {size} bytes contains an object that ends at byte {at}")
    return objects


def array_length(body: bytes) -> int:
    """Return how many elements the array at the start of the body claims; 0 if there is no array."""
    if not body or _TOKENS[body[0]] != _ARRAY:
        return 0
    wide = _COUNT_BYTES.get(body[0], 0)
    return int.from_bytes(body[1 : 1 + wide], "big") if wide else body[0] & 0x0F


def array_header_bytes(body: bytes) -> int:
    """Return how many bytes the header of the array at the start of the body takes."""
    return 1 + _COUNT_BYTES.get(body[0], 0)
