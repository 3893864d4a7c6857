"""Answers that a client never trims, against real daemons: a node that is restarted still gets its copy."""

import os
import socket

import pytest

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import NO_RESOURCES, OK
from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.framing import FrameDecoder, encode_frame
from ckpt_protocol.handshake import ROLE_CLIENT, Identity, Opener
from ckpt_protocol.messages import Kind, Op
from ckpt_protocol.parse_answers import decode_answer
from ckptd.testing import LocalCluster

pytestmark = pytest.mark.extended

IDS = 10_000
"""As many as one update may have generated: its answer has 100 KB."""


class Careless:
    """A client that says with every request that its first one is unanswered."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(cluster.socket_path("a")))
        self.decoder = FrameDecoder()
        self.number = 0
        self.socket.sendall(Opener(Identity(cluster.name), ROLE_CLIENT, os.urandom(16)).hello())
        self._frame()

    def _frame(self) -> bytes:
        while True:
            frames = self.decoder.feed(self.socket.recv(1 << 20))
            if frames:
                return frames[0].body

    def ask(self, kind: int, b: int, c: int, fields: list[object]) -> tuple[int, object]:
        self.number += 1
        self.socket.sendall(encode_frame(kind, self.number, b, c, pack_body(fields)))
        return decode_answer(self._frame())[:2]


def test_a_session_that_trims_nothing_is_refused_and_a_restarted_node_joins() -> None:
    """It made a node keep 117 MB, and no join could carry them: the checkpoint was unavailable for good."""
    with LocalCluster(2) as cluster:
        client = Careless(cluster)
        assert client.ask(Kind.ATTACH, 77, 1, [True])[0] == OK
        attributes = [1, IDS, SA_TIME_END, IDS, 1, 16]
        code, opened = client.ask(Kind.OPEN, 0, 2, [b"orders", 7, attributes, True])
        assert code == OK and isinstance(opened, list)
        handle = opened[0]
        cluster.wait_in_sync("orders", 2)
        codes = [OK]
        while codes[-1] == OK and len(codes) < 200:
            code, ids = client.ask(
                Kind.UPDATE, handle, 3, [[Op.CREATE, b"", SA_TIME_END, b""] for _ in range(IDS)]
            )
            codes.append(code)
            if code == OK and isinstance(ids, list):
                codes.append(client.ask(Kind.UPDATE, handle, 3, [[Op.DELETE, each] for each in ids])[0])
        assert codes[-1] == NO_RESOURCES and len(codes) > 60
        cluster.kill("b")
        cluster.start("b")
        cluster.wait_serving()
        cluster.wait_in_sync("orders", 2)
        client.socket.close()
