"""Frames: a fixed header of 29 bytes, then a body that only its reader decodes.

    length  uint32   bytes that follow this field: 25 + the body's
    kind    uint8    what the frame is (`messages.Kind`)
    a       uint64   \
    b       uint64    > three numbers whose meaning depends on the kind
    c       uint64   /
    body    bytes

All integers are big-endian. Request number, epoch and seq travel in the header. So the
client encodes a body once, and every node forwards it unchanged (ADR 2).
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from ckpt_protocol.errors import BodyTooLong, FrameError
from ckpt_protocol.limits import FRAME_BYTES_MAX


class Frame(NamedTuple):
    """One decoded frame."""

    kind: int
    a: int
    b: int
    c: int
    body: bytes


HEADER: Final = struct.Struct(">IBQQQ")
HEADER_BYTES: Final = HEADER.size
LENGTH_BYTES: Final = 4
_AFTER_LENGTH: Final = HEADER_BYTES - LENGTH_BYTES
_pack_header = HEADER.pack
_unpack_header = HEADER.unpack_from
_new_frame: Final = tuple.__new__  # `Frame(...)` calls this, too, but through a Python function.


def encode_frame(kind: int, a: int, b: int, c: int, body: bytes = b"") -> bytes:
    """Return one frame as bytes. The caller keeps `body` within `FRAME_BYTES_MAX`."""
    return _pack_header(_AFTER_LENGTH + len(body), kind, a, b, c) + body


def decode_datagram(datagram: bytes) -> Frame:
    """Return the one frame that a datagram holds.

    Raises: FrameError if the datagram is shorter than a header, or its length field disagrees with its size.
    """
    if len(datagram) < HEADER_BYTES:
        raise FrameError(f"a datagram of {len(datagram)} bytes is shorter than a header")
    length, kind, a, b, c = _unpack_header(datagram)
    if length + LENGTH_BYTES != len(datagram):
        raise FrameError(f"a datagram of {len(datagram)} bytes claims to have {length + LENGTH_BYTES}")
    return Frame(kind, a, b, c, bytes(datagram[HEADER_BYTES:]))


def refuse_by_header(kind: int, body_bytes: int, body_limits: Sequence[int]) -> None:
    """Check a frame before its body is held. `body_limits`: the limit of each kind, see `bounds_by_kind`.

    Raises: FrameError for a kind that may not come; BodyTooLong for a body that is too long for its kind.
    """
    limit = body_limits[kind]
    if limit < 0:
        raise FrameError(f"a frame of kind {kind} may not come here")
    if body_bytes > limit:
        raise BodyTooLong(
            f"a frame of kind {kind} has a body of {body_bytes} bytes, but at most {limit} are allowed"
        )


_ANY: Final[Sequence[int]] = [FRAME_BYTES_MAX - HEADER_BYTES] * 256


class FrameDecoder:
    """Cuts a byte stream into frames.

    `feed` returns the frames that are complete, in order. `body_limits` holds, by kind, how long a body may
    be and whether the kind may come at all; it may be replaced between two calls. A frame beyond these limits
    raises an error before its body is held. After an error the decoder cannot be used any more.
    """

    __slots__ = ("_buffer", "_need", "body_limits")

    def __init__(self, body_limits: Sequence[int] = _ANY) -> None:
        self._buffer = bytearray()
        self._need = HEADER_BYTES
        self.body_limits = body_limits

    @property
    def held_bytes(self) -> int:
        """The bytes received so far of the frame that is still incomplete."""
        return len(self._buffer)

    def feed(self, chunk: bytes) -> list[Frame]:
        """Add what was received; return the frames that are now complete.

        Raises: FrameError if the stream does not consist of frames, or a frame is not allowed here.
        """
        buffer, body_limits = self._buffer, self.body_limits
        size = len(chunk)
        if size >= HEADER_BYTES and not buffer:
            length, kind, a, b, c = _unpack_header(chunk)
            if length + LENGTH_BYTES == size and length - _AFTER_LENGTH <= body_limits[kind]:
                # A chunk is exactly one frame: by far the most frequent case.
                return [_new_frame(Frame, (kind, a, b, c, chunk[HEADER_BYTES:]))]
        source: bytes | bytearray = chunk
        if buffer:
            buffer += chunk
            if len(buffer) < self._need:
                return []
            source = buffer
        frames: list[Frame] = []
        start, size = 0, len(source)
        while size - start >= HEADER_BYTES:
            length, kind, a, b, c = _unpack_header(source, start)
            end = start + LENGTH_BYTES + length
            if length < _AFTER_LENGTH:
                raise FrameError(f"a frame claims to have {length} bytes")
            if length - _AFTER_LENGTH > body_limits[kind]:
                refuse_by_header(kind, length - _AFTER_LENGTH, body_limits)
            if end > size:
                self._need = end - start
                break
            if source is chunk:
                body = chunk[start + HEADER_BYTES : end]
            else:
                # A view, so that a large body is copied once and not twice.
                with memoryview(buffer) as view:
                    body = bytes(view[start + HEADER_BYTES : end])
            frames.append(_new_frame(Frame, (kind, a, b, c, body)))
            start = end
        else:
            self._need = HEADER_BYTES
        if source is buffer:
            del buffer[:start]
        elif start < size:
            buffer += chunk[start:]
        return frames
