"""The active replica: it checks, orders and sends every update of one checkpoint.

It serves only after every in-sync replica has reported what it holds and has been sent what it lacks. Then,
for each update, it

1. checks the whole update against the staged sections;
2. gives it the next version and sends it to the other replicas;
3. answers: at once (asynchronous), or when every required replica has acknowledged (synchronous).

It knows the nodes that hold replicas, and nothing of views.
"""

from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.errors import FrameError, RequestError
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.limits import OPS_PER_UPDATE_MAX, UPDATE_BODY_BYTES_MAX
from ckpt_protocol.messages import Kind, Op, answer_conflict, answer_error, answer_ok, is_ok
from ckpt_protocol.parse_updates import Ops, check_conditions, parse_update
from ckptd.core.client_request import Request
from ckptd.core.containment import contain_request, refuse_repeat
from ckptd.core.content.conditions import find_conflict
from ckptd.core.content.memory_growth import growth_bound
from ckptd.core.content.replica_content import ReplicaContent
from ckptd.core.content.section import PreImages
from ckptd.core.content.sections import SECTION_OVERHEAD_BYTES
from ckptd.core.content.update_log import Update
from ckptd.core.hub import Hub
from ckptd.core.replication.activation import ActivationState
from ckptd.core.replication.memory_capacity import check_capacity
from ckptd.core.replication.resizing import Resizing
from ckptd.core.reply_cache import ErrorReplyCache
from ckptd.core.settings import EVERY_NODE_MUST, FeatureLevel
from ckptd.core.work_costs import KIB_SHIFT, OP_WORK, REFUSED_SHIFT

_REQUIRE: Final = Op.REQUIRE
_LEAD: Final = Op.LEAD


class ActiveReplica(Resizing):
    """The active role of one replica: it orders updates, commits them and answers."""

    __slots__ = ("active_with_timers", "error_replies")

    def __init__(
        self, replica: ReplicaContent, hub: Hub, active_with_timers: "dict[int, ActiveReplica]"
    ) -> None:
        super().__init__(replica, hub)
        self.active_with_timers = active_with_timers
        self.error_replies = ErrorReplyCache()

    def arm_timers(self) -> None:
        self.active_with_timers[self.replica.creation_id] = self

    def begin_serving(self) -> None:
        self.advertised_commit_seq = self.replica.log.committed_seq
        self.replica.sections.rearm_expirations()
        self._arm_expiration()
        self.arm_timers()
        self.try_commit()
        self.hear_leader()  # It could not be heard before.
        self.note_valid_token()
        if not self.leadership_settled:
            self.succeed()
        if not self.resizes_settled:
            self.advance_resizes()

    # -- ordering

    def submit(self, request: Request) -> None:
        """Handle one UPDATE request: refuse it, recognise a retry, or give it the next version."""
        if self._answer_unparsed(request):
            return
        ops = self._parse(request)
        if ops is None:
            return
        replica, log, context = self.replica, self.replica.log, self.context
        session, number, first_unanswered = request.session, request.number, request.first_unanswered
        time_ns = context.now_ns + context.wall_offset_ns
        pre_images: PreImages = {}
        try:
            if context.feature_level < FeatureLevel.TABLE:
                _check_older_nodes_know(ops)
            if ops[-1][0] >= _LEAD or replica.sections.fenced:
                admitted = self.judge(request, ops)
                if admitted is None:
                    return
                ops = admitted
            if ops[0][0] == _REQUIRE and self._refuse_conflict(request, ops):
                return
            generated = self._apply(request, ops, time_ns, pre_images)
        except RequestError as refusal:
            self.refuse_update(request, refusal)
            return
        seq = log.seq + 1
        answer = replica.answer_to(ops, generated)
        log.record_reply(session, number, first_unanswered, seq, answer)
        if replica.weak:
            self.batch.add(pre_images, [session, number, first_unanswered, answer], context.now_ns)
            self.answer(request, answer)
            self._arm_batch_timer()
        else:
            body = pack_body(ops) if generated else request.body
            update = Update(context.epoch, seq, time_ns, session, number, first_unanswered, body)
            update.answer = answer
            update.waiting_request = request
            self._stage_and_send(update, pre_images)
        if replica.sections.expirations:
            self.arm_timers()
            self._arm_expiration()

    def forget_sessions(self, sessions: list[int]) -> None:
        """Forget what is remembered of sessions that have ended, and what waits for them."""
        for session in sessions:
            self.error_replies.forget(session)
        super().forget_sessions(sessions)

    def refuse_update(self, request: Request, refusal: RequestError) -> None:
        error = answer_error(refusal.code, refusal.text, refusal.index)
        session, number, seq = request.session, request.number, self.replica.log.seq
        self.error_replies.record(session, number, request.first_unanswered, seq, error)
        self.answer_when_committed(request, error)

    def _answer_unparsed(self, request: Request) -> bool:
        """Answer a request whose operations do not matter. Return False if they do.

        It may be a retry, it may have been refused before, it may be too long, or too much may wait already.
        """
        log, context = self.replica.log, self.context
        session, number, first_unanswered = request.session, request.number, request.first_unanswered
        try:
            known = log.find_reply(session, number, first_unanswered)
            if known is not None:
                self._answer_duplicate(known, request)
                return True
            if context.stops.requests:
                stop = context.stops.requests.get((session, number))
                if stop is not None:
                    self.answer_when_committed(request, refuse_repeat(context, stop))
                    return True
            if self.error_replies:
                refused = self.error_replies.find(session, number, first_unanswered)
                if refused is not None:
                    self.answer_when_committed(request, refused[1])
                    return True
            if len(request.body) > UPDATE_BODY_BYTES_MAX:
                text = f"{len(request.body)} bytes exceed the {UPDATE_BODY_BYTES_MAX} that one call may have"
                raise RequestError(codes.NO_RESOURCES, text)
        except RequestError as refusal:
            self.answer(request, answer_error(refusal.code, refusal.text))
            return True
        lags = log.entry_bytes > context.settings.pending_bytes_max and log.committed_seq < log.seq
        if lags and not self.is_waiting(request):
            self.answer(
                request, answer_error(codes.TRY_AGAIN, "a replica lags behind: pending_bytes_max is reached")
            )
            return True
        return False

    def _parse(self, request: Request) -> Ops | None:
        """Return the operations of a request; None if they are not valid, and that was its answer."""
        try:
            return parse_update(request.body)
        except RequestError as refusal:
            self.context.work += len(request.body) >> REFUSED_SHIFT
            self.answer(request, answer_error(refusal.code, refusal.text, refusal.index))
        except FrameError as garbage:
            self.context.work += len(request.body) >> REFUSED_SHIFT
            self.answer(request, answer_error(codes.INVALID_PARAM, str(garbage)))
        except Exception as raised:
            self.answer(request, contain_request(self.context, request, raised))
        return None

    def _apply(self, request: Request, ops: Ops, time_ns: int, pre_images: PreImages) -> list[bytes] | None:
        """Apply the operations as the next update. Return the ids that were generated, if any.

        Raises: RequestError; then nothing was applied.
        """
        replica, context = self.replica, self.context
        sections = replica.sections
        sections.epoch = context.epoch
        bytes_before = sections.content_bytes + SECTION_OVERHEAD_BYTES * len(sections.sections)
        work_before = sections.work
        # Count it even if it is refused: 10,000 operations, of which only the last failed, once cost nothing.
        context.work += OP_WORK * len(ops) + (len(request.body) >> KIB_SHIFT)
        try:
            bound = growth_bound(ops, len(request.body), sections)
            limit = context.settings.memory_bytes_max
            if context.full_nodes or (limit and context.resident_bytes + bound > limit):
                check_capacity(replica, request.session, self.downstream, ops)
            if replica.weak and not self.batch.can_add(ops):
                self.flush_batch()
            generated = sections.apply(ops, time_ns, replica.log.seq + 1, pre_images, self.batch.updates)
        finally:
            context.work += sections.work - work_before
        bytes_now = sections.content_bytes + SECTION_OVERHEAD_BYTES * len(sections.sections)
        if bytes_now > bytes_before:
            context.resident_bytes += bytes_now - bytes_before
        return generated

    def submit_internal(self, ops: Ops, time_ns: int) -> None:
        """Order an internal update: the deletion of expired sections."""
        replica, log = self.replica, self.replica.log
        pre_images: PreImages = {}
        if replica.weak and not self.batch.can_add(ops):
            self.flush_batch()
        replica.sections.epoch = self.context.epoch
        replica.sections.apply(ops, time_ns, log.seq + 1, pre_images, self.batch.updates)
        if replica.weak:
            self.batch.add(pre_images, None, self.context.now_ns)
            self._arm_batch_timer()
            return
        body = pack_body([ops, []])
        self._stage_and_send(Update(self.context.epoch, log.seq + 1, time_ns, 0, 0, 0, body), pre_images)

    def _refuse_conflict(self, request: Request, ops: Ops) -> bool:
        """Refuse an update whose conditions do not all hold. Return False if they do.

        A caller that was told of a conflict relies on it: no duplicate of the request may be applied, also
        after a fail-over. So the refusal is an update of its own, which changes nothing, and is answered when
        every in-sync replica has it, whatever the kind of the checkpoint. Raises: RequestError.
        """
        replica, context = self.replica, self.context
        if context.feature_level < FeatureLevel.TAKEOVER:
            raise RequestError(codes.NOT_SUPPORTED, f"conditions are not served: {EVERY_NODE_MUST}")
        count = check_conditions(ops)
        context.work += OP_WORK * count
        conflict = find_conflict(replica, Ops(ops[:count]))
        if conflict is None:
            return False
        self.store_refusal(request, answer_conflict(*conflict))
        return True

    def _answer_duplicate(self, known: tuple[int, bytes], request: Request) -> None:
        """Answer a duplicate of what was done, as early as the first one. It takes the place of that one.

        (A duplicate that came through a node that the session has left does not get here.)
        """
        seq, answer = known
        log, key = self.replica.log, (request.session, request.number)
        of_service = not is_ok(answer) or (seq > log.committed_seq and log.is_of_service(seq))
        may_settle = is_ok(answer) and (seq <= log.committed_seq or of_service)
        if key in self.settling or (may_settle and not (self.names_as_wanted and self.is_resized)):
            # (It may be a resignation, or a resize, from before a fail-over.)
            self.settling[key] = request, answer
            self.succeed()
        elif seq <= log.committed_seq:
            self.answer(request, answer)
        elif of_service:
            # (What was done is not refused.)
            if key in self.answers_after_commit or is_ok(answer) or not self._refuse_if_overloaded(request):
                self._await_commit(request, answer, seq)
        elif self.replica.sync:
            for update in log.pending:
                if update.seq == seq:
                    update.waiting_request = request
        else:
            self.answer(request, answer)

    def synchronize(self, request: Request) -> None:
        """Answer once every in-sync replica has all that this one has now (R134)."""
        self.flush_batch()
        self.answer_after_commit(request, answer_ok())

    # -- timers

    def run_timers(self) -> bool:
        """Do what is due. Return True while there is more to come."""
        context, log, settings = self.context, self.replica.log, self.context.settings
        busy = not self.ready
        if self.replica.creation_id in context.stops.closed:
            return False
        context.cause = self.replica
        if self.batch:
            due_ns = self.batch.since_ns + settings.weak_batch_ns
            if due_ns <= context.now_ns:
                self.flush_batch()
            else:
                context.wake_at(due_ns)
                busy = True
        if log.committed_seq < log.seq:
            busy = True
            if self.last_progress_ns + settings.replica_timeout_ns > context.now_ns:
                context.wake_at(self.last_progress_ns + settings.replica_timeout_ns)
        if self.ready and self.downstream and self.advertised_commit_seq < log.committed_seq:
            due_ns = self.last_progress_ns + settings.commit_notice_ns
            if due_ns <= context.now_ns:
                self.advertise_commit()
            else:
                busy = True
                context.wake_at(due_ns)
        if self.replica.sections.expirations:
            busy = True
            self._expire()
        if not self.leadership_settled:
            self.succeed()
            busy = busy or not self.leads_quietly
        if not self.resizes_settled:
            self.advance_resizes()
            busy = busy or not self.resizes_settled
        return busy

    def advertise_commit(self) -> None:
        """Send all replicas the committed seq, when there is no update to carry it."""
        log = self.replica.log
        self.advertised_commit_seq = log.committed_seq
        frame = encode_frame(Kind.COMMIT, self.replica.creation_id, self.context.epoch, log.committed_seq)
        for node_id in self.downstream:
            self.context.send_peer(node_id, frame)

    def stalled_replicas(self) -> list[str]:
        """Return the nodes that have owed a report or an acknowledgement for `replica_timeout_ns`."""
        log, context = self.replica.log, self.context
        if (
            context.now_ns - self.last_progress_ns < context.settings.replica_timeout_ns
            or not context.is_view_established
        ):
            return []
        if self.replica.creation_id in context.stops.closed:
            return []
        if self.awaiting_report or log.committed_seq >= log.seq:
            return list(self.awaiting_report)
        next_seq = log.committed_seq + 1
        return [node_id for node_id in self.commit_set if self.acked.get(node_id, 0) < next_seq]

    def _arm_expiration(self) -> None:
        expiration_ns = self.replica.sections.next_expiration_ns()
        if expiration_ns is not None:
            self.context.wake_at(max(expiration_ns - self.context.wall_offset_ns, self.context.now_ns))

    def _expire(self) -> None:
        context = self.context
        if not self.ready or not context.serving():
            return
        wall_ns = context.wall_ns
        expired = self.replica.sections.expired(wall_ns)
        if expired:
            if self.replica.weak and not self.batch.can_add(expired):
                self.flush_batch()
            for start in range(0, len(expired), OPS_PER_UPDATE_MAX):
                portion = expired[start : start + OPS_PER_UPDATE_MAX]
                self.submit_internal(Ops([[Op.REMOVE, section_id] for section_id in portion]), wall_ns)
        self._arm_expiration()

    def _arm_batch_timer(self) -> None:
        self.arm_timers()
        self.context.wake_at(self.batch.since_ns + self.context.settings.weak_batch_ns)

    def close(self) -> list[Request]:
        """Stop serving, because this checkpoint stopped nodes. Return the requests that were not answered."""
        self._enter(ActivationState.CLOSED)
        self.active_with_timers.pop(self.replica.creation_id, None)
        return self._pop_unanswered()

    def step_down(self) -> list[Request]:
        """Give up the active role. Return the requests that were not answered.

        A weak checkpoint's batch is ordered first, so that its version says what it holds.
        """
        if self.replica.creation_id in self.context.stops.closed:
            return self.close()  # Ordering the batch may be what stopped nodes.
        self.replica.restore_content()
        self.flush_batch()
        self._enter(ActivationState.CLOSED)
        self.active_with_timers.pop(self.replica.creation_id, None)
        return self._pop_unanswered()

    def _pop_unanswered(self) -> list[Request]:
        unanswered = [request for _, request, _ in self.answers_after_commit.values()]
        unanswered += self.take_settling()
        self.answers_after_commit = {}
        for update in self.replica.log.pending:
            if update.waiting_request is not None:
                unanswered.append(update.waiting_request)
                update.waiting_request = None
        return unanswered


def _check_older_nodes_know(ops: Ops) -> None:
    """Refuse what a node of an older version could not follow. Raises: RequestError NOT_SUPPORTED."""
    for index, op in enumerate(ops):
        if op[0] in (Op.EXPIRE_AFTER, Op.REMOVE):
            raise RequestError(codes.NOT_SUPPORTED, f"this operation is not served: {EVERY_NODE_MUST}", index)
