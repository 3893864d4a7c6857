"""Leader election: which program leads a checkpoint, decided by its active replica (ADR 32).

Who leads and who waits is part of the checkpoint's content (`content.leadership`). Each change of it is an
update, in sequence with all others. So whether an update is the leader's is decided at its place in the
sequence, and a late one is refused whatever any clock says.

A leadership ends when the leader resigns or closes its handle, when its process is known to be dead, when an
operator revokes it, or when nothing was heard of the leader for its ttl. The next one is granted the
leadership once the directory names it: the coordinator then knows whose UNLINK it may accept.
"""

from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_WRITE
from ckpt_protocol.errors import RequestError
from ckpt_protocol.field_checks import U64_MAX
from ckpt_protocol.limits import (
    LEADER_HOST_BYTES_MAX,
    LEADER_NAME_BYTES_MAX,
    LEADER_TTL_NS_MAX,
    LEADER_TTL_NS_MIN,
    PID_MAX,
    WAITING_TO_LEAD_MAX,
)
from ckpt_protocol.messages import EndReason, Op, answer_error, answer_ok
from ckpt_protocol.parse_updates import Ops
from ckptd.core.client_request import Request
from ckptd.core.content.leadership import Candidate, Leader, Leadership, version_at
from ckptd.core.content.replica_content import ReplicaContent
from ckptd.core.directory.directory import DirectoryOp
from ckptd.core.directory.entries import CheckpointEntry, NamedLeader
from ckptd.core.hub import Hub
from ckptd.core.replication.ordering import Ordering
from ckptd.core.settings import CLOCK_SKEW, EVERY_NODE_MUST, MILLISECOND_NS, SECOND_NS, FeatureLevel
from ckptd.core.work_costs import LEADERSHIP_SHIFT, OP_WORK

FAIL_OVER_NS: Final = 1_500 * MILLISECOND_NS
"""How long a leader may be without a node after the lease and the grace: it looks for another one."""

MARGIN_NS: Final = 10 * MILLISECOND_NS
"""A leadership lasts this much longer here than at the leader, and 1/50 of its ttl (`CLOCK_SKEW`)."""

REPEAT_NS: Final = 250 * MILLISECOND_NS
"""How often the directory is asked again to name the next leader."""

NAMES_NOBODY: Final = NamedLeader(0, 0, 0, False, "")
"""What the directory is asked for if it is to name no leader."""

ALONE: Final = (Op.LEAD, Op.RESIGN, Op.REVOKE)
_TOKEN: Final = Op.TOKEN

_REASONS: Final = {
    EndReason.RESIGNED: "it resigned",
    EndReason.CLOSED: "it closed its handle, or its process died",
    EndReason.NOT_RENEWED: "it has not renewed for its ttl",
    EndReason.REVOKED: "an operator revoked it",
}


class LeaderElection(Ordering):
    """Who leads one checkpoint, and who leads it next, at its active replica."""

    __slots__ = (
        "asked",
        "entry",
        "entry_changed",
        "heard_ns",
        "propose",
        "proposed_ns",
        "settling",
        "valid_token",
    )

    def __init__(self, replica: ReplicaContent, hub: Hub) -> None:
        super().__init__(replica, hub)
        self.propose = hub.propose
        self.entry: CheckpointEntry | None = None
        """The checkpoint in the directory: its open handles, and the leader that the directory names."""
        self.entry_changed = True
        """The open handles may be others than when the queue was last compared with them."""
        self.asked: NamedLeader | None = None
        """Whom the directory was asked to name, until it does. It is asked for one at a time: if a former
        request were still on its way, the directory could name somebody else once more."""
        self.heard_ns = 0
        """When the leader was last heard, without the time in which this node did not serve until then."""
        self.hear_leader()
        self.valid_token: list[int] | None = None
        """The token that an update of the leader ends with, if it knows the lineage; None for any other."""
        self.proposed_ns = -REPEAT_NS
        self.settling: dict[tuple[int, int], tuple[Request, bytes]] = {}
        """By session and number: what is done, and is answered once the directory names no former leader."""

    @property
    def leadership(self) -> Leadership:
        return self.replica.sections.leadership

    @property
    def waiting_count(self) -> int:
        return len(self.answers_after_commit) + len(self.settling)

    # -- updates

    def judge(self, request: Request, ops: Ops) -> Ops | None:
        """Return the changes of an update that may be made; None if it was answered. Raises: RequestError."""
        last = ops[-1]
        if last == self.valid_token and len(ops) > 1:
            self.hear_leader()
            return Ops(ops[:-1])
        if last[0] == _TOKEN:
            return self._admit_token(request, ops)
        if last[0] in ALONE:
            if len(ops) > 1:
                text = "to lead, to resign and to revoke are updates of their own"
                raise RequestError(codes.INVALID_PARAM, text, len(ops) - 1)
            self._check_feature_level()
            if self._refuse_if_overloaded(request):
                return None
            if last[0] == Op.LEAD:
                self._enqueue(request, last)
            elif last[0] == Op.RESIGN:
                self._resign(request, last[1], last[2])
            else:
                self._revoke(request, last[1], last[2])
            return None
        leader = self.leadership.leader
        if leader is not None and leader.program.exclusive:
            self._refuse(request, ops, f"{leader.program.shown} leads")
            return None
        return ops

    def _admit_token(self, request: Request, ops: Ops) -> Ops | None:
        if len(ops) == 1:
            raise RequestError(codes.INVALID_PARAM, "an update with a token changes something as well")
        self._check_feature_level()
        _, epoch, seq, secret, lineage = ops[-1]
        leader = self.leadership.leader
        if leader is None or (leader.epoch, leader.seq, leader.program.secret) != (epoch, seq, secret):
            now = "nobody leads" if leader is None else f"{leader.program.shown} leads"
            text = f"the leadership with this token has ended; now {now}"
            self._refuse(request, ops, text)
            return None
        own_lineage = self._own_lineage()
        if lineage != own_lineage:
            # Never stored: no duplicate of this request will ever have the right lineage.
            self.context.work += OP_WORK * len(ops)
            text = "the active replica was lost, and the newest updates may be lost with it"
            self.answer(request, pack_body([codes.ACCESS, -1, text, own_lineage]))
            return None
        self.hear_leader()
        if self.leadership.lineage != lineage:
            self._change_leadership(self.leadership._replace(lineage=lineage))
        return Ops(ops[:-1])

    def _own_lineage(self) -> int:
        return 0 if self.replica.sync else self.lineage

    def note_valid_token(self) -> None:
        """Take note of the token of the leader, now that either may be another one."""
        leader, lineage = self.leadership.leader, self._own_lineage()
        self.valid_token = None
        if leader is not None and self.leadership.lineage == lineage:
            self.valid_token = [_TOKEN, leader.epoch, leader.seq, leader.program.secret, lineage]

    def _refuse(self, request: Request, ops: Ops, text: str) -> None:
        self.context.work += OP_WORK * len(ops)
        self.context.count("writes_of_others_refused")
        self.store_refusal(request, answer_error(codes.ACCESS, text))

    def _check_feature_level(self) -> None:
        if self.context.feature_level < FeatureLevel.TAKEOVER:
            raise RequestError(codes.NOT_SUPPORTED, f"leadership is not served: {EVERY_NODE_MUST}")

    def _enqueue(self, request: Request, op: list[object]) -> None:
        """Let a handle join the queue. Once more with the same secret changes nothing.

        With another secret its program has left what it had here: the answer to its LEAD may have been too
        late for it, or its RESIGN was lost with the node that acknowledged it. To refuse that would keep it
        from leading until the ttl that it left is over (seeds 9500217 and 9501277).
        """
        candidate = self._candidate(request, op)
        leadership = self.leadership
        known = leadership.program_of(candidate.key)
        if known is None or known.secret != candidate.secret:
            waiting = leadership.others_waiting(candidate.key)
            if len(waiting) >= WAITING_TO_LEAD_MAX:
                text = f"{WAITING_TO_LEAD_MAX} programs wait to lead this checkpoint already"
                raise RequestError(codes.NO_RESOURCES, text)
            leadership = leadership._replace(waiting=(*waiting, candidate))
            if leadership.position_of(candidate.key) == 0:
                self._end_leadership(leadership, EndReason.RESIGNED, request)
                return
        self._change_leadership(leadership, request)
        self.succeed()

    def _candidate(self, request: Request, op: list[object]) -> Candidate:
        """Check LEAD. Raises: RequestError."""
        _, handle, secret, ttl_ns, exclusive, allow_loss, name, host, pid = op
        candidate = Candidate(request.session, handle, secret, ttl_ns, exclusive, name, host, pid)  # type: ignore[arg-type]
        settings = self.context.settings
        least_ns = LEADER_TTL_NS_MIN
        if not allow_loss:
            least_ns = max(least_ns, settings.lease_ns + settings.grace_ns + FAIL_OVER_NS)
        if not least_ns <= candidate.ttl_ns <= LEADER_TTL_NS_MAX:
            shortest, longest = least_ns / SECOND_NS, LEADER_TTL_NS_MAX // SECOND_NS
            text = f"a ttl must be from {shortest} s to {longest} s"
            if not allow_loss:
                text += "; a shorter one has to allow that a fail-over ends the leadership"
                text += " (allow_loss_on_failover)"
            raise RequestError(codes.INVALID_PARAM, text)
        if not 0 < candidate.secret <= U64_MAX or not 0 <= candidate.pid <= PID_MAX:
            raise RequestError(codes.INVALID_PARAM, "a secret or a process id is out of range")
        for value, what, most in (
            (candidate.name, "name", LEADER_NAME_BYTES_MAX),
            (candidate.host, "host", LEADER_HOST_BYTES_MAX),
        ):
            if len(value.encode(errors="replace")) > most:
                raise RequestError(codes.INVALID_PARAM, f"a program's {what} exceeds {most} bytes")
        flags = self.entry.opens.get(candidate.key) if self.entry is not None else None
        if flags is None:
            raise RequestError(codes.BAD_HANDLE, "the handle to lead with is not open")
        if not flags & SA_CKPT_CHECKPOINT_WRITE:
            raise RequestError(codes.ACCESS, "the handle to lead with was not opened for writing")
        return candidate

    def _resign(self, request: Request, handle: int, successor: str | None) -> None:
        leadership, key = self.leadership, (request.session, handle)
        place = leadership.position_of(key)
        if place != 0:  # The directory may still name one that does not lead any more, or not yet.
            waiting = leadership.others_waiting(key)
            self._change_leadership(leadership._replace(waiting=waiting), request, settles=True)
            self.succeed()
            return
        if successor is not None and len(successor.encode(errors="replace")) > LEADER_NAME_BYTES_MAX:
            raise RequestError(codes.INVALID_PARAM, f"a program's name exceeds {LEADER_NAME_BYTES_MAX} bytes")
        if successor is not None:
            named = [candidate for candidate in leadership.waiting if candidate.name == successor]
            if not named:
                raise RequestError(codes.NOT_EXIST, f"no program with the name {successor!r} waits to lead")
            others = (candidate for candidate in leadership.waiting if candidate is not named[0])
            leadership = leadership._replace(waiting=(named[0], *others))
        self._end_leadership(leadership, EndReason.RESIGNED, request)

    def _revoke(self, request: Request, epoch: int, seq: int) -> None:
        leadership = self.leadership
        leader = leadership.leader
        if leader is None or (leader.epoch, leader.seq) != (epoch, seq):
            raise RequestError(codes.NOT_EXIST, "the leadership with this token has ended")
        self._end_leadership(leadership, EndReason.REVOKED, request)

    # -- renewals

    def hear_leader(self) -> None:
        """The leader's ttl begins again."""
        self.heard_ns = self.context.now_ns - self.context.unserved_ns

    def renew_leadership(self, key: tuple[int, int], epoch: int, seq: int) -> None:
        """The leader with this handle and token was heard: its ttl begins again."""
        leader = self.leadership.leader
        if leader is not None and leader.program.key == key and (leader.epoch, leader.seq) == (epoch, seq):
            self.hear_leader()

    @property
    def ends_ns(self) -> int | None:
        """When the leadership ends unless the leader is heard, by this node's clock.

        The time in which this node does not serve does not count, since no leader can be heard in it.
        """
        leader = self.leadership.leader
        if leader is None:
            return None
        ttl_ns = leader.program.ttl_ns
        silent_ns = ttl_ns + ttl_ns // CLOCK_SKEW + MARGIN_NS
        return self.heard_ns + self.context.unserved_ns + silent_ns

    # -- who is next

    @property
    def leadership_settled(self) -> bool:
        """Return True if nothing is led, nothing waits, and the directory names no leader."""
        leadership, entry = self.leadership, self.entry
        return (
            leadership.leader is None
            and not leadership.waiting
            and not self.settling
            and self.asked is None
            and (entry is None or entry.leader is None)
        )

    def begin_election(self, entry: CheckpointEntry) -> None:
        """Begin (again) in an activation: what was asked for in an earlier one has no effect any more."""
        self.entry, self.entry_changed, self.asked = entry, True, None

    @property
    def leads_quietly(self) -> bool:
        """Return True if a program leads, and nothing is to be done before it has been silent for its ttl."""
        leads = self.leadership.leader is not None
        return leads and not self.settling and self.names_as_wanted and self.context.serving()

    def on_entry(self, entry: CheckpointEntry) -> None:
        """Take the checkpoint in the directory, or a change of it."""
        self.entry, self.entry_changed = entry, True
        if not self.leadership_settled:
            self.succeed()

    def succeed(self) -> None:
        """End a leadership that is over, forget those that have left, and let the next one lead."""
        entry, context = self.entry, self.context
        if entry is None or not self.ready or not context.serving():
            return
        self.arm_timers()
        context.note_serving()
        remaining = leadership = self.leadership
        if self.entry_changed:
            self.entry_changed = False
            waiting = tuple(candidate for candidate in leadership.waiting if candidate.key in entry.opens)
            if len(waiting) < len(leadership.waiting):
                remaining = leadership._replace(waiting=waiting)
        leader, ends_ns = leadership.leader, self.ends_ns
        if leader is not None and leader.program.key not in entry.opens and not _may_live(entry, leader):
            self._end_leadership(remaining, EndReason.CLOSED)
        elif ends_ns is not None and context.now_ns >= ends_ns:
            self._end_leadership(remaining, EndReason.NOT_RENEWED)
        else:
            if remaining is not leadership:
                self._change_leadership(remaining)
            self._grant_next(entry)

    def _grant_next(self, entry: CheckpointEntry) -> None:
        """Let the first in the queue lead, if there is no leader and once the directory names it."""
        leadership, context = self.leadership, self.context
        leader, program = leadership.leader, self._next_program()
        if not self._is_named(entry):
            return
        self._settle()
        if leader is None and program is not None:
            epoch, seq = context.epoch, self.next_seq()
            lineage = self._own_lineage()
            lost = bool(leadership.ended) and lineage != leadership.lineage
            granted = Leader(epoch, seq, context.wall_ns, lost, program)
            self.hear_leader()
            self._log_leader(f"{program.shown} leads")
            context.count("leaders_granted")
            self._change_leadership(
                leadership._replace(leader=granted, waiting=leadership.waiting[1:], lineage=lineage)
            )
        if self.ends_ns is not None:
            context.wake_at(self.ends_ns)

    def _next_program(self) -> Candidate | None:
        """Return the program that leads, or else the first that waits to."""
        leader, waiting = self.leadership.leader, self.leadership.waiting
        return leader.program if leader is not None else waiting[0] if waiting else None

    def _wanted_name(self) -> NamedLeader:
        """Return what the directory should name."""
        program = self._next_program()
        if program is None:
            return NAMES_NOBODY
        return NamedLeader(*program[:3], program.exclusive, program.shown)

    @property
    def names_as_wanted(self) -> bool:
        """Return True if the directory names who leads, or who is next, and nothing else is under way."""
        entry = self.entry
        if entry is None or self.asked is not None:
            return False
        return (entry.leader or NAMES_NOBODY) == self._wanted_name()

    def _is_named(self, entry: CheckpointEntry) -> bool:
        """Return True if the directory names the next leader, or none. If not, it is asked until it does."""
        named, asked, wanted = entry.leader or NAMES_NOBODY, self.asked, self._wanted_name()
        if asked is None or asked == named:
            asked = wanted if wanted != named else None
            self.proposed_ns = -REPEAT_NS
        self.asked = asked
        if asked is None:
            return True
        now_ns = self.context.now_ns
        if now_ns >= self.proposed_ns + REPEAT_NS:
            self.proposed_ns = now_ns
            self.propose([DirectoryOp.LEADER, entry.creation_id, self.activation_seq, *asked])
        self.context.wake_at(self.proposed_ns + REPEAT_NS)
        return False

    def _settle(self) -> None:
        """Answer the requests that have waited for the directory."""
        log, settling, self.settling = self.replica.log, self.settling, {}
        for request, answer in settling.values():
            if log.committed_seq >= log.seq:
                self.answer(request, answer)
            else:
                self._await_commit(request, answer, log.seq)

    def take_settling(self) -> list[Request]:
        """Remove and return the requests that wait for the directory: the active role ends."""
        self.context.leaderless.pop(self.replica.creation_id, None)
        settling, self.settling = self.settling, {}
        return [request for request, _ in settling.values()]

    # -- changes

    def _end_leadership(self, leadership: Leadership, reason: int, request: Request | None = None) -> None:
        """End the leadership, as an update; answer a request with that once the directory knows it, too."""
        assert leadership.leader is not None
        self._log_leader(f"{leadership.leader.program.shown} leads no more: {_REASONS[reason]}")
        self.context.count("leaders_ended")
        self._change_leadership(leadership.end(reason, self.context.wall_ns), request, settles=True)
        self.succeed()

    def _change_leadership(
        self, leadership: Leadership, request: Request | None = None, settles: bool = False
    ) -> None:
        """Order the update that makes this the leadership, and answer a request with it.

        With `settles` the answer comes when the directory names no former leader either.
        """
        version = version_at(self.context.epoch, self.next_seq())
        answer = answer_ok([version])
        packed = leadership._replace(version=version).pack()
        self.context.work += len(packed) >> LEADERSHIP_SHIFT
        self.order(Ops([[Op.LEADERSHIP, packed]]), request, answer, answers=not settles)
        self.note_valid_token()
        if settles and request is not None:
            self.settling[request.session, request.number] = request, answer
        creation_id, context = self.replica.creation_id, self.context
        context.newly_led[creation_id] = None
        if leadership.leader is not None or not leadership.waiting:
            context.leaderless.pop(creation_id, None)
        elif creation_id not in context.leaderless:
            context.leaderless[creation_id] = None
            context.count("leaderless")

    def _log_leader(self, text: str) -> None:
        self.context.log(f"checkpoint {self.replica.name.decode(errors='replace')!r}: {text}")


def _may_live(entry: CheckpointEntry, leader: Leader) -> bool:
    """Return True if the leader's session ended only because no node heard of it for its grace."""
    return entry.leader is not None and entry.leader.key == leader.program.key
