"""The in-process cluster as clients see it: addresses, connections that can break, and the handshake.

It uses the real cores of `tests.core.cluster`, in virtual time, and the simulator's links between clients and
nodes.
"""

from collections.abc import Callable
from typing import Any

from tests.core.cluster import Cluster
from tests.core.network import DELAY_NS

from ckpt_protocol.handshake import NONCE_BYTES, Acceptor, HandshakeRejected, Identity
from ckptd.core.events import ClientConnected
from ckptd.runtime.net.handshake import cut_first_frame
from ckptd.sim.world.client_links import ClientLink, ClientLinks

CLUSTER_NAME = "conformance"
PORT = 7300


class ClientConnection:
    """One connection of a client with a node.

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
        self.links = cluster.client_links
        self.node_id = node_id
        self.process = process
        self._received = received
        self._lost = lost
        self.link = self.links.open(self, node_id)
        self.link.client_end_open = True
        identity = Identity(CLUSTER_NAME, b"", node_id, self.link.incarnation)
        self.acceptor = Acceptor(identity, bytes(NONCE_BYTES))
        """The node's part of the handshake."""

        self.first_bytes = b""
        """The bytes of the handshake that the node has received and not used yet."""

    @property
    def runs(self) -> bool:
        """True while the node's process is the one that was connected to, and has its end open."""
        return self.link.node_end_open

    # -- what the client does

    def send(self, data: bytes) -> None:
        """Send bytes from the client to the node."""
        self.links.send_to_node(self.link, data)

    def close(self, process_dead: bool = False) -> None:
        """Close the client's end; the node learns of it after everything that was sent before."""
        if self.link.client_end_open:
            self.links.close_by_client(self.link, process_dead)

    def reset(self, process_dead: bool) -> None:
        """Break the connection; both ends learn of it."""
        if self.link.client_end_open and not process_dead:
            self.links.world.after(DELAY_NS, self._lost)
        self.close(process_dead)

    # -- what the client learns (`ckptd.sim.world.client_links.ClientEnd`)

    def on_connected(self, link: ClientLink) -> None:
        raise AssertionError("it is connected when it is made")

    def on_received(self, link: ClientLink, data: bytes) -> None:
        self._received(data)

    def on_lost(self, link: ClientLink | None) -> None:
        self._lost()


class GreetedLinks(ClientLinks):
    """Links that begin with the handshake, as those of a daemon do. The core learns of a link after it."""

    def receive(self, link: ClientLink, data: bytes) -> None:
        connection = link.client
        assert isinstance(connection, ClientConnection)
        if connection.acceptor.peer is not None:
            super().receive(link, data)
        elif self.hosts[link.node_id].paused:
            self.world.after(DELAY_NS, lambda: self._at_node(link, data))
        else:
            connection.first_bytes += data
            self._greet(link, connection)

    def _greet(self, link: ClientLink, connection: ClientConnection) -> None:
        acceptor = connection.acceptor
        while acceptor.peer is None:
            frame, connection.first_bytes = cut_first_frame(connection.first_bytes)
            if frame is None:
                return
            try:
                reply = acceptor.receive(frame)
            except HandshakeRejected as rejected:
                self.send_to_client(link.number, rejected.frame())
                self.close_by_node(link.number)
                return
            if reply:
                self.send_to_client(link.number, reply)
        self.hosts[link.node_id].deliver(ClientConnected(link.number))
        if connection.first_bytes:
            super().receive(link, connection.first_bytes)


class ClientsCluster(Cluster):
    """Nodes that clients reach at `unix:///virtual/<node>` and at the TCP addresses that the nodes announce.

    A connection's `process` names the client's process, so that a test can kill it.
    """

    def __init__(self, node_ids: str, **settings: Any) -> None:
        super().__init__(node_ids, cluster=CLUSTER_NAME, **settings)
        self.client_links = GreetedLinks(self.world, self.hosts)
        self.connections: list[ClientConnection] = []
        self.unheard: set[str] = set()
        """The processes whose attempts to connect have no effect."""

    # -- addresses

    def unix_path(self, node_id: str) -> str:
        """Return the path of a node's unix socket."""
        return f"/virtual/{node_id}"

    def url(self, node_id: str) -> str:
        """Return the address for clients that a node announces."""
        return f"tcp://10.0.0.{1 + list(self.hosts).index(node_id)}:{PORT}"

    def urls(self, node_id: str) -> tuple[str, ...]:
        return (self.url(node_id),)

    def node_at(self, place: str) -> str:
        """Return the node at a unix socket's path or at a host's address."""
        if place.startswith("/"):
            return place.rpartition("/")[2]
        return list(self.hosts)[int(place.rpartition(".")[2]) - 1]

    # -- connections

    def connect(
        self, node_id: str, process: str, received: Callable[[bytes], None], lost: Callable[[], None]
    ) -> ClientConnection:
        """Make a connection. Raises: ConnectionRefusedError if nothing listens."""
        if not self.hosts[node_id].running:
            raise ConnectionRefusedError(111, "Connection refused")
        connection = ClientConnection(self, node_id, process, received, lost)
        self.connections.append(connection)
        return connection

    def cut_off(self, process: str, process_dead: bool = False) -> None:
        """Let a client's process lose its connections, and make no others.

        `process_dead`: it has ended, and its nodes' kernels know that.
        """
        self.unheard.add(process)
        for connection in self.connections:
            if connection.process == process:
                connection.reset(process_dead)


def settled_cluster(node_ids: str = "abc", **settings: Any) -> ClientsCluster:
    """Return a cluster of these nodes that serves."""
    cluster = ClientsCluster(node_ids, **settings)
    cluster.start(*cluster.hosts)
    cluster.settle()
    return cluster
