"""Send a directory to another node in pieces, so that no frame is too long, however much the directory holds.

A directory of 100,000 checkpoints with names of 2,048 bytes is larger than a frame may be. So it is sent as
rows, about `directory_piece_bytes` of them in each piece. The receiver acknowledges each piece, and only a
few are in flight at once. A small directory is sent whole in COLLECTED or INSTALL, without an extra round
trip.

The sender is sealed between two views, so its directory does not change while it is sent.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.limits import ANSWER_BYTES
from ckpt_protocol.messages import Kind, Row
from ckptd.core.context import Context
from ckptd.core.directory.directory import Directory, fields_of
from ckptd.core.directory.entries import CheckpointEntry
from ckptd.core.directory.parse_directory import add_piece

PIECES_IN_FLIGHT: Final = 2
"""Pieces that may be unacknowledged: the receiver reads one while the next is on its way."""

OPENS_PER_ROW_MAX: Final = 1_000
"""The most open handles in one row: 30 KB."""

CHECKPOINT_BYTES: Final = 300
"""Approximate size of a checkpoint on the wire, without its name and its former limits."""

FORMER_BYTES: Final = 50
"""The size of its attributes before a resize, at most."""

SESSION_BYTES: Final = 40
OPEN_BYTES: Final = 30


def _row_bytes(entry: CheckpointEntry) -> int:
    return CHECKPOINT_BYTES + len(entry.name) + FORMER_BYTES * len(entry.former)


def size_of(directory: Directory) -> int:
    """Estimate how many bytes a directory takes when it is sent whole."""
    size = sum(_row_bytes(entry) for entry in directory.checkpoints.values())
    for session in directory.sessions.values():
        size += SESSION_BYTES + 2 * OPEN_BYTES * len(session.opens) + session.answers.bytes
    return size


def rows_of(directory: Directory, now_ns: int) -> Iterator[tuple[list[Any], int]]:
    """Yield a directory as rows, each with its approximate size. What a row refers to comes before it."""
    yield [Row.HEAD, directory.installed_epoch, directory.seq, list(directory.members.items())], SESSION_BYTES
    for entry in list(directory.checkpoints.values()):
        yield [Row.CHECKPOINT, *fields_of(entry, now_ns, with_opens=False)], _row_bytes(entry)
    for number, session in list(directory.sessions.items()):
        yield (
            [
                Row.SESSION,
                number,
                session.node_id,
                session.generation,
                session.answers.first_unanswered,
                session.death_seen,
            ],
            SESSION_BYTES,
        )
        opens = [[handle, *opened] for handle, opened in session.opens.items()]
        for first in range(0, len(opens), OPENS_PER_ROW_MAX):
            some = opens[first : first + OPENS_PER_ROW_MAX]
            yield [Row.OPENS, number, some], OPEN_BYTES * len(some)
        for request, answer in list(session.answers.by_request.items()):
            yield [Row.ANSWER, number, request, *answer], ANSWER_BYTES + len(answer[1])


def pieces_of(directory: Directory, now_ns: int, piece_bytes: int) -> Iterator[bytes]:
    """Yield the bodies of the DIRECTORY frames, in order."""
    rows: list[list[Any]] = []
    size = 0
    for row, row_bytes in rows_of(directory, now_ns):
        rows.append(row)
        size += row_bytes
        if size >= piece_bytes:
            yield pack_body(rows)
            rows, size = [], 0
    if rows:
        yield pack_body(rows)


class Arriving:
    """A directory of which `pieces` pieces have arrived."""

    __slots__ = ("directory", "epoch", "pieces")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.pieces = 0
        self.directory = Directory()

    def add_piece(self, body: bytes, now_ns: int) -> None:
        """Add the next piece. Raises: FrameError."""
        self.pieces += 1
        add_piece(self.directory, body, now_ns)


class Transfer:
    """A directory that is being sent. Once all pieces are acknowledged, `on_sent` receives their number."""

    __slots__ = ("acked", "ended", "epoch", "on_sent", "pieces", "sent")

    def __init__(self, epoch: int, pieces: Iterator[bytes], on_sent: Callable[[int], None]) -> None:
        self.epoch = epoch
        self.pieces = pieces
        self.on_sent = on_sent
        self.sent = 0
        self.acked = 0
        self.ended = False


class Transfers:
    """The directories that this node sends and receives, by the other node.

    A directory that has arrived whole is kept until a view is installed, even if the link breaks: the message
    that says that it is whole (INSTALL, COLLECTED) may have to be sent again.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.outgoing: dict[str, Transfer] = {}
        self.incoming: dict[str, Arriving] = {}

    def send(self, node_id: str, epoch: int, directory: Directory, on_sent: Callable[[int], None]) -> None:
        """Start (again) to send a directory for the view of this epoch."""
        piece_bytes = self.context.settings.directory_piece_bytes
        pieces = pieces_of(directory, self.context.now_ns, piece_bytes)
        transfer = self.outgoing[node_id] = Transfer(epoch, pieces, on_sent)
        self._send_pieces(node_id, transfer)

    def _send_pieces(self, node_id: str, transfer: Transfer) -> None:
        while not transfer.ended and transfer.sent - transfer.acked < PIECES_IN_FLIGHT:
            body = next(transfer.pieces, None)
            if body is None:
                transfer.ended = True
            else:
                transfer.sent += 1
                frame = encode_frame(Kind.DIRECTORY, transfer.sent, transfer.epoch, 0, body)
                self.context.send_peer(node_id, frame)

    def on_ack(self, node_id: str, frame: Frame) -> bool:
        """Handle the acknowledgement of a piece. Return True if it was new."""
        transfer = self.outgoing.get(node_id)
        if transfer is None or frame.b != transfer.epoch or not transfer.acked < frame.a <= transfer.sent:
            return False
        transfer.acked = frame.a
        self._send_pieces(node_id, transfer)
        if transfer.ended and transfer.acked == transfer.sent:
            del self.outgoing[node_id]
            transfer.on_sent(transfer.sent)
        return True

    def on_piece(self, node_id: str, frame: Frame) -> bool:
        """Handle a piece; the first one starts again. Return True if it was the next. Raises: FrameError."""
        if frame.a == 1:
            self.incoming[node_id] = Arriving(frame.b)
        arriving = self.incoming.get(node_id)
        if arriving is None or frame.b != arriving.epoch or frame.a != arriving.pieces + 1:
            return False
        arriving.add_piece(frame.body, self.context.now_ns)
        self.context.send_peer(node_id, encode_frame(Kind.DIRECTORY_ACK, frame.a, frame.b, 0))
        return True

    def finished(self, node_id: str, epoch: int, pieces: Any) -> Directory | None:
        """Return the directory that arrived in this many pieces; None if they have not all arrived."""
        arriving = self.incoming.get(node_id)
        if arriving is None or (arriving.epoch, arriving.pieces) != (epoch, pieces):
            return None
        arriving.directory.count()
        return arriving.directory

    def discard_older(self, epoch: int) -> None:
        """Discard the transfers for older epochs: a view of this epoch was decided."""
        self.outgoing = {n: each for n, each in self.outgoing.items() if each.epoch >= epoch}
        self.incoming = {n: each for n, each in self.incoming.items() if each.epoch >= epoch}

    def discard_all(self) -> None:
        """Discard all transfers: a view is installed."""
        self.outgoing, self.incoming = {}, {}
