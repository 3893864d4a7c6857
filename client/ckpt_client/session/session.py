"""The client's session, without I/O: what a driver gives it and what it asks of the driver.

Pure: no socket, no clock, no randomness. A driver (`blocking_connection` for `Table`, `aio_connection` for
`AsyncTable`) opens the link that the session asks for, passes in the received bytes and the current time, and
sends what it finds in `outgoing`.

The work is split. `session_calls` and `link_and_fail_over` do what a lost link makes *necessary*: repeat
requests, try the next node, keep to deadlines. This module adds what is only *better*: move to the node whose
replica orders the session's updates, and switch from UDP to TCP when a message does not fit into a datagram.
"""

from typing import Final

from ckpt_client.session.address import Address
from ckpt_client.session.affinity import ActiveAffinity
from ckpt_client.session.attachment import SessionState, described_members
from ckpt_client.session.call import NEVER_NS, Call
from ckpt_client.session.node_silence import PING_AFTER_NS
from ckpt_client.session.pending_calls import WAITING
from ckpt_client.session.planned_move import MOVE_QUIESCE_NS, MoveState, PlannedMove
from ckpt_client.session.session_calls import SessionCalls
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import FrameDecoder
from ckpt_protocol.handshake import Identity
from ckpt_protocol.messages import Kind
from ckpt_protocol.parse_answers import decode_answer

_DESCRIBE_CLUSTER: Final = pack_body(["cluster"])


class Session(SessionCalls):
    """One session with the service.

    The driver's duties:

    * While `state` is DISCONNECTED and a link is needed, connect to `address`, not before `connect_ns`; then
      call `open_link` or `lose_link`.
    * Send `outgoing` and clear it; call `receive` with what comes.
    * Call `advance` when `wake_ns` has come.
    * Drop the transport when `state` has become DISCONNECTED or ENDED.
    * Take the calls that have ended from `completed`.
    * If there is a `move`, open a second link for it next to the current one, and call `finish_move`
      when it is no longer under way.

    If `follows`, the session goes to the node whose replica orders its updates (see `affinity`). If it
    `waits`, a call that needs the session waits, within its time-out, until a daemon listens somewhere.
    """

    def __init__(
        self,
        session_id: int,
        addresses: tuple[Address, ...],
        identity: Identity,
        follows: bool = False,
        waits: bool = True,
    ) -> None:
        super().__init__(session_id, addresses, identity)
        self.waits = waits
        self.move: PlannedMove | None = None
        self._follows = self._wanted_to_follow = follows
        self._affinity = ActiveAffinity()
        self._identity = identity
        self._describe_number = 0
        self._quiesce_until_ns = NEVER_NS
        self._no_stream_here = False

    def successor(self, session_id: int) -> "Session":
        """Return a new session that replaces this one, which has ended."""
        session = Session(session_id, (self.address,), self._identity, self._wanted_to_follow, self.waits)
        session.keeps_up = self.keeps_up
        session.succeed(self)
        return session

    def begin(self, kind: int, handle: int, body: bytes, now_ns: int, timeout_ns: int) -> Call:
        """Make a request.

        The call is `done` when it is answered or has failed, after `timeout_ns` at the latest.
        """
        if kind == Kind.ACTIVE_SET:
            # This makes the *local* replica the active one, so from now on it matters at which node we are.
            self._follows = False
            if self.move is not None and not self.move.call_waits:
                self.move.fail("the session stays at the node where it sets the active replica")
        return super().begin(kind, handle, body, now_ns, timeout_ns)

    def goodbye(self) -> list[bytes]:
        """Return what the driver of an attached session sends last if it waits for no answer.

        The driver sends it at once, without a PING to a node that was silent for long and may have gone.
        """
        before = [] if self._datagram else self.outgoing
        return [*before, self._own_request(Kind.DETACH, pack_body([]))[1]]

    def end(self, why: str) -> None:
        """End the session, for the service or for the program: fail every call that still waits."""
        self.move = None
        super().end(why)

    def advance_move(self, now_ns: int) -> None:
        """Let a move whose handshake is done continue, between calls.

        The driver calls this after every step while there is a `move`. New calls wait until those under way
        are answered. If a call were sent on both links, its answer might take the one that is dropped.
        """
        move = self.move
        if move is None or move.stage is not MoveState.CONNECTED or self.state is not SessionState.ATTACHED:
            return
        if self.attached:
            self.attached = False
            self._quiesce_until_ns = now_ns + MOVE_QUIESCE_NS
            self.wake_ns = min(self.wake_ns, self._quiesce_until_ns)
        if not any(call.in_flight and call.kind not in WAITING for call in self.calls.values()):
            move.attach()
        elif now_ns >= self._quiesce_until_ns:
            move.fail("calls are always in flight")

    def finish_move(self, move: PlannedMove, now_ns: int) -> bool:
        """Finish a move that is no longer under way. Return True if its transport now carries the link.

        The driver can then drop the old transport: calls that it left unanswered are sent again, with the
        same numbers.
        """
        if self.move is not move:
            return False
        self.move = None
        if move.reached_node:
            self._endpoints.remember(move.address, move.reached_node)
        if move.stage is MoveState.DONE:
            self._take_over(move, now_ns)
            return True
        if move.stage is MoveState.FAILED and self._quiesce_until_ns <= now_ns and not move.asked:
            self._affinity.rest(now_ns)
        else:
            self._affinity.cool_down(move.address, now_ns)
        waiting = [call for call in self.calls.values() if call.awaits_stream]
        if waiting and self._other_streams(now_ns):
            # The node itself may be lost, not only its stream.
            self._drop_link(now_ns, f"{move.address}: {move.why}")
            return False
        for call in waiting:
            super()._on_too_big_for_datagram(call, f"{call.text} ({move.address}: {move.why})", now_ns)
        if move.asked:
            # The service may have attached the session to the other node: attach it to this one again.
            self._attach(now_ns)
        else:
            self._resume(now_ns)
        return False

    def _take_over(self, move: PlannedMove, now_ns: int) -> None:
        self._datagram = False
        self._decoder = FrameDecoder()
        self._silence.heard(now_ns)
        self.outgoing.clear()
        for call in self.calls.values():
            call.lose_link()
        left = self.node_id
        self._attachment.node_id = move.reached_node
        self._endpoints.switch_to(move.address)
        why = (
            "a message did not fit into a datagram"
            if move.call_waits
            else "to use the node of its active replica"
        )
        self._note_move(f"{left} ({why})")
        self._left = ""
        if not move.call_waits:
            self._affinity.rest(now_ns)
        self.wake_ns = min(self.wake_ns, now_ns + PING_AFTER_NS)
        self._attached(move.epoch, move.members, now_ns)

    @property
    def _holds_calls(self) -> bool:  # type: ignore[override]
        return self.move is not None and self.move.stage in (
            MoveState.CONNECTED,
            MoveState.ATTACHING,
        )

    def _next_attach(self) -> tuple[int, bytes]:
        self._number += 1
        return self._number, self._attachment.next_attach(self._number)

    # -- events on the link

    def _attached(self, epoch: int, members: dict[str, list[str]], now_ns: int) -> None:
        self._affinity.learn(epoch, tuple(members))
        self._describe_number = 0
        super()._attached(epoch, members, now_ns)

    def _drop_link(self, now_ns: int, why: str, final_code: int = 0, not_yet: bool = False) -> None:
        if self.state is SessionState.ATTACHED:
            self._affinity.cool_down(self.node_id, now_ns)
        self.move = None
        self._no_stream_here = False
        super()._drop_link(now_ns, why, final_code, not_yet)

    def _next_wake_ns(self) -> int:
        peer = self.move is not None and self.move.stage is MoveState.CONNECTED
        return min(super()._next_wake_ns(), self._quiesce_until_ns if peer else NEVER_NS)

    def _take_unasked(self, number: int, body: bytes) -> None:
        if number != self._describe_number:
            super()._take_unasked(number, body)
            return
        self._describe_number = 0
        epoch, members = described_members(decode_answer(body)[1])
        self._affinity.learn(epoch, tuple(members))
        if members:
            self._endpoints.update_members(members)

    def _other_streams(self, now_ns: int) -> bool:
        """Return True if there is an address at which a stream has not just failed."""
        streams = [
            Address("tcp", place.host, place.port) for place in self._endpoints.addresses if place.port
        ]
        return any(not self._affinity.avoids(stream, now_ns) for stream in streams)

    def _watch_link(self, now_ns: int) -> None:
        if self._no_stream_here:
            self._drop_link(
                now_ns, "a message does not fit into a datagram, and that node cannot be reached over TCP"
            )
        else:
            super()._watch_link(now_ns)

    def _note_active(self, epoch: int, active: int, now_ns: int) -> None:
        following = self._affinity
        if not following.note(epoch, active):
            return
        if self._datagram or not self.attached:
            following.forget()
        elif following.knows_members:
            chosen = following.choose(self._endpoints, self.node_id, now_ns)
            if chosen is not None and self.move is None:
                node_id, address = chosen
                self.move = PlannedMove(address, node_id, self._identity, self._next_attach)
        elif not self._describe_number:
            self._describe_number, frame = self._own_request(Kind.DESCRIBE, _DESCRIBE_CLUSTER)
            self.outgoing.append(frame)

    def _on_too_big_for_datagram(self, call: Call, text: str, now_ns: int) -> None:
        """Continue over TCP, at the same host and port, if anything listens there."""
        address = Address("tcp", self.address.host, self.address.port)
        avoided = self._affinity.avoids(address, now_ns)
        if self.state is not SessionState.ATTACHED or (avoided and not self._other_streams(now_ns)):
            super()._on_too_big_for_datagram(call, text, now_ns)
            return
        call.awaits_stream, call.text, call.retry_ns = True, text, NEVER_NS
        if avoided:
            self._no_stream_here, self.wake_ns = True, now_ns
        elif self.move is None:
            self.move = PlannedMove(address, "", self._identity, self._next_attach, call_waits=True)
