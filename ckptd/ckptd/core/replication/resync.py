"""Resynchronisation: bring a replica up to date while writes continue.

The joining replica says which version it holds (JOIN). The source then chooses one of two ways:

* Updates: if that version is a prefix of the source's history and the source still has every later update, it
  sends those updates.
* Sections: otherwise it sends the sections, in chunks of bounded size. A section that the joining replica may
  lack is sent with its content, and one that it has as its id only. One that is not mentioned was deleted.

New updates are streamed to the joining replica from the start, in order with the chunks, so each section is
correct from its chunk on.

The remembered answers are sent in the same chunks, before the sections. They used to be part of the first
chunk, whatever their size: a client that trimmed none made that chunk larger than a frame may be, the
receiver closed the link, and the same happened again at every try.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.limits import ANSWER_BYTES
from ckpt_protocol.messages import Kind
from ckptd.core.content.parse_replicas import Chunk, SessionReplies
from ckptd.core.content.replica_content import ReplicaContent
from ckptd.core.content.replica_state import ReplicaEvent
from ckptd.core.content.resize_state import ResizeState
from ckptd.core.content.versions import VERSION_BYTES, version_of_change
from ckptd.core.directory.directory import Directory
from ckptd.core.events import Quarantine
from ckptd.core.reply_cache import ReplyCache

_SECTION_HEADER_BYTES = 64


class ResyncSender:
    """The sending side, at the active replica or at a more advanced one that it catches up from."""

    __slots__ = (
        "acked_chunk",
        "answers",
        "chunk",
        "chunk_bytes_in_flight",
        "complete_at_seq",
        "ids",
        "node_id",
        "replica",
        "reusable_up_to_seq",
    )

    def __init__(self, replica: ReplicaContent, node_id: str) -> None:
        self.replica = replica
        self.node_id = node_id
        self.reusable_up_to_seq = -1
        """The receiver keeps sections that no update after this seq has changed; -1: it keeps none."""
        self.chunk = 0
        self.acked_chunk = 0
        self.complete_at_seq = -1
        """The seq at which everything had been sent; -1 before that."""
        self.ids: Iterator[bytes] = iter(())
        self.answers: Iterator[tuple[int, ReplyCache, int]] = iter(())
        self.chunk_bytes_in_flight: deque[int] = deque()
        """The approximate sizes in bytes of the chunks that are in flight."""

    @property
    def must_send_sections(self) -> bool:
        """True if an update of this checkpoint stopped a node: others get the result and do not apply it."""
        return self.replica.creation_id in self.replica.context.stops.by_creation

    def start(self, epoch: int, seq: int, complete: bool) -> None:
        """Answer a JOIN."""
        replica, log = self.replica, self.replica.log
        replica.flush_batch()
        is_prefix = complete and log.is_prefix(epoch, seq)
        if is_prefix and log.holds_since(seq) and not self.must_send_sections:
            context = replica.context
            for update in log.updates_after(seq):
                frame = update.frame(replica.creation_id, context.epoch, log.committed_seq)
                context.send_peer(self.node_id, frame)
            self.complete_at_seq = log.seq
        else:
            self.reusable_up_to_seq = seq if is_prefix else -1
            self.ids = iter(list(replica.sections.sections))
            self.answers = _each_reply(log.answers)
            self.send_chunks()
        replica.stream_to(self.node_id)
        self.on_commit(log.committed_seq)

    def send_chunks(self) -> None:
        """Send as many chunks and bytes as may be in flight at once. (A single section may be longer.)"""
        settings = self.replica.context.settings
        bytes_max = settings.chunks_in_flight * settings.chunk_bytes
        while (
            self.complete_at_seq < 0
            and len(self.chunk_bytes_in_flight) < settings.chunks_in_flight
            and sum(self.chunk_bytes_in_flight) < bytes_max
        ):
            self._send_chunk()

    def _send_chunk(self) -> None:
        replica, log, context = self.replica, self.replica.log, self.replica.context
        replica.flush_batch()  # So that the chunk shows what its seq says.
        chunk_sections: list[list[Any]] = []
        answers, size = self._next_replies(context.settings.chunk_bytes)
        for section_id in self.ids if size < context.settings.chunk_bytes else ():
            section = replica.sections.sections.get(section_id)
            if section is None:
                continue
            if section.seq <= self.reusable_up_to_seq:
                chunk_sections.append([section_id])
                size += _SECTION_HEADER_BYTES + len(section_id)
            else:
                chunk_sections.append(
                    [
                        section_id,
                        section.content,
                        section.expiration_ns,
                        section.last_update_ns,
                        section.seq,
                        section.state,
                        section.version.to_bytes(VERSION_BYTES),
                    ]
                )
                size += _SECTION_HEADER_BYTES + len(section_id) + len(section.content)
            if size >= context.settings.chunk_bytes:
                break
        else:
            if size < context.settings.chunk_bytes:
                self.complete_at_seq = log.seq
        self.chunk += 1
        self.chunk_bytes_in_flight.append(size)
        fields: list[Any] = [self.chunk, chunk_sections, None]
        if self.chunk == 1:
            leadership = replica.sections.leadership.pack()
            reuses = self.reusable_up_to_seq >= 0
            limits = replica.sections.resize_state
            resized = limits.fields() if limits.number else None
            fields[2] = [log.epoch, log.last_seq_by_epoch, answers, reuses, leadership, resized]
        elif answers:
            fields.append(answers)
        body = pack_body(fields)
        context.send_peer(
            self.node_id, encode_frame(Kind.CHUNK, replica.creation_id, context.epoch, log.seq, body)
        )

    def _next_replies(self, bytes_max: int) -> tuple[list[list[Any]], int]:
        """Return the next remembered answers by session, and their approximate size."""
        rows: list[list[Any]] = []
        size = 0
        for session, replies, request in self.answers:
            if not rows or rows[-1][0] != session:
                rows.append([session, replies.first_unanswered, []])
                size += ANSWER_BYTES
            answer = replies.by_request.get(request)
            if answer is not None:  # (It may have been trimmed since the join began.)
                rows[-1][2].append([request, *answer])
                size += ANSWER_BYTES + len(answer[1])
            if size >= bytes_max:
                break
        return rows, size

    def on_chunk_ack(self, chunk: int) -> None:
        while self.acked_chunk < min(chunk, self.chunk):
            self.acked_chunk += 1
            self.chunk_bytes_in_flight.popleft()
        self.send_chunks()
        self.on_commit(self.replica.log.committed_seq)

    def on_commit(self, committed_seq: int) -> None:
        """Send JOINED once everything that was sent is committed; from then on every commit needs this node.

        Before that (in a synchronous checkpoint) a reader at the new replica would see pending updates. Every
        chunk must be acknowledged too: a node that had no memory for the last one once blocked all writes.
        """
        replica = self.replica
        if (
            self.complete_at_seq < 0
            or self.chunk_bytes_in_flight
            or (replica.is_active and replica.sync and committed_seq < self.complete_at_seq)
        ):
            return
        replica.end_join(self.node_id)
        frame = encode_frame(Kind.JOINED, replica.creation_id, replica.context.epoch, self.complete_at_seq)
        replica.context.send_peer(self.node_id, frame)


def _each_reply(by_session: dict[int, ReplyCache]) -> Iterator[tuple[int, ReplyCache, int]]:
    """Yield every remembered answer by session and request number.

    Each session comes first with the number 0, so that one without answers is sent too.
    """
    for session, replies in list(by_session.items()):
        yield session, replies, 0
        for request in list(replies.by_request):
            yield session, replies, request


def receive_chunk(replica: ReplicaContent, chunk: Chunk, source: str) -> None:
    """Take a chunk at the joining replica. Raises: FrameError if the peer sent garbage."""
    _check_reused(replica, chunk)
    sections = replica.sections
    if chunk.snapshot_header is not None:
        epoch, history, answers, reuses_sections, leadership, resized = chunk.snapshot_header
        reusable = dict(sections.sections)
        if not reuses_sections:
            quarantine(replica)
        if reuses_sections or replica.is_active:
            replica.stash_content()
            sections = replica.sections
        replica.possibly_superseded = False
        for section_id in list(sections.sections):
            sections.put_raw(section_id, None)
        sections.lead(leadership)
        limits = replica.attributes.limits
        sections.replace_limits(resized or ResizeState(0, limits, limits), chunk.seq)
        replica.reusable_sections = reusable if reuses_sections else {}
        replica.on_event(ReplicaEvent.RESYNC_BEGUN)
        replica.log.reset_to(epoch, chunk.seq, history)
        replica.log.answers = {}
        _merge_replies(replica, answers)
    elif replica.complete:
        return
    _merge_replies(replica, chunk.answers)
    for section_id, section in chunk.sections:
        if section is None:
            section = replica.reusable_sections.pop(section_id)
        elif not section.version:
            section.version = version_of_change(replica.log.epoch_of(section.seq), section.seq)
        sections.put_raw(section_id, section)
    context = replica.context
    context.send_peer(source, encode_frame(Kind.CHUNK_ACK, replica.creation_id, context.epoch, chunk.number))


def _check_reused(replica: ReplicaContent, chunk: Chunk) -> None:
    """Check, before anything changes, that every section that a chunk keeps is here. Raises: FrameError."""
    reusable = replica.reusable_sections
    if chunk.snapshot_header is not None:
        reusable = replica.sections.sections if chunk.snapshot_header.reuses_sections else {}
    elif replica.complete:
        return  # This chunk belongs to a join that is over, and does nothing.
    replies = [section_id for section_id, section in chunk.sections if section is None]
    if len(set(replies)) < len(replies) or not reusable.keys() >= set(replies):
        raise FrameError("a chunk keeps a section that this replica does not have")


def _merge_replies(replica: ReplicaContent, rows: SessionReplies) -> None:
    """Add the answers that the source remembers to those that the stream has brought already."""
    for session, first_unanswered, replies in rows:
        own = replica.log.answers.setdefault(session, ReplyCache())
        own.trim(first_unanswered)
        for request, seq, answer in replies:
            if request >= own.first_unanswered and request not in own.by_request:
                own.record(request, seq, answer)


def may_be_unique(replica: ReplicaContent, directory: Directory, unproven_takeover_seen: bool) -> bool:
    """Return True if a replica that is dropped may hold data that no other node has.

    What it held before a join that broke off counts too. It may be alone if every in-sync replica is lost, or
    if its node was out of the view, since the others may have continued without it. (They have everything
    acknowledged that a synchronous replica held, unless a view continued without proof:
    `unproven_takeover_seen`.)
    """
    replica.restore_content()
    if replica.creation_id in directory.lost:
        return True
    known = replica.creation_id in directory.checkpoints
    return replica.possibly_superseded and (not known or not replica.sync or unproven_takeover_seen)


def quarantine(replica: ReplicaContent) -> None:
    """Write a replica's content to quarantine, so that nothing is lost silently.

    This is for content that is not a prefix of the cluster's history, or that no other node may have. A
    replica in the middle of a join holds nothing of its own, and neither does an empty one.
    """
    if not replica.complete or not replica.log.seq:
        return
    sections = [
        [section_id, section.content, section.expiration_ns, section.last_update_ns]
        for section_id, section in replica.sections.items_sorted()
    ]
    content = pack_body([replica.name, replica.creation_id, replica.log.epoch, replica.log.seq, sections])
    name = f"{replica.creation_id:x}-{replica.log.epoch}-{replica.log.seq}"
    replica.context.effects.append(Quarantine(name, content))
    shown = replica.name.decode(errors="replace")
    replica.context.log(
        f"checkpoint {shown!r}: the {len(sections)} sections of this node go to quarantine", "warning"
    )


def quarantine_all(replicas: Iterable[ReplicaContent]) -> None:
    """Quarantine every replica: this incarnation of the node ends, and data held only here would be lost."""
    for replica in replicas:
        quarantine(replica)


def finish_resync(replica: ReplicaContent) -> None:
    """Finish a join at the joining replica (JOINED): its content is whole."""
    replica.on_event(ReplicaEvent.RESYNC_ENDED)
    replica.possibly_superseded = False
    replica.reusable_sections = {}
    replica.previous_content = None
