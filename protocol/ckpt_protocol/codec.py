"""Bodies in msgpack. Their bounds are checked before anything is built.

A body is an array (a map only in `DESCRIBE` answers). Text is msgpack str; names, ids and values are msgpack
bin. Extension types are refused.

There are three ways to read one:

* `unpack_bounded` parses every body that comes from outside. It first walks over the body and counts levels
  and objects, so nothing of a body beyond its kind's bounds is ever built.
* `unpack_rows` is faster. It parses the two kinds that carry most of the load.
* `unpack_body` is for bodies that this process packed itself or has already checked.
"""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol

import msgpack

from ckpt_protocol.framing import FrameError

AT_ONCE_BYTES: Final = 128 * 1024
"""A body up to this size is built before it is checked.

It can take at most 9 MB: 72 bytes for each empty array.
"""

_FEW: Final = 128
"""The most elements that an array in such a body may have to be built at once.

Without this limit, 3 KB of headers that each claimed 10,000 elements took 82 MB for a moment.
"""


class BodyBounds(Protocol):
    """How much a body may hold; `bounds.Bounds` has it for each kind of message."""

    @property
    def body_bytes_max(self) -> int:
        """The most bytes."""

    @property
    def depth_max(self) -> int:
        """The most arrays and maps inside each other."""

    @property
    def objects_max(self) -> int:
        """The most objects, arrays and maps included."""


def _refuse_extension(code: int, content: bytes) -> Any:
    raise FrameError(f"a body contains extension type {code}")


PACKER_BYTES_MAX: Final = 256 * 1024
"""A packer keeps the memory that its longest body took. After a body longer than this it is replaced."""

_new_packer: Final = partial(msgpack.Packer, use_bin_type=True, autoreset=True)
_pack = _new_packer().pack
_unpack: Final = msgpack.unpackb
_BROKEN: Final = (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException)

_UNREADABLE: Final = (*_BROKEN, FrameError, LookupError)
"""What reading a body can raise, and what using the result as the wrong type can raise."""


def pack_body(content: Any) -> bytes:
    """Return a body as bytes. Raises: FrameError if it nests too deep to be packed."""
    global _pack
    try:
        packed: bytes = _pack(content)
    except (ValueError, OverflowError) as error:
        raise FrameError(f"a body cannot be packed: {error}") from None
    if len(packed) > PACKER_BYTES_MAX:
        _pack = _new_packer().pack
    return packed


def unpack_bounded(body: bytes, bounds: BodyBounds) -> Any:
    """Return the content of a body, if it is within the bounds of its kind.

    Raises: FrameError for anything but one whole msgpack object within the bounds.
    """
    if len(body) > bounds.body_bytes_max:
        raise FrameError(f"a body of {len(body)} bytes exceeds {bounds.body_bytes_max} bytes")
    check_bounds(body, bounds.depth_max, bounds.objects_max)
    return unpack_body(body)


def unpack_body(body: bytes) -> Any:
    """Return the content of a body that was packed here or is known to be within its bounds.

    Raises: FrameError.
    """
    try:
        return _unpack(body, ext_hook=_refuse_extension, strict_map_key=False)
    except FrameError:
        raise
    except _BROKEN as error:
        raise FrameError(f"a body of {len(body)} bytes is not msgpack: {error}") from None


def bounded_array(body: bytes, bounds: BodyBounds, fields_min: int) -> list[Any]:
    """Return the content of a body that is an array of at least `fields_min` fields.

    Callers ignore further fields. Raises: FrameError.
    """
    content = unpack_bounded(body, bounds)
    if type(content) is not list or len(content) < fields_min:
        raise FrameError(f"a body is not an array of {fields_min} fields")
    return content


# -- counting before building

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


# -- rows

Row = list[Any]


def unpack_rows(
    body: bytes, rows_max: int, check: Callable[[Row], Row], check_all: Callable[[list[Row]], bool]
) -> list[Row] | None:
    """Return an array of short arrays, each passed by `check`; None if the body is anything else.

    `check` raises ValueError for a row that it refuses; it must refuse every row that holds an array.
    `check_all` is a short cut: True means that `check` would pass all of these rows. None says only that the
    body must be examined the slow way, which finds out what is wrong.

    A hostile body cannot make us build much. Arrays of few elements are built at once. Long rows are counted
    first. Short rows are read with a limit on the fields of each; if there are very many, each is checked
    before the next one is built.
    """
    rows = _unpack_few(body) if len(body) <= AT_ONCE_BYTES else None
    try:
        if rows is None:
            rows = _unpack_many(body, rows_max, check)
        if len(rows) < _MANY_ROWS or not check_all(rows):
            for row in rows:
                check(row)
        return rows if type(rows) is list and 0 < len(rows) <= rows_max else None
    except _UNREADABLE:
        return None


def _unpack_few(body: bytes) -> Any:
    """Return the content if all arrays have few elements, as in most bodies; else, or if broken, None."""
    try:
        return _unpack(body, ext_hook=_refuse_extension, max_array_len=_FEW, max_map_len=0)
    except _UNREADABLE:
        return None


def _unpack_many(body: bytes, rows_max: int, check: Callable[[Row], Row]) -> list[Any]:
    """Raises: one of `_UNREADABLE`."""
    count = array_length(body)
    if not 0 < count <= rows_max:
        raise ValueError
    if count * _LONG_ROW_BYTES <= len(body):
        check_bounds(body, _ROWS_DEPTH, 1 + count * (1 + _ROW_FIELDS_MAX))
        rows: list[Any] = _unpack(body, ext_hook=_refuse_extension, max_map_len=0)
    else:
        rows = _read_rows(body, count, None if len(body) <= AT_ONCE_BYTES else check)
    if len(rows) != count or set(map(type, rows)) != {list}:
        raise ValueError
    return rows


def _read_rows(body: bytes, count: int, check: Callable[[Row], Row] | None) -> list[Any]:
    """Return the rows of a body, each with few fields. `check` looks at each before the next one is built.

    Raises: ValueError, or whatever a broken body raises.
    """
    wide = _COUNT_BYTES.get(body[0], 0)
    unpacker = msgpack.Unpacker(
        ext_hook=_refuse_extension,
        list_hook=check,
        max_array_len=_ROW_FIELDS_MAX,
        max_map_len=0,
        max_buffer_size=0,
        read_size=len(body),  # The size of its buffer; a megabyte by default.
    )
    unpacker.feed(memoryview(body)[1 + wide :])
    rows = list(islice(unpacker, count))
    if unpacker.tell() != len(body) - 1 - wide:
        raise ValueError
    return rows


_MANY_ROWS: Final = 8
"""From this many rows on, `check_all` is faster than `check`."""

_LONG_ROW_BYTES: Final = 2048
"""Rows that are this long on average are counted in less time than it takes to copy them once more."""

_ROWS_DEPTH: Final = 2
_ROW_FIELDS_MAX: Final = 16
