"""The order of updates: an active replica gives each its seq, sends it to the others, and commits it.

What may be ordered is decided in `active_replica` and `leader_election`.
"""

from abc import abstractmethod
from typing import Any

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.messages import Kind, answer_error, is_ok
from ckpt_protocol.parse_updates import Ops
from ckptd.core.client_request import Request
from ckptd.core.content.replica_content import ReplicaContent
from ckptd.core.content.section import PreImages
from ckptd.core.content.update_log import Update
from ckptd.core.content.versions import version_of_change
from ckptd.core.hub import Hub
from ckptd.core.replication.activation import Activation
from ckptd.core.replication.weak_batch import WeakBatch
from ckptd.core.settings import FeatureLevel


class Ordering(Activation):
    """The updates of one active replica, from their order to their commit."""

    __slots__ = ("advertised_commit_seq", "answer", "answers_after_commit", "awaits_commit", "batch")

    def __init__(self, replica: ReplicaContent, hub: Hub) -> None:
        super().__init__(replica)
        self.answer = hub.answer
        self.advertised_commit_seq = 0
        """The last committed seq that was sent to the other replicas."""
        self.answers_after_commit: dict[tuple[int, int], tuple[int, Request, bytes]] = {}
        """By session and number: requests with their answers, which wait for the commit of a seq."""
        self.batch = WeakBatch()
        self.awaits_commit = False
        """The next commit is awaited by `on_awaited_commit`, too."""

    @abstractmethod
    def on_awaited_commit(self) -> None:
        """Go on with what waited for a commit."""

    # -- ordering

    def store_refusal(self, request: Request, refusal: bytes) -> None:
        """Refuse an update for ever: whatever is true later, no duplicate of it will be carried out."""
        if not self._refuse_if_overloaded(request):
            self.order(Ops([]), request, refusal)

    def next_seq(self) -> int:
        """Return the seq of the next update, after the batch of a weak checkpoint."""
        self.flush_batch()
        return self.replica.log.seq + 1

    def order(self, ops: Ops, request: Request | None, answer: bytes, answers: bool = True) -> None:
        """Order an update of the service's own, which answers a request once every in-sync replica has it.

        That holds for every kind of checkpoint. Without `answers` the answer is only remembered.
        """
        context, log, seq = self.context, self.replica.log, self.next_seq()
        covered: list[Any] = []
        if request is not None:
            session, number, first_unanswered = request.session, request.number, request.first_unanswered
            covered = [[session, number, first_unanswered, answer]]
            log.record_reply(session, number, first_unanswered, seq, answer)
            if answers:
                self._await_commit(request, answer, seq)
        if ops:
            self.replica.sections.epoch = context.epoch
            self.replica.sections.apply(ops, context.wall_ns, seq, {})
        body = pack_body([ops, covered])
        self._stage_and_send(Update(context.epoch, seq, context.wall_ns, 0, 0, 0, body), {})

    def answer_after_commit(self, request: Request, body: bytes, seq: int | None = None) -> None:
        """Answer once the update with this seq (None: the last one) is committed, on every kind."""
        log = self.replica.log
        seq = log.seq if seq is None else seq
        if log.committed_seq >= seq:
            self.answer(request, body)
        elif not self._refuse_if_overloaded(request):
            self._await_commit(request, body, log.seq)

    def _await_commit(self, request: Request, body: bytes, seq: int) -> None:
        """Let an answer wait for a commit, behind those that wait already."""
        key = request.session, request.number
        self.answers_after_commit.pop(key, None)
        self.answers_after_commit[key] = seq, request, body

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
            self.arm_timers()
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

    # -- answering

    def answer_when_committed(self, request: Request, body: bytes) -> None:
        """Answer once everything that is pending now has committed, since the answer may depend on it."""
        log = self.replica.log
        if not self.replica.sync or not log.pending:
            self.answer(request, body)
        elif not self._refuse_if_overloaded(request):
            self._await_commit(request, body, log.seq)

    def withdraw(self, session: int, number: int) -> Request | None:
        """Remove and return a request that waits for a commit and was not done itself, or None."""
        _, request, body = self.answers_after_commit.get((session, number), (0, None, b""))
        if request is None or (request.kind == Kind.UPDATE and is_ok(body)):
            return None
        del self.answers_after_commit[session, number]
        return request

    @property
    def waiting_count(self) -> int:
        """How many requests wait here with their answers."""
        return len(self.answers_after_commit)

    def _refuse_if_overloaded(self, request: Request) -> bool:
        """Return True if too many requests wait already; then answer this one. (Nothing was done for it.)"""
        overloaded = self.waiting_count >= self.context.settings.requests_waiting_max
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
        if self.answers_after_commit:
            self._answer_committed(committed_seq)
        replica.on_committed(committed_seq)
        if self.awaits_commit:
            self.awaits_commit = False
            self.on_awaited_commit()

    def _answer_committed(self, committed_seq: int) -> None:
        """Give the answers that have waited for this commit."""
        due: list[tuple[Request, bytes]] = []
        for seq, request, body in self.answers_after_commit.values():
            if seq > committed_seq:
                break  # (The next ones wait for this seq, or for a later one.)
            due.append((request, body))
        for request, _ in due:
            del self.answers_after_commit[request.session, request.number]
        for request, body in due:
            self.answer(request, body)
