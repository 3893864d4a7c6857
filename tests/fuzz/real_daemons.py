"""Spoiled frames for real daemons, over unix socket, TCP and UDP, with a handshake or without.

Traffic stays on loopback. If a key is set, frames without a handshake have no effect, and an attacker that
makes the handshake as a client has the key.
"""

import contextlib
import os
import random
import socket
from typing import Final

from tests.fuzz.corpus import KINDS, Corpus
from tests.fuzz.places import CLIENT, PEER, STRANGER

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import Frame, FrameDecoder, encode_frame
from ckpt_protocol.handshake import NONCE_BYTES, ROLE_CLIENT, ROLE_PEER, Identity, Opener
from ckpt_protocol.messages import Kind
from ckptd.sim.faults.spoiling import spoil
from ckptd.testing import LocalCluster

ATTRIBUTES: Final = [1, 4000, 10_000_000, 4, 1000, 16]
SECONDS: Final = 0.3
BURST: Final = (1, 1, 5, 200)


class SpoiledFrames:
    """An attacker of one cluster. `knock` is one connection or one burst of datagrams."""

    def __init__(self, cluster: LocalCluster, corpus: Corpus, seed: int, key: str = "") -> None:
        self.cluster = cluster
        self.corpus = corpus
        self.draw = random.Random(seed)
        self.identity = Identity(cluster.name, key.encode())
        self.frames = 0

    def knock(self) -> None:
        """Make one attempt to harm one node. The node may refuse it, or cut the connection."""
        draw = self.draw
        node = draw.choice(self.cluster.running)
        with contextlib.suppress(OSError):
            match draw.randrange(4):
                case 0:
                    self._datagrams(node)
                case 1:
                    self._stream(node, ROLE_PEER)
                case _:
                    self._stream(node, ROLE_CLIENT)

    def _frame(self, sender: str) -> Frame:
        corpus = self.corpus[sender]
        frame = self.draw.choice(corpus[self.draw.choice(list(corpus))])
        if sender == CLIENT:
            frame = frame._replace(b=self.draw.choice((0, 2, frame.b)))
            if frame.kind == Kind.OPERATE:
                return frame._replace(body=pack_body(["accept-loss", 5]))
        self.frames += 1
        return frame if self.draw.random() < 0.2 else self._spoiled(frame)

    def _spoiled(self, frame: Frame) -> Frame:
        """Without a key any client may send an operator command, so no spoiled frame must become one."""
        spoiled = spoil(self.draw, frame, KINDS)
        return frame if spoiled.kind == Kind.OPERATE else spoiled

    def _datagrams(self, node: str) -> None:
        host, port = self.cluster.listens_at(node).split(":")
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            for _ in range(self.draw.choice(BURST)):
                sender = self.draw.choice((CLIENT, PEER, STRANGER))
                with contextlib.suppress(OSError):  # It is too long for a datagram.
                    sock.sendto(encode_frame(*self._frame(sender)), (host, int(port)))

    def _connect(self, node: str) -> socket.socket:
        if self.draw.random() < 0.5:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(SECONDS)
            sock.connect(str(self.cluster.socket_path(node)))
            return sock
        host, port = self.cluster.listens_at(node).split(":")
        return socket.create_connection((host, int(port)), SECONDS)

    def _stream(self, node: str, role: int) -> None:
        draw = self.draw
        with self._connect(node) as sock:
            if draw.random() < 0.2:  # Not even a handshake.
                hello = self.corpus[PEER][Kind.HELLO][0]
                sock.sendall(encode_frame(*self._spoiled(hello)) + draw.randbytes(draw.choice((0, 3, 4000))))
                sock.recv(4096)
                return
            opener = Opener(self.identity, role, draw.randbytes(NONCE_BYTES))
            sock.sendall(opener.hello())
            welcome = FrameDecoder().feed(sock.recv(65536))[0]
            if welcome.kind != Kind.WELCOME:
                return
            sock.sendall(opener.receive(welcome)[1])
            if role == ROLE_CLIENT and draw.random() < 0.8:
                session = int.from_bytes(os.urandom(7), "big") | 1
                frames = [
                    Frame(Kind.ATTACH, 1, session, 1, pack_body([True])),
                    Frame(Kind.OPEN, 2, 0, 2, pack_body([b"hostile", 7, ATTRIBUTES, False])),
                ]
                sock.sendall(b"".join(encode_frame(*frame) for frame in frames))
            for _ in range(draw.choice(BURST)):
                sock.sendall(encode_frame(*self._frame(CLIENT if role == ROLE_CLIENT else PEER)))
            if draw.random() < 0.5:
                sock.settimeout(0.05)
                sock.recv(1 << 16)
