"""Links between clients and nodes: FIFOs that can break."""

from typing import Protocol

from ckpt_protocol.bounds import FROM_CLIENT, FROM_NEW_CLIENT
from ckpt_protocol.framing import Frame, FrameDecoder
from ckptd.core.events import ClientConnected, ClientLost, ClientReceived
from ckptd.core.settings import MILLISECOND_NS
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import World


class ClientEnd(Protocol):
    """What a client hears of its link."""

    def on_connected(self, link: "ClientLink") -> None:
        """The first exchange is through."""

    def on_frames(self, link: "ClientLink", frames: list[Frame]) -> None:
        """Answers came."""

    def on_lost(self, link: "ClientLink | None") -> None:
        """The link is gone, or was refused (None)."""


class ClientLink:
    """One connection; `number` is the node's name for it.

    `open_here`: the client has its end, `open_there`: the node has its own.
    """

    __slots__ = (
        "client",
        "decoder",
        "held_back",
        "incarnation",
        "node_id",
        "number",
        "open_here",
        "open_there",
        "to_client_ns",
        "to_node_ns",
    )

    def __init__(self, client: ClientEnd, node_id: str, incarnation: int, number: int) -> None:
        self.client = client
        self.node_id = node_id
        self.incarnation = incarnation
        self.number = number
        self.open_here = False
        self.open_there = True
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
        """The epoch of the newest view that a node which runs has installed."""
        nodes = [host.node for host in self.hosts.values() if host.node is not None]
        return max((node.view.epoch for node in nodes if node.view is not None), default=0)

    def connect(self, client: ClientEnd, node_id: str) -> None:
        """A client connects to a node; a machine that is off or a process that is paused says nothing."""
        self.world.after(self._delay_ns(), lambda: self._reach(client, node_id))

    def _reach(self, client: ClientEnd, node_id: str) -> None:
        host = self.hosts[node_id]
        if not host.powered or host.paused or host.busy:
            return
        if not host.running:
            self.world.after(self._delay_ns(), lambda: client.on_lost(None))
            return
        self._last_number += 1
        link = ClientLink(client, node_id, host.incarnation, self._last_number)
        self.links[link.number] = link
        link.to_client_ns = self.world.now_ns + self._delay_ns()
        self.world.at(link.to_client_ns, lambda: self._connected(link))
        host.deliver(ClientConnected(link.number))

    def _connected(self, link: ClientLink) -> None:
        if link.open_there:
            link.open_here = True
            link.client.on_connected(link)
        else:
            link.client.on_lost(None)

    # -- frames

    def send_to_node(self, link: ClientLink, data: bytes) -> None:
        """Whole frames of a client."""
        link.to_node_ns = max(link.to_node_ns, self.world.now_ns + self._delay_ns())
        self.world.at(link.to_node_ns, lambda: self._at_node(link, data))

    def _at_node(self, link: ClientLink, data: bytes) -> None:
        host = self.hosts[link.node_id]
        if link.held_back is not None:
            link.held_back.append(data)
        elif link.open_there and host.incarnation == link.incarnation:
            host.deliver(ClientReceived(link.number, link.decoder.feed(data)))

    def take_large(self, number: int) -> None:
        """A session is attached on a link."""
        link = self.links.get(number)
        if link is not None:
            link.decoder.body_limits = FROM_CLIENT

    def read(self, number: int, reading: bool) -> None:
        """A node stops to read a link, or reads on."""
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
        """Whole frames of a node."""
        link = self.links.get(number)
        if link is None or not link.open_there:
            return
        link.to_client_ns = max(link.to_client_ns, self.world.now_ns + self._delay_ns())
        self.world.at(link.to_client_ns, lambda: self._at_client(link, data))

    def _at_client(self, link: ClientLink, data: bytes) -> None:
        if link.open_here:
            link.client.on_frames(link, FrameDecoder().feed(data))

    # -- ends

    def close_by_client(self, link: ClientLink, process_dead: bool = False) -> None:
        """The client's end goes; the node learns of it behind what was sent before."""
        link.open_here = False
        link.to_node_ns = max(link.to_node_ns, self.world.now_ns + self._delay_ns())
        self.world.at(link.to_node_ns, lambda: self._lost_at_node(link, process_dead))

    def _lost_at_node(self, link: ClientLink, process_dead: bool) -> None:
        host = self.hosts[link.node_id]
        if link.open_there:
            link.open_there = False
            self.links.pop(link.number, None)
            if host.incarnation == link.incarnation:
                host.deliver(ClientLost(link.number, process_dead))

    def close_by_node(self, number: int) -> None:
        """The node ends a link that broke the protocol."""
        link = self.links.get(number)
        if link is not None:
            self._lost_at_node(link, False)
            self._tell_client(link)

    def _tell_client(self, link: ClientLink) -> None:
        link.to_client_ns = max(link.to_client_ns, self.world.now_ns + self._delay_ns())
        self.world.at(link.to_client_ns, lambda: self._lost_at_client(link))

    def _lost_at_client(self, link: ClientLink) -> None:
        if link.open_here:
            link.open_here = False
            link.client.on_lost(link)

    def reset(self, link: ClientLink) -> None:
        """The connection breaks; either end learns of it in its time, and what is under way is lost."""
        link.open_here = False
        self.world.after(self._delay_ns(), lambda: self._lost_at_node(link, False))
        self.world.after(self._delay_ns() + MILLISECOND_NS, lambda: link.client.on_lost(link))

    def process_gone(self, node_id: str, machine_too: bool) -> None:
        """A node's process ended; clients hear of it only if the machine still answers."""
        for link in [link for link in self.links.values() if link.node_id == node_id]:
            link.open_there = False
            del self.links[link.number]
            if not machine_too:
                self._tell_client(link)
