"""Who should be in the next view: the members that are alive and hear each other, and who may join them.

It only looks, at what heartbeats say; it decides nothing.
"""

from typing import Final

from ckptd.core.context import Context
from ckptd.core.liveness.heartbeat import Heartbeats, Peer
from ckptd.core.settings import SECOND_NS
from ckptd.core.view import View, succession

DEAF_HEARTBEATS: Final = 4
"""So many heartbeats long a member must fail to hear another before it is left out for that.

A node that wants to join must have been heard within as many.
"""

READMIT_NS: Final = SECOND_NS
"""A member that was put out though it lives is kept out so long; each further time twice as long."""

READMIT_MAX_NS: Final = 8 * SECOND_NS
FORGIVEN_NS: Final = 60 * SECOND_NS
"""Who has not been put out for so long begins anew."""


def keepers(view: View, heartbeats: Heartbeats) -> list[str]:
    """The members that a node which leaves can hand over to: those that stay.

    Where all of them leave it is the one that joined last. The others hand over to that one and go, and it
    waits for one of them to come back: all that go at once would come back to nothing.
    """
    me, peers = heartbeats.context.node_id, heartbeats.peers
    leaving = [n for n in view.members if (heartbeats.leaving if n == me else peers[n].leaving)]
    staying = [node_id for node_id in view.members if node_id not in leaving]
    return staying or [n for n in succession(view) if n == me or not peers[n].left][-1:]


class Candidates:
    """The failure detector's findings, as membership asks for them."""

    def __init__(self, context: Context, heartbeats: Heartbeats) -> None:
        self.context = context
        self.heartbeats = heartbeats
        self.deaf_since_ns: dict[tuple[str, ...], int] = {}
        self.put_out: dict[tuple[str, int], tuple[int, int]] = {}
        """By node and start: when it was put out last, and how long it is kept out."""

    def note_put_out(self, view: View, next_view: View) -> None:
        """A view follows another: who lives and is put out would keep all waiting each time it is back."""
        now_ns = self.context.now_ns
        for node_id, member in view.members.items():
            start = (node_id, member.incarnation)
            if next_view.has(*start) or node_id == self.context.node_id or not self.heartbeats.alive(*start):
                continue
            since_ns, kept_ns = self.put_out.get(start, (now_ns, 0))
            again = kept_ns > 0 and now_ns - since_ns < FORGIVEN_NS
            self.put_out[start] = (now_ns, min(2 * kept_ns, READMIT_MAX_NS) if again else READMIT_NS)
        for start, (since_ns, _) in list(self.put_out.items()):
            if now_ns - since_ns >= FORGIVEN_NS:
                del self.put_out[start]

    def _is_kept_out(self, peer: Peer) -> bool:
        since_ns, kept_ns = self.put_out.get((peer.node_id, peer.incarnation), (0, 0))
        return self.context.now_ns - since_ns < kept_ns

    def _is_quiet(self, peer: Peer) -> bool:
        """Whether it may have fallen silent just now: then whoever admits it waits for it in vain."""
        deaf_ns = DEAF_HEARTBEATS * self.context.settings.heartbeat_ns
        return self.heartbeats.silent_ns(peer) >= deaf_ns

    def note_lag(self, lag_ns: int) -> None:
        """This process was held up: what it did not read meanwhile counts against nobody."""
        for key in self.deaf_since_ns:
            self.deaf_since_ns[key] += lag_ns

    def reachable_voters(self) -> int:
        """How many of all voters are heard and linked, this node included."""
        return 1 + len([peer for peer in self.heartbeats.peers.values() if self._is_here(peer)])

    def newcomers(self) -> list[Peer]:
        """The data nodes that are heard and linked."""
        return [p for p in self.heartbeats.peers.values() if self._is_here(p) and not p.is_witness]

    def witnesses(self) -> dict[str, int]:
        """The witnesses that are heard and linked, each with its start."""
        peers = self.heartbeats.peers.values()
        return {peer.node_id: peer.incarnation for peer in peers if peer.is_witness and self._is_here(peer)}

    def forgetful_witness(self, view: View) -> bool:
        """Whether a witness waits for a view that names it, because it lost its state directory."""
        peers = self.heartbeats.peers
        return any(
            peers[node_id].forgetful and view.witnesses.get(node_id) != incarnation
            for node_id, incarnation in self.witnesses().items()
        )

    def _is_here(self, peer: Peer) -> bool:
        return peer.connected and self.heartbeats.hears(peer)

    def first_alive(self, base: View) -> str:
        """Who acts: the first in succession that is alive, hears this node and does not leave."""
        accused = self._accused(base)
        alive = [
            node_id
            for node_id in succession(base)
            if self.heartbeats.alive(node_id, base.members[node_id].incarnation)
            and node_id not in accused
            and self._hears_us(node_id)
            and not self._cannot_install(base, node_id)
        ]
        return alive[0] if alive else self.context.node_id

    def succeeds_leaver(self, base: View) -> bool:
        """Whether a member is about to leave, and this node is first among those that stay."""
        leaving = [node_id for node_id in base.members if self._is_leaving(node_id)]
        staying = (
            node_id
            for node_id in succession(base)
            if node_id not in leaving and self.heartbeats.alive(node_id, base.members[node_id].incarnation)
        )
        return bool(leaving) and next(staying, "") == self.context.node_id

    def _is_leaving(self, node_id: str) -> bool:
        if node_id == self.context.node_id:
            return self.heartbeats.leaving
        return self.heartbeats.peers[node_id].leaving

    def _hears_us(self, node_id: str) -> bool:
        """Whether a node can act for us: one that is deaf, and heard by all, would be waited for for ever."""
        me = self.context.node_id
        return node_id == me or self.heartbeats.peers[node_id].hears.get(me) == self.context.incarnation

    def _cannot_install(self, base: View, node_id: str) -> bool:
        """Whether a member does not run this view, and cannot, since its disk fails (R3).

        All would wait for its acknowledgement: one full disk, and another node that came
        back, once stopped a whole cluster. It goes on in a view that it has installed.
        """
        if node_id == self.context.node_id:
            return self.heartbeats.disk_fails and self.context.epoch < base.epoch
        peer = self.heartbeats.peers[node_id]
        return peer.disk_fails and peer.epoch < base.epoch

    def wanted_members(self, base: View) -> dict[str, int]:
        """The members of the next view: those alive that hear each other, in succession, then who joins."""
        heartbeats, me = self.heartbeats, self.context.node_id
        accused = self._accused(base)
        wanted: dict[str, int] = {}
        if not heartbeats.left:
            wanted[me] = self.context.incarnation
        for node_id in succession(base):
            member = base.members[node_id]
            if node_id == me or not heartbeats.alive(node_id, member.incarnation):
                continue
            if node_id in accused or self._is_deaf(node_id, wanted) or self._cannot_install(base, node_id):
                continue
            wanted[node_id] = member.incarnation
        not_now = [*accused, *(n for n, member in base.members.items() if base.has(n, self._incarnation(n)))]
        return dict(sorted(self.with_joiners(wanted, not_now).items()))

    def _incarnation(self, node_id: str) -> int:
        peer = self.heartbeats.peers.get(node_id)
        return peer.incarnation if peer is not None else self.context.incarnation

    def with_joiners(self, wanted: dict[str, int], not_now: list[str]) -> dict[str, int]:
        """These, and who may join them: a node that all of them hear and have links to, and it them."""
        joined = dict(wanted)
        for peer in self.newcomers():
            if peer.node_id in not_now or peer.node_id in joined or peer.disk_fails:
                continue
            if self._is_quiet(peer) or self._is_kept_out(peer):
                continue
            linked = all(peer.linked.get(other) == incarnation for other, incarnation in joined.items())
            if linked and self._hear_each_other(peer.node_id, joined):
                joined[peer.node_id] = peer.incarnation
        return joined

    def _accused(self, base: View) -> list[str]:
        """Members whose acknowledgements some member waits for in vain.

        What one says that is accused itself does not count: it waits for all the others. A
        pair's coordinator that is accused accuses the other: nobody else can go on.
        """
        me = self.context.node_id
        accused = list(self.heartbeats.complaints)
        for node_id in succession(base):
            peer = self.heartbeats.peers.get(node_id)
            if peer is None or peer.epoch != base.epoch or node_id in accused:
                continue
            if self.context.settings.arbiter_name == "pair" and me == base.coordinator in peer.complaints:
                accused.append(node_id)
            else:
                accused.extend(peer.complaints)
        return accused

    def _is_deaf(self, node_id: str, others: dict[str, int]) -> bool:
        """Whether a member and one of these have not heard each other for some heartbeats.

        Not at once: it may know already that the other one is dead, which we learn next; to
        leave it out for that cost a lease's wait in three of forty kills.
        """
        context = self.context
        key = (node_id, *others)
        if self._hear_each_other(node_id, others):
            self.deaf_since_ns.pop(key, None)
            return False
        since_ns = self.deaf_since_ns.setdefault(key, context.now_ns)
        return context.now_ns - since_ns >= DEAF_HEARTBEATS * context.settings.heartbeat_ns

    def _hear_each_other(self, node_id: str, others: dict[str, int]) -> bool:
        peers = self.heartbeats.peers
        me = self.context.node_id
        its = peers[node_id]
        return all(
            its.hears.get(other) == incarnation
            and (other == me or peers[other].hears.get(node_id) == its.incarnation)
            for other, incarnation in others.items()
        )
