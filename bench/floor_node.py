"""The floor's processes: the fewest steps that bring a value to three processes and back.

`python -m bench.floor_node SOCKET REPLICA-PORT…` is the node. A client writes to it over a unix socket; it
forwards the body unchanged to the replicas over TCP, counts their acknowledgements and answers. `python -m
bench.floor_node` without arguments is a replica; it prints its port. Each process holds a dict. Framing,
bodies, loop and Protocol classes are those of ckptd; there are no checks, versions, sessions or time-outs.

In a request's header, `b` is the number of acknowledgements that the answer waits for (0 for an async write).
For a READ it says who answers: a replica (1) or the node (0).
"""

import asyncio
import sys
from typing import Final, cast

from bench.loops import run
from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.codes import OK
from ckpt_protocol.framing import FrameDecoder, encode_frame
from ckpt_protocol.messages import Kind, answer_ok

Held = dict[bytes, bytes]
_OK: Final = answer_ok()


def apply(held: Held, body: bytes) -> None:
    """Put the sections of an UPDATE's body."""
    for op in unpack_body(body):
        held[op[1]] = op[2]


def read(held: Held, body: bytes) -> bytes:
    """Return the answer to a READ's body."""
    return pack_body([OK, [held[one[0]] for one in unpack_body(body)]])


class Link(asyncio.Protocol):
    """A connection whose frames are handled as they arrive; everything to send goes out in one write."""

    def __init__(self) -> None:
        self._decoder = FrameDecoder()
        self.transport: asyncio.Transport | None = None
        self.out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio calls this once."""
        self.transport = cast(asyncio.Transport, transport)

    def flush(self) -> None:
        """Send what has gathered."""
        if self.out and self.transport is not None:
            self.transport.write(b"".join(self.out) if len(self.out) > 1 else self.out[0])
            self.out.clear()


class ReplicaLink(Link):
    """A replica's connection from the node."""

    held: Held

    def data_received(self, data: bytes) -> None:
        """Put and acknowledge, or read."""
        for kind, a, _, _, body in self._decoder.feed(data):
            if kind == Kind.REPLICATE:
                apply(self.held, body)
                self.out.append(encode_frame(Kind.ACK, a, 0, 0))
            else:
                self.out.append(encode_frame(Kind.FORWARD_ANSWER, a, 0, 0, read(self.held, body)))
        self.flush()


class Node:
    """The node: the state that its links share."""

    def __init__(self) -> None:
        self.held: Held = {}
        self.seq = 0
        self.waiting: dict[int, tuple[ClientLink, int, int, bytes]] = {}
        """By seq: the client, its request, how many acknowledgements are missing, the body."""

        self.replicas: list[PeerLink] = []


class PeerLink(Link):
    """The node's connection to a replica."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node

    def data_received(self, data: bytes) -> None:
        """Count acknowledgements and pass answers on."""
        node, answered = self._node, None
        for kind, a, _, _, body in self._decoder.feed(data):
            found = node.waiting.get(a)
            if found is None:
                continue
            client, request, missing, update = found
            if missing > 1:
                node.waiting[a] = (client, request, missing - 1, update)
                continue
            del node.waiting[a]
            if kind == Kind.ACK:
                apply(node.held, update)
                body = _OK
            client.out.append(encode_frame(Kind.ANSWER, request, 0, 0, body))
            answered = client
        if answered is not None:
            answered.flush()


class ClientLink(Link):
    """The node's connection from a client. (The floor has one client at a time.)"""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node

    def data_received(self, data: bytes) -> None:
        """Forward updates and remote reads, and answer the rest."""
        node = self._node
        for kind, request, acknowledgements, _, body in self._decoder.feed(data):
            if kind == Kind.READ and not acknowledgements:
                self.out.append(encode_frame(Kind.ANSWER, request, 0, 0, read(node.held, body)))
                continue
            node.seq += 1
            if acknowledgements:
                node.waiting[node.seq] = (self, request, acknowledgements, body)
            else:
                apply(node.held, body)
                self.out.append(encode_frame(Kind.ANSWER, request, 0, 0, _OK))
            if kind == Kind.READ:
                node.replicas[0].out.append(encode_frame(Kind.FORWARD, node.seq, 0, 0, body))
            else:
                frame = encode_frame(Kind.REPLICATE, node.seq, 0, 0, body)
                for replica in node.replicas:
                    replica.out.append(frame)
        for replica in node.replicas:
            replica.flush()
        self.flush()


async def serve_node(path: str, ports: list[int]) -> None:
    """Run the node until it is killed."""
    node, loop = Node(), asyncio.get_running_loop()
    for port in ports:
        _, link = await loop.create_connection(lambda: PeerLink(node), "127.0.0.1", port)
        node.replicas.append(link)
    server = await loop.create_unix_server(lambda: ClientLink(node), path)
    print("serving", flush=True)
    await server.serve_forever()


async def serve_replica() -> None:
    """Run a replica until it is killed."""
    ReplicaLink.held = {}
    server = await asyncio.get_running_loop().create_server(ReplicaLink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    run(serve_node(sys.argv[1], [int(port) for port in sys.argv[2:]]) if sys.argv[1:] else serve_replica())
