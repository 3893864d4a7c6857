"""The in-process cluster as clients see it: addresses, connections that can break, and the handshake.

It uses the real cores of `tests.core.cluster`, in virtual time. What a client writes reaches its node as
bytes and is cut into frames there; answers travel back as bytes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.core.cluster import Cluster
from tests.core.network import DELAY_NS, Link

from ckpt_protocol.bounds import FROM_CLIENT, FROM_NEW_CLIENT
from ckpt_protocol.framing import FrameDecoder, FrameError
from ckpt_protocol.handshake import NONCE_BYTES, Acceptor, HandshakeRejected, Identity
from ckptd.core.events import ClientConnected, ClientLost, ClientReceived, CloseClient, Effect, PeerConnected
from ckptd.core.hub import Transport
from ckptd.runtime.net.handshake import cut_first_frame

CLUSTER_NAME = "conformance"
PORT = 7300


class ClientLink:
    """One connection of a client with a node: what the runtime of a daemon does for its core.

    `received` gets the bytes for the client, `lost` is called when the node's end is gone.
    """

    def __init__(
        self,
        cluster: "ClientsCluster",
        node_id: str,
        process: str,
        received: Callable[[bytes], None],
        lost: Callable[[], None],
    ) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.process = process
        self.number = next(cluster.counter)
        self.open_here = True
        self.open_there = True
        self._received = received
        self._lost = lost
        self._incarnation = cluster.hosts[node_id].incarnation
        self._acceptor = Acceptor(Identity(CLUSTER_NAME, b"", node_id, self._incarnation), bytes(NONCE_BYTES))
        self._held = b""
        self._decoder = FrameDecoder()
        self._connected = False

    # -- the client's end

    def send(self, data: bytes) -> None:
        """Send bytes from the client to the node."""
        self.cluster.after(DELAY_NS, lambda: self._arrive(data))

    def close(self, process_dead: bool = False) -> None:
        """Close the client's end; the node learns of it after everything that was sent before."""
        if self.open_here:
            self.open_here = False
            self.cluster.after(DELAY_NS, lambda: self._end_at_node(process_dead))

    def reset(self, process_dead: bool) -> None:
        """Break the connection; both ends learn of it."""
        if self.open_here and not process_dead:
            self.cluster.after(DELAY_NS, self._lost)
        self.close(process_dead)

    # -- the node's end

    def _runs(self) -> bool:
        host = self.cluster.hosts[self.node_id]
        return self.open_there and host.node is not None and host.incarnation == self._incarnation

    def _arrive(self, data: bytes) -> None:
        if not self._runs():
            return
        if self.cluster.hosts[self.node_id].paused and not self._connected:
            self.cluster.after(DELAY_NS, lambda: self._arrive(data))
            return
        try:
            if not self._connected:
                data = self._greet(data)
            self._decoder.body_limits = FROM_CLIENT if self.number in self.cluster.large else FROM_NEW_CLIENT
            frames = self._decoder.feed(data) if self._connected else []
        except HandshakeRejected as refused:
            self.cluster.after(DELAY_NS, partial(self.receive, self.number, refused.frame()))
            self.break_off()
        except FrameError:
            self.break_off()
        else:
            if frames:
                self.cluster.deliver(self.node_id, ClientReceived(self.number, frames))

    def _greet(self, data: bytes) -> bytes:
        """Do the acceptor's part of the handshake; return the frames that follow it."""
        self._held += data
        while self._acceptor.peer is None:
            frame, self._held = cut_first_frame(self._held)
            if frame is None:
                return b""
            reply = self._acceptor.receive(frame)
            if reply:
                self.cluster.after(DELAY_NS, partial(self.receive, self.number, reply))
        self._connected = True
        self.cluster.deliver(self.node_id, ClientConnected(self.number))
        rest, self._held = self._held, b""
        return rest

    def _end_at_node(self, process_dead: bool) -> None:
        if self._runs():
            self.open_there = False
            if self._connected:
                self.cluster.deliver(self.node_id, ClientLost(self.number, process_dead))

    def break_off(self) -> None:
        """Close the node's end; the client learns of it after everything that was sent before."""
        if self.open_there:
            self.open_there = False
            self.cluster.after(DELAY_NS, self._end_at_client)

    def _end_at_client(self) -> None:
        if self.open_here:
            self.open_here = False
            self._lost()

    # -- what the cluster calls

    def receive(self, link: int, data: bytes) -> None:
        """Take bytes for the client that have arrived."""
        if self.open_here:
            self._received(data)

    def lose_node(self, node_id: str) -> None:
        """Note that the node's process has ended.

        If its whole machine is silent, the client does not learn of it.
        """
        if node_id == self.node_id and not self.cluster.hosts[node_id].silent:
            self.break_off()


class ClientsCluster(Cluster):
    """Nodes that clients reach at `unix:///virtual/<node>` and at the TCP addresses that the nodes announce.

    A connection's `process` names the client's process, so that a test can kill it.
    """

    def __init__(self, node_ids: str, **settings: Any) -> None:
        super().__init__(node_ids, cluster=CLUSTER_NAME, **settings)
        self.links: dict[int, ClientLink] = {}
        self.unheard: set[str] = set()
        """The processes whose attempts to connect have no effect."""

    # -- addresses

    def unix_path(self, node_id: str) -> str:
        """Return the path of a node's unix socket."""
        return f"/virtual/{node_id}"

    def url(self, node_id: str) -> str:
        """Return the address for clients that a node announces."""
        return f"tcp://10.0.0.{1 + list(self.hosts).index(node_id)}:{PORT}"

    def node_at(self, place: str) -> str:
        """Return the node at a unix socket's path or at a host's address."""
        if place.startswith("/"):
            return place.rpartition("/")[2]
        return list(self.hosts)[int(place.rpartition(".")[2]) - 1]

    # -- connections

    def connect(
        self, node_id: str, process: str, received: Callable[[bytes], None], lost: Callable[[], None]
    ) -> ClientLink:
        """Make a connection. Raises: ConnectionRefusedError if nothing listens."""
        host = self.hosts[node_id]
        if host.node is None:
            raise ConnectionRefusedError(111, "Connection refused")
        link = ClientLink(self, node_id, process, received, lost)
        self.links[link.number] = self.clients[link.number] = link  # type: ignore[assignment]
        return link

    def cut_off(self, process: str, process_dead: bool = False) -> None:
        """Let a client's process lose its connections, and make no others.

        `process_dead`: it has ended, and its nodes' kernels know that.
        """
        self.unheard.add(process)
        for link in list(self.links.values()):
            if link.process == process:
                link.reset(process_dead)

    # -- the addresses that nodes announce to each other

    def transport_of(self, node_id: str) -> Transport:
        return Transport((self.url(node_id),))

    def _greet(self, link: Link, node_id: str, peer: str) -> None:
        if self.ends.get((node_id, peer)) is link:
            link.greeted.append(node_id)
            told = PeerConnected(peer, self.hosts[peer].incarnation, (self.url(peer),))
            self.deliver(node_id, told)

    def _carry_out(self, node_id: str, effect: Effect) -> None:
        super()._carry_out(node_id, effect)
        if isinstance(effect, CloseClient):
            self.links[effect.link].break_off()

    # -- time

    def step(self, end_ns: int) -> bool:
        """Do the next thing that is due by then, if there is one."""
        return self._step(end_ns)


def settled_cluster(node_ids: str = "abc", **settings: Any) -> ClientsCluster:
    """Return a cluster of these nodes that serves."""
    cluster = ClientsCluster(node_ids, **settings)
    cluster.start(*cluster.hosts)
    cluster.settle()
    return cluster
