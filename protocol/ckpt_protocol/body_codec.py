"""Bodies in msgpack. Their bounds are checked before anything is built.

A body is an array (a map only in `DESCRIBE` answers). Text is msgpack str; names, ids and values are msgpack
bin. Extension types are refused.

There are three ways to read one:

* `unpack_bounded` parses every body that comes from outside. `bounds_check` first walks over the body and
  counts levels and objects, so nothing of a body beyond its kind's bounds is ever built.
* `unpack_rows` is faster. It parses the two kinds that carry most of the load.
* `unpack_body` is for bodies that this process packed itself or has already checked.
"""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol

import msgpack

from ckpt_protocol.bounds_check import array_header_bytes, array_length, check_bounds
from ckpt_protocol.errors import FrameError

AT_ONCE_BYTES: Final = 128 * 1024
"""A body up to this size is built before it is checked.

It can take at most 9 MB: 72 bytes for each empty array.
"""

_FEW: Final = 128
"""The most elements that an array in such a body may have to be built at once.

Without this limit, 3 KB of headers that each claimed 10,000 elements took 82 MB for a moment.
"""


class BodyBounds(Protocol):
    """How much a body may hold; `bounds_by_kind.Bounds` has it for each kind of message."""

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
    start = array_header_bytes(body)
    unpacker = msgpack.Unpacker(
        ext_hook=_refuse_extension,
        list_hook=check,
        max_array_len=_ROW_FIELDS_MAX,
        max_map_len=0,
        max_buffer_size=0,
        read_size=len(body),  # The size of its buffer; a megabyte by default.
    )
    unpacker.feed(memoryview(body)[start:])
    rows = list(islice(unpacker, count))
    if unpacker.tell() != len(body) - start:
        raise ValueError
    return rows


_MANY_ROWS: Final = 8
"""From this many rows on, `check_all` is faster than `check`."""

_LONG_ROW_BYTES: Final = 2048
"""Rows that are this long on average are counted in less time than it takes to copy them once more."""

_ROWS_DEPTH: Final = 2
_ROW_FIELDS_MAX: Final = 16
