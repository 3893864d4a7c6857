"""Requests on their way between nodes: forwarded to the node that can serve them, and answered back.

A request that was forwarded is sent again when the view, the directory or the link changes. That is safe,
since no node applies it twice.
"""

from collections.abc import Callable
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.bounds_check import array_length
from ckpt_protocol.errors import FrameError, RequestError
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.limits import PAGE_BYTES_MAX
from ckpt_protocol.messages import (
    FORWARD_REFUSED_ROUTE,
    FORWARD_ROUTE,
    Kind,
    answer_error,
)
from ckpt_protocol.parse_answers import decode_answer, parse_opened
from ckpt_protocol.parse_requests import (
    parse_iterate,
    parse_leader,
    parse_leader_track,
    parse_track,
)
from ckpt_protocol.parse_updates import parse_update
from ckptd.core.client_request import READ_ONLY_KINDS, WAITING_KINDS, Request
from ckptd.core.containment import contain_request
from ckptd.core.context import Context
from ckptd.core.directory.entries import SessionEntry
from ckptd.core.directory.replicator import DirectoryReplicator
from ckptd.core.hub import Hub
from ckptd.core.requests.reads import elements_of
from ckptd.core.requests.turn_budget import Turns
from ckptd.core.requests.waiting_requests import WaitingRequests
from ckptd.core.work_costs import ELEMENT_WORK, REFUSED_SHIFT

# Looking up a name of this module takes a fifth of the time that an attribute of a class takes.
_UPDATE: Final = Kind.UPDATE
_READ: Final = Kind.READ

WEIGHT_SHIFT = 15
"""A forwarded read counts as one more request for each 32 KiB that its answer may have."""

OPS_WEIGHT_SHIFT = 7
"""An update counts as one more request for each 128 operations.

So two of the largest can be under way at once.
"""

SMALL_UPDATE_BYTES = 1024
"""An update with a body up to this size counts as one request."""

DIRECTORY_WEIGHT = 8
"""A directory request counts as this many.

Directory requests are done one at a time, for all clients. More than 16 of one link under way would gain that
link nothing, and would cost the others a second.
"""


PARSERS_OF_WAITING: Final[dict[int, Callable[[bytes], object]]] = {
    Kind.TRACK: parse_track,
    Kind.LEADER: parse_leader,
    Kind.LEADER_TRACK: parse_leader_track,
}
"""The parsers of requests whose bodies are looked at again each time that something changes.

They are checked when they arrive at a node.
"""


def weight_of_update(body: bytes) -> int:
    """Return what an update counts for until it is answered: it takes its turn at every replica."""
    return 1 if len(body) <= SMALL_UPDATE_BYTES else 1 + (array_length(body) >> OPS_WEIGHT_SHIFT)


class Forwarding:
    """Sends requests to other nodes, and takes theirs."""

    def __init__(
        self,
        context: Context,
        hub: Hub,
        replicator: DirectoryReplicator,
        turns: Turns,
        waiting: WaitingRequests,
    ) -> None:
        self.context = context
        self.hub = hub
        self.replicator = replicator
        self.turns = turns
        self.waiting = waiting

    def forward(self, request: Request, node_id: str) -> None:
        """Forward a request to the node that can serve it.

        A request that another node forwarded to us is dropped: its client's node learns who can serve it, and
        sends it there. A duplicate that was kept here was once done, after it had been refused, when this
        node became active (seed 23895).
        """
        if type(request.origin) is str or not self.waiting.admit(request) or self._is_malformed(request):
            return
        if request.kind in WAITING_KINDS and not self._counts_as_tracker(request):
            return
        request.forwarded_to = node_id
        self.waiting.forwarded[request.session, request.number] = request
        if request.kind not in WAITING_KINDS:
            self.turns.add_unanswered(request, self._weight_of(request))
        self.resend(request)

    def _counts_as_tracker(self, request: Request) -> bool:
        """Return True if one more TRACK may wait for another node; otherwise answer it."""
        earlier = self.waiting.forwarded.pop((request.session, request.number), None)
        if earlier is not None:
            self.turns.remove_unanswered(earlier)
        excess = self.turns.add_tracker(request)
        if excess:
            self.hub.answer(request, answer_error(codes.TRY_AGAIN, excess))
        return not excess

    def _is_malformed(self, request: Request) -> bool:
        """Answer a request that no node can do, here at its client's node; return True if it was one.

        60 bodies that take long to refuse were once forwarded over one link to the active replica's node. The
        acknowledgements of the client's node were behind them on that link. They waited for 580 ms, and with
        them all clients' writes.
        """
        try:
            if request.kind == _UPDATE:
                self.context.work += ELEMENT_WORK * len(parse_update(request.body))
            elif request.kind == _READ:
                self.context.work += ELEMENT_WORK * len(elements_of(request))
            elif request.kind == Kind.ITERATE:
                parse_iterate(request.body)
            return False
        except RequestError as refusal:
            body = answer_error(refusal.code, refusal.text, refusal.index)
        except FrameError as error:
            body = answer_error(codes.INVALID_PARAM, str(error))
        except Exception as error:  # Parsing changes nothing.
            body = contain_request(self.context, request, error)
        self.context.work += len(request.body) >> REFUSED_SHIFT
        self.hub.answer(request, body)
        return True

    def _weight_of(self, request: Request) -> int:
        """Return what a forwarded request counts for until it is answered.

        That depends on the size that its answer may have.
        """
        if not request.creation_id:
            return DIRECTORY_WEIGHT
        if request.kind == Kind.ITERATE:
            return 1 + (PAGE_BYTES_MAX >> WEIGHT_SHIFT)
        if request.kind == _UPDATE:
            return weight_of_update(request.body)
        entry = self.replicator.directory.checkpoints.get(request.creation_id)
        if request.kind != Kind.READ or entry is None:
            return 1
        return 1 + (entry.attributes.section_bytes_cap >> WEIGHT_SHIFT)

    def resend(self, request: Request) -> None:
        request.sent_seq = self.replicator.directory.seq
        route = FORWARD_ROUTE.pack(
            request.kind, request.creation_id, request.first_unanswered, request.sent_seq
        )
        frame = encode_frame(
            Kind.FORWARD, request.number, self.context.epoch, request.session, route + request.body
        )
        self.context.send_peer(request.forwarded_to, frame)

    # -- from other nodes

    def on_forward(self, node_id: str, frame: Frame) -> None:
        """Take a request that another node forwards. Raises: FrameError."""
        if len(frame.body) < FORWARD_ROUTE.size:
            raise FrameError("a forwarded request is shorter than its header")
        kind, creation_id, first_unanswered, directory_seq = FORWARD_ROUTE.unpack_from(frame.body)
        body = frame.body[FORWARD_ROUTE.size :]
        if kind in PARSERS_OF_WAITING:
            try:
                PARSERS_OF_WAITING[kind](body)
            except RequestError as refusal:
                raise FrameError(refusal.text) from None
        request = Request(
            node_id, frame.c, frame.a, first_unanswered, kind, creation_id, body, self.context.now_ns
        )
        request.sent_seq = directory_seq
        if directory_seq > self.replicator.directory.seq:
            # The sender's directory is ahead of ours: it may know a session or checkpoint that we do not.
            self.waiting.park(request)
            return
        if not self.session_left(request):
            self.hub.route(request)

    def session_left(self, request: Request) -> bool:
        """Return True if the request's session has ended, or has left the node that the request came through.

        The client asks again where its session is now, and may have been told the outcome there. A duplicate
        that comes the old way, for example from a node that was paused, must have no effect any more.
        """
        session = self.replicator.directory.sessions.get(request.session)
        if request.kind == Kind.ATTACH:
            return False
        if session is None:
            if request.creation_id:
                self.refuse_handle(request, "this session has ended")
            return bool(request.creation_id)
        return self._has_left(request, session)

    def _has_left(self, request: Request, session: SessionEntry) -> bool:
        """Return True if a session has left the node that a request came through.

        If it has left that node and is back there since, this is True as well.
        """
        came_by = request.origin if type(request.origin) is str else self.context.node_id
        back = request.kind not in READ_ONLY_KINDS and 0 < request.sent_seq < session.migrated_seq
        return back or session.node_id != came_by

    def drop_if_session_left(self, request: Request) -> bool:
        """Forget a forwarded request whose session has left since, instead of sending it again.

        Return True if it was forgotten. A client was once refused elsewhere and came back, and the old
        duplicate was forwarded to the node that was active then. (A TRACK is not forgotten: its client may
        only have tried another node, and comes back to the link where the TRACK waits.)
        """
        if request.kind in READ_ONLY_KINDS:
            return False
        session = self.replicator.directory.sessions.get(request.session)
        if session is None or request.kind == Kind.ATTACH or not self._has_left(request, session):
            return False
        self.waiting.forwarded.pop((request.session, request.number), None)
        self.turns.remove_unanswered(request)
        return True

    def on_forward_answer(self, frame: Frame) -> None:
        """Take another node's answer to a forwarded request. Raises: FrameError.

        A client that uses a number twice gets the answer that the coordinator remembers for the first
        request. That is not the coordinator's fault, so the link to it stays up (seed 7128983).
        """
        request = self.waiting.forwarded.get((frame.c, frame.a))
        if request is None:
            return
        body = frame.body
        if request.kind in (Kind.OPEN, Kind.ACTIVE_SET):
            code, payload, *_ = decode_answer(body)
            if request.kind == Kind.OPEN and code == codes.OK and payload is None:
                body = answer_error(
                    codes.LIBRARY, f"the client used the number {request.number} for another request before"
                )
            elif request.kind == Kind.OPEN and code == codes.OK:
                parse_opened(payload)
        self.hub.answer(request, body)

    def on_forward_refused(self, node_id: str, frame: Frame) -> None:
        """Take another node's refusal of an update, if that node still speaks for the active replica.

        That an update was done is known wherever the role moves, so it is true no matter which node reports
        it. That it was not done is known only to the node that refused it: one that has become active since
        may do it (seed 7100408). Raises: FrameError.
        """
        if len(frame.body) < FORWARD_REFUSED_ROUTE.size:
            raise FrameError("a refused update is shorter than its header")
        (activation_seq,) = FORWARD_REFUSED_ROUTE.unpack_from(frame.body)
        body = frame.body[FORWARD_REFUSED_ROUTE.size :]
        decode_answer(body)
        request = self.waiting.forwarded.get((frame.c, frame.a))
        if request is None or request.forwarded_to != node_id or request.kind != _UPDATE:
            return
        entry = self.replicator.directory.checkpoints.get(request.creation_id)
        # A withdrawn request that went to no other node waited there: that node's directory lags behind.
        given_back = request.withdrawn and not request.outcome_uncertain
        if entry is None or entry.activation_seq == activation_seq or given_back:
            self.hub.answer(request, body)

    def refuse_handle(self, request: Request, why: str) -> None:
        """Answer that what the request's handle stands for is gone.

        For an update that may have been done BAD_HANDLE would say too much: the answer is TIMEOUT.
        """
        if request.in_doubt:
            text = f"{why}, and this update may have been carried out before"
            self.hub.answer(request, answer_error(codes.TIMEOUT, text))
        else:
            self.hub.answer(request, answer_error(codes.BAD_HANDLE, why))
