"""A session's planned move to another node while its current link serves: handshake, ATTACH on a second link.

Pure. `affinity` says when it pays. The current link is not touched before the other node has confirmed the
session, so that a move that fails costs no call its answer.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final

from ckpt_client.session.address import Address
from ckpt_client.session.attachment import members_of
from ckpt_client.session.call import MILLISECOND_NS
from ckpt_protocol import codes
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import FrameDecoder
from ckpt_protocol.handshake import ROLE_CLIENT, HandshakeRejected, Identity, Opener
from ckpt_protocol.messages import Kind
from ckpt_protocol.parse_answers import decode_answer

MOVE_LIMIT_NS: Final = 1_000 * MILLISECOND_NS
"""A node must take the session within this time, or the move fails."""

MOVE_QUIESCE_NS: Final = 100 * MILLISECOND_NS
"""How long new calls wait, at most, for those under way, so that the session can move between them."""


class MoveState(Enum):
    """How far a move has come."""

    OPENING = 0
    HANDSHAKING = 1
    CONNECTED = 2
    ATTACHING = 3
    DONE = 4
    FAILED = 5


class PlannedMove:
    """One move to another node, or to a stream.

    The driver

    1. connects to `address` and calls `open`;
    2. sends `outgoing` and calls `receive` while the move is `under_way`, for MOVE_LIMIT_NS at most;
    3. calls `fail` if the transport fails or the time is over;
    4. calls the session's `finish_move`.

    A move that is CONNECTED waits until the session calls `attach`. The argument `attach` returns the number
    and the frame of an ATTACH of the next generation.
    """

    def __init__(
        self,
        address: Address,
        node_id: str,
        identity: Identity,
        attach: Callable[[], tuple[int, bytes]],
        call_waits: bool = False,
    ) -> None:
        self.address = address
        self.node_id = node_id
        """The node that has to be there; "" for any."""

        self.call_waits = call_waits
        """A call waits for the move."""

        self.stage = MoveState.OPENING
        self.outgoing: list[bytes] = []
        self.why = ""
        self.reached_node = ""
        """The node that answered the handshake."""

        self.asked = False
        """ATTACH was sent, so the service may have attached the session to that node."""

        self.epoch = 0
        self.members: dict[str, list[str]] = {}
        self._identity = identity
        self._attach = attach
        self._number = 0
        self._decoder = FrameDecoder()
        self._opener = Opener(identity, ROLE_CLIENT, b"")

    @property
    def under_way(self) -> bool:
        """True while the move has neither succeeded nor failed."""
        return self.stage not in (MoveState.DONE, MoveState.FAILED)

    def open(self, nonce: bytes) -> None:
        """Begin the handshake: the transport is up. `nonce`: 16 random bytes."""
        self._opener = Opener(self._identity, ROLE_CLIENT, nonce)
        self.stage = MoveState.HANDSHAKING
        self.outgoing.append(self._opener.hello())

    def receive(self, data: bytes) -> None:
        """Take what came on the second link."""
        try:
            for frame in self._decoder.feed(data):
                if self.stage is MoveState.HANDSHAKING:
                    peer, proof = self._opener.receive(frame)
                    self._take_welcome(peer.node_id, proof)
                elif (
                    self.stage is MoveState.ATTACHING
                    and frame.kind == Kind.ANSWER
                    and frame.a == self._number
                ):
                    self._take_attached(frame.b, frame.body)
        except FrameError as error:
            self.fail(f"what answers there is not a ckptd ({error})")
        except HandshakeRejected as refused:
            self.fail(f"refused: {refused.text}")

    def fail(self, why: str) -> None:
        """Fail the move, unless it has ended: the session stays where it is."""
        if self.under_way:
            self.stage, self.why = MoveState.FAILED, why

    def _take_welcome(self, node_id: str, proof: bytes) -> None:
        self.reached_node = node_id
        if self.node_id and node_id != self.node_id:
            self.fail(f"node {node_id!r} answers there instead of node {self.node_id!r}")
            return
        if proof:
            self.outgoing.append(proof)
        self.stage = MoveState.CONNECTED

    def attach(self) -> None:
        """Send ATTACH, now that nothing is under way on the current link."""
        self._number, frame = self._attach()
        self.asked = True
        self.outgoing.append(frame)
        self.stage = MoveState.ATTACHING

    def _take_attached(self, epoch: int, body: bytes) -> None:
        code, payload, _, text = decode_answer(body)
        if code != codes.OK:
            self.fail(text or codes.code_name(code))
            return
        self.epoch, self.members = epoch, members_of(payload)
        self.stage = MoveState.DONE
