"""Bodies: msgpack, bounded before anything is allocated.

A body is an array (a map only in `DESCRIBE` answers). Text is msgpack str, names, ids
and values are msgpack bin. Extension types are refused.
"""

from typing import Any, Final

import msgpack

from ckpt_protocol.framing import FrameError
from ckpt_protocol.limits import ARRAY_LENGTH_MAX


def _refuse_extension(code: int, content: bytes) -> Any:
    raise FrameError(f"extension type {code} in a body")


_pack: Final = msgpack.Packer(use_bin_type=True, autoreset=True).pack
_unpack: Final = msgpack.unpackb


def pack_body(content: Any) -> bytes:
    """A body as bytes. Raises: FrameError when it nests too deep to be packed."""
    try:
        packed: bytes = _pack(content)
    except (ValueError, OverflowError) as error:
        raise FrameError(f"a body that cannot be packed: {error}") from None
    return packed


def unpack_body(body: bytes) -> Any:
    """What a body holds.

    Raises: FrameError for anything but one whole msgpack object within the limits.
    """
    try:
        return _unpack(body, ext_hook=_refuse_extension, max_array_len=ARRAY_LENGTH_MAX, strict_map_key=False)
    except FrameError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise FrameError(f"a body of {len(body)} bytes is no msgpack: {error}") from None


def unpack_array(body: bytes, fields_min: int) -> list[Any]:
    """A body that is an array of at least `fields_min` fields; further ones are ignored.

    Raises: FrameError.
    """
    content = unpack_body(body)
    if type(content) is not list or len(content) < fields_min:
        raise FrameError(f"a body is not an array of {fields_min} fields")
    return content
