"""The arbiter `majority`: one Paxos register over the configured voters, of which this node is one.

A proposer has the voters promise a ballot, takes the view accepted with the highest ballot, and has the
view that follows it accepted. There is no log (Rystsov, *CASPaxos: Replicated State Machines without Logs*,
2018). More than half of the voters, data nodes and witnesses, decide.
"""

from typing import Any, Final, NamedTuple

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.arbiter.base_arbiter import Arbiter, NextViewRule, NoView
from ckptd.core.arbiter.disk_record import NO_BALLOT
from ckptd.core.arbiter.wait_for_disk import RecordStore
from ckptd.core.context import Context
from ckptd.core.hub import VoterHub
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.parse_views import Ballot, parse_vote
from ckptd.core.view import View

PROPOSAL_NS: Final = 200_000_000
"""A proposal that has no majority after this long is abandoned and tried again."""

PREPARED_AHEAD_TTL_NS: Final = 2_000_000_000
"""How long promises that were requested ahead of a proposal can be used."""

FORCED_ROUNDS: Final = 1_000
"""How many rounds an operator command goes beyond every ballot that this node knows."""


class Promise(NamedTuple):
    """The ballot that a voter promised, the one that it accepted last, and the view accepted with that."""

    promised: Ballot
    accepted: Ballot
    view: View | None
    is_over: bool
    """The view was forced, and nobody can serve in it any more (ADR 12)."""


class PaxosArbiter(Arbiter):
    """Proposer and voter in one. An amnesiac voter abstains: see `_may_vote`."""

    has_voters = True

    def __init__(self, context: Context, store: RecordStore, hub: VoterHub, liveness: Liveness) -> None:
        super().__init__(context, store, hub)
        self.liveness = liveness
        self.voters = context.settings.voters
        self.quorum = len(self.voters) // 2 + 1
        self.ballot: Ballot = NO_BALLOT
        self.next_view_rule: NextViewRule | None = None
        self.proposed: View | None = None
        self.prepared_ahead = False
        """Promises were requested ahead: the next proposal takes one round instead of two."""
        self.promises: dict[str, Promise] = {}
        self.acceptances: dict[str, None] = {}
        self.since_ns = 0
        self.highest_round = store.record.promised[0]

    # -- proposing

    def propose(self, next_view_rule: NextViewRule) -> None:
        context = self.context
        if self.busy or context.now_ns < self.not_before_ns:
            context.wake_at(self.not_before_ns)
            return
        self.busy = True
        self.next_view_rule = next_view_rule
        if not self._holds_promises():
            self._begin_ballot()
            return
        self.prepared_ahead = False
        self.since_ns = context.now_ns
        context.wake_at(context.now_ns + PROPOSAL_NS)
        if len(self.promises) >= self.quorum:
            self._propose_next()

    def prepare_ahead(self) -> None:
        if self.store.pending is not None or self.busy or self._holds_promises():
            return
        if self.context.now_ns >= self.not_before_ns:
            self._begin_ballot()
            self.prepared_ahead = True

    def _holds_promises(self) -> bool:
        """Return True if promises were requested ahead, lately, and this voter promised no higher one."""
        return (
            self.prepared_ahead
            and self.store.record.promised <= self.ballot
            and self.context.now_ns - self.since_ns < PREPARED_AHEAD_TTL_NS
        )

    def _begin_ballot(self) -> None:
        context = self.context
        self.prepared_ahead = False
        self.proposed = None
        self.promises, self.acceptances = {}, {}
        self.since_ns = context.now_ns
        self.highest_round = max(self.highest_round, self.store.record.promised[0]) + 1
        self.ballot = ballot = (self.highest_round, context.node_id)
        context.wake_at(context.now_ns + PROPOSAL_NS)
        self._send_voters(encode_frame(Kind.PREPARE, ballot[0], context.epoch, 0, pack_body([ballot[1]])))
        self._vote_promise(context.node_id, ballot)

    def _send_voters(self, frame: bytes) -> None:
        for node_id in self.voters:
            if node_id != self.context.node_id:
                self.context.send_peer(node_id, frame)

    def _on_promise(self, voter: str, ballot: Ballot, granted: bool, promise: Promise) -> None:
        if not (self.busy or self.prepared_ahead) or ballot != self.ballot or self.proposed is not None:
            return
        if not granted:
            self._on_rejected(promise.promised)
            return
        self.promises[voter] = promise
        if self.busy and len(self.promises) >= self.quorum:
            self._propose_next()

    def _propose_next(self) -> None:
        ballot = self.ballot
        assert self.next_view_rule is not None
        proposed = self.next_view_rule(self._newest_accepted())
        if isinstance(proposed, NoView):
            if proposed is NoView.NOT_NOW or len(self.promises) == len(self.voters):
                self.busy = False
                self._back_off()
            return  # (Otherwise the next promise may bring the newer view, or the time for this ballot ends.)
        self.proposed = proposed
        body = pack_body([ballot[1], proposed.fields()])
        self._send_voters(encode_frame(Kind.ACCEPT, ballot[0], self.context.epoch, 0, body))
        self._vote_accept(self.context.node_id, ballot, proposed)

    def _newest_accepted(self) -> View | None:
        """Return the view that was accepted with the highest ballot, as far as the promises tell.

        A forced view has a ballot that only the voter with the command knows. Views that follow it may have
        been accepted with lower ballots by the others, so they go before it. If it is over, a view that this
        node runs goes before it, too: the others may have continued without the node that forced it.
        """
        promises = self.promises.values()
        newest = max(promises, key=_accepted)
        forced = newest.view
        if forced is None or not forced.operator_forced:
            return forced
        if newest.is_over and self.context.epoch:
            return self.hub.known_views()[0]
        later = [
            each
            for each in promises
            if each.view is not None and not each.view.operator_forced and each.view.epoch > forced.epoch
        ]
        return max(later, key=_accepted, default=newest).view

    def _on_accepted(self, voter: str, ballot: Ballot, granted: bool, promised: Ballot) -> None:
        if not self.busy or ballot != self.ballot or self.proposed is None:
            return
        if not granted:
            self._on_rejected(promised)
            return
        self.acceptances[voter] = None
        if len(self.acceptances) >= self.quorum:
            self.busy = False
            self.failures = 0
            self.hub.on_decided(self.proposed)

    def _on_rejected(self, promised: Ballot) -> None:
        self.prepared_ahead = False
        self.highest_round = max(self.highest_round, promised[0])
        self.busy = False
        self._back_off()

    def _back_off(self) -> None:
        self.back_off(self.voters.index(self.context.node_id) + 1, len(self.voters), self.ballot[0])

    def on_time(self) -> None:
        if self.busy and self.context.now_ns - self.since_ns >= PROPOSAL_NS:
            self.busy = False
            self._back_off()
        elif self.busy:
            self.context.wake_at(self.since_ns + PROPOSAL_NS)

    def _begin_command(self) -> Ballot | None:
        self.busy = self.prepared_ahead = False
        self.highest_round = max(self.highest_round, self.store.record.promised[0]) + FORCED_ROUNDS
        return self.highest_round, self.context.node_id

    def update_alarm(self, reachable: int) -> None:
        if reachable < self.quorum and self.context.epoch:
            text = f"only {reachable} of {len(self.voters)} voters can be reached, so the view cannot change"
            self.context.raise_alarm("arbiter", text)
        else:
            self.context.clear_alarm("arbiter")

    # -- voting

    def _may_vote(self) -> bool:
        """Return True if this voter knows what it has promised.

        A voter that lost its state directory does not know. It abstains until a decided view names this
        very incarnation. That view was decided without its vote, by a majority, and every other majority
        shares with that one a voter that remembers. A view that the operator forced ends the abstention
        too, since what was promised before is discarded; but not if this voter may have promised since and
        forgotten it. That is so if the view names an earlier incarnation; and if its members are a majority
        without this voter, one of them may have decided a further view with it. They need no vote of it.

        While an operator command waits for the disk, the voter abstains too: a vote would tell of a view that
        may still be void.

        That it was named is then recorded on its disk, for its next starts: a witness may never have had
        anything else to record.

        Where most voters are here with empty directories, and no voter knows of a view, it is a first
        start: there was nothing to promise.
        """
        if self.store.pending is not None:
            return False
        if not self.store.amnesiac:
            return True
        reachable = self.liveness.detector.heard_peers()
        empty = 1 + sum(peer.amnesiac for peer in reachable)
        if empty < self.quorum or any(peer.knows_a_view for peer in self.liveness.peers.values()):
            return False
        # Our heartbeats say `amnesiac` until there is a view: others may need to count us.
        self.store.amnesiac = False
        self.store.record.installed_epoch = 0
        return True

    def on_decided_elsewhere(self, view: View) -> None:
        me, incarnation = self.context.node_id, self.context.incarnation
        named = view.includes(me, incarnation) or view.witnesses.get(me) == incarnation
        needed = len({*view.members, *view.witnesses}) < self.quorum
        void = view.operator_forced and needed and me not in view.members and me not in view.witnesses
        if self.liveness.own.amnesiac and (named or void):
            self.store.amnesiac = False
            self.store.persist(self._on_memory_restored)

    def _on_memory_restored(self) -> None:
        self.liveness.own.amnesiac = False

    def _vote_promise(self, proposer: str, ballot: Ballot) -> None:
        record = self.store.record
        if not self._may_vote():
            return
        if ballot > record.promised:
            record.promised = ballot
            promise = self._promise()
            self.store.persist(lambda: self._answer_promise(proposer, ballot, True, promise))
        else:
            self._answer_promise(proposer, ballot, False, self._promise())

    def _promise(self) -> Promise:
        record = self.store.record
        is_over = record.view is not None and record.view.epoch == record.outlived_epoch
        return Promise(record.promised, record.accepted, record.view, is_over)

    def _answer_promise(self, proposer: str, ballot: Ballot, granted: bool, promise: Promise) -> None:
        if proposer == self.context.node_id:
            self._on_promise(proposer, ballot, granted, promise)
            return
        view = promise.view.fields() if promise.view else None
        body = [ballot[1], promise.promised, promise.accepted, view, promise.is_over]
        self._reply(proposer, Kind.PROMISE, ballot, granted, body)

    def _vote_accept(self, proposer: str, ballot: Ballot, view: View) -> None:
        record = self.store.record
        if not self._may_vote():
            return
        if ballot >= record.promised:
            record.promised = record.accepted = ballot
            record.view = view
            self.store.persist(lambda: self._answer_accepted(proposer, ballot, True, ballot))
        else:
            self._answer_accepted(proposer, ballot, False, record.promised)

    def _answer_accepted(self, proposer: str, ballot: Ballot, granted: bool, promised: Ballot) -> None:
        if proposer == self.context.node_id:
            self._on_accepted(proposer, ballot, granted, promised)
        else:
            self._reply(proposer, Kind.ACCEPTED, ballot, granted, [ballot[1], promised])

    def receive(self, node_id: str, frame: Frame) -> None:
        if node_id not in self.voters:
            raise FrameError("a vote from a node that is not a voter")
        ballot, promised, accepted, view, is_over = parse_vote(frame)
        match frame.kind:
            case Kind.PREPARE:
                self._vote_promise(node_id, ballot)
            case Kind.ACCEPT:
                assert view is not None
                self._vote_accept(node_id, ballot, view)
            case Kind.PROMISE:
                assert promised is not None and accepted is not None
                self._on_promise(node_id, ballot, bool(frame.c), Promise(promised, accepted, view, is_over))
            case Kind.ACCEPTED:
                assert promised is not None
                self._on_accepted(node_id, ballot, bool(frame.c), promised)

    def _reply(self, node_id: str, kind: int, ballot: Ballot, granted: bool, body: list[Any]) -> None:
        frame = encode_frame(kind, ballot[0], self.context.epoch, int(granted), pack_body(body))
        self.context.send_peer(node_id, frame)


def _accepted(promise: Promise) -> Ballot:
    return promise.accepted
