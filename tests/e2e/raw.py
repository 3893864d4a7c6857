"""A client that sends anything and reads at any time, without the client library."""

import os
import socket
from collections.abc import Sequence
from typing import Any, Final

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import OK
from ckpt_protocol.framing import Frame, FrameDecoder, encode_frame
from ckpt_protocol.handshake import NONCE_BYTES, ROLE_CLIENT, Identity, Opener
from ckpt_protocol.messages import Kind
from ckpt_protocol.parse_answers import decode_answer
from ckptd.testing import LocalCluster

TIMEOUT_S: Final = 60.0
OPEN_FLAGS: Final = 7


class Raw:
    """One session on one connection, by unix socket or TCP; without `attach` only the connection."""

    def __init__(self, cluster: LocalCluster, node_id: str, door: str = "unix", attach: bool = True) -> None:
        if door == "unix":
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(TIMEOUT_S)
            self.socket.connect(str(cluster.socket_path(node_id)))
        else:
            host, port = cluster.listens_at(node_id).split(":")
            self.socket = socket.create_connection((host, int(port)), TIMEOUT_S)
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []
        self._answers: dict[int, tuple[int, Any]] = {}
        self._number = 1
        self.socket.sendall(Opener(Identity(cluster.name), ROLE_CLIENT, os.urandom(NONCE_BYTES)).hello())
        assert self._frame().kind == Kind.WELCOME
        if not attach:
            return
        session = int.from_bytes(os.urandom(7), "big") | 1
        self.send(encode_frame(Kind.ATTACH, 1, session, 1, pack_body([True])))
        assert self.answer(1)[0] == OK

    def _frame(self) -> Frame:
        while not self._frames:
            chunk = self.socket.recv(1 << 20)
            assert chunk, "the daemon closed the connection"
            self._frames += self._decoder.feed(chunk)
        return self._frames.pop(0)

    def send(self, data: bytes) -> None:
        """Send whole frames."""
        self.socket.sendall(data)

    def answer(self, number: int) -> tuple[int, Any]:
        """Return the code and the payload of one request's answer."""
        while number not in self._answers:
            frame = self._frame()
            self._answers[frame.a] = decode_answer(frame.body)[:2]
        return self._answers.pop(number)

    def ask(self, kind: int, handle: int, fields: Sequence[Any]) -> tuple[int, Any]:
        """Make one request, and return its answer."""
        self._number += 1
        self.send(encode_frame(kind, self._number, handle, self._number, pack_body(list(fields))))
        return self.answer(self._number)

    def open(self, name: bytes) -> int:
        """Open a checkpoint that exists; return the handle."""
        code, payload = self.ask(Kind.OPEN, 0, [name, OPEN_FLAGS & ~4, None, False])
        assert code == OK, code
        return int(payload[0])

    def close(self) -> None:
        self.socket.close()
