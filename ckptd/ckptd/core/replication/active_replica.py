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
from ckptd.core.content.sections import SECTION_OVERHEAD_BYTES, PreImages
from ckptd.core.content.update_log import Update
from ckptd.core.content.versions import version_of_change
from ckptd.core.hub import Hub
from ckptd.core.replication.activation import Activation, ActivationState
from ckptd.core.replication.memory_capacity import check_capacity
from ckptd.core.replication.weak_batch import WeakBatch
from ckptd.core.reply_cache import ErrorReplyCache
from ckptd.core.settings import EVERY_NODE_MUST, FeatureLevel
from ckptd.core.work_costs import KIB_SHIFT, OP_WORK, REFUSED_SHIFT

_REQUIRE: Final = Op.REQUIRE


class ActiveReplica(Activation):
    """The active role of one replica: it orders updates, commits them and answers."""

    __slots__ = (
        "active_with_timers",
        "advertised_commit_seq",
        "answer",
        "answers_after_commit",
        "batch",
        "error_replies",
    )

    def __init__(
        self, replica: ReplicaContent, hub: Hub, active_with_timers: "dict[int, ActiveReplica]"
    ) -> None:
        super().__init__(replica)
        self.answer = hub.answer
        self.active_with_timers = active_with_timers
        self.advertised_commit_seq = 0
        """The last committed seq that was sent to the other replicas."""
        self.answers_after_commit: list[tuple[int, Request, bytes]] = []
        """Answers that wait for the commit of a seq."""
        self.batch = WeakBatch()
        self.error_replies = ErrorReplyCache()

    def arm_timers(self) -> None:
        self.active_with_timers[self.replica.creation_id] = self

    def begin_serving(self) -> None:
        self.advertised_commit_seq = self.replica.log.committed_seq
        self.replica.sections.rearm_expirations()
        self._arm_expiration()
        self.arm_timers()
        self.try_commit()

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
            if ops[0][0] == _REQUIRE and self._refuse_conflict(request, ops):
                return
            generated = self._apply(request, ops, time_ns, pre_images)
        except RequestError as refusal:
            error = answer_error(refusal.code, refusal.text, refusal.index)
            self.error_replies.record(session, number, first_unanswered, log.seq, error)
            self.answer_when_committed(request, error)
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
            self.active_with_timers[replica.creation_id] = self
            self._arm_expiration()

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
        if log.entry_bytes > context.settings.pending_bytes_max and log.committed_seq < log.seq:
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

    def _stage_and_send(self, update: Update, pre_images: PreImages) -> None:
        """Stage an update and send it to every replica; answer it now if it does not wait for a commit."""
        replica, log = self.replica, self.replica.log
        if log.committed_seq == log.seq:
            self.last_progress_ns = self.context.now_ns
        log.append(update)
        if replica.tracked:
            self.context.newly_visible[replica.creation_id] = None
        if self.downstream:
            frame = update.frame(replica.creation_id, self.context.epoch, log.committed_seq)
            self.advertised_commit_seq = log.committed_seq
            send_peer = self.context.send_peer
            for node_id in self.downstream:
                send_peer(node_id, frame)
            self.active_with_timers[replica.creation_id] = self
            self.context.wake_at(self.context.now_ns + self.context.settings.commit_notice_ns)
        if replica.sync and self.commit_set:
            update.pre_images = pre_images
            log.pending.append(update)
            return
        if update.waiting_request is not None:
            self.answer(update.waiting_request, update.answer)
            update.waiting_request = None
        if not self.commit_set:
            self._commit(update.seq)

    def _refuse_conflict(self, request: Request, ops: Ops) -> bool:
        """Refuse an update whose conditions do not all hold. Return False if they do.

        A caller that was told of a conflict relies on it: no duplicate of the request may be applied, also
        after a fail-over. So the refusal is an update of its own, which changes nothing, and is answered when
        every in-sync replica has it, whatever the kind of the checkpoint. Raises: RequestError.
        """
        replica, log, context = self.replica, self.replica.log, self.context
        if context.feature_level < FeatureLevel.TAKEOVER:
            raise RequestError(codes.NOT_SUPPORTED, f"conditions are not served: {EVERY_NODE_MUST}")
        count = check_conditions(ops)
        context.work += OP_WORK * count
        conflict = find_conflict(replica, Ops(ops[:count]))
        if conflict is None:
            return False
        if self._refuse_if_overloaded(request):
            return True
        self.flush_batch()
        session, number, first_unanswered = request.session, request.number, request.first_unanswered
        refusal = answer_conflict(*conflict)
        log.record_reply(session, number, first_unanswered, log.seq + 1, refusal)
        self.answers_after_commit.append((log.seq + 1, request, refusal))
        body = pack_body([[], [[session, number, first_unanswered, refusal]]])
        time_ns = context.wall_ns
        self._stage_and_send(Update(context.epoch, log.seq + 1, time_ns, 0, 0, 0, body), {})
        return True

    def _answer_duplicate(self, known: tuple[int, bytes], request: Request) -> None:
        seq, answer = known
        if seq > self.replica.log.committed_seq and not is_ok(answer):
            if not self._refuse_if_overloaded(request):
                self.withdraw(request.session, request.number, len(self.answers_after_commit))
                self.answers_after_commit.append((seq, request, answer))
            return
        if self.replica.sync and seq > self.replica.log.committed_seq:
            for update in self.replica.log.pending:
                if update.seq == seq:
                    # (A duplicate that came through a node that the session has left does not get here.)
                    update.waiting_request = request
            return
        self.answer(request, answer)

    def answer_when_committed(self, request: Request, body: bytes) -> None:
        """Answer once everything that is pending now has committed, since the answer may depend on it."""
        log = self.replica.log
        if not self.replica.sync or not log.pending:
            self.answer(request, body)
        elif not self._refuse_if_overloaded(request):
            self.answers_after_commit.append((log.seq, request, body))

    def withdraw(self, session: int, number: int, scanned_max: int) -> Request | None:
        """Remove and return a request that waits for a commit and was not done itself, or None."""
        for index, (_, request, _) in enumerate(self.answers_after_commit[:scanned_max]):
            if (request.session, request.number) == (session, number):
                del self.answers_after_commit[index]
                return request
        return None

    def _refuse_if_overloaded(self, request: Request) -> bool:
        """Return True if too many requests wait already; then answer this one. (Nothing was done for it.)"""
        overloaded = len(self.answers_after_commit) >= self.context.settings.requests_waiting_max
        if overloaded:
            self.answer(request, answer_error(codes.TRY_AGAIN, "too many requests already wait for a commit"))
        return overloaded

    # -- committing

    def on_ack(self, node_id: str, seq: int) -> None:
        """Take a replica's acknowledgement: it has staged everything up to `seq`."""
        if self.awaiting_report and node_id in self.awaiting_report:
            return
        acked = self.acked
        if seq <= acked.get(node_id, -1):
            return
        acked[node_id] = seq
        if self.ready:
            self.try_commit()
        else:
            self.try_become_ready()

    def try_commit(self) -> None:
        """Commit what every required replica has staged.

        Nothing is committed before every member runs the view. A view that one member never ran counts as one
        in which no client was answered, and the nodes that are left continue from the view before it (ADR 9).
        """
        log, acked, context = self.replica.log, self.acked, self.context
        committed_seq, before_seq = log.seq, log.committed_seq
        if committed_seq == before_seq or not self.ready or context.established_epoch != context.epoch:
            return
        for node_id in self.commit_set:
            seq = acked.get(node_id, 0)
            if seq <= before_seq:
                return  # A replica that has acknowledged nothing new blocks the commit.
            if seq < committed_seq:
                committed_seq = seq
        self._commit(committed_seq)

    def _commit(self, committed_seq: int) -> None:
        replica, log = self.replica, self.replica.log
        self.last_progress_ns = self.context.now_ns
        pending = log.pending
        while pending and pending[0].seq <= committed_seq:
            update = pending.popleft()
            update.pre_images = None
            if update.waiting_request is not None:
                self.answer(update.waiting_request, update.answer)
                update.waiting_request = None
        log.committed_seq = committed_seq
        if replica.tracked:
            self.context.newly_visible[replica.creation_id] = None
        if log.entry_bytes > log.compact_above_bytes:
            log.compact(replica.sections.content_bytes)
        while self.answers_after_commit and self.answers_after_commit[0][0] <= committed_seq:
            _, request, body = self.answers_after_commit.pop(0)
            self.answer(request, body)
        replica.on_committed(committed_seq)

    def synchronize(self, request: Request) -> None:
        """Answer once every in-sync replica has all that this one has now (R134)."""
        self.flush_batch()
        log = self.replica.log
        if log.committed_seq >= log.seq:
            self.answer(request, answer_ok())
        elif not self._refuse_if_overloaded(request):
            self.answers_after_commit.append((log.seq, request, answer_ok()))

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
        self.active_with_timers[self.replica.creation_id] = self
        self.context.wake_at(self.batch.since_ns + self.context.settings.weak_batch_ns)

    def flush_batch(self) -> None:
        """Send what a weak checkpoint has gathered, as one update or several."""
        batch, replica, log = self.batch, self.replica, self.replica.log
        if not batch:
            return
        with_versions = self.context.feature_level >= FeatureLevel.TAKEOVER
        portions = batch.split(replica.sections, self.context.settings.weak_batch_bytes, with_versions)
        covered_requests = batch.covered_requests
        batch.clear()
        time_ns = self.context.wall_ns
        for ops, whole in portions:
            # The answers go with the first portion: what a part shows as done must not be done again.
            body = pack_body([ops, covered_requests])
            covered_requests = []
            update = Update(self.context.epoch, log.seq + 1, time_ns, 0, 0, 0, body)
            for section_id in whole:
                section = replica.sections.sections.get(section_id)
                if section is not None:
                    section.seq = update.seq
                    if not with_versions:  # As the other replicas number it.
                        section.version = version_of_change(update.epoch, update.seq)
            self._stage_and_send(update, {})

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
        unanswered = [request for _, request, _ in self.answers_after_commit]
        self.answers_after_commit = []
        for update in self.replica.log.pending:
            if update.waiting_request is not None:
                unanswered.append(update.waiting_request)
                update.waiting_request = None
        return unanswered
