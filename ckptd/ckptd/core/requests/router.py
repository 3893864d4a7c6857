"""Routes every request: to this node's replica, to the active replica's node, or to the coordinator.

A request that cannot be served now is held until something changes. One that was forwarded is sent again when
the view, the directory or the link changes; this is safe, since no node applies it twice. Each request is
answered once.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.answers import decode_answer, parse_opened
from ckpt_protocol.codec import array_length, pack_body
from ckpt_protocol.framing import Frame, FrameError, encode_frame
from ckpt_protocol.limits import PAGE_BYTES_MAX
from ckpt_protocol.messages import (
    FORWARD_REFUSED_ROUTE,
    FORWARD_ROUTE,
    Kind,
    answer_error,
    answer_ok,
    is_ok,
)
from ckpt_protocol.refusal import RequestError
from ckpt_protocol.requests import (
    Elements,
    Iterate,
    parse_iterate,
    parse_nothing,
    parse_of_handle,
    parse_open,
    parse_read,
    parse_track,
)
from ckpt_protocol.updates import parse_update
from ckptd.core.client_request import CHANGE_NOTHING, Request
from ckptd.core.containment import contain_request, refuse_repeat
from ckptd.core.context import Context
from ckptd.core.directory.directory import CheckpointEntry, SessionEntry
from ckptd.core.directory.replicator import DirectoryReplicator
from ckptd.core.directory.validation import why_open_waits
from ckptd.core.hub import Hub
from ckptd.core.replication.local_replicas import LocalReplicas
from ckptd.core.replication.replica import Replica
from ckptd.core.requests.change_feed import Tracks
from ckptd.core.requests.turns import Turns
from ckptd.core.requests.withdrawals import Withdrawals
from ckptd.core.settings import SECOND_NS
from ckptd.core.stops import Phase
from ckptd.core.view import View
from ckptd.core.work_units import ELEMENT_WORK, REFUSED_SHIFT

# Looking up a name of this module takes a fifth of the time that an attribute of a class takes.
_UPDATE: Final = Kind.UPDATE
_READ: Final = Kind.READ
_ANSWER: Final = Kind.ANSWER

AGAIN_AT_ONCE_MAX = 16
"""Up to this many held requests are tried again in the event that lets them continue.

If there are more, they wait for their turns.
"""

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

LOOK_EVERY_NS = 10_000
"""How long a node waits, for each request that waits, before it looks at all of them again.

Looking at one takes about a tenth of that.
"""

FORGET_NS = 60 * SECOND_NS
"""A request is forgotten after this time: no client can have waited for it so long."""

READS = (Kind.READ, Kind.ITERATE, Kind.STATUS, Kind.TRACK)
Key = tuple[int, int]


def _elements(request: Request) -> Elements:
    """Return what a READ asks for. It is parsed once. Raises: FrameError, RequestError."""
    if request.elements is None:
        request.elements = parse_read(request.body)
    return request.elements


def _weight_of_update(body: bytes) -> int:
    """Return what an update counts for until it is answered: it takes its turn at every replica."""
    return 1 if len(body) <= SMALL_UPDATE_BYTES else 1 + (array_length(body) >> OPS_WEIGHT_SHIFT)


class RequestRouter:
    """All requests that are on their way at this node."""

    def __init__(
        self,
        context: Context,
        hub: Hub,
        replicator: DirectoryReplicator,
        replicas: LocalReplicas,
        turns: Turns,
    ) -> None:
        self.context = context
        self.hub = hub
        self.replicator = replicator
        self.replicas = replicas
        self.turns = turns
        self.view: View | None = None
        self.ordinals: dict[str | None, int] = {}
        """By node, its position among the members, from 1."""
        self.links: dict[int, int] = {}
        self.parked: dict[Key, Request] = {}
        """Requests that wait here."""
        self.forwarded: dict[Key, Request] = {}
        """Requests that were forwarded and wait for another node."""
        self.commit_queries: dict[int, Request] = {}
        """By token, reads that wait until the active replica says what is committed."""
        self.queries_until_ready: list[tuple[str, Frame]] = []
        """QUERYs of other nodes that wait until this node's active replica serves."""
        self.deferred: dict[Key, tuple[Request, bytes]] = {}
        """Requests with their answers, which wait for a replica."""
        self.token = 0
        self.draining = False
        """This node is leaving: it holds every request."""
        self.overloaded = False
        """So much waits that a client's next request is answered TRY_AGAIN; nothing was done for it."""
        self.waiting_bytes = 0
        """How much was waiting when this node last looked."""
        self.recheck_ns = 0
        """When this node looks at the waiting requests again."""
        self.tracks = Tracks(context, hub, turns)
        self.withdrawals = Withdrawals(self, hub)

    # -- dispatching

    def route(self, request: Request) -> None:
        """Send a request where it belongs, or hold it."""
        context = self.context
        context.cause = request
        if context.frozen or context.now_ns >= context.lease_until_ns or self.draining:
            self.park(request)
            return
        creation_id = request.creation_id
        if context.stops.requests and self._stopped_here(request):
            return
        if not creation_id:
            self._route_to_coordinator(request)
            return
        if creation_id in context.stops.closed:
            self._put_off(request)
            return
        entry = self.replicator.directory.checkpoints.get(creation_id)
        if entry is None:
            self._refuse_handle(request, "the checkpoint is gone, with every replica of it")
            return
        me = context.node_id
        if request.kind == _UPDATE and entry.active == me:
            replica = self.replicas.by_id.get(creation_id)
            active = replica.active if replica is not None else None
            if type(request.origin) is str and request.sent_seq < entry.activation_seq:
                return  # Its node sent it to the previous active replica, and will send it here again.
            if active is not None and active.ready:
                if active.commit_set and active.replica.sync:
                    self.turns.add_unanswered(request, _weight_of_update(request.body))
                active.submit(request)
            else:
                self.park(request)
        elif entry.attributes.sync and request.kind in READS and entry.replicas.get(me):
            self._read_locally(request, entry, self.replicas.by_id.get(creation_id))
        elif entry.active is None:
            self._route_without_active(request, entry)
        elif entry.active == me:
            self._serve_as_active(request, entry, self.replicas.by_id.get(creation_id))
        else:
            self._forward(request, entry.active)

    def _refuse_handle(self, request: Request, why: str) -> None:
        """Answer that what the request's handle stands for is gone.

        For an update that may have been done BAD_HANDLE would say too much: the answer is TIMEOUT.
        """
        if request.in_doubt:
            text = f"{why}, and this update may have been done before"
            self.answer(request, answer_error(codes.TIMEOUT, text))
        else:
            self.answer(request, answer_error(codes.BAD_HANDLE, why))

    def _stopped_here(self, request: Request) -> bool:
        """Refuse a request that has stopped a node, if this node can decide that; return True if it did.

        It can decide it for a read that stopped any node, and for a request that stopped its client's node
        while that passed it on. In all other cases only the active replica, or the coordinator, knows if the
        request was done.
        """
        stop = self.context.stops.requests.get((request.session, request.number))
        decided_here = request.creation_id and request.kind != Kind.UPDATE
        if stop is None or not (decided_here or stop.phase == Phase.PASS):
            return False
        self.answer(request, refuse_repeat(self.context, stop))
        return True

    def _route_to_coordinator(self, request: Request) -> None:
        if request.put_off and self.why_open_waits_here(request):
            self.park(request)
        elif self.replicator.is_coordinator:
            # One link with 60,000 OPENs under way once blocked the directory for all others for a minute.
            self.turns.add_unanswered(request, DIRECTORY_WEIGHT)
            self.replicator.submit(request)
        elif self.view is not None:
            self._forward(request, self.view.coordinator)

    def why_open_waits_here(self, request: Request) -> str:
        """Return why an OPEN that was put off still has to wait, as its client's node sees it; "" if not."""
        entry = self.replicator.directory.find(parse_open(request.body).name)
        me = self.context.node_id
        if entry is None or not (entry.last_in_sync or me in entry.replicas):
            return ""  # The coordinator decides, or adds a replica.
        if entry.creation_id in self.replicas.deferred_resyncs:
            return "there is no memory for a replica here"
        return why_open_waits(entry, me)

    def _route_without_active(self, request: Request, entry: CheckpointEntry) -> None:
        replica = self.replicas.by_id.get(entry.creation_id)
        waits = entry.last_in_sync or entry.attributes.sync or not entry.attributes.collocated
        if request.kind == Kind.UPDATE and replica is not None and not waits:
            # It may have been applied before the active replica was lost, and have reached this replica.
            # (Not if the checkpoint waits for holders. Then the replica here is of the past, and what it
            # alone has staged is discarded.)
            answers = replica.log.answers.get(request.session)
            known = answers.by_request.get(request.number) if answers is not None else None
            if known is not None and known[1]:
                self.answer(request, known[1])
                return
        if request.kind == Kind.TRACK and not waits and parse_track(request.body).after is not None:
            self.tracks.wait(request)
        elif waits:
            self.park(request)
        elif request.in_doubt:
            text = "the active replica was lost, perhaps with this update"
            self.answer(request, answer_error(codes.TIMEOUT, text))
        else:
            text = "the checkpoint has no active replica: set one"
            self.answer(request, answer_error(codes.NOT_EXIST, text))

    def _serve_as_active(self, request: Request, entry: CheckpointEntry, replica: Replica | None) -> None:
        active = replica.active if replica is not None else None
        if replica is None or active is None or not active.ready:
            self.park(request)
        elif request.kind == Kind.SYNCHRONIZE:
            active.synchronize(request)
        elif request.kind in READS:
            self._serve_read(request, entry, replica)
        else:
            self.answer(
                request, answer_error(codes.NOT_SUPPORTED, f"requests of kind {request.kind} are unknown")
            )

    def _read_locally(self, request: Request, entry: CheckpointEntry, replica: Replica | None) -> None:
        """Read the local replica of a sync checkpoint.

        If a pending update touches what is asked for, ask the active replica first, which knows what is
        committed.
        """
        if replica is None or replica.dropped or not replica.complete:
            self.park(request)
            return
        active = replica.active
        if active is not None:
            if active.ready:
                self._serve_read(request, entry, replica)
            else:
                self.park(request)
            return
        if replica.log.pending and self._touches_pending(request, replica) and entry.active is not None:
            self.token += 1
            self.turns.add_unanswered(request, 1)
            self.commit_queries[self.token] = request
            frame = encode_frame(Kind.QUERY, replica.creation_id, self.context.epoch, self.token)
            self.context.send_peer(entry.active, frame)
            return
        self._serve_read(request, entry, replica)

    def _touches_pending(self, request: Request, replica: Replica) -> bool:
        if request.kind == Kind.TRACK:  # A first one does; later ones report only committed changes.
            return parse_track(request.body).after is None
        if request.kind != Kind.READ:
            return True
        try:
            return replica.pending_touches([element[0] for element in _elements(request)])
        except (FrameError, RequestError):
            return False  # Its answer will say what is wrong.

    def _serve_read(self, request: Request, entry: CheckpointEntry, replica: Replica) -> None:
        if request.kind == Kind.TRACK:
            self.tracks.serve(request, replica)
            return
        try:
            if request.kind == _READ:
                body = replica.read(_elements(request))
            elif request.kind == Kind.ITERATE:
                page = replica.iterate(parse_iterate(request.body))
                if isinstance(page, Iterate):
                    request.body = pack_body(list(page))  # Do the rest after others have had their turn.
                    self.turns.put_back([request])
                    return
                body = page
            else:
                parse_nothing(request.kind, request.body)
                body = self._status(entry, replica)
        except RequestError as refusal:
            self.context.work += len(request.body) >> REFUSED_SHIFT
            body = answer_error(refusal.code, refusal.text, refusal.index)
        except FrameError as error:
            self.context.work += len(request.body) >> REFUSED_SHIFT
            body = answer_error(codes.INVALID_PARAM, str(error))
        except Exception as error:  # A read changes nothing.
            body = contain_request(self.context, request, error)
        self.answer(request, body)

    def _status(self, entry: CheckpointEntry, replica: Replica) -> bytes:
        count, content_bytes = replica.count_and_bytes()
        attributes = entry.attributes.fields()
        attributes[2] = entry.retention_ns
        replicas = [[node_id, in_sync] for node_id, in_sync in sorted(entry.replicas.items())]
        return answer_ok(
            [attributes, count, content_bytes, entry.active, replicas, len(entry.opens), entry.unlinked]
        )

    def _admit(self, request: Request) -> bool:
        """Return True if one more request may wait; otherwise answer it.

        A request that may have been done, or that another node forwarded, must wait in any case.
        """
        waiting = len(self.parked) + len(self.forwarded) + len(self.commit_queries)
        if not self.overloaded and waiting < self.context.settings.requests_waiting_max:
            return True
        if request.in_doubt or type(request.origin) is str:
            return True
        # (Not by `answer`: that would hold an OPEN which is to try again, and there is no space for it.)
        limit = "requests_waiting_bytes_max" if self.overloaded else "requests_waiting_max"
        text = f"too many requests wait at this node ({limit})"
        self.refuse_waiting(request, answer_error(codes.TRY_AGAIN, text))
        return False

    def _put_off(self, request: Request) -> None:
        """Answer at once, if nothing was done, a request whose checkpoint is closed.

        It makes no sense to hold it: a closed checkpoint does not open again on its own.
        """
        if request.in_doubt or type(request.origin) is str:
            self.park(request)
        else:
            self.answer(request, answer_error(codes.TRY_AGAIN, self.withdrawals.why_parked(request)))

    def park(self, request: Request) -> None:
        if self._admit(request):
            # 90,000 held requests of one link took 120 ms to look at, at each heartbeat.
            self.turns.add_unanswered(request, 1)
            key = request.session, request.number
            earlier = self.parked.get(key)
            if earlier is not None and earlier is not request:
                self.turns.take_answered(earlier)
            self.parked[key] = request

    def _forward(self, request: Request, node_id: str) -> None:
        """Forward a request to the node that can serve it.

        A request that another node forwarded to us is dropped: its client's node learns who can serve it, and
        sends it there. A duplicate that was kept here was once done, after it had been refused, when this
        node became active (seed 23895).
        """
        if type(request.origin) is str or not self._admit(request) or self._is_malformed(request):
            return
        if request.kind == Kind.TRACK and not self._counts_as_tracker(request):
            return
        request.to = node_id
        self.forwarded[request.session, request.number] = request
        if request.kind != Kind.TRACK:
            self.turns.add_unanswered(request, self._weight_of(request))
        self._send_forward(request)

    def _counts_as_tracker(self, request: Request) -> bool:
        """Return True if one more TRACK may wait for another node; otherwise answer it."""
        earlier = self.forwarded.pop((request.session, request.number), None)
        if earlier is not None:
            self.turns.take_answered(earlier)
        excess = self.turns.add_tracker(request)
        if excess:
            self.answer(request, answer_error(codes.TRY_AGAIN, excess))
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
                self.context.work += ELEMENT_WORK * len(_elements(request))
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
        self.answer(request, body)
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
            return _weight_of_update(request.body)
        entry = self.replicator.directory.checkpoints.get(request.creation_id)
        if request.kind != Kind.READ or entry is None:
            return 1
        return 1 + (entry.attributes.section_bytes_cap >> WEIGHT_SHIFT)

    def _send_forward(self, request: Request) -> None:
        request.sent_seq = self.replicator.directory.seq
        route = FORWARD_ROUTE.pack(request.kind, request.creation_id, request.lowest, request.sent_seq)
        frame = encode_frame(
            Kind.FORWARD, request.number, self.context.epoch, request.session, route + request.body
        )
        self.context.send_peer(request.to, frame)

    # -- from other nodes

    def on_forward(self, node_id: str, frame: Frame) -> None:
        """Take a request that another node forwards. Raises: FrameError."""
        if len(frame.body) < FORWARD_ROUTE.size:
            raise FrameError("a forwarded request shorter than its route")
        kind, creation_id, lowest, directory_seq = FORWARD_ROUTE.unpack_from(frame.body)
        body = frame.body[FORWARD_ROUTE.size :]
        if kind == Kind.TRACK:
            try:
                parse_track(body)
            except RequestError as refusal:
                raise FrameError(refusal.text) from None
        request = Request(node_id, frame.c, frame.a, lowest, kind, creation_id, body, self.context.now_ns)
        request.sent_seq = directory_seq
        if directory_seq > self.replicator.directory.seq:
            # The sender's directory is ahead of ours: it may know a session or checkpoint that we do not.
            self.park(request)
            return
        if not self._session_left(request):
            self.route(request)

    def _session_left(self, request: Request) -> bool:
        """Return True if the request's session has ended, or has left the node that the request came through.

        The client asks again where its session is now, and may have been told the outcome there. A duplicate
        that comes the old way, for example from a node that was paused, must have no effect any more.
        """
        session = self.replicator.directory.sessions.get(request.session)
        if request.kind == Kind.ATTACH:
            return False
        if session is None:
            if request.creation_id:
                self._refuse_handle(request, "this session has ended")
            return bool(request.creation_id)
        return self._has_left(request, session)

    def _has_left(self, request: Request, session: SessionEntry) -> bool:
        """Return True if a session has left the node that a request came through.

        If it has left that node and is back there since, this is True as well.
        """
        came_by = request.origin if type(request.origin) is str else self.context.node_id
        back = request.kind not in CHANGE_NOTHING and 0 < request.sent_seq < session.moved_seq
        return back or session.node_id != came_by

    def _forget_if_left(self, request: Request) -> bool:
        """Forget a forwarded request whose session has left since, instead of sending it again.

        Return True if it was forgotten. A client was once refused elsewhere and came back, and the old
        duplicate was forwarded to the node that was active then. (A TRACK is not forgotten: its client may
        only have tried another node, and comes back to the link where the TRACK waits.)
        """
        if request.kind in CHANGE_NOTHING:
            return False
        session = self.replicator.directory.sessions.get(request.session)
        if session is None or request.kind == Kind.ATTACH or not self._has_left(request, session):
            return False
        self.forwarded.pop((request.session, request.number), None)
        self.turns.take_answered(request)
        return True

    def on_forward_answer(self, frame: Frame) -> None:
        """Take another node's answer to a forwarded request. Raises: FrameError.

        A client that uses a number twice gets the answer that the coordinator remembers for the first
        request. That is not the coordinator's fault, so the link to it stays up (seed 7128983).
        """
        request = self.forwarded.get((frame.c, frame.a))
        if request is None:
            return
        body = frame.body
        if request.kind in (Kind.OPEN, Kind.ACTIVE_SET):
            code, payload, *_ = decode_answer(body)
            if request.kind == Kind.OPEN and code == codes.OK and payload is None:
                body = answer_error(codes.LIBRARY, f"request {request.number} was another one before")
            elif request.kind == Kind.OPEN and code == codes.OK:
                parse_opened(payload)
        self.answer(request, body)

    def on_forward_refused(self, node_id: str, frame: Frame) -> None:
        """Take another node's refusal of an update, if that node still speaks for the active replica.

        That an update was done is known wherever the role moves, so it is true no matter which node reports
        it. That it was not done is known only to the node that refused it: one that has become active since
        may do it (seed 7100408). Raises: FrameError.
        """
        if len(frame.body) < FORWARD_REFUSED_ROUTE.size:
            raise FrameError("a refused update shorter than its route")
        (term,) = FORWARD_REFUSED_ROUTE.unpack_from(frame.body)
        body = frame.body[FORWARD_REFUSED_ROUTE.size :]
        decode_answer(body)
        request = self.forwarded.get((frame.c, frame.a))
        if request is None or request.to != node_id or request.kind != _UPDATE:
            return
        entry = self.replicator.directory.checkpoints.get(request.creation_id)
        # A withdrawn request that went to no other node waited there: that node's directory lags behind.
        given_back = request.withdrawn and not request.maybe_done
        if entry is None or entry.activation_seq == term or given_back:
            self.answer(request, body)

    def on_query(self, node_id: str, frame: Frame) -> None:
        """Tell a replica what is committed now, so that it can answer a reader."""
        replica = self.replicas.by_id.get(frame.a)
        if replica is None or replica.active is None:
            return
        if not replica.active.ready or not self.context.serving():
            self.queries_until_ready.append((node_id, frame))
            return
        epoch, committed_seq = self.context.epoch, replica.log.committed_seq
        self.context.send_peer(
            node_id,
            encode_frame(Kind.COMMIT, frame.a, epoch, committed_seq)
            + encode_frame(Kind.QUERIED, frame.a, epoch, frame.c),
        )

    def on_queried(self, frame: Frame) -> None:
        request = self.commit_queries.pop(frame.c, None)
        entry = self.replicator.directory.checkpoints.get(frame.a)
        replica = self.replicas.by_id.get(frame.a)
        if request is None:
            return
        if entry is None or replica is None or replica.dropped or not self.context.serving():
            self.route(request)
        else:
            self._serve_read(request, entry, replica)

    # -- answering

    def answer(self, request: Request, body: bytes) -> None:
        """Give a request its one answer, unless the answer has to wait for a replica."""
        if request.weight:
            self.turns.take_answered(request)
        if request.to:
            self.forwarded.pop((request.session, request.number), None)
        if type(request.origin) is str:
            kind = Kind.FORWARD_ANSWER
            if request.kind == _UPDATE and not is_ok(body):
                entry = self.replicator.directory.checkpoints.get(request.creation_id)
                kind = Kind.FORWARD_REFUSED
                body = FORWARD_REFUSED_ROUTE.pack(entry.activation_seq if entry is not None else 0) + body
            frame = encode_frame(kind, request.number, self.context.epoch, request.session, body)
            self.context.send_peer(request.origin, frame)
            return
        if not request.creation_id and request.kind in (Kind.OPEN, Kind.ACTIVE_SET, Kind.ATTACH):
            if request.kind == Kind.ATTACH:
                body = self.hub.on_attach_answered(request, body)
            elif request.kind == Kind.OPEN:
                if self._puts_off(request, body):
                    return
                body = self._of_what_is_there(body)
            if request.kind != Kind.ATTACH and self._awaits_local_replica(request, body):
                self.turns.add_unanswered(request, 1)
                self.deferred[request.session, request.number] = (request, body)
                return
        self._tell(request, body)

    def refuse_waiting(self, request: Request, body: bytes) -> None:
        """Answer a request that was taken back while it waited."""
        self.turns.take_answered(request)
        if isinstance(request.origin, int):
            if request.kind == Kind.ATTACH:
                body = self.hub.on_attach_answered(request, body)
            self._tell(request, body)
        else:
            self.answer(request, body)

    def _tell(self, request: Request, body: bytes) -> None:
        """Send an answer to a client of this node."""
        ordinal = 0
        if request.creation_id:
            entry = self.replicator.directory.checkpoints.get(request.creation_id)
            ordinal = self.ordinals.get(entry.active, 0) if entry is not None else 0
        assert isinstance(request.origin, int)
        self.context.send_client(
            request.origin, encode_frame(_ANSWER, request.number, self.context.epoch, ordinal, body)
        )

    def _puts_off(self, request: Request, body: bytes) -> bool:
        """Hold an OPEN that the coordinator had to put off until it can be done; return True if held."""
        if decode_answer(body)[0] == codes.TRY_AGAIN:
            # The coordinator knows every duplicate of it: none was done, and no earlier one will be.
            request.maybe_done, request.put_off, request.to = False, True, ""
            if not request.withdrawn and self.why_open_waits_here(request):
                self.park(request)
                return True
        return False

    def _of_what_is_there(self, body: bytes) -> bytes:
        """Return an OPEN's answer, or a refusal if the checkpoint was lost meanwhile.

        An OPEN that was ordered before a view change is finished after it, perhaps in a view without the last
        node that had a replica (seed 70027).
        """
        code, payload, *_ = decode_answer(body)
        directory = self.replicator.directory
        if code != codes.OK or type(payload) is not list:
            return body
        if payload[1] in directory.checkpoints or directory.may_still_be_created(payload[1]):
            return body
        text = "every replica of the checkpoint was lost while it was opened"
        return answer_error(codes.NOT_EXIST, text)

    def _awaits_local_replica(self, request: Request, body: bytes) -> bool:
        """Return True if an answer has to wait for a replica.

        ActiveReplicaSet ends when this node's replica serves (SAF 3.1.7.1). An OPEN ends when an in-sync
        replica is there.
        """
        code, payload, *_ = decode_answer(body)
        if code != codes.OK:
            return False
        if request.kind == Kind.OPEN:
            found = self.replicator.directory.checkpoints.get(payload[1]) if type(payload) is list else None
            return found is not None and bool(found.last_in_sync) and not found.in_sync
        session = self.replicator.directory.sessions.get(request.session)
        handle = parse_of_handle(request.kind, request.body).handle
        opened = session.opens.get(handle) if session is not None else None
        entry = self.replicator.directory.checkpoints.get(opened[0]) if opened is not None else None
        if entry is None:
            return False
        replica = self.replicas.by_id.get(entry.creation_id)
        ready = replica is not None and replica.active is not None and replica.active.ready
        return entry.active == self.context.node_id and not ready

    # -- when something changes

    def retry_parked(self, unanswered: Iterable[Request] = ()) -> None:
        """Try again what is held, and requests whose replica lost its role: something changed."""
        for request in unanswered:
            request.maybe_done = True
            if isinstance(request.origin, int):
                self.park(request)
        if self.deferred:
            for key, (request, body) in list(self.deferred.items()):
                if not self._awaits_local_replica(request, body):
                    del self.deferred[key]
                    self.answer(request, body)
        if self.parked and self.context.serving() and not self.draining:
            held, self.parked = self.parked, {}
            for request in held.values():
                self.turns.take_answered(request)  # Else they keep the lanes full that they continue in.
            going = [request for request in held.values() if not self._session_left(request)]
            self.retry(going)
        if self.queries_until_ready and self.context.serving():
            early_queries, self.queries_until_ready = self.queries_until_ready, []
            for node_id, frame in early_queries:
                self.on_query(node_id, frame)

    def on_stops(self, creation_ids: list[int]) -> None:
        """Look again at what waits elsewhere for these checkpoints: they may be closed now, or open again."""
        for key, request in list(self.forwarded.items()):
            if request.creation_id in creation_ids and not self._forget_if_left(request):
                del self.forwarded[key]
                request.to = ""
                request.maybe_done = True
                self.route(request)
        self.on_directory_changed(creation_ids)
        self.retry_parked()

    def retry(self, requests: list[Request]) -> None:
        """Try requests again that have waited: at once if they are few, otherwise in their turns."""
        if len(requests) > AGAIN_AT_ONCE_MAX:
            self.turns.put_back(requests)
        else:
            for request in requests:
                self.route(request)

    def on_directory_changed(self, creation_ids: list[int]) -> None:
        """Send what was forwarded for these checkpoints to the nodes that are active now."""
        checkpoints = self.replicator.directory.checkpoints
        for request in list(self.forwarded.values()):
            if request.creation_id in creation_ids:
                entry = checkpoints.get(request.creation_id)
                goes_on = (
                    entry is not None
                    and entry.active == request.to
                    and entry.activation_seq <= request.sent_seq
                )
                if not goes_on and not self._forget_if_left(request):
                    del self.forwarded[request.session, request.number]
                    request.maybe_done = True
                    self.route(request)
        for token, request in list(self.commit_queries.items()):
            if request.creation_id in creation_ids:
                del self.commit_queries[token]
                self.route(request)
        self.tracks.look(creation_ids)

    def on_installed(self, view: View, unanswered: list[Request]) -> None:
        """Hold what waited, to send it again in the new epoch.

        Requests that other nodes sent here are dropped: those nodes send them again.
        """
        self.view = view
        self.ordinals = {node_id: place for place, node_id in enumerate(view.members, 1)}
        for request in self.forwarded.values():
            request.maybe_done = True
        waiting = [
            *unanswered,
            *self.forwarded.values(),
            *self.commit_queries.values(),
            *self.parked.values(),
        ]
        waiting += self.tracks.take_all()
        self.forwarded, self.commit_queries, self.parked = {}, {}, {}
        self.queries_until_ready.clear()
        for request in waiting:
            request.to = ""
            if isinstance(request.origin, int) and request.origin in self.links:
                self.park(request)
            else:
                self.turns.take_answered(request)

    def on_peer_connected(self, node_id: str) -> None:
        """Send again what a broken link may have lost."""
        for request in list(self.forwarded.values()):
            if request.to == node_id and not self._forget_if_left(request):
                self._send_forward(request)
        for token, request in list(self.commit_queries.items()):
            entry = self.replicator.directory.checkpoints.get(request.creation_id)
            if entry is not None and entry.active == node_id:
                del self.commit_queries[token]
                self.route(request)

    def on_time(self) -> None:
        """Answer or forget what has waited for a long time."""
        self.tracks.on_time()
        if self.context.now_ns < self.recheck_ns:
            return
        self.recheck_ns = self.context.now_ns + LOOK_EVERY_NS * (len(self.parked) + len(self.forwarded))
        self._check_backlog()
        self.turns.count_again(self._unanswered())
        self.withdrawals.on_time()
        late_ns = self.context.now_ns - FORGET_NS
        for key, request in list(self.parked.items()):
            if request.since_ns <= late_ns:
                del self.parked[key]
                self.turns.take_answered(request)
        for key, request in list(self.forwarded.items()):
            if request.since_ns <= late_ns and request.origin not in self.links:
                del self.forwarded[key]
                self.turns.take_answered(request)

    def _check_backlog(self) -> None:
        self.waiting_bytes = sum(len(request.body) for request in self.parked.values())
        self.waiting_bytes += sum(len(request.body) for request in self.forwarded.values())
        self.overloaded = self.waiting_bytes > self.context.settings.requests_waiting_bytes_max

    def _unanswered(self) -> Iterator[Request]:
        """Yield every request that waits here, or for other nodes.

        What was forwarded for a session that has left this node is not included: such duplicates have no
        effect and get no answer.
        """
        sessions, me = self.replicator.directory.sessions, self.context.node_id
        for request in self.forwarded.values():
            entry = sessions.get(request.session)
            if entry is None or entry.node_id == me:
                yield request
        yield from self.parked.values()
        yield from self.commit_queries.values()
        yield from (request for request, _ in self.deferred.values())
        yield from self.replicator.waiting()
        yield from self.replicas.unanswered()
