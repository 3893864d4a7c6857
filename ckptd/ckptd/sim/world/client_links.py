"""Links between clients and nodes: FIFOs that can break."""

from typing import Protocol

from ckpt_protocol.bounds_by_kind import FROM_CLIENT, FROM_NEW_CLIENT
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import FrameDecoder
from ckptd.core.events import ClientConnected, ClientLost, ClientReceived
from ckptd.core.settings import MILLISECOND_NS
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import World


class ClientEnd(Protocol):
    """What a client learns about its link."""

    def on_connected(self, link: "ClientLink") -> None:
        """The handshake is complete."""

    def on_received(self, link: "ClientLink", data: bytes) -> None:
        """Answers arrived, as whole frames."""

    def on_lost(self, link: "ClientLink | None") -> None:
        """The link is lost, or was refused (None)."""


class ClientLink:
    """One connection between a client and a node."""

    __slots__ = (
        "client",
        "client_end_open",
        "decoder",
        "held_back",
        "incarnation",
        "node_end_open",
        "node_id",
        "number",
        "to_client_ns",
        "to_node_ns",
    )

    def __init__(self, client: ClientEnd, node_id: str, incarnation: int, number: int) -> None:
        self.client = client
        self.node_id = node_id
        self.incarnation = incarnation
        self.number = number
        """The number by which the node knows this link."""

        self.client_end_open = False
        """True while the client has its end open."""

        self.node_end_open = True
        """True while the node has its end open."""

        self.to_client_ns = 0
        self.to_node_ns = 0
        self.decoder = FrameDecoder(FROM_NEW_CLIENT)
        self.held_back: list[bytes] | None = None


class ClientLinks:
    """All links of clients, by number."""

    def __init__(self, world: World, hosts: dict[str, Host]) -> None:
        self.world = world
        self.hosts = hosts
        self.links: dict[int, ClientLink] = {}
        self._last_number = 0

    def _delay_ns(self) -> int:
        options = self.world.options
        return self.world.between(options.delay_min_ns, options.delay_max_ns)

    def newest_epoch(self) -> int:
        """Return the epoch of the newest view that a running node has installed."""
        nodes = [host.node for host in self.hosts.values() if host.node is not None]
        return max((node.view.epoch for node in nodes if node.view is not None), default=0)

    def connect(self, client: ClientEnd, node_id: str) -> None:
        """Connect a client to a node. If the machine is off or the process paused, nothing answers."""
        self.world.after(self._delay_ns(), lambda: self._reach(client, node_id))

    def _reach(self, client: ClientEnd, node_id: str) -> None:
        host = self.hosts[node_id]
        if not host.powered or host.paused or host.busy:
            return
        if not host.running:
            self.world.after(self._delay_ns(), lambda: client.on_lost(None))
            return
        link = self.open(client, node_id)
        link.to_client_ns = self.world.now_ns + self._delay_ns()
        self.world.at(link.to_client_ns, lambda: self._connected(link))
        host.deliver(ClientConnected(link.number))

    def open(self, client: ClientEnd, node_id: str) -> ClientLink:
        """Make a link of which neither end knows yet."""
        self._last_number += 1
        link = ClientLink(client, node_id, self.hosts[node_id].incarnation, self._last_number)
        self.links[link.number] = link
        return link

    def _connected(self, link: ClientLink) -> None:
        if link.node_end_open:
            link.client_end_open = True
            link.client.on_connected(link)
        else:
            link.client.on_lost(None)

    # -- frames

    def send_to_node(self, link: ClientLink, data: bytes) -> None:
        """Send whole frames of a client to its node."""
        link.to_node_ns = max(link.to_node_ns, self.world.now_ns + self._delay_ns())
        self.world.at(link.to_node_ns, lambda: self._at_node(link, data))

    def _at_node(self, link: ClientLink, data: bytes) -> None:
        host = self.hosts[link.node_id]
        if link.held_back is not None:
            link.held_back.append(data)
        elif link.node_end_open and host.incarnation == link.incarnation:
            self.receive(link, data)

    def receive(self, link: ClientLink, data: bytes) -> None:
        """Bytes of a client arrived in its node's process. Those that are no frames end the link."""
        try:
            frames = link.decoder.feed(data)
        except FrameError as error:
            self.world.say(f"{link.node_id}: closes client link {link.number}: {error}")
            self.close_by_node(link.number)
        else:
            self.hosts[link.node_id].deliver(ClientReceived(link.number, frames))

    def take_large(self, number: int) -> None:
        """Accept large frames on a link, since a session is attached on it."""
        link = self.links.get(number)
        if link is not None:
            link.decoder.body_limits = FROM_CLIENT

    def read(self, number: int, reading: bool) -> None:
        """Stop reading a link at its node, or resume."""
        link = self.links.get(number)
        if link is None:
            return
        if not reading:
            link.held_back = link.held_back or []
        elif link.held_back is not None:
            held_back, link.held_back = link.held_back, None
            if held_back:
                self.world.after(0, lambda: self._at_node(link, b"".join(held_back)))

    def send_to_client(self, number: int, data: bytes) -> None:
        """Send whole frames of a node to its client."""
        link = self.links.get(number)
        if link is None or not link.node_end_open:
            return
        link.to_client_ns = max(link.to_client_ns, self.world.now_ns + self._delay_ns())
        self.world.at(link.to_client_ns, lambda: self._at_client(link, data))

    def _at_client(self, link: ClientLink, data: bytes) -> None:
        if link.client_end_open:
            link.client.on_received(link, data)

    # -- ends

    def close_by_client(self, link: ClientLink, process_dead: bool = False) -> None:
        """Close the client's end. The node learns of it after everything that was sent before."""
        link.client_end_open = False
        link.to_node_ns = max(link.to_node_ns, self.world.now_ns + self._delay_ns())
        self.world.at(link.to_node_ns, lambda: self._lost_at_node(link, process_dead))

    def _lost_at_node(self, link: ClientLink, process_dead: bool) -> None:
        host = self.hosts[link.node_id]
        if link.node_end_open:
            link.node_end_open = False
            self.links.pop(link.number, None)
            if host.incarnation == link.incarnation:
                host.deliver(ClientLost(link.number, process_dead))

    def close_by_node(self, number: int) -> None:
        """Close a link at the node, because it broke the protocol."""
        link = self.links.get(number)
        if link is not None:
            self._lost_at_node(link, False)
            self._report_loss(link)

    def _report_loss(self, link: ClientLink) -> None:
        link.to_client_ns = max(link.to_client_ns, self.world.now_ns + self._delay_ns())
        self.world.at(link.to_client_ns, lambda: self._lost_at_client(link))

    def _lost_at_client(self, link: ClientLink) -> None:
        if link.client_end_open:
            link.client_end_open = False
            link.client.on_lost(link)

    def reset(self, link: ClientLink) -> None:
        """Break the connection. Each end learns of it after a delay of its own; what is under way is lost."""
        link.client_end_open = False
        self.world.after(self._delay_ns(), lambda: self._lost_at_node(link, False))
        self.world.after(self._delay_ns() + MILLISECOND_NS, lambda: link.client.on_lost(link))

    def process_gone(self, node_id: str, machine_too: bool) -> None:
        """A node's process ended. Clients learn of it only if the machine still answers."""
        for link in [link for link in self.links.values() if link.node_id == node_id]:
            link.node_end_open = False
            del self.links[link.number]
            if not machine_too:
                self._report_loss(link)
