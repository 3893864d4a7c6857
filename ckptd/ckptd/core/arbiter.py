"""Arbiters: what decides whether a view may follow another.

Each is one compare-and-swap register that holds the last decided view. `propose` takes
the rule that makes the next view of the current one; `decided` is called when one is
decided, and a proposal that fails is made again at a later time. What a register
promises is on disk before it is said (`Persist`).

`single`: the node alone. `pair`: the coordinator's word, or proof of its death.
`majority`: more than half of the configured voters, by single-register Paxos
(Rystsov, CASPaxos: a ballot is promised, then the value that follows the highest accepted
one is accepted; no log).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ckpt_protocol.codec import pack_body, unpack_array
from ckpt_protocol.framing import Frame, FrameError, encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.context import Context
from ckptd.core.events import Persist
from ckptd.core.view import View, parse_view

Rule = Callable[[View | None], View | None]
"""The view that is to follow the current one, None when none may."""

Ballot = tuple[int, str]
NO_BALLOT: Final[Ballot] = (0, "")
BACK_OFF_STEP_NS: Final = 3_000_000
PROPOSAL_NS: Final = 200_000_000
"""A proposal that has no majority after this long is given up and tried again."""


@dataclass(slots=True)
class Record:
    """What a node keeps on disk: its register, and the epoch of the last view that it installed."""

    promised: Ballot = NO_BALLOT
    accepted: Ballot = NO_BALLOT
    view: View | None = None
    installed: int = 0

    def pack(self) -> bytes:
        view = self.view.fields() if self.view else None
        return pack_body([list(self.promised), list(self.accepted), view, self.installed])


def read_record(packed: bytes) -> Record:
    """A record as `Persist` wrote it; b"" is a node's very first start. Raises: FrameError."""
    if not packed:
        return Record()
    promised, accepted, view, installed = unpack_array(packed, 4)[:4]
    return Record(
        (int(promised[0]), str(promised[1])),
        (int(accepted[0]), str(accepted[1])),
        parse_view(view) if view is not None else None,
        int(installed),
    )


class Arbiter:
    """The part common to all. `busy` while a proposal is under way."""

    quorum = 1

    def __init__(self, context: Context, record: Record) -> None:
        self.context = context
        self.record = record
        self.installed_before = record.installed
        self.busy = False
        self.not_before_ns = context.now_ns
        self.decided: Callable[[View], None] = lambda view: None

    @property
    def disk_epoch(self) -> int:
        """The epoch on this node's disk."""
        return self.record.view.epoch if self.record.view else 0

    def propose(self, rule: Rule) -> None:
        """Try to have the rule's view decided."""
        raise NotImplementedError

    def note(self, view: View) -> None:
        """A view was decided elsewhere."""

    def receive(self, node_id: str, frame: Frame) -> None:
        """A voter's message. Raises: FrameError."""

    def on_time(self) -> None:
        """Look at the clock."""

    def note_installed(self, epoch: int) -> None:
        """This node begins to serve in a view: after a restart its disk tells that it may have."""
        self.record.installed = epoch
        self.persist()

    def persist(self) -> None:
        self.context.effects.append(Persist(self.record.pack()))


class LocalArbiter(Arbiter):
    """`single` and `pair`: whoever may propose (the rule knows) decides alone, on its own disk first."""

    def propose(self, rule: Rule) -> None:
        view = rule(self.record.view)
        if view is None:
            return
        self.record.view = view
        self.persist()
        self.decided(view)

    def note(self, view: View) -> None:
        if view.epoch > self.disk_epoch:
            self.record.view = view
            self.persist()


class MajorityArbiter(Arbiter):
    """One Paxos register over the configured voters, of which this node is one."""

    def __init__(self, context: Context, record: Record) -> None:
        super().__init__(context, record)
        self.voters = context.settings.voters
        self.quorum = len(self.voters) // 2 + 1
        self.ballot: Ballot = NO_BALLOT
        self.rule: Rule = lambda view: None
        self.proposal: View | None = None
        self.promises: dict[str, tuple[Ballot, View | None]] = {}
        self.acceptances: dict[str, None] = {}
        self.since_ns = 0
        self.highest_round = record.promised[0]
        self.failures = 0

    # -- proposing

    def propose(self, rule: Rule) -> None:
        context = self.context
        if self.busy or context.now_ns < self.not_before_ns:
            context.wake_at(self.not_before_ns)
            return
        self.busy = True
        self.rule = rule
        self.proposal = None
        self.promises, self.acceptances = {}, {}
        self.since_ns = context.now_ns
        self.highest_round = max(self.highest_round, self.record.promised[0]) + 1
        self.ballot = (self.highest_round, context.node_id)
        context.wake_at(context.now_ns + PROPOSAL_NS)
        ballot = self.ballot
        granted, promised, accepted, view = self._promise(ballot)
        frame = encode_frame(Kind.PREPARE, ballot[0], context.epoch, 0, pack_body([ballot[1]]))
        self._send_voters(frame)
        self._on_promise(context.node_id, ballot, granted, promised, accepted, view)

    def _send_voters(self, frame: bytes) -> None:
        for node_id in self.voters:
            if node_id != self.context.node_id:
                self.context.send_peer(node_id, frame)

    def _on_promise(
        self, voter: str, ballot: Ballot, granted: bool, promised: Ballot, accepted: Ballot, view: View | None
    ) -> None:
        if not self.busy or ballot != self.ballot or self.proposal is not None:
            return
        if not granted:
            self._lose(promised)
            return
        self.promises[voter] = (accepted, view)
        if len(self.promises) < self.quorum:
            return
        _, current = max(self.promises.values(), key=lambda promise: promise[0])
        proposal = self.rule(current)
        if proposal is None:
            self.busy = False
            self._back_off()
            return
        self.proposal = proposal
        granted, promised = self._accept(ballot, proposal)
        body = pack_body([ballot[1], proposal.fields()])
        self._send_voters(encode_frame(Kind.ACCEPT, ballot[0], self.context.epoch, 0, body))
        self._on_accepted(self.context.node_id, ballot, granted, promised)

    def _on_accepted(self, voter: str, ballot: Ballot, granted: bool, promised: Ballot) -> None:
        if not self.busy or ballot != self.ballot or self.proposal is None:
            return
        if not granted:
            self._lose(promised)
            return
        self.acceptances[voter] = None
        if len(self.acceptances) >= self.quorum:
            self.busy = False
            self.failures = 0
            self.decided(self.proposal)

    def _lose(self, promised: Ballot) -> None:
        self.highest_round = max(self.highest_round, promised[0])
        self.busy = False
        self._back_off()

    def _back_off(self) -> None:
        """Rivals wait differently long: by their place among the voters, and longer with every failure."""
        self.failures = min(self.failures + 1, 6)
        place = self.voters.index(self.context.node_id) + 1
        spread = (place * 7 + self.ballot[0] * 5) % (4 * len(self.voters)) + 1
        self.not_before_ns = self.context.now_ns + BACK_OFF_STEP_NS * spread * self.failures
        self.context.wake_at(self.not_before_ns)

    def on_time(self) -> None:
        if self.busy and self.context.now_ns - self.since_ns >= PROPOSAL_NS:
            self.busy = False
            self._back_off()
        elif self.busy:
            self.context.wake_at(self.since_ns + PROPOSAL_NS)

    # -- voting

    def _promise(self, ballot: Ballot) -> tuple[bool, Ballot, Ballot, View | None]:
        record = self.record
        if ballot > record.promised:
            record.promised = ballot
            self.persist()
            return True, ballot, record.accepted, record.view
        return False, record.promised, record.accepted, record.view

    def _accept(self, ballot: Ballot, view: View) -> tuple[bool, Ballot]:
        record = self.record
        if ballot >= record.promised:
            record.promised = record.accepted = ballot
            record.view = view
            self.persist()
            return True, ballot
        return False, record.promised

    def receive(self, node_id: str, frame: Frame) -> None:
        fields = unpack_array(frame.body, 1)
        if type(fields[0]) is not str or node_id not in self.voters:
            raise FrameError("a vote of no voter")
        ballot = (frame.a, fields[0])
        match frame.kind:
            case Kind.PREPARE:
                granted, promised, accepted, view = self._promise(ballot)
                body = [ballot[1], promised, accepted, view.fields() if view else None]
                self._reply(node_id, Kind.PROMISE, ballot, granted, body)
            case Kind.ACCEPT:
                granted, promised = self._accept(ballot, parse_view(_field(fields, 1)))
                self._reply(node_id, Kind.ACCEPTED, ballot, granted, [ballot[1], promised])
            case Kind.PROMISE:
                view = _field(fields, 3)
                self._on_promise(
                    node_id,
                    ballot,
                    bool(frame.c),
                    _ballot(_field(fields, 1)),
                    _ballot(_field(fields, 2)),
                    parse_view(view) if view is not None else None,
                )
            case Kind.ACCEPTED:
                self._on_accepted(node_id, ballot, bool(frame.c), _ballot(_field(fields, 1)))

    def _reply(self, node_id: str, kind: int, ballot: Ballot, granted: bool, body: list[Any]) -> None:
        frame = encode_frame(kind, ballot[0], self.context.epoch, int(granted), pack_body(body))
        self.context.send_peer(node_id, frame)


def _field(fields: list[Any], index: int) -> Any:
    if len(fields) <= index:
        raise FrameError("a vote with missing fields")
    return fields[index]


def _ballot(fields: Any) -> Ballot:
    try:
        number, node_id = fields
        return int(number), str(node_id)
    except (TypeError, ValueError):
        raise FrameError("a ballot of other fields") from None


def make_arbiter(context: Context, record: Record) -> Arbiter:
    """The arbiter that the settings name."""
    if context.settings.arbiter_name == "majority":
        return MajorityArbiter(context, record)
    return LocalArbiter(context, record)
