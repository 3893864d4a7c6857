"""Which incarnation of each node counts, and what keeps this node apart from the others.

An incarnation of a peer is known once it has answered at the peer's configured address (ADR 17). The
incarnations of one node are ordered, since views and directories compare them. A node that lost its state
directory while its clock was ahead starts with a lower incarnation than before. A peer that still knows the
higher one reports it, and the node starts again above it.

Nothing here outlives its cause: a peer's report is valid for `TROUBLE_NS` after it was last repeated. This
module does not know which nodes should be in a view.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.body_codec import bounded_array, pack_body
from ckpt_protocol.bounds_by_kind import BOUNDS
from ckpt_protocol.field_checks import texts
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.limits import NODE_ID_BYTES_MAX, NODES_MAX
from ckpt_protocol.messages import Kind
from ckptd.core.context import Context
from ckptd.core.events import BeginAgain, PeerTrouble, RefusePeer
from ckptd.core.hub import VoterHub
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.liveness.peer import Peer
from ckptd.core.settings import SECOND_NS
from ckptd.core.view import View

TROUBLE_NS: Final = 5 * SECOND_NS
"""How long a report of trouble is valid.

It is repeated for as long as the trouble lasts, and each try takes at most 4 s.
"""

PROBATION_HEARTBEATS: Final = 4
"""For this many heartbeat intervals a link to a lower incarnation may bring the view that names it."""

UNCONFIGURED_MAX: Final = 8
"""How many node ids that are not configured here are remembered for the operator."""

Nodes = tuple[tuple[str, ...], tuple[str, ...]]
"""The data nodes and the witnesses that a node is configured with, itself included."""


@dataclass(slots=True)
class _Trouble:
    code: int
    text: str
    since_ns: int


class Incarnations:
    """The incarnations that count. The views that are known here name incarnations, too."""

    def __init__(self, context: Context, liveness: Liveness, hub: VoterHub) -> None:
        self.context = context
        self.liveness = liveness
        self.hub = hub
        self._troubles: dict[str, _Trouble] = {}
        self._nodes: dict[str, Nodes] = {}
        self._on_probation: dict[str, tuple[int, int]] = {}
        """By node: the later incarnation of it that we know, and until when (ns) we wait for a view."""
        self._views_seen: tuple[View | None, ...] = (None, None)
        settings = context.settings
        data_nodes = (node_id for node_id in settings.voters if node_id not in settings.all_witnesses)
        self._own_nodes: Nodes = tuple(data_nodes), tuple(sorted(settings.all_witnesses))

    # -- incarnations of others

    def on_connected(self, node_id: str, incarnation: int, urls: tuple[str, ...]) -> Peer | None:
        """Note the link to an incarnation that answered at its address; None if that does not count."""
        peer, context = self.liveness.peers.get(node_id), self.context
        if peer is None:
            return None
        last = max([peer.incarnation, *incarnations_in(node_id, self.hub.known_views())])
        if incarnation < last:
            if not any(
                view is not None and view.includes(node_id, incarnation)
                for view in self.hub.known_views()[:1]
            ):
                until_ns = context.now_ns + PROBATION_HEARTBEATS * context.settings.heartbeat_ns
                self._on_probation[node_id] = (last, until_ns)
                return None
            self.liveness.deaths.adopt_earlier_incarnation(peer, incarnation)
        else:
            self.liveness.deaths.on_incarnation_answered(peer, incarnation)
        peer.connected, peer.urls = True, urls
        context.log(f"node {node_id} is connected")
        self.liveness.heartbeats.send(peer)
        context.send_peer(node_id, encode_frame(Kind.NODES, 0, 0, 0, pack_body(list(self._own_nodes))))
        return peer

    def on_lost(self, node_id: str) -> bool:
        """Note that the link to a peer is lost; False if it did not count, or is no peer's."""
        self._on_probation.pop(node_id, None)
        peer = self.liveness.peers.get(node_id)
        if peer is None or not peer.connected:
            return False
        peer.connected = False
        self.context.log(f"node {node_id} is disconnected", "warning")
        return True

    def _end_probations(self) -> None:
        """Refuse the links to lower incarnations: each has had time to send the view that names it, if any.

        If it has, the next link to it counts. A node that was bootstrapped alone, after it had lost its disk,
        serves and does not start again. Nobody else can tell the others that its incarnation is the right
        one; and when they refused every link to it at once, it could not either (seed 7302990).
        """
        decided = self.hub.known_views()[0]
        for node_id, (last, until_ns) in list(self._on_probation.items()):
            member = decided.members.get(node_id) if decided is not None else None
            if self.context.now_ns >= until_ns or (member is not None and member.incarnation < last):
                del self._on_probation[node_id]
                self.context.effects.append(RefusePeer(node_id, last))

    def _leave_lower_incarnations(self) -> None:
        """Have nodes start again that run below an incarnation that a view names: this one, or a peer.

        A node that had lost its disk decided such a view itself, from the vote of another. It and the others
        then waited for proof that its own later incarnation is dead (seed 7303071).
        """
        views, me = self.hub.known_views(), self.context.node_id
        if all(view is seen for view, seen in zip(views, self._views_seen, strict=True)):
            return
        self._views_seen = views
        newest = views[0]
        running = {peer.node_id: peer.incarnation for peer in self.liveness.peers.values() if peer.connected}
        for node_id, incarnation in {me: self.context.incarnation, **running}.items():
            last = max(incarnations_in(node_id, views), default=0)
            if incarnation >= last or (newest is not None and newest.includes(node_id, incarnation)):
                continue
            if node_id != me:
                self.context.effects.append(RefusePeer(node_id, last))
            elif not self.context.serving():
                self.on_outranked(me, last)

    # -- what others report about this node

    def on_outranked(self, node_id: str, incarnation: int) -> None:
        """Start again above a later incarnation of this node that a peer knows, unless this one serves."""
        context = self.context
        if incarnation <= context.incarnation or self.liveness.own.leaving:
            return
        if context.serving():
            text = (
                f"it knows a later incarnation of this node ({incarnation}) and has not received this "
                "view yet"
            )
            self.on_trouble(PeerTrouble(node_id, codes.TRY_AGAIN, text))
            return
        who = f"node {node_id}" if node_id != context.node_id else "a view"
        text = f"{who} knows a later incarnation of this node ({incarnation}), so this node starts again"
        context.log(text, "warning")
        self.hub.on_superseded()
        context.effects.append(BeginAgain(incarnation))

    def on_trouble(self, event: PeerTrouble) -> None:
        """Remember what keeps a peer and this node apart, for the operator."""
        known = event.node_id in self.liveness.peers
        if (
            not known
            and event.node_id not in self._troubles
            and self._unconfigured_count() >= UNCONFIGURED_MAX
        ):
            return
        self._troubles[event.node_id] = _Trouble(event.code, event.text, self.context.now_ns)

    def _unconfigured_count(self) -> int:
        return sum(node_id not in self.liveness.peers for node_id in self._troubles)

    @property
    def superseded(self) -> str:
        """Why the others take another daemon for the node with this id, and what to do; "" if they do not."""
        by_text: dict[str, list[str]] = {}
        for node_id, trouble in sorted(self._troubles.items()):
            if trouble.code == codes.EXIST and not self._is_connected(node_id):
                by_text.setdefault(trouble.text, []).append(node_id)
        if not by_text:
            return ""
        found = "; ".join(f"{', '.join(node_ids)}: {text}" for text, node_ids in by_text.items())
        return (
            f"other nodes accept another daemon as node {self.context.node_id!r} ({found}). Stop that "
            "daemon, or give this one a different node id. This node joins automatically once it "
            "answers at the address that the others have for this node id"
        )

    def _is_connected(self, node_id: str) -> bool:
        peer, context = self.liveness.peers.get(node_id), self.context
        return (
            peer is not None and peer.connected and peer.its_links.get(context.node_id) == context.incarnation
        )

    # -- the nodes of the cluster

    def on_nodes(self, node_id: str, frame: Frame) -> None:
        """Take a peer's list of the nodes that it is configured with. Raises: FrameError."""
        lists = bounded_array(frame.body, BOUNDS[Kind.NODES], 2)[:2]
        data_nodes, witnesses = (texts(names, "a node's id", NODES_MAX, NODE_ID_BYTES_MAX) for names in lists)
        self._nodes[node_id] = (tuple(sorted(data_nodes)), tuple(sorted(witnesses)))

    def has_same_nodes(self, node_id: str) -> bool:
        """Return True if a peer that is connected has said that it is configured with the same nodes."""
        return self._nodes.get(node_id) == self._own_nodes

    # -- reporting to the operator

    def update(self) -> None:
        """Discard what is over, and raise or clear the alarms; called with each heartbeat."""
        liveness, now_ns = self.liveness, self.context.now_ns
        self._end_probations()
        self._leave_lower_incarnations()
        for node_id, trouble in list(self._troubles.items()):
            if now_ns - trouble.since_ns >= TROUBLE_NS or self._is_connected(node_id):
                del self._troubles[node_id]
        for node_id in list(self._nodes):
            if not liveness.peers[node_id].connected:
                # It is sent once per link, so it is valid as long as the link, heartbeats or not.
                del self._nodes[node_id]
        liveness.features.update()
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
            if theirs != own and liveness.detector.recently_heard(liveness.peers[node_id])
        ]
        differ = "; ".join(f"node {node_id} has {_names(theirs)}" for node_id, theirs in others)
        text = f"this node has {_names(own)}; {differ}. Configure the same peers and witnesses on all nodes"
        self._set("peers_differ", text if differ else "")

    def explain_wait(self, otherwise: str) -> str:
        """Return what this node waits for: `otherwise`, or what keeps it apart from all others."""
        if not otherwise:
            return ""
        if self.superseded:
            return (
                "its node id, which another daemon uses (see alarm superseded of node "
                f"{self.context.node_id})"
            )
        peers = self.liveness.peers
        if peers and all(node_id in self._troubles for node_id in peers):
            return f"a connection to another node (see alarm peers of node {self.context.node_id})"
        return otherwise

    def _set(self, name: str, text: str) -> None:
        if text:
            self.context.raise_alarm(name, text)
        else:
            self.context.clear_alarm(name)


def _names(nodes: Nodes) -> str:
    data_nodes, witnesses = nodes
    return f"nodes {', '.join(data_nodes)}" + (f" and witnesses {', '.join(witnesses)}" if witnesses else "")


def incarnations_in(node_id: str, views: Iterable[View | None]) -> list[int]:
    """Return every incarnation of a node that these views name, also of past memberships and witnesses."""
    found: list[int] = []
    for view in views:
        if view is not None:
            found += [view.members[node_id].incarnation] if node_id in view.members else []
            found += [left.incarnation for left in view.past_memberships if left.node_id == node_id]
            found += [view.witnesses[node_id]] if node_id in view.witnesses else []
    return found
