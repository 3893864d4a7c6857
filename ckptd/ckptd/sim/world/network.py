"""The network of a simulation: how nodes find each other, and what disturbs their links.

* A cut holds back what is on a link until the cut heals or the link times out.
* A machine that loses power sends nothing.
* The node with the smaller id dials and the other one probes, as in the daemon. The node that is dialled
  first asks back at the dialler's address: it takes the link only from the process that answers there.
"""

from dataclasses import dataclass
from typing import Final

from ckptd.core.events import PeerConnected, PeerRefused
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.world.host import Host
from ckptd.sim.world.peer_links import PeerLink, PeerLinks, Way
from ckptd.sim.world.world import World

BACK_OFF_MIN_NS: Final = 5 * MILLISECOND_NS
BACK_OFF_MAX_NS: Final = 250 * MILLISECOND_NS
PROBE_NS: Final = 25 * MILLISECOND_NS
RETRANSMIT_NS: Final = 200 * MILLISECOND_NS
TIMEOUT_MIN_NS: Final = 1 * SECOND_NS
TIMEOUT_MAX_NS: Final = 8 * SECOND_NS

FORGED: Final = 0.7
"""How often (out of 1.0) a connection over a way that is cut is refused, where refusals are not trusted."""


@dataclass(slots=True)
class Dialing:
    """The attempts of one node to reach one peer, one at a time."""

    incarnation: int
    since_ns: int
    back_off_ns: int = BACK_OFF_MIN_NS
    pauses: bool = False
    number: int = 0
    """The number of the current pause."""


class Network(PeerLinks):
    """All links between nodes, and what disturbs them."""

    def __init__(self, world: World, hosts: dict[str, Host]) -> None:
        super().__init__(world, hosts)
        self.stalled: dict[Way, int] = {}
        """How many faults block the links of each way but let datagrams pass."""

        self._dialing: dict[Way, Dialing] = {}

    # -- ends of links

    def on_lost(self, node_id: str, peer: str) -> None:
        """Begin to dial or to probe."""
        self.dial(node_id, peer)

    def break_link(self, one: str, other: str) -> None:
        """Reset the connection. Each end learns of it after a delay of its own; what is under way is lost."""
        for node_id, peer in ((one, other), (other, one)):
            link = self.ends.get((node_id, peer))
            if link is not None:
                link.streams[peer].queue.clear()
                self._lose_later(node_id, peer, link, 0, 5 * MILLISECOND_NS)

    def _lose_later(self, node_id: str, peer: str, link: PeerLink, least_ns: int, most_ns: int) -> None:
        self.world.after(self.world.between(least_ns, most_ns), lambda: self.lose(node_id, peer, link))

    def machine_gone(self, node_id: str) -> None:
        """The power failed: the peers' ends stay as they are until they time out."""
        for peer in self.peers_of(node_id):
            self.ends.pop((node_id, peer), None)
            other = self.ends.get((peer, node_id))
            if other is not None:
                self._lose_later(peer, node_id, other, TIMEOUT_MIN_NS, TIMEOUT_MAX_NS)

    def process_started(self, node_id: str) -> None:
        """A process started: it dials and probes. Old links to this host are reset when they are used."""
        for peer in self.peers_of(node_id):
            self.dial(node_id, peer)
            self.dial(peer, node_id)
            other = self.ends.get((peer, node_id))
            if other is not None:
                self._lose_later(peer, node_id, other, MILLISECOND_NS, RETRANSMIT_NS)

    # -- cuts

    def holds_back(self, way: Way) -> bool:
        return self.is_cut(way) or self.stalled.get(way, 0) > 0 or super().holds_back(way)

    def cut(self, way: Way) -> None:
        """Let nothing pass on this way. A link that is cut for long times out at either end."""
        self._block(self.cuts, way)

    def stall(self, way: Way) -> None:
        """Hold back what is on a link on this way; datagrams pass. The link times out as if cut."""
        self._block(self.stalled, way)

    def _block(self, blocks: dict[Way, int], way: Way) -> None:
        blocks[way] = number = blocks.get(way, 0) + 1
        for node_id, peer in (way, way[::-1]):
            link = self.ends.get((node_id, peer))
            if link is not None:
                self.world.after(
                    self.world.between(TIMEOUT_MIN_NS, TIMEOUT_MAX_NS),
                    lambda n=node_id, p=peer, held=link: self._time_out(n, p, held, blocks, way, number),  # type: ignore[misc]
                )

    def _time_out(
        self, node_id: str, peer: str, link: PeerLink, blocks: dict[Way, int], way: Way, number: int
    ) -> None:
        if blocks.get(way, 0) >= number and self.ends.get((node_id, peer)) is link:
            self.close(node_id, peer)

    def heal(self, way: Way) -> None:
        """End one cut of this way. What was held back arrives in order."""
        self._unblock(self.cuts, way)

    def resume(self, way: Way) -> None:
        """Let what waited on a stuck link arrive."""
        self._unblock(self.stalled, way)

    def _unblock(self, blocks: dict[Way, int], way: Way) -> None:
        blocks[way] = max(0, blocks.get(way, 0) - 1)
        if not self.holds_back(way):
            link = self.ends.get((way[1], way[0]))
            if link is not None and not link.streams[way[0]].scheduled:
                link.streams[way[0]].scheduled = True
                self.world.after(self.world.between(0, RETRANSMIT_NS), lambda: self._arrive(link, way))

    # -- dialling

    def dial(self, node_id: str, peer: str) -> None:
        """Have a node try to reach a peer until it has a link, unless it does so already."""
        host = self.hosts[node_id]
        dialing = self._dialing.get((node_id, peer))
        tries = dialing is not None and dialing.incarnation == host.incarnation
        if host.running and (node_id, peer) not in self.ends and not tries:
            self._dialing[node_id, peer] = dialing = Dialing(host.incarnation, self.world.now_ns)
            self._attempt(node_id, peer, dialing)

    def ask_back(self, node_id: str, peer: str) -> None:
        """A node asks who is at a peer's address: if it has no link, it dials at once instead of waiting."""
        dialing = self._dialing.get((node_id, peer))
        if dialing is not None and dialing.pauses and dialing.incarnation == self.hosts[node_id].incarnation:
            self._attempt(node_id, peer, dialing)

    def _attempt(self, node_id: str, peer: str, dialing: Dialing) -> None:
        """Make one attempt, or one probe. The next one begins a pause after this one has ended."""
        host = self.hosts[node_id]
        way, back = (node_id, peer), (peer, node_id)
        if self._dialing.get(way) is not dialing:
            return
        if not host.running or host.incarnation != dialing.incarnation or way in self.ends:
            del self._dialing[way]
            return
        dialing.pauses = False
        cut = self.is_cut(way) or self.is_cut(back)
        if cut and not self.world.options.trust_rst and self.world.chance(FORGED):
            self.world.after(self.delay_ns(way), lambda: self._forge_refusal(node_id, peer, dialing))
            return
        if cut or not self.hosts[peer].powered or host.paused:
            self._try_later(node_id, peer, dialing)
        else:
            self.world.after(self.delay_ns(way), lambda: self._reach(node_id, peer, dialing))

    def _try_later(self, node_id: str, peer: str, dialing: Dialing) -> None:
        """Nothing came back: the node needs some time to give the attempt up."""
        self._try_after(self.world.between(RETRANSMIT_NS, SECOND_NS), node_id, peer, dialing)

    def _try_again(self, node_id: str, peer: str, dialing: Dialing) -> None:
        """An attempt is over: the pause before the next one begins."""
        if node_id < peer:
            pause_ns, dialing.back_off_ns = dialing.back_off_ns, min(2 * dialing.back_off_ns, BACK_OFF_MAX_NS)
        else:
            pause_ns = PROBE_NS if self.world.now_ns - dialing.since_ns < SECOND_NS else SECOND_NS
        self._try_after(pause_ns, node_id, peer, dialing)

    def _try_after(self, pause_ns: int, node_id: str, peer: str, dialing: Dialing) -> None:
        dialing.pauses = True
        dialing.number = number = dialing.number + 1
        self.world.after(
            pause_ns,
            lambda: self._attempt(node_id, peer, dialing) if dialing.number == number else None,
        )

    def _reach(self, node_id: str, peer: str, dialing: Dialing) -> None:
        """A connection attempt arrives at the peer's machine."""
        there, way, back = self.hosts[peer], (node_id, peer), (peer, node_id)
        delay_ns = self.delay_ns(back)
        if self.is_cut(back) or not there.powered or there.paused or there.busy:
            self._try_later(node_id, peer, dialing)
        elif not there.running:
            last = there.incarnation
            self.world.after(delay_ns, lambda: self._refused(node_id, peer, dialing, last))
        elif node_id > peer:
            self.world.after(delay_ns, lambda: self._try_again(node_id, peer, dialing))
        else:
            its_incarnation = there.incarnation
            self.world.after(
                delay_ns + self.delay_ns(way), lambda: self._answered(node_id, peer, dialing, its_incarnation)
            )

    def _answered(self, node_id: str, peer: str, dialing: Dialing, its_incarnation: int) -> None:
        """The node that was dialled has asked back: it takes the link only from the process that answered."""
        here, there = self.hosts[node_id], self.hosts[peer]
        way, back = (node_id, peer), (peer, node_id)
        if here.incarnation != dialing.incarnation or not here.running:
            return
        if there.powered and (there.incarnation != its_incarnation or not there.running):
            self._try_again(node_id, peer, dialing)  # The process died, and its machine reports it.
            return
        silent = here.paused or here.busy or there.paused or there.busy or not there.powered
        if silent or self.is_cut(way) or self.is_cut(back):
            self._try_later(node_id, peer, dialing)
            return
        self.lose(peer, node_id, self.ends.get(back))
        link, delay_ns = PeerLink(node_id, peer), self.delay_ns(back)
        link.streams[peer].last_ns = self.world.now_ns + delay_ns
        self.ends[back] = link
        self.world.after(delay_ns, lambda: self._connected(node_id, peer, dialing, link))
        there.deliver(PeerConnected(node_id, dialing.incarnation, (f"sim://{node_id}",)))

    def _refused(self, node_id: str, peer: str, dialing: Dialing, last: int) -> None:
        host = self.hosts[node_id]
        self._try_again(node_id, peer, dialing)
        # Starting takes longer than a refusal needs to arrive: the first heartbeat comes after it.
        overtaken = self.hosts[peer].incarnation != last
        usable = host.incarnation == dialing.incarnation and (node_id, peer) not in self.ends
        if usable and not overtaken and not self.is_cut((peer, node_id)):
            host.deliver(PeerRefused(peer))

    def _forge_refusal(self, node_id: str, peer: str, dialing: Dialing) -> None:
        """A device on the way (a firewall, a load balancer) refuses what cannot pass."""
        host = self.hosts[node_id]
        self._try_again(node_id, peer, dialing)
        if host.incarnation == dialing.incarnation and (node_id, peer) not in self.ends:
            host.deliver(PeerRefused(peer))

    def _connected(self, node_id: str, peer: str, dialing: Dialing, link: PeerLink) -> None:
        host = self.hosts[node_id]
        usable = host.running and host.incarnation == dialing.incarnation and (node_id, peer) not in self.ends
        if not usable or self.ends.get((peer, node_id)) is not link or self.is_cut((peer, node_id)):
            self._lose_later(peer, node_id, link, 0, RETRANSMIT_NS)
            self._try_again(node_id, peer, dialing)
            return
        self.ends[node_id, peer] = link
        del self._dialing[node_id, peer]
        host.deliver(PeerConnected(peer, self.hosts[peer].incarnation, (f"sim://{peer}",)))
