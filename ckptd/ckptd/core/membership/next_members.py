"""Who belongs in the next view: the members that are alive and hear each other, and the nodes that may join.

This module only evaluates heartbeats; it decides nothing.
"""

from dataclasses import replace
from typing import Final

from ckptd.core.context import Context
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.liveness.peer import Peer
from ckptd.core.membership.eviction import Eviction
from ckptd.core.view import View, succession

ONE_WAY_HEARTBEATS: Final = 4
"""How many heartbeat intervals a member must miss another's heartbeats before it is excluded for that.

A node that wants to join must have been heard within the same time.
"""


def handover_members(view: View, liveness: Liveness) -> list[str]:
    """Return the members that a leaving node can hand over to: those that stay.

    If all members leave, that is the one that joined last. The others hand over to it and go, and it waits
    until one of them comes back. If all left at once, they would come back to nothing.
    """
    me, peers = liveness.context.node_id, liveness.peers
    leaving = [n for n in view.members if (liveness.own.leaving if n == me else peers[n].leaving)]
    staying = [node_id for node_id in view.members if node_id not in leaving]
    return staying or [n for n in succession(view) if n == me or not peers[n].left][-1:]


class NextMembers:
    """What membership asks of the failure detector: who is alive, who hears whom, who may join."""

    def __init__(self, context: Context, liveness: Liveness) -> None:
        self.context = context
        self.liveness = liveness
        self.partitioned_since_ns: dict[tuple[str, ...], int] = {}
        """Since when a member and these others have not heard each other."""
        self.eviction = Eviction(context, liveness)

    def _missed_heartbeats(self, peer: Peer) -> bool:
        """Return True if this peer may just have fallen silent: admitting it would only mean waiting."""
        limit_ns = ONE_WAY_HEARTBEATS * self.context.settings.heartbeat_ns
        return self.liveness.detector.silence_ns(peer) >= limit_ns

    def on_local_pause(self, pause_ns: int) -> None:
        """Move the times on by a pause: what this process did not read then counts against no member."""
        for key in self.partitioned_since_ns:
            self.partitioned_since_ns[key] += pause_ns

    def reachable_voters(self) -> int:
        """Return how many of all voters are heard and linked, this node included."""
        return 1 + len([peer for peer in self.liveness.peers.values() if self._is_reachable(peer)])

    def reachable_data_nodes(self) -> list[Peer]:
        return [p for p in self.liveness.peers.values() if self._is_reachable(p) and not p.is_witness]

    def reachable_witnesses(self) -> dict[str, int]:
        """Return the witnesses that are heard and linked, each with its incarnation."""
        peers = self.liveness.peers.values()
        return {
            peer.node_id: peer.incarnation for peer in peers if peer.is_witness and self._is_reachable(peer)
        }

    def has_amnesiac_witness(self, view: View) -> bool:
        """Return True if a witness that lost its state directory waits for a view that names it."""
        peers = self.liveness.peers
        return any(
            peers[node_id].amnesiac and view.witnesses.get(node_id) != incarnation
            for node_id, incarnation in self.reachable_witnesses().items()
        )

    def _is_reachable(self, peer: Peer) -> bool:
        return peer.connected and self.liveness.detector.recently_heard(peer)

    def acting_coordinator(self, base: View) -> str:
        """Return the node that acts: the first in succession that is fit to, or this node.

        It is alive, hears this node, is not reported as stalled, and its disk lets it install the view.
        """
        reported_stalled = self.eviction.reported_stalled(base)
        alive = [
            node_id
            for node_id in succession(base)
            if self.liveness.detector.alive(node_id, base.members[node_id].incarnation)
            and node_id not in reported_stalled
            and self._is_heard_by(node_id)
            and not self._blocked_by_its_disk(base, node_id)
        ]
        return alive[0] if alive else self.context.node_id

    def is_next_coordinator(self, base: View) -> bool:
        """Return True if a member is about to leave and this node is first among those that stay."""
        leaving = [node_id for node_id in base.members if self._is_leaving(node_id)]
        staying = (
            node_id
            for node_id in succession(base)
            if node_id not in leaving
            and self.liveness.detector.alive(node_id, base.members[node_id].incarnation)
        )
        return bool(leaving) and next(staying, "") == self.context.node_id

    def _is_leaving(self, node_id: str) -> bool:
        if node_id == self.context.node_id:
            return self.liveness.own.leaving
        return self.liveness.peers[node_id].leaving

    def _is_heard_by(self, node_id: str) -> bool:
        """Return True if this node's heartbeats reach `node_id`.

        A node that hears no other node but is heard by all would otherwise be waited for forever.
        """
        me = self.context.node_id
        return node_id == me or self.liveness.peers[node_id].its_heard.get(me) == self.context.incarnation

    def _blocked_by_its_disk(self, base: View, node_id: str) -> bool:
        """Return True if a member does not run this view, and cannot since its disk fails (R3).

        All others would wait for its acknowledgement: one full disk, together with another node that came
        back, once stopped a whole cluster. A member whose disk fails may continue in a view that it has
        already installed.
        """
        if node_id == self.context.node_id:
            return self.liveness.own.disk_failing and self.context.epoch < base.epoch
        peer = self.liveness.peers[node_id]
        return peer.disk_failing and peer.epoch < base.epoch

    def proposed_members(self, base: View) -> dict[str, int]:
        """Return the members of the next view.

        These are the living members that hear each other, in order of succession, and the nodes that may
        join them.
        """
        liveness, me = self.liveness, self.context.node_id
        reported_stalled = self.eviction.reported_stalled(base)
        proposed: dict[str, int] = {}
        if not liveness.own.left:
            proposed[me] = self.context.incarnation
        for node_id in succession(base):
            member = base.members[node_id]
            if node_id == me or not liveness.detector.alive(node_id, member.incarnation):
                continue
            if (
                node_id in reported_stalled
                or self._is_one_way_partitioned(node_id, proposed)
                or self._blocked_by_its_disk(base, node_id)
            ):
                continue
            proposed[node_id] = member.incarnation
        not_now = [
            *reported_stalled,
            *(n for n, member in base.members.items() if base.includes(n, self._incarnation(n))),
        ]
        return dict(sorted(self.with_joiners(proposed, not_now, base).items()))

    def at_common_level(self, view: View, base: View | None) -> View:
        """Return the view that follows `base`, with its feature level. The level never falls."""
        level = base.feature_level if base is not None else 0
        return replace(view, feature_level=max(level, self.liveness.features.common()))

    def _incarnation(self, node_id: str) -> int:
        peer = self.liveness.peers.get(node_id)
        return peer.incarnation if peer is not None else self.context.incarnation

    def with_joiners(self, proposed: dict[str, int], not_now: list[str], base: View | None) -> dict[str, int]:
        """Add the nodes that may join: each is connected with all of `proposed`, in both directions.

        A node that does not understand what the cluster uses since `base` may not join.
        """
        joined = dict(proposed)
        level = base.feature_level if base is not None else 0
        for peer in self.reachable_data_nodes():
            if peer.node_id in not_now or peer.node_id in joined or peer.disk_failing:
                continue
            if not self.liveness.features.admits(peer, level):
                continue
            if self._missed_heartbeats(peer) or self.eviction.is_in_readmission_backoff(peer):
                continue
            connected = all(peer.its_links.get(other) == incarnation for other, incarnation in joined.items())
            if connected and self._mutually_connected(peer.node_id, joined):
                joined[peer.node_id] = peer.incarnation
        return joined

    def _is_one_way_partitioned(self, node_id: str, others: dict[str, int]) -> bool:
        """Return True if this member and one of `others` have missed each other's heartbeats for a while.

        We wait for `ONE_WAY_HEARTBEATS` intervals because the member may simply know, earlier than we do,
        that the other one has died. Excluding it at once cost a full lease of waiting in 3 of 40 kills.
        """
        context = self.context
        key = (node_id, *others)
        if self._mutually_connected(node_id, others):
            self.partitioned_since_ns.pop(key, None)
            return False
        since_ns = self.partitioned_since_ns.setdefault(key, context.now_ns)
        return context.now_ns - since_ns >= ONE_WAY_HEARTBEATS * context.settings.heartbeat_ns

    def _mutually_connected(self, node_id: str, others: dict[str, int]) -> bool:
        peers = self.liveness.peers
        me = self.context.node_id
        its = peers[node_id]
        return all(
            its.its_heard.get(other) == incarnation
            and (other == me or peers[other].its_heard.get(node_id) == its.incarnation)
            for other, incarnation in others.items()
        )
