"""Which start of each node counts, and what keeps this node apart from the others.

A start of a peer is known once it answered at the peer's configured address (ADR 17). Starts
of one node are ordered by their incarnations, since views and directories compare them. A
node that lost its state directory while its clock stood ahead begins with a lower one than
before: whoever still knows the higher one says so, and the node begins again above it.

Nothing here outlives its cause: what a peer said stands for `TROUBLE_NS` after it said it
last. It does not know who should be in a view.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.bounds import BOUNDS
from ckpt_protocol.codec import bounded_array, pack_body
from ckpt_protocol.fields import texts
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.limits import NODE_ID_BYTES_MAX, NODES_MAX
from ckpt_protocol.messages import Kind
from ckptd.core.context import Context
from ckptd.core.events import BeginAgain, PeerTrouble, RefusePeer
from ckptd.core.liveness.heartbeat import Heartbeats, Peer
from ckptd.core.settings import SECOND_NS
from ckptd.core.view import View

TROUBLE_NS: Final = 5 * SECOND_NS
"""What keeps a peer apart is told again within this, for as long as it does: each try takes at most 4 s."""

STRANGERS_MAX: Final = 8
"""Node ids that are not configured here and are remembered for the operator."""

Nodes = tuple[tuple[str, ...], tuple[str, ...]]
"""The data nodes and the witnesses that a node is configured with, itself included."""


@dataclass(slots=True)
class _Trouble:
    code: int
    text: str
    since_ns: int


class Starts:
    """`views` are the views that this node knows of: they name starts, too."""

    def __init__(
        self, context: Context, heartbeats: Heartbeats, views: Callable[[], tuple[View | None, ...]]
    ) -> None:
        self.context = context
        self.heartbeats = heartbeats
        self.views = views
        self.before_end: Callable[[], None] = lambda: None
        """What is still to be done before this start ends."""
        self._troubles: dict[str, _Trouble] = {}
        self._nodes: dict[str, Nodes] = {}
        settings = context.settings
        data_nodes = (node_id for node_id in settings.voters if node_id not in settings.all_witnesses)
        self._own_nodes: Nodes = tuple(data_nodes), tuple(sorted(settings.all_witnesses))

    # -- starts of others

    def connected(self, node_id: str, incarnation: int, urls: tuple[str, ...]) -> Peer | None:
        """This start of a peer answered at its address, and there is a link; None: it does not count."""
        peer, context = self.heartbeats.peers.get(node_id), self.context
        if peer is None:
            return None
        last = max([peer.incarnation, *starts_in(node_id, self.views())])
        if incarnation < last:
            if not any(view is not None and view.has(node_id, incarnation) for view in self.views()[:1]):
                context.effects.append(RefusePeer(node_id, last))
                return None
            self.heartbeats.take_earlier(peer, incarnation)
        else:
            self.heartbeats.met(peer, incarnation)
        peer.connected, peer.urls = True, urls
        context.log(f"node {node_id} is connected")
        self.heartbeats.send(peer)
        context.send_peer(node_id, encode_frame(Kind.NODES, 0, 0, 0, pack_body(list(self._own_nodes))))
        return peer

    def lost(self, node_id: str) -> bool:
        """The link to a peer is gone; False where it is none of ours, or did not count."""
        peer = self.heartbeats.peers.get(node_id)
        if peer is None or not peer.connected:
            return False
        peer.connected = False
        self.context.log(f"node {node_id} is not connected any more", "warning")
        return True

    # -- what others say of this one

    def outranked(self, node_id: str, incarnation: int) -> None:
        """A peer knows of a later start of this node: begin again above it, unless this one serves."""
        context = self.context
        if incarnation <= context.incarnation or self.heartbeats.leaving:
            return
        if context.serving():
            text = f"it knows a later start of this node ({incarnation}), and has not heard of this view yet"
            self.trouble(PeerTrouble(node_id, codes.TRY_AGAIN, text))
            return
        text = f"node {node_id} knows a later start of this node ({incarnation}): this one begins again"
        context.log(text, "warning")
        self.before_end()
        context.effects.append(BeginAgain(incarnation))

    def trouble(self, event: PeerTrouble) -> None:
        """What keeps a peer and this node apart, in words for the operator."""
        known = event.node_id in self.heartbeats.peers
        if not known and event.node_id not in self._troubles and self._strangers() >= STRANGERS_MAX:
            return
        self._troubles[event.node_id] = _Trouble(event.code, event.text, self.context.now_ns)

    def _strangers(self) -> int:
        return sum(node_id not in self.heartbeats.peers for node_id in self._troubles)

    @property
    def superseded(self) -> str:
        """Why this node is not the node of its id to the others, and what helps; "" where it is."""
        by_text: dict[str, list[str]] = {}
        for node_id, trouble in sorted(self._troubles.items()):
            if trouble.code == codes.EXIST and not self._is_linked(node_id):
                by_text.setdefault(trouble.text, []).append(node_id)
        if not by_text:
            return ""
        found = "; ".join(f"{', '.join(node_ids)}: {text}" for text, node_ids in by_text.items())
        return (
            f"another daemon is node {self.context.node_id!r} to the other nodes ({found}). Stop that "
            "daemon, or give this one a node id of its own. This one joins by itself as soon as it answers "
            "at the address that the others have for this node id"
        )

    def _is_linked(self, node_id: str) -> bool:
        peer, context = self.heartbeats.peers.get(node_id), self.context
        return peer is not None and peer.connected and peer.linked.get(context.node_id) == context.incarnation

    # -- the nodes of the cluster

    def on_nodes(self, node_id: str, frame: Frame) -> None:
        """A peer says which nodes it is configured with. Raises: FrameError."""
        told = bounded_array(frame.body, BOUNDS[Kind.NODES], 2)[:2]
        data_nodes, witnesses = (texts(names, "a node's id", NODES_MAX, NODE_ID_BYTES_MAX) for names in told)
        self._nodes[node_id] = (tuple(sorted(data_nodes)), tuple(sorted(witnesses)))

    # -- telling the operator

    def look(self) -> None:
        """With each heartbeat: forget what is over, and raise or clear the alarms."""
        heartbeats, now_ns = self.heartbeats, self.context.now_ns
        for node_id, trouble in list(self._troubles.items()):
            if now_ns - trouble.since_ns >= TROUBLE_NS or self._is_linked(node_id):
                del self._troubles[node_id]
        for node_id in list(self._nodes):
            if not heartbeats.peers[node_id].connected:
                del self._nodes[node_id]  # While there is a link it stands, heard or not: it is said once.
        self._set("superseded", self.superseded)
        self._set(
            "peers",
            "; ".join(
                f"node {node_id}: {trouble.text}"
                for node_id, trouble in sorted(self._troubles.items())
                if trouble.code != codes.EXIST
            ),
        )
        own = self._own_nodes
        others = [
            (node_id, theirs)
            for node_id, theirs in sorted(self._nodes.items())
            if theirs != own and heartbeats.hears(heartbeats.peers[node_id])
        ]
        differ = "; ".join(f"node {node_id} has {_names(theirs)}" for node_id, theirs in others)
        text = f"this node has {_names(own)}; {differ}. Give all nodes the same peers and witnesses"
        self._set("peers_differ", text if differ else "")

    def waits_for(self, otherwise: str) -> str:
        """What this node waits for: `otherwise`, unless what keeps it apart from all others says more."""
        if not otherwise:
            return ""
        if self.superseded:
            return f"its node id, which another daemon has (alarm superseded of node {self.context.node_id})"
        peers = self.heartbeats.peers
        if peers and all(node_id in self._troubles for node_id in peers):
            return f"a link to any other node (alarm peers of node {self.context.node_id})"
        return otherwise

    def _set(self, name: str, text: str) -> None:
        if text:
            self.context.raise_alarm(name, text)
        else:
            self.context.clear_alarm(name)


def _names(nodes: Nodes) -> str:
    data_nodes, witnesses = nodes
    return f"nodes {', '.join(data_nodes)}" + (f" and witnesses {', '.join(witnesses)}" if witnesses else "")


def starts_in(node_id: str, views: Iterable[View | None]) -> list[int]:
    """Every start of a node that these views name, also as one that left."""
    found: list[int] = []
    for view in views:
        if view is not None:
            found += [view.members[node_id].incarnation] if node_id in view.members else []
            found += [left.incarnation for left in view.departures if left.node_id == node_id]
            found += [view.witnesses[node_id]] if node_id in view.witnesses else []
    return found
