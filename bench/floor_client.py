"""The floor's clients: the fewest steps that put a request on a socket and wait for its answer."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Final, cast

from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.framing import Frame, FrameDecoder, encode_frame
from ckpt_protocol.messages import Kind, Op

RECEIVE_BYTES: Final = 16 * 1024
"""Enough for most answers. Allocating more for each `recv` costs up to 10 µs."""

RECEIVE_REST_BYTES: Final = 256 * 1024


def update_body(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the body of an UPDATE as the real client packs it."""
    return pack_body([[Op.PUT, key, value, None] for key, value in pairs])


def read_body(key: bytes) -> bytes:
    """Return the body of a READ of one whole section, as the real client packs it."""
    return pack_body([[key, 0, None]])


class BlockingFloor:
    """One request at a time: `sendall`, then `recv` until the answer is complete."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._decoder = FrameDecoder()
        self._request = 0

    def write(self, pairs: Sequence[tuple[bytes, bytes]], acknowledgements: int) -> None:
        """Put sections; return when that many replicas have them too."""
        answer = self._call(Kind.UPDATE, acknowledgements, update_body(pairs))
        unpack_body(answer.body)

    def read(self, key: bytes, remote: bool) -> bytes:
        """Return a section's content, from the node or from a replica."""
        content: bytes = unpack_body(self._call(Kind.READ, int(remote), read_body(key)).body)[1][0]
        return content

    def _call(self, kind: int, b: int, body: bytes) -> Frame:
        self._request += 1
        self._socket.sendall(encode_frame(kind, self._request, b, 0, body))
        frames = self._decoder.feed(self._socket.recv(RECEIVE_BYTES))
        while not frames:
            frames = self._decoder.feed(self._socket.recv(RECEIVE_REST_BYTES))
        return frames[0]

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class AsyncFloor(asyncio.Protocol):
    """Requests of many callers over one connection, each answered through a future."""

    def __init__(self) -> None:
        self._decoder = FrameDecoder()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._request = 0
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio calls this once."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Resolve the futures of the answers that arrived."""
        for _, request, _, _, body in self._decoder.feed(data):
            self._waiting.pop(request).set_result(body)

    async def write(self, key: bytes, value: bytes, acknowledgements: int) -> None:
        """Put one section, as `BlockingFloor.write` does."""
        unpack_body(await self._call(Kind.UPDATE, acknowledgements, update_body(((key, value),))))

    async def read(self, key: bytes) -> bytes:
        """Return a section's content from the node, as `BlockingFloor.read` does."""
        content: bytes = unpack_body(await self._call(Kind.READ, 0, read_body(key)))[1][0]
        return content

    def _call(self, kind: int, b: int, body: bytes) -> asyncio.Future[bytes]:
        assert self._transport is not None
        self._request += 1
        answer = self._waiting[self._request] = self._loop.create_future()
        self._transport.write(encode_frame(kind, self._request, b, 0, body))
        return answer

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


async def open_async_floor(path: str) -> AsyncFloor:
    """Connect to the floor's node."""
    _, protocol = await asyncio.get_running_loop().create_unix_connection(AsyncFloor, path)
    return protocol
