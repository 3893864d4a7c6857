"""Parse the messages between replicas, except updates (`ckpt_protocol.parse_updates`). Raises FrameError."""

from typing import Any, Final, NamedTuple

from ckpt_protocol.body_codec import bounded_array
from ckpt_protocol.bounds_by_kind import BOUNDS
from ckpt_protocol.constants import SA_CKPT_SECTION_CORRUPTED, SA_CKPT_SECTION_VALID
from ckpt_protocol.errors import parser
from ckpt_protocol.field_checks import U64_MAX, array, boolean, octets, row, whole
from ckpt_protocol.framing import Frame
from ckpt_protocol.limits import (
    CHUNK_SECTIONS_MAX,
    LEADERSHIP_BYTES_MAX,
    PEER_FRAME_BYTES_MAX,
    SECTION_BYTES_MAX,
    SECTION_ID_BYTES_MAX,
    SEQ_MAX,
    SIZE_MAX,
)
from ckpt_protocol.messages import Kind
from ckptd.core.content.leadership import NOBODY, Leadership, parse_leadership
from ckptd.core.content.resize_state import ResizeState, parse_resize_state
from ckptd.core.content.section import Section
from ckptd.core.content.versions import VERSION_BYTES

_ROWS_MAX: Final = 10_000_000
_HISTORY_MAX: Final = 1_000
"""The most epochs whose last seq another replica may send. (It keeps 64: `update_log.HISTORY_EPOCHS`.)"""

SessionReplies = list[tuple[int, int, list[tuple[int, int, bytes]]]]
"""Each session, its lowest unanswered request, and (request, seq, answer) of each remembered answer."""


@parser
def parse_report(body: bytes) -> tuple[int, int]:
    """Parse a report (ACK): its activation, and how far heartbeats said the active replica had ordered."""
    activation_seq, advertised_seq = bounded_array(body, BOUNDS[Kind.ACK], 2)[:2]
    return whole(activation_seq, "an activation seq", U64_MAX), whole(advertised_seq, "a seq", SEQ_MAX)


@parser
def parse_join(frame: Frame) -> tuple[int, int, bool]:
    """Parse JOIN: the version (epoch, seq) that the joining replica holds, and whether that is whole."""
    epoch, complete = bounded_array(frame.body, BOUNDS[Kind.JOIN], 2)[:2]
    whole(frame.c, "a seq", SEQ_MAX)
    return (
        whole(epoch, "an epoch", U64_MAX),
        frame.c,
        boolean(complete, "the consistent flag of a replica"),
    )


class SnapshotHeader(NamedTuple):
    """What the first chunk of a join says about the source's log."""

    epoch: int
    history: list[tuple[int, int]]
    answers: SessionReplies
    reuses_sections: bool
    """What the receiver holds is a prefix of the source's history, so it may keep sections."""
    leadership: Leadership
    resize_state: ResizeState | None
    """The limits, if the checkpoint was ever resized."""


class Chunk(NamedTuple):
    """A parsed CHUNK. A section is None if the receiver keeps the one that it has."""

    number: int
    sections: list[tuple[bytes, Section | None]]
    snapshot_header: SnapshotHeader | None
    answers: SessionReplies
    seq: int


@parser
def parse_chunk(frame: Frame) -> Chunk:
    """Parse CHUNK."""
    number, listed, opening, *more = bounded_array(frame.body, BOUNDS[Kind.CHUNK], 3)
    numbered = whole(number, "a chunk's number", U64_MAX, 1)
    return Chunk(
        numbered,
        [_section(fields) for fields in array(listed, "sections", CHUNK_SECTIONS_MAX)],
        _snapshot_header(opening) if numbered == 1 else None,
        _session_replies(more[0]) if more else [],
        whole(frame.c, "a seq", SEQ_MAX),
    )


def _section(value: object) -> tuple[bytes, Section | None]:
    fields = row(value, "a section", 1)
    section_id = octets(fields[0], "a section's id", SECTION_ID_BYTES_MAX)
    if len(fields) == 1:
        return section_id, None
    content, expiration_ns, last_update_ns, seq, state, *version = row(fields, "a section", 6)[1:7]
    section = Section(
        octets(content, "a section's content", SECTION_BYTES_MAX),
        whole(expiration_ns, "an expiration time"),
        whole(last_update_ns, "a time", SIZE_MAX, -SIZE_MAX),
        whole(seq, "a seq", SEQ_MAX),
        int.from_bytes(octets(version[0], "a section's version", VERSION_BYTES)) if version else 0,
        whole(state, "a section's state", SA_CKPT_SECTION_CORRUPTED, SA_CKPT_SECTION_VALID),
    )
    return section_id, section


def _snapshot_header(value: object) -> SnapshotHeader:
    epoch, history, answers, reuses_sections, *more = row(value, "the header of a snapshot", 4)
    return SnapshotHeader(
        whole(epoch, "an epoch", U64_MAX),
        [_past_epoch(past) for past in array(history, "the past epochs", _HISTORY_MAX)],
        _session_replies(answers),
        boolean(reuses_sections, "a chunk's keeps-sections flag"),
        parse_leadership(octets(more[0], "a leadership", LEADERSHIP_BYTES_MAX)) if more else NOBODY,
        parse_resize_state(row(more[1], "the limits of a checkpoint", 7)) if more[1:] and more[1] else None,
    )


def _past_epoch(value: object) -> tuple[int, int]:
    past = row(value, "a past epoch", 2)
    return whole(past[0], "an epoch", U64_MAX), whole(past[1], "a seq", SEQ_MAX)


def _session_replies(value: object) -> SessionReplies:
    return [_replies_of_session(fields) for fields in array(value, "answers", _ROWS_MAX)]


def _replies_of_session(value: object) -> tuple[int, int, list[tuple[int, int, bytes]]]:
    session, first_unanswered, replies = row(value, "a session's answers", 3)[:3]
    answers = [_reply(row(fields, "an answer", 3)) for fields in array(replies, "answers", _ROWS_MAX)]
    return (
        whole(session, "a session", U64_MAX),
        whole(first_unanswered, "a first unanswered request", U64_MAX),
        answers,
    )


def _reply(fields: list[Any]) -> tuple[int, int, bytes]:
    request, seq, answer = fields[:3]
    return (
        whole(request, "a request", U64_MAX),
        whole(seq, "a seq", SEQ_MAX),
        octets(answer, "an answer", PEER_FRAME_BYTES_MAX),
    )
