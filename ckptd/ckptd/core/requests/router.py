"""The way of every request: to this node's replica, to the active replica's node, or to the coordinator.

A request that cannot be served now is held until something changes; one that was
forwarded is sent again when the view, the directory or the link changes, since nobody
applies it twice. Each is answered once.
"""

from collections.abc import Callable, Iterator
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
from ckpt_protocol.refusal import Refusal
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
from ckptd.core.directory.directory import Entry, SessionEntry
from ckptd.core.directory.replicator import DirectoryOrder
from ckptd.core.directory.validation import why_open_waits
from ckptd.core.replication.local_replicas import Replicas
from ckptd.core.replication.replica import Replica
from ckptd.core.requests.change_feed import Tracks
from ckptd.core.requests.turns import Turns
from ckptd.core.requests.withdrawals import Withdrawals
from ckptd.core.settings import SECOND_NS
from ckptd.core.stops import Phase
from ckptd.core.view import View
from ckptd.core.work_units import ELEMENT_WORK, REFUSED_SHIFT

# A name of this module is found in a fifth of the time that an attribute of a class takes.
_UPDATE: Final = Kind.UPDATE
_READ: Final = Kind.READ
_ANSWER: Final = Kind.ANSWER

AGAIN_AT_ONCE_MAX = 16
"""Held requests that are tried again in the event that lets them go on; with more they have their turns."""

WEIGHT_SHIFT = 15
"""A forwarded read counts as one more request for each 32 KiB that its answer may have."""

OPS_WEIGHT_SHIFT = 7
"""An update counts as one more request for each 128 operations: two of the largest are under way at once."""

SMALL_UPDATE_BYTES = 1024
"""One of no more counts as one request."""

DIRECTORY_WEIGHT = 8
"""A request of the directory counts as so many. They are done one at a time, for all clients: more than 16 of
one link under way would gain it nothing, and cost the others a second."""

LOOK_EVERY_NS = 10_000
"""How long a node waits, for each request that waits, before it looks at all of them again.

To look at one takes about a tenth of that."""

FORGET_NS = 60 * SECOND_NS
"""A request that nobody can have waited for so long is forgotten."""

READS = (Kind.READ, Kind.ITERATE, Kind.STATUS, Kind.TRACK)
Key = tuple[int, int]


def _elements(request: Request) -> Elements:
    """What a READ asks, parsed once. Raises: FrameError, Refusal."""
    if request.elements is None:
        request.elements = parse_read(request.body)
    return request.elements


def _weight_of_update(body: bytes) -> int:
    """What an update counts for until it is answered: it takes its turn at every replica."""
    return 1 if len(body) <= SMALL_UPDATE_BYTES else 1 + (array_length(body) >> OPS_WEIGHT_SHIFT)


class Requests:
    """`held` wait here, `forwarded` for a node, `queries` for what is committed, `deferred` for a replica.

    `crowded`: so much waits that a client's next one is answered TRY_AGAIN (nothing was done for it);
    `waiting_bytes`: how much, when this node last looked.

    `early_queries` of other nodes wait until this node's active replica serves.
    """

    def __init__(self, context: Context, order: DirectoryOrder) -> None:
        self.context = context
        self.order = order
        self.replicas: Replicas
        self.view: View | None = None
        self.ordinals: dict[str | None, int] = {}
        self.links: dict[int, int] = {}
        self.held: dict[Key, Request] = {}
        self.forwarded: dict[Key, Request] = {}
        self.queries: dict[int, Request] = {}
        self.early_queries: list[tuple[str, Frame]] = []
        self.deferred: dict[Key, tuple[Request, bytes]] = {}
        self.token = 0
        self.draining = False
        self.crowded = False
        self.waiting_bytes = 0
        self.look_ns = 0
        self.turns: Turns
        self.tracks = Tracks(context, self.answer, self._go_on, lambda: self.turns)
        self.withdrawals = Withdrawals(self)
        self.on_attach_answered: Callable[[Request, bytes], bytes] = lambda request, body: body

    # -- going

    def dispatch(self, request: Request) -> None:
        """Send a request where it belongs, or hold it."""
        context = self.context
        context.cause = request
        if context.frozen or context.now_ns >= context.lease_until_ns or self.draining:
            self._hold(request)
            return
        creation_id = request.creation_id
        if context.stops.requests and self._stopped_here(request):
            return
        if not creation_id:
            self._dispatch_directory(request)
            return
        if creation_id in context.stops.closed:
            self._put_off(request)
            return
        entry = self.order.directory.checkpoints.get(creation_id)
        if entry is None:
            self._refuse_handle(request, "the checkpoint is gone, with every replica of it")
            return
        me = context.node_id
        if request.kind == _UPDATE and entry.active == me:
            replica = self.replicas.held.get(creation_id)
            active = replica.active if replica is not None else None
            if type(request.origin) is str and request.sent_seq < entry.term:
                return  # Its node has sent it to who was active before, and sends it here again.
            if active is not None and active.ready:
                if active.required and active.replica.sync:
                    self.turns.add_unanswered(request, _weight_of_update(request.body))
                active.order(request)
            else:
                self._hold(request)
        elif entry.attributes.sync and request.kind in READS and entry.replicas.get(me):
            self._read_here(request, entry, self.replicas.held.get(creation_id))
        elif entry.active is None:
            self._without_active(request, entry)
        elif entry.active == me:
            self._serve_active(request, entry, self.replicas.held.get(creation_id))
        else:
            self._forward(request, entry.active)

    def _refuse_handle(self, request: Request, why: str) -> None:
        """What its handle stands for is no more. Of an update that may have been done that says too much."""
        if request.in_doubt:
            text = f"{why}, and this update may have been done before"
            self.answer(request, answer_error(codes.TIMEOUT, text))
        else:
            self.answer(request, answer_error(codes.BAD_HANDLE, why))

    def _stopped_here(self, request: Request) -> bool:
        """Refuse what stopped the node that a client had it passed on by, and a read that stopped any.

        Of all else only the active replica, or the coordinator, knows whether it was done.
        """
        stop = self.context.stops.requests.get((request.session, request.number))
        decided_here = request.creation_id and request.kind != Kind.UPDATE
        if stop is None or not (decided_here or stop.phase == Phase.PASS):
            return False
        self.answer(request, refuse_repeat(self.context, stop))
        return True

    def _dispatch_directory(self, request: Request) -> None:
        if request.put_off and self.why_open_waits_here(request):
            self._hold(request)
        elif self.order.coordinates:
            # One link with 60,000 OPENs under way once kept all others out of the directory for a minute.
            self.turns.add_unanswered(request, DIRECTORY_WEIGHT)
            self.order.submit(request)
        elif self.view is not None:
            self._forward(request, self.view.coordinator)

    def why_open_waits_here(self, request: Request) -> str:
        """Why an OPEN that was put off still has to wait, here where its client is."""
        entry = self.order.directory.find(parse_open(request.body).name)
        me = self.context.node_id
        if entry is None or not (entry.holders or me in entry.replicas):
            return ""  # The coordinator decides, or adds a replica.
        if entry.creation_id in self.replicas.put_off:
            return "there is no memory for a replica here"
        return why_open_waits(entry, me)

    def _without_active(self, request: Request, entry: Entry) -> None:
        replica = self.replicas.held.get(entry.creation_id)
        waits = entry.holders or entry.attributes.sync or not entry.attributes.collocated
        if request.kind == Kind.UPDATE and replica is not None and not waits:
            # It may have been applied before the active replica was lost, and be here already. (Not
            # where holders are waited for: a copy here is of the past, and what it staged alone is void.)
            answers = replica.log.answers.get(request.session)
            known = answers.by_request.get(request.number) if answers is not None else None
            if known is not None and known[1]:
                self.answer(request, known[1])
                return
        if request.kind == Kind.TRACK and not waits and parse_track(request.body).after is not None:
            self.tracks.wait(request)
        elif waits:
            self._hold(request)
        elif request.in_doubt:
            text = "the active replica was lost, perhaps with this update"
            self.answer(request, answer_error(codes.TIMEOUT, text))
        else:
            text = "the checkpoint has no active replica: set one"
            self.answer(request, answer_error(codes.NOT_EXIST, text))

    def _serve_active(self, request: Request, entry: Entry, replica: Replica | None) -> None:
        active = replica.active if replica is not None else None
        if replica is None or active is None or not active.ready:
            self._hold(request)
        elif request.kind == Kind.SYNCHRONIZE:
            active.synchronize(request)
        elif request.kind in READS:
            self._serve_read(request, entry, replica)
        else:
            self.answer(
                request, answer_error(codes.NOT_SUPPORTED, f"requests of kind {request.kind} are unknown")
            )

    def _read_here(self, request: Request, entry: Entry, replica: Replica | None) -> None:
        """Read the local copy of a sync checkpoint; the active replica knows what is committed."""
        if replica is None or replica.dropped or not replica.complete:
            self._hold(request)
            return
        active = replica.active
        if active is not None:
            if active.ready:
                self._serve_read(request, entry, replica)
            else:
                self._hold(request)
            return
        if replica.log.pending and self._touches_pending(request, replica) and entry.active is not None:
            self.token += 1
            self.turns.add_unanswered(request, 1)
            self.queries[self.token] = request
            frame = encode_frame(Kind.QUERY, replica.creation_id, self.context.epoch, self.token)
            self.context.send_peer(entry.active, frame)
            return
        self._serve_read(request, entry, replica)

    def _touches_pending(self, request: Request, replica: Replica) -> bool:
        if request.kind == Kind.TRACK:  # Where it begins; later it tells only what is known to be committed.
            return parse_track(request.body).after is None
        if request.kind != Kind.READ:
            return True
        try:
            return replica.pending_touches([element[0] for element in _elements(request)])
        except (FrameError, Refusal):
            return False  # It is answered with what is wrong.

    def _serve_read(self, request: Request, entry: Entry, replica: Replica) -> None:
        if request.kind == Kind.TRACK:
            self.tracks.serve(request, replica)
            return
        try:
            if request.kind == _READ:
                body = replica.read(_elements(request))
            elif request.kind == Kind.ITERATE:
                page = replica.iterate(parse_iterate(request.body))
                if isinstance(page, Iterate):
                    request.body = pack_body(list(page))  # The rest of it, once others had their turn.
                    self.turns.put_back([request])
                    return
                body = page
            else:
                parse_nothing(request.kind, request.body)
                body = self._status(entry, replica)
        except Refusal as refusal:
            self.context.work += len(request.body) >> REFUSED_SHIFT
            body = answer_error(refusal.code, refusal.text, refusal.index)
        except FrameError as error:
            self.context.work += len(request.body) >> REFUSED_SHIFT
            body = answer_error(codes.INVALID_PARAM, str(error))
        except Exception as error:  # A read changes nothing.
            body = contain_request(self.context, request, error)
        self.answer(request, body)

    def _status(self, entry: Entry, replica: Replica) -> bytes:
        count, content_bytes = replica.count_and_bytes()
        attributes = entry.attributes.fields()
        attributes[2] = entry.retention_ns
        replicas = [[node_id, in_sync] for node_id, in_sync in sorted(entry.replicas.items())]
        return answer_ok(
            [attributes, count, content_bytes, entry.active, replicas, len(entry.opens), entry.unlinked]
        )

    def _has_room(self, request: Request) -> bool:
        """Whether one more may wait; else it is answered. One that may have been done must wait."""
        waiting = len(self.held) + len(self.forwarded) + len(self.queries)
        if not self.crowded and waiting < self.context.settings.requests_waiting_max:
            return True
        if request.in_doubt or type(request.origin) is str:
            return True
        # (Not by `answer`: it keeps an OPEN that is to try again, for which there is no room here.)
        limit = "requests_waiting_bytes_max" if self.crowded else "requests_waiting_max"
        text = f"too many requests wait at this node ({limit})"
        self.refuse_waiting(request, answer_error(codes.TRY_AGAIN, text))
        return False

    def _put_off(self, request: Request) -> None:
        """Its checkpoint is closed, which does not end by itself: say so at once, where nothing was done."""
        if request.in_doubt or type(request.origin) is str:
            self._hold(request)
        else:
            self.answer(request, answer_error(codes.TRY_AGAIN, self.withdrawals.why_held(request)))

    def _hold(self, request: Request) -> None:
        if self._has_room(request):
            # 90,000 that one link had held took 120 ms to look at, at each heartbeat.
            self.turns.add_unanswered(request, 1)
            key = request.session, request.number
            earlier = self.held.get(key)
            if earlier is not None and earlier is not request:
                self.turns.take_answered(earlier)
            self.held[key] = request

    def _forward(self, request: Request, node_id: str) -> None:
        """Pass a request on to who can serve it.

        Not one that was passed on already: its own node learns who can, and sends it there. A
        copy that was kept here was done, behind its refusal, when this node became active (seed 23895).
        """
        if type(request.origin) is str or not self._has_room(request) or self._is_malformed(request):
            return
        if request.kind == Kind.TRACK and not self._counts_as_tracker(request):
            return
        request.to = node_id
        self.forwarded[request.session, request.number] = request
        if request.kind != Kind.TRACK:
            self.turns.add_unanswered(request, self._weight_of(request))
        self._send_forward(request)

    def _counts_as_tracker(self, request: Request) -> bool:
        """Whether one more TRACK may wait for another node; else it is answered."""
        earlier = self.forwarded.pop((request.session, request.number), None)
        if earlier is not None:
            self.turns.take_answered(earlier)
        excess = self.turns.add_tracker(request)
        if excess:
            self.answer(request, answer_error(codes.TRY_AGAIN, excess))
        return not excess

    def _is_malformed(self, request: Request) -> bool:
        """Answer what nobody can do here, where its client is.

        60 bodies that take long to be refused once kept what their node acknowledged waiting for 580 ms at
        the node of the active replica, behind them on one link, and so everybody's writes.
        """
        try:
            if request.kind == _UPDATE:
                self.context.work += ELEMENT_WORK * len(parse_update(request.body))
            elif request.kind == _READ:
                self.context.work += ELEMENT_WORK * len(_elements(request))
            elif request.kind == Kind.ITERATE:
                parse_iterate(request.body)
            return False
        except Refusal as refusal:
            body = answer_error(refusal.code, refusal.text, refusal.index)
        except FrameError as error:
            body = answer_error(codes.INVALID_PARAM, str(error))
        except Exception as error:  # Looking changes nothing.
            body = contain_request(self.context, request, error)
        self.context.work += len(request.body) >> REFUSED_SHIFT
        self.answer(request, body)
        return True

    def _weight_of(self, request: Request) -> int:
        """What a forwarded request counts for until it is answered: by the size that its answer may have."""
        if not request.creation_id:
            return DIRECTORY_WEIGHT
        if request.kind == Kind.ITERATE:
            return 1 + (PAGE_BYTES_MAX >> WEIGHT_SHIFT)
        if request.kind == _UPDATE:
            return _weight_of_update(request.body)
        entry = self.order.directory.checkpoints.get(request.creation_id)
        if request.kind != Kind.READ or entry is None:
            return 1
        return 1 + (entry.attributes.section_bytes_cap >> WEIGHT_SHIFT)

    def _send_forward(self, request: Request) -> None:
        request.sent_seq = self.order.directory.seq
        route = FORWARD_ROUTE.pack(request.kind, request.creation_id, request.lowest, request.sent_seq)
        frame = encode_frame(
            Kind.FORWARD, request.number, self.context.epoch, request.session, route + request.body
        )
        self.context.send_peer(request.to, frame)

    # -- coming

    def on_forward(self, node_id: str, frame: Frame) -> None:
        """A request that another node passes on. Raises: FrameError."""
        if len(frame.body) < FORWARD_ROUTE.size:
            raise FrameError("a forwarded request shorter than its route")
        kind, creation_id, lowest, directory_seq = FORWARD_ROUTE.unpack_from(frame.body)
        body = frame.body[FORWARD_ROUTE.size :]
        if kind == Kind.TRACK:
            try:
                parse_track(body)
            except Refusal as refusal:
                raise FrameError(refusal.text) from None
        request = Request(node_id, frame.c, frame.a, lowest, kind, creation_id, body, self.context.now_ns)
        request.sent_seq = directory_seq
        if directory_seq > self.order.directory.seq:
            # The sender knows more of the directory than has come to us: of this session, or this checkpoint.
            self._hold(request)
            return
        if not self._is_over(request):
            self.dispatch(request)

    def _is_over(self, request: Request) -> bool:
        """Whether its session has ended, or has left the node that it came by.

        The client asks again where it is now, and may have been told the outcome there: a copy
        that comes by the old way, from a node that was paused say, must do nothing any more.
        """
        session = self.order.directory.sessions.get(request.session)
        if request.kind == Kind.ATTACH:
            return False
        if session is None:
            if request.creation_id:
                self._refuse_handle(request, "this session has ended")
            return bool(request.creation_id)
        return self._has_left(request, session)

    def _has_left(self, request: Request, session: SessionEntry) -> bool:
        """Whether a session has left the node that a request came by, also where it is back there since."""
        came_by = request.origin if type(request.origin) is str else self.context.node_id
        back = request.kind not in CHANGE_NOTHING and 0 < request.sent_seq < session.moved_seq
        return back or session.node_id != came_by

    def _forget_if_left(self, request: Request) -> bool:
        """Forget what was passed on for a session that left since, instead of sending it again.

        A client was refused elsewhere and came back, and the old copy was passed on to who was active then.
        (Not a TRACK: its client may only have tried another node, and comes back to the link where it waits.)
        """
        if request.kind in CHANGE_NOTHING:
            return False
        session = self.order.directory.sessions.get(request.session)
        if session is None or request.kind == Kind.ATTACH or not self._has_left(request, session):
            return False
        self.forwarded.pop((request.session, request.number), None)
        self.turns.take_answered(request)
        return True

    def on_forward_answer(self, frame: Frame) -> None:
        """Take another node's answer.

        A client that uses a number twice is given what the coordinator remembers of the first request. It is
        no garbage of the coordinator's, and the link stays (seed 7128983). Raises: FrameError.
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
        """Another node refused an update: take its word while it speaks for the active replica.

        That an update was done is known wherever the role goes, and true of whoever says it. That it was not
        done is known to who refused it alone: who became active since may do it (seed 7100408).
        Raises: FrameError.
        """
        if len(frame.body) < FORWARD_REFUSED_ROUTE.size:
            raise FrameError("a refused update shorter than its route")
        (term,) = FORWARD_REFUSED_ROUTE.unpack_from(frame.body)
        body = frame.body[FORWARD_REFUSED_ROUTE.size :]
        decode_answer(body)
        request = self.forwarded.get((frame.c, frame.a))
        if request is None or request.to != node_id or request.kind != _UPDATE:
            return
        entry = self.order.directory.checkpoints.get(request.creation_id)
        # One that nobody else was asked for, and that was to be given back, waited at a node that is behind.
        given_back = request.withdrawn and not request.maybe_done
        if entry is None or entry.term == term or given_back:
            self.answer(request, body)

    def on_query(self, node_id: str, frame: Frame) -> None:
        """Tell a replica what is committed now; it answers a reader by that."""
        replica = self.replicas.held.get(frame.a)
        if replica is None or replica.active is None:
            return
        if not replica.active.ready or not self.context.serving():
            self.early_queries.append((node_id, frame))
            return
        epoch, committed_seq = self.context.epoch, replica.log.committed_seq
        self.context.send_peer(
            node_id,
            encode_frame(Kind.COMMIT, frame.a, epoch, committed_seq)
            + encode_frame(Kind.QUERIED, frame.a, epoch, frame.c),
        )

    def on_queried(self, frame: Frame) -> None:
        request = self.queries.pop(frame.c, None)
        entry = self.order.directory.checkpoints.get(frame.a)
        replica = self.replicas.held.get(frame.a)
        if request is None:
            return
        if entry is None or replica is None or replica.dropped or not self.context.serving():
            self.dispatch(request)
        else:
            self._serve_read(request, entry, replica)

    # -- answering

    def answer(self, request: Request, body: bytes) -> None:
        """Give a request its one answer, unless that waits for this node's replica."""
        if request.weight:
            self.turns.take_answered(request)
        if request.to:
            self.forwarded.pop((request.session, request.number), None)
        if type(request.origin) is str:
            kind = Kind.FORWARD_ANSWER
            if request.kind == _UPDATE and not is_ok(body):
                entry = self.order.directory.checkpoints.get(request.creation_id)
                kind = Kind.FORWARD_REFUSED
                body = FORWARD_REFUSED_ROUTE.pack(entry.term if entry is not None else 0) + body
            frame = encode_frame(kind, request.number, self.context.epoch, request.session, body)
            self.context.send_peer(request.origin, frame)
            return
        if not request.creation_id and request.kind in (Kind.OPEN, Kind.ACTIVE_SET, Kind.ATTACH):
            if request.kind == Kind.ATTACH:
                body = self.on_attach_answered(request, body)
            elif request.kind == Kind.OPEN:
                if self._puts_off(request, body):
                    return
                body = self._of_what_is_there(body)
            if request.kind != Kind.ATTACH and self._must_wait(request, body):
                self.turns.add_unanswered(request, 1)
                self.deferred[request.session, request.number] = (request, body)
                return
        self._tell(request, body)

    def refuse_waiting(self, request: Request, body: bytes) -> None:
        """Answer a request that was taken back while it waited."""
        self.turns.take_answered(request)
        if isinstance(request.origin, int):
            if request.kind == Kind.ATTACH:
                body = self.on_attach_answered(request, body)
            self._tell(request, body)
        else:
            self.answer(request, body)

    def _tell(self, request: Request, body: bytes) -> None:
        """Answer a client of this node."""
        ordinal = 0
        if request.creation_id:
            entry = self.order.directory.checkpoints.get(request.creation_id)
            ordinal = self.ordinals.get(entry.active, 0) if entry is not None else 0
        assert isinstance(request.origin, int)
        self.context.send_client(
            request.origin, encode_frame(_ANSWER, request.number, self.context.epoch, ordinal, body)
        )

    def _puts_off(self, request: Request, body: bytes) -> bool:
        """Keep an OPEN that the coordinator had to put off until it can be done."""
        if decode_answer(body)[0] == codes.TRY_AGAIN:
            # The coordinator knows every copy of it: none was done, and none of the past will be.
            request.maybe_done, request.put_off, request.to = False, True, ""
            if not request.withdrawn and self.why_open_waits_here(request):
                self._hold(request)
                return True
        return False

    def _of_what_is_there(self, body: bytes) -> bytes:
        """An OPEN's answer, unless the checkpoint was lost on the way.

        One that was ordered before a view change is finished after it, in a view without the last node that
        had a replica (seed 70027).
        """
        code, payload, *_ = decode_answer(body)
        directory = self.order.directory
        if code != codes.OK or type(payload) is not list:
            return body
        if payload[1] in directory.checkpoints or directory.may_come(payload[1]):
            return body
        text = "every replica of the checkpoint was lost while it was opened"
        return answer_error(codes.NOT_EXIST, text)

    def _must_wait(self, request: Request, body: bytes) -> bool:
        """ActiveReplicaSet ends when this node's replica serves (SAF 3.1.7.1), an open when there is one."""
        code, payload, *_ = decode_answer(body)
        if code != codes.OK:
            return False
        if request.kind == Kind.OPEN:
            found = self.order.directory.checkpoints.get(payload[1]) if type(payload) is list else None
            return found is not None and bool(found.holders) and not found.in_sync
        session = self.order.directory.sessions.get(request.session)
        handle = parse_of_handle(request.kind, request.body).handle
        opened = session.opens.get(handle) if session is not None else None
        entry = self.order.directory.checkpoints.get(opened[0]) if opened is not None else None
        if entry is None:
            return False
        replica = self.replicas.held.get(entry.creation_id)
        ready = replica is not None and replica.active is not None and replica.active.ready
        return entry.active == self.context.node_id and not ready

    # -- when something changes

    def again(self, unanswered: list[Request]) -> None:
        """Something changed: try what is held, and requests whose replica lost its role."""
        for request in unanswered:
            request.maybe_done = True
            if isinstance(request.origin, int):
                self._hold(request)
        if self.deferred:
            for key, (request, body) in list(self.deferred.items()):
                if not self._must_wait(request, body):
                    del self.deferred[key]
                    self.answer(request, body)
        if self.held and self.context.serving() and not self.draining:
            held, self.held = self.held, {}
            for request in held.values():
                self.turns.take_answered(request)  # Else they keep the lanes full from which they go on.
            going = [request for request in held.values() if not self._is_over(request)]
            self._go_on(going)
        if self.early_queries and self.context.serving():
            early_queries, self.early_queries = self.early_queries, []
            for node_id, frame in early_queries:
                self.on_query(node_id, frame)

    def on_stops(self, creation_ids: list[int]) -> None:
        """These may be closed now, or open again: what waits for them elsewhere is looked at anew."""
        for key, request in list(self.forwarded.items()):
            if request.creation_id in creation_ids and not self._forget_if_left(request):
                del self.forwarded[key]
                request.to = ""
                request.maybe_done = True
                self.dispatch(request)
        self.on_directory_changed(creation_ids)
        self.again([])

    def _go_on(self, requests: list[Request]) -> None:
        """Try requests again that waited: now, or where they are many in their turns."""
        if len(requests) > AGAIN_AT_ONCE_MAX:
            self.turns.put_back(requests)
        else:
            for request in requests:
                self.dispatch(request)

    def on_directory_changed(self, creation_ids: list[int]) -> None:
        """Who is active may have changed: send what was forwarded for these to who is active now."""
        checkpoints = self.order.directory.checkpoints
        for request in list(self.forwarded.values()):
            if request.creation_id in creation_ids:
                entry = checkpoints.get(request.creation_id)
                goes_on = entry is not None and entry.active == request.to and entry.term <= request.sent_seq
                if not goes_on and not self._forget_if_left(request):
                    del self.forwarded[request.session, request.number]
                    request.maybe_done = True
                    self.dispatch(request)
        for token, request in list(self.queries.items()):
            if request.creation_id in creation_ids:
                del self.queries[token]
                self.dispatch(request)
        self.tracks.look(creation_ids)

    def on_installed(self, view: View, unanswered: list[Request]) -> None:
        """A new epoch: what waited for another node is sent anew; others send anew what they sent here."""
        self.view = view
        self.ordinals = {node_id: place for place, node_id in enumerate(view.members, 1)}
        for request in self.forwarded.values():
            request.maybe_done = True
        waiting = [*unanswered, *self.forwarded.values(), *self.queries.values(), *self.held.values()]
        waiting += self.tracks.take_all()
        self.forwarded, self.queries, self.held = {}, {}, {}
        self.early_queries.clear()
        for request in waiting:
            request.to = ""
            if isinstance(request.origin, int) and request.origin in self.links:
                self._hold(request)
            else:
                self.turns.take_answered(request)

    def on_peer_connected(self, node_id: str) -> None:
        """Say again what a broken link may have swallowed."""
        for request in list(self.forwarded.values()):
            if request.to == node_id and not self._forget_if_left(request):
                self._send_forward(request)
        for token, request in list(self.queries.items()):
            entry = self.order.directory.checkpoints.get(request.creation_id)
            if entry is not None and entry.active == node_id:
                del self.queries[token]
                self.dispatch(request)

    def on_time(self) -> None:
        """Answer, or forget, what has waited for long."""
        self.tracks.on_time()
        if self.context.now_ns < self.look_ns:
            return
        self.look_ns = self.context.now_ns + LOOK_EVERY_NS * (len(self.held) + len(self.forwarded))
        self._look_at_room()
        self.turns.count_again(self._unanswered())
        self.withdrawals.on_time()
        late_ns = self.context.now_ns - FORGET_NS
        for key, request in list(self.held.items()):
            if request.since_ns <= late_ns:
                del self.held[key]
                self.turns.take_answered(request)
        for key, request in list(self.forwarded.items()):
            if request.since_ns <= late_ns and request.origin not in self.links:
                del self.forwarded[key]
                self.turns.take_answered(request)

    def _look_at_room(self) -> None:
        self.waiting_bytes = sum(len(request.body) for request in self.held.values())
        self.waiting_bytes += sum(len(request.body) for request in self.forwarded.values())
        self.crowded = self.waiting_bytes > self.context.settings.requests_waiting_bytes_max

    def _unanswered(self) -> Iterator[Request]:
        """Every request that waits here, or for other nodes.

        Not what was passed on for a session that has left this node: such copies come to nothing, and have no
        answer.
        """
        sessions, me = self.order.directory.sessions, self.context.node_id
        for request in self.forwarded.values():
            entry = sessions.get(request.session)
            if entry is None or entry.node_id == me:
                yield request
        yield from self.held.values()
        yield from self.queries.values()
        yield from (request for request, _ in self.deferred.values())
        yield from self.order.waiting()
        yield from self.replicas.unanswered()
