"""A simulated client that leads a checkpoint, or waits to: it renews by its own clock, and gives up by it.

It is written from the text of the protocol, as all of them. It also does what no program should: it goes on
to write with its token when its leadership may be over.
"""

from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.constants import SA_CKPT_WR_ALL_REPLICAS
from ckpt_protocol.messages import Kind, Op
from ckpt_protocol.parse_answers import LeaderAnswer, parse_leader_answer
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.checkers.history import Outcome
from ckptd.sim.checkers.leaderships import NEVER_NS, SeenLeader, Term
from ckptd.sim.clients.checkpoints import SimCheckpoint
from ckptd.sim.clients.client_driver import ClientDriver
from ckptd.sim.clients.client_handle import ClientHandle
from ckptd.sim.clients.sim_client import CallResult
from ckptd.sim.clients.workload import Workload
from ckptd.sim.world.clock import Clock
from ckptd.sim.world.world import Violation

FAIL_OVER_NS: Final = 1_500 * MILLISECOND_NS
"""A ttl is at least this, the lease and the grace, unless a fail-over may end the leadership."""

RENEWALS: Final = 5
"""How often a leader renews within its ttl."""

TRACK_NS: Final = 12 * SECOND_NS
"""The time-out of a request that waits for a change. The service answers it after 10 s at the latest."""

RETRY_NS: Final = 20 * MILLISECOND_NS

SHORT: Final = 0.6
"""The share of terms whose ttl is too short for a fail-over."""

BIASED_WEIGHT: Final = 60
"""The weight of the action that a seed's clients prefer."""

WAITING: Final = (
    ("rest", 30),
    ("ping", 8),
    ("ask", 2),
    ("leave", 1),
    ("close", 0.5),
    ("die", 0.5),
    ("move", 1),
    ("revoke", 0.3),
)
LEADING: Final = (
    ("write", 30),
    ("read", 6),
    ("write-without", 2),
    ("resign", 2),
    ("resign-to", 1),
    ("freeze", 1.5),
    ("move", 2),
    ("close", 0.5),
    ("die", 0.5),
    ("unlink", 0.3),
    ("rest", 4),
)
"""What a client does while it waits to lead, and while it leads, with weights."""


class LeadingClient(ClientDriver):
    """Wants to lead, leads, loses or ends its leadership, and begins again, until the workload rests."""

    def __init__(self, workload: Workload, number: int) -> None:
        between, options = workload.world.between, workload.world.options
        self.clock = Clock(between(0, 1000 * SECOND_NS), between(-options.skew_ppm, options.skew_ppm), 0)
        self.terms = 0
        self.term: Term | None = None
        self.handle: ClientHandle | None = None
        self.lineage = 0
        self.late: tuple[ClientHandle, Term] | None = None
        """A leadership that is over, and its handle: it may be used once more."""
        self.resigning: ClientHandle | None = None
        """The handle whose RESIGN is not answered. Until then it does not ask to lead again."""

        self.frozen = False
        super().__init__(workload, number)
        self._think()

    def begin(self) -> None:
        """Begin a new session, unless the workload is closed."""
        self._leave()
        self.late = self.resigning = None
        self.frozen = False
        super().begin()

    def crash(self) -> None:
        """Crash the process; another one takes its place after a while."""
        self._leave()
        super().crash()

    @property
    def settled(self) -> bool:
        """True if it neither leads nor waits to."""
        return (self.term is None and self.resigning is None) or self.client.over

    @property
    def checkpoints(self) -> list[SimCheckpoint]:
        """Those that clients lead: half of all."""
        return self.workload.checkpoints[: (len(self.workload.checkpoints) + 1) // 2]

    # -- what it does next

    def _think(self) -> None:
        self.world.after(self.world.about(self.world.options.think_ns * 2), self._act)

    def _act(self) -> None:
        if self.workload.closed:
            return
        self._think()
        if self.frozen or self.client.over:
            return
        if self.workload.resting:
            if self.term is not None and self.term.token is not None:
                self._resign(None)
            elif self.term is not None and not self.client.busy:
                self._ping()
            return
        if self.under_way >= self.world.options.pipeline + 1:
            return
        if self.term is None:
            self._act_without_term()
        elif self.term.queued_ns < NEVER_NS:  # (Before that nothing is certain enough to be ended.)
            table = LEADING if self.term.token is not None else WAITING
            emphasis = self.world.options.emphasis
            names = [name for name, _ in table]
            weights = [BIASED_WEIGHT if name == emphasis else weight for name, weight in table]
            self._do(self.random.choices(names, weights)[0], self.term)

    def _act_without_term(self) -> None:
        if self.late is not None:
            handle, over = self.late
            if self.world.chance(0.5):
                self.late = None
            if self.handles.get(handle.checkpoint.name) is handle:
                self._write_with(handle, over)
            return
        if self.resigning is not None:
            return
        checkpoint = self.random.choice(self.checkpoints)
        opened = self.handles.get(checkpoint.name)
        if opened is None:
            self.open(checkpoint)
        elif self.world.chance(0.5):
            self._ask_to_lead(opened)

    def _do(self, action: str, term: Term) -> None:
        assert self.handle is not None
        handle = self.handle
        match action:
            case "write":
                self._write_with(handle, term)
            case "write-without":
                self.update(handle, [[Op.PUT, self._section_id(handle), self.value(), None]])
            case "read":
                self.iterate(handle)
            case "ping":
                self._ping()
            case "ask":
                self._ask(handle, (0, 0), True)
            case "resign" | "leave":
                self._resign(None)
            case "resign-to":
                self._resign(self._successor(term))
            case "close":
                self.close(handle)
                self._leave()
            case "die":
                self.world.say(f"{self.client.name}: dies")
                self.crash()
            case "move":
                self.client.move()
            case "freeze":
                self._freeze(term)
            case "unlink":
                self.unlink(handle, term.secret)
            case "revoke":
                self._revoke(handle)

    def _section_id(self, handle: ClientHandle) -> bytes:
        return self.random.choice(handle.checkpoint.section_ids)

    def _successor(self, term: Term) -> str | None:
        waiting = [
            other
            for other in self.workload.leaderships.terms
            if other.creation_id == term.creation_id and other.token is None and other.left_ns == NEVER_NS
        ]
        named = self.random.choice(waiting) if waiting else None
        if named is not None:
            named.called_ns = min(named.called_ns, self.world.now_ns)
        return named.program if named is not None else None

    def _ping(self) -> None:
        self.request(Kind.PING, 0, [], lambda result: None)

    # -- to the front of the queue

    def _ask_to_lead(self, handle: ClientHandle) -> None:
        options, random = self.world.options, self.random
        least_ns = options.lease_ns + options.grace_ns + FAIL_OVER_NS
        short = random.random() < SHORT
        ttl_ns = (
            self.world.between(100 * MILLISECOND_NS, SECOND_NS)
            if short
            else self.world.between(least_ns, least_ns + SECOND_NS)
        )
        self.terms += 1
        term = self.term = Term(
            self.client.name,
            f"{self.number}.{self.terms}",
            handle.checkpoint.name,
            handle.creation_id,
            random.getrandbits(63) + 1,
            ttl_ns,
            random.random() < 0.85,
            not short,
            self.world.now_ns,
        )
        self.handle = handle
        self.workload.leaderships.begin(term)
        self._send_lead(handle, term)

    def _send_lead(self, handle: ClientHandle, term: Term) -> None:
        if self.term is not term:
            return
        op = [
            Op.LEAD,
            handle.number,
            term.secret,
            term.ttl_ns,
            term.exclusive,
            not term.survives_failover,
            term.program,
            "host",
            self.number,
        ]

        def on_queued(result: CallResult) -> None:
            self.judge(handle, result)
            if self.term is not term:
                return
            if result.outcome == Outcome.OK:
                term.queued_ns = min(term.queued_ns, self.world.now_ns)
                self._track(handle, term, 0)
            elif self._is_gone(handle) or result.code in (codes.NOT_SUPPORTED, codes.NO_RESOURCES):
                self._leave()
            elif result.outcome == Outcome.REFUSED or result.code == codes.INVALID_PARAM:
                raise Violation("answers", f"LEAD of {term.program} was refused: {result.text}")
            else:
                self.world.after(RETRY_NS, lambda: self._send_lead(handle, term))

        self.request(Kind.UPDATE, handle.number, [op], on_queued)

    def _track(self, handle: ClientHandle, term: Term, version: int) -> None:
        """Wait until this client leads."""
        if self.term is not term or self.client.over:
            return
        invoked_ns, client = self.world.now_ns, self.client

        def on_changed(result: CallResult) -> None:
            self.judge(handle, result)
            if self.term is not term or client is not self.client:
                return
            if result.outcome != Outcome.OK:
                if self._is_gone(handle):
                    self._leave()
                else:
                    self.world.after(RETRY_NS, lambda: self._track(handle, term, version))
                return
            answer = self._note(handle, result, invoked_ns)
            if answer.place is None:
                if term.left_ns == NEVER_NS and term.revoked_ns == NEVER_NS and term.survives_failover:
                    self.world.say(f"{client.name}: {term.program} waits no more")
                self._leave()
            elif answer.place:
                self._track(handle, term, answer.version)
            else:
                self._take_up(handle, term, answer)

        # (It is no call of the workload: a client that waits goes on with others.)
        client.request(Kind.LEADER_TRACK, handle.number, [handle.number, version], on_changed, TRACK_NS)

    def _take_up(self, handle: ClientHandle, term: Term, answer: LeaderAnswer) -> None:
        assert answer.leader is not None
        term.token = answer.leader.epoch, answer.leader.seq
        term.granted_ns = self.world.now_ns
        self.lineage = answer.lineage
        self._renew(handle, term)
        call = self.iterate(handle)
        if handle.checkpoint.flags & SA_CKPT_WR_ALL_REPLICAS:
            self.workload.leaderships.first_reads.append((term, call))

    def _is_gone(self, handle: ClientHandle) -> bool:
        return self.handles.get(handle.checkpoint.name) is not handle

    # -- leading

    def _ask(
        self, handle: ClientHandle, token: tuple[int, int], whole: bool, term: Term | None = None
    ) -> None:
        """Ask who leads; with the own token that is a renewal."""
        invoked_ns, client = self.world.now_ns, self.client

        def on_answer(result: CallResult) -> None:
            self.judge(handle, result)
            if result.outcome != Outcome.OK:
                return
            answer = self._note(handle, result, invoked_ns)
            if term is None or self.term is not term:
                return
            if answer.place == 0 and answer.leader is not None and answer.leader[:2] == token:
                self._confirm(term, invoked_ns)
            else:
                self._lose(handle, term)

        call_ns = 0 if term is None else term.ttl_ns
        client.request(Kind.LEADER, handle.number, [handle.number, *token, whole], on_answer, call_ns)

    def _note(self, handle: ClientHandle, result: CallResult, invoked_ns: int) -> LeaderAnswer:
        answer = parse_leader_answer(result.payload)
        leader = answer.leader
        token, program = (None, "") if leader is None else (leader[:2], leader.program.name)
        seen = SeenLeader(handle.creation_id, token, program, invoked_ns, self.world.now_ns)
        self.workload.leaderships.seen.append(seen)
        return answer

    def _renew(self, handle: ClientHandle, term: Term) -> None:
        """Renew, now and whenever a fifth of the ttl has passed by the own clock."""
        if self.term is not term or self.client.over:
            return
        token = term.token
        assert token is not None
        if not self.frozen:
            self._ask(handle, token, False, term)
        local_ns = self.clock.read(self.world.now_ns)
        self.world.at(
            self.clock.world_ns_at(local_ns + term.ttl_ns // RENEWALS), lambda: self._renew(handle, term)
        )

    def _confirm(self, term: Term, sent_ns: int) -> None:
        """An answer shows that this client led after it sent its request."""
        term.confirmed_ns = max(term.confirmed_ns, sent_ns)
        until_ns = self.clock.world_ns_at(self.clock.read(sent_ns) + term.ttl_ns)
        term.valid_until_ns = max(term.valid_until_ns, until_ns)

    def _write_with(self, handle: ClientHandle, term: Term) -> None:
        """Write with a token, whether it is valid or not."""
        token, sent_ns = term.token, self.world.now_ns
        assert token is not None
        proof = [Op.TOKEN, *token, term.secret, self.lineage]

        def ended(result: CallResult) -> None:
            if result.outcome == Outcome.OK:
                self._confirm(term, sent_ns)
            elif result.code == codes.ACCESS and type(result.payload) is int:
                self.lineage = result.payload
            elif result.code == codes.ACCESS:
                self._lose(handle, term)

        self.update_as_leader(handle, [[Op.PUT, self._section_id(handle), self.value(), None]], proof, ended)

    def _freeze(self, term: Term) -> None:
        client = self.client
        for_ns = self.world.between(term.ttl_ns // 4, 2 * term.ttl_ns)
        self.world.say(f"{client.name}: is frozen for {for_ns // MILLISECOND_NS} ms")
        self.frozen = True
        term.frozen_until_ns = self.world.now_ns + for_ns
        client.freeze()
        if client.link is not None and self.world.chance(0.3):
            self.workload.links.reset(client.link)

        def thaw() -> None:
            if client is not self.client or client.over:
                return
            self.frozen = False
            handle = self.handle
            if self.term is term and handle is not None:
                client.frozen = False
                self._write_with(handle, term)  # Before it can learn that it leads no more.
            client.thaw()

        self.world.after(for_ns, thaw)

    # -- the end

    def _lose(self, handle: ClientHandle, term: Term) -> None:
        """It was answered that this client leads no more."""
        term.valid_until_ns = min(term.valid_until_ns, self.world.now_ns)
        if self.term is term:
            self.late = handle, term
            self._leave()

    def _leave(self) -> None:
        """The term is over, or may be: its handle is closed, or its process is dead."""
        if self.term is not None:
            self.term.left_ns = min(self.term.left_ns, self.world.now_ns)
            self.term = self.handle = None

    def _resign(self, successor: str | None) -> None:
        term, handle = self.term, self.handle
        assert term is not None and handle is not None
        term.left_ns = min(term.left_ns, self.world.now_ns)
        term.valid_until_ns = min(term.valid_until_ns, self.world.now_ns)
        if term.token is not None:
            self.late = handle, term
        self.term = self.handle = None
        self.resigning = handle
        self._send_resign(handle, successor)

    def _send_resign(self, handle: ClientHandle, successor: str | None) -> None:
        """Resign until the answer says that it is done. Nothing else ends a wait."""
        if self.resigning is not handle:
            return

        def on_resigned(result: CallResult) -> None:
            if successor is None or result.code != codes.NOT_EXIST:
                self.judge(handle, result)
            if result.outcome == Outcome.OK or self._is_gone(handle):
                self.resigning = None
            else:
                self.world.after(RETRY_NS, lambda: self._send_resign(handle, None))

        self.request(Kind.UPDATE, handle.number, [[Op.RESIGN, handle.number, successor]], on_resigned)

    def _revoke(self, handle: ClientHandle) -> None:
        """End the leadership that this client has heard of, as an operator does."""
        seen = [each for each in self.workload.leaderships.seen if each.creation_id == handle.creation_id]
        if not seen or seen[-1].token is None:
            return
        token, program = seen[-1].token, seen[-1].program
        self.world.say(f"{self.client.name}: revokes the leadership of {program}")
        for term in self.workload.leaderships.terms:
            if term.program == program:
                term.revoked_ns = min(term.revoked_ns, self.world.now_ns)

        def on_revoked(result: CallResult) -> None:
            if result.code != codes.NOT_EXIST:
                self.judge(handle, result)

        self.request(Kind.UPDATE, handle.number, [[Op.REVOKE, *token]], on_revoked)
