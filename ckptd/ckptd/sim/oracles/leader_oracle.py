"""The oracle for leaderships: it reads what active replicas order, and knows what each leader relies on.

From the sequence of updates it sees whether each one was allowed at its place. Of clients it knows until when
each relies on its leadership, by its own clock.
"""

from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.messages import EndReason, Op
from ckpt_protocol.parse_answers import decode_answer
from ckpt_protocol.parse_updates import parse_replicated
from ckptd.core.content.leadership import Leader, Leadership, parse_leadership
from ckptd.core.content.update_log import Update
from ckptd.core.node import Node
from ckptd.core.replication.active_replica import ActiveReplica
from ckptd.core.replication.replica import Replica
from ckptd.core.settings import Settings
from ckptd.sim.checkers.leaderships import LeadershipHistory, Term
from ckptd.sim.oracles.view_oracle import ViewOracle
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import Violation, World

Place = tuple[int, int, Leadership, ActiveReplica]
"""The epoch and seq of an update, who leads after it, and the active replica that had it."""


WORK_PER_TURN: Final = Settings("").work_per_turn
"""With less, a node may take longer for a renewal than the ttl."""

GAP_HEARTBEATS: Final = 5
"""So much of each time without service, or of a pause, counts for a leader's ttl; the core counts a little
less (`Context.note_serving`)."""


class LeaderOracle:
    """Checks what the active replicas on one node have ordered, after each of its events."""

    def __init__(self, world: World, views: ViewOracle) -> None:
        self.world = world
        self.views = views
        self.history: LeadershipHistory | None = None
        """What the clients know; None as long as there are none."""

        self._places: dict[tuple[str, int], Place] = {}
        self._served: dict[tuple[str, int], tuple[ActiveReplica, int, int]] = {}
        """By node and checkpoint: the active replica, for how long it served, and when it last did, by its
        node's clock."""

    def process_started(self, node_id: str) -> None:
        """Forget the node's predecessor."""
        for creation_id in [creation_id for each, creation_id in self._served if each == node_id]:
            del self._served[node_id, creation_id]
            self._places.pop((node_id, creation_id), None)

    def after_event(self, host: Host, node: Node) -> None:
        """Check what one node has ordered. Raises: Violation."""
        if self.history is None:
            return
        node_id, now_ns = host.node_id, host.local_ns
        if not node.serving(now_ns) or self.views.is_outranked(node):
            return
        gap_max_ns = GAP_HEARTBEATS * host.settings.heartbeat_ns
        for creation_id, replica in node.replicas.items():
            key = node_id, creation_id
            active, log = replica.active, replica.log
            if active is None:
                self._places.pop(key, None)
                continue
            place = self._places.get(key)
            if place is not None and (place[3] is not active or not log.is_prefix(*place[:2])):
                place = None
            if active.ready:
                served = self._served.get(key)
                if served is None or served[0] is not active:
                    served = active, 0, now_ns
                self._served[key] = active, served[1] + min(now_ns - served[2], gap_max_ns), now_ns
                if place is not None and place[:2] == (log.epoch, log.seq):
                    continue
                if place is not None:
                    self._check_updates(host, replica, place)
                elif replica.sections.leadership.leader is not None:
                    self._check_grant(replica, replica.sections.leadership.leader)
            self._places[key] = log.epoch, log.seq, replica.sections.leadership, active

    def _check_updates(self, host: Host, replica: Replica, place: Place) -> None:
        leadership, now = place[2], replica.sections.leadership.leader
        if not replica.log.holds_since(place[1]):  # Some are forgotten already.
            if now is not None and (leadership.leader is None or now[:2] != leadership.leader[:2]):
                self._check_grant(replica, now)
            return
        for update in replica.log.updates_after(place[1]):
            ops, answered = parse_replicated(update.body, update.session)
            self._check_update(host, replica, update, leadership, answered)
            if ops and ops[-1][0] == Op.LEADERSHIP:
                following = parse_leadership(ops[-1][1])
                self._check_change(host, replica, leadership, following)
                leadership = following
        if leadership.leader != replica.sections.leadership.leader:
            self._check_change(host, replica, leadership, replica.sections.leadership)

    # -- writes

    def _check_update(
        self,
        host: Host,
        replica: Replica,
        update: Update,
        leadership: Leadership,
        answered: list[tuple[int, int, int, bytes]] | None,
    ) -> None:
        if answered is None:
            self._check_write(host, replica, (update.session, update.request), leadership, codes.OK)
        for session, number, _, answer in answered or ():
            code, *_ = decode_answer(answer)
            self._check_write(host, replica, (session, number), leadership, code)

    def _check_write(
        self, host: Host, replica: Replica, request: tuple[int, int], leadership: Leadership, code: int
    ) -> None:
        """An update is done if and only if it is the leader's, or none leads to whom others have to yield."""
        history = self.history
        assert history is not None
        if request not in history.sent or code not in (codes.OK, codes.ACCESS):
            return
        token, leader = history.sent[request], leadership.leader
        current = (leader.epoch, leader.seq) if leader is not None else None
        allowed = token == current if token is not None else not leadership.fenced
        if allowed != (code == codes.OK):
            done = "is done" if code == codes.OK else "is refused"
            name = "nobody" if leader is None else leader.program.name
            raise Violation(
                "only the leader writes",
                f"request {request[1]} of session {request[0]} with token {token} {done} at {host.node_id}, "
                f"in {replica.name!r} ({replica.creation_id:x}) before {replica.log.epoch}-"
                f"{replica.log.seq}, while {name} leads with {current}",
            )

    # -- grants

    def _check_change(self, host: Host, replica: Replica, before: Leadership, after: Leadership) -> None:
        was, now = before.leader, after.leader
        if was is not None and (now is None or now[:2] != was[:2]):
            self._check_end(host, replica, was, after.ended[-1].reason)
        if now is not None and (was is None or now[:2] != was[:2]):
            self._check_grant(replica, now)

    def _check_end(self, host: Host, replica: Replica, leader: Leader, reason: int) -> None:
        """Only what could be heard counts: a silent node ends no leadership whose program lives."""
        term = self._term(leader)
        if term is None or self.views.history_lost or self.views.outranking is not None:
            return
        now_ns = self.world.now_ns
        if reason in (EndReason.RESIGNED, EndReason.CLOSED):
            if term.left_ns > now_ns:
                raise Violation(
                    "no leadership ends without cause",
                    f"{host.node_id} ends that of {term.program} ({term.client}) for reason {reason}",
                )
            return
        if reason != EndReason.NOT_RENEWED:
            return
        if term.left_ns <= now_ns:
            return
        if term.valid_until_ns > now_ns:
            raise Violation(
                "a leader has stopped before another is granted",
                f"{host.node_id} ends the leadership of {term.program} ({term.client}), which relies on it "
                f"for {(term.valid_until_ns - now_ns) / 1e6:.3f} ms more",
            )
        if self._is_calm() and term.frozen_until_ns < now_ns - 2 * term.ttl_ns:
            raise Violation(
                "a leader that renews leads on",
                f"{host.node_id} ends the leadership of {term.program} ({term.client}), while nothing fails",
            )
        _, served_ns, _ = self._served[host.node_id, replica.creation_id]
        if served_ns < term.ttl_ns:
            raise Violation(
                "a silent node ends no leadership",
                f"{host.node_id} ends that of {term.program} ({term.client}), whose ttl is "
                f"{term.ttl_ns / 1e6:.0f} ms, when it has served for {served_ns / 1e6:.0f} ms",
            )

    def _check_grant(self, replica: Replica, leader: Leader) -> None:
        """No other client relies on its leadership by its own clock, unless it has ended that itself."""
        history, now_ns = self.history, self.world.now_ns
        assert history is not None
        token = leader.epoch, leader.seq
        granted = history.granted.setdefault(replica.creation_id, {})
        if token in granted:
            return
        granted[token] = leader.program.name, now_ns
        self.world.say(f"{replica.name.decode()} ({replica.creation_id:x}): {leader.program.name} leads")
        if self.views.history_lost or self.views.outranking is not None:
            return
        for term in history.terms:
            relies = term.creation_id == replica.creation_id and term.valid_until_ns > now_ns
            if relies and term.token != token and term.ends_by_itself_ns > now_ns:
                left_ns = term.valid_until_ns - now_ns
                raise Violation(
                    "a leader has stopped before another is granted",
                    f"{leader.program.name} leads {replica.name!r} with {token}, but {term.program} "
                    f"({term.client}) relies on {term.token} for {left_ns / 1e6:.3f} ms more",
                )

    def _term(self, leader: Leader) -> Term | None:
        assert self.history is not None
        return self.history.by_secret.get(leader.program.secret)

    def _is_calm(self) -> bool:
        """Return True if nothing goes wrong in this simulation, neither faults nor what else may disturb."""
        options = self.world.options
        disturbed = options.hostile or options.impostors or options.operator or options.late
        return not options.fault_every_ns and not disturbed and options.work_per_turn >= WORK_PER_TURN
