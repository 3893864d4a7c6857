"""Routes every request: to this node's replica, to the active replica's node, or to the coordinator.

A request that cannot be served now is parked until something changes. One that was forwarded is sent again
when the view, the directory or the link changes; this is safe, since no node applies it twice. Each request
is answered once.
"""

from collections.abc import Iterable
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.messages import (
    FORWARD_REFUSED_ROUTE,
    Kind,
    answer_error,
    is_ok,
)
from ckpt_protocol.parse_answers import decode_answer
from ckpt_protocol.parse_requests import (
    parse_of_handle,
    parse_track,
)
from ckptd.core.client_request import READ_ONLY_KINDS, Request
from ckptd.core.containment import refuse_repeat
from ckptd.core.context import Context
from ckptd.core.directory.entries import CheckpointEntry
from ckptd.core.directory.replicator import DirectoryReplicator
from ckptd.core.hub import Hub
from ckptd.core.replication.local_replicas import LocalReplicas
from ckptd.core.replication.replica import Replica
from ckptd.core.requests.forwarding import DIRECTORY_WEIGHT, Forwarding, weight_of_update
from ckptd.core.requests.reads import Reads
from ckptd.core.requests.turn_budget import Turns
from ckptd.core.requests.waiting_requests import WaitingRequests
from ckptd.core.requests.withdrawals import Withdrawals
from ckptd.core.settings import SECOND_NS
from ckptd.core.stops_by_bugs import Phase
from ckptd.core.view import View

# Looking up a name of this module takes a fifth of the time that an attribute of a class takes.
_UPDATE: Final = Kind.UPDATE
_READ: Final = Kind.READ
_ANSWER: Final = Kind.ANSWER

RETRY_AT_ONCE_MAX = 16
"""Up to this many parked requests are tried again in the event that lets them continue.

If there are more, they wait for their turns.
"""

RECHECK_PER_REQUEST_NS = 10_000
"""How long a node waits, for each request that waits, before it looks at all of them again.

Looking at one takes about a tenth of that.
"""

ABANDONED_REQUEST_NS = 60 * SECOND_NS
"""A request is forgotten after this time: no client can have waited for it so long."""

READ_KINDS = (Kind.READ, Kind.ITERATE, Kind.STATUS, Kind.TRACK)


class RequestRouter:
    """Decides where each request is served, and answers it."""

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
        self.draining = False
        """This node is leaving: it parks every request."""
        self.recheck_ns = 0
        """When this node looks at the waiting requests again."""
        self.waiting = WaitingRequests(context, hub, turns)
        self.reads = Reads(context, hub, replicator, replicas, turns, self.waiting)
        self.forwarding = Forwarding(context, hub, replicator, turns, self.waiting)
        self.change_feed = self.reads.change_feed
        self.leader_feed = self.reads.leader_feed
        self.withdrawals = Withdrawals(context, hub, replicator, replicas, turns, self.waiting)

    # -- dispatching

    def route(self, request: Request) -> None:
        """Send a request where it belongs, or park it."""
        context = self.context
        context.cause = request
        if context.sealed or context.now_ns >= context.lease_until_ns or self.draining:
            self.waiting.park(request)
            return
        creation_id = request.creation_id
        if context.stops.requests and self._refuse_if_stopped_a_node(request):
            return
        if not creation_id:
            self._route_to_coordinator(request)
            return
        if creation_id in context.stops.closed:
            self._refuse_closed(request)
            return
        entry = self.replicator.directory.checkpoints.get(creation_id)
        if entry is None:
            self.forwarding.refuse_handle(request, "the checkpoint is gone, and so is every replica of it")
            return
        me = context.node_id
        if request.kind == _UPDATE and entry.active == me:
            replica = self.replicas.by_id.get(creation_id)
            active = replica.active if replica is not None else None
            if type(request.origin) is str and request.sent_seq < entry.activation_seq:
                return  # Its node sent it to the previous active replica, and will send it here again.
            if active is not None and active.ready:
                if active.commit_set and active.replica.sync:
                    self.turns.add_unanswered(request, weight_of_update(request.body))
                active.submit(request)
            else:
                self.waiting.park(request)
        elif entry.attributes.sync and request.kind in READ_KINDS and entry.replicas.get(me):
            self.reads.read_locally(request, entry, self.replicas.by_id.get(creation_id))
        elif entry.active is None:
            self._route_without_active(request, entry)
        elif entry.active == me:
            self._serve_as_active(request, entry, self.replicas.by_id.get(creation_id))
        else:
            self.forwarding.forward(request, entry.active)

    def resume(self, request: Request) -> None:
        """Continue with a request that has waited in its link's lane.

        Its session may have left since. Then its client asks where the session is now, and may have been told
        there that nothing was done.
        """
        if request.kind not in READ_ONLY_KINDS and self.forwarding.session_left(request):
            self.turns.remove_unanswered(request)
        else:
            self.route(request)

    def _refuse_if_stopped_a_node(self, request: Request) -> bool:
        """Refuse a request that has stopped a node, if this node can decide that; return True if it did.

        It can decide in two cases: a read that stopped any node; a request that stopped the client's node
        while that node passed it on. In all other cases only the active replica, or the coordinator, knows if
        the request was done.
        """
        stop = self.context.stops.requests.get((request.session, request.number))
        decided_here = request.creation_id and request.kind != Kind.UPDATE
        if stop is None or not (decided_here or stop.phase == Phase.PASS):
            return False
        self.answer(request, refuse_repeat(self.context, stop))
        return True

    def _route_to_coordinator(self, request: Request) -> None:
        if request.open_deferred and self.withdrawals.why_open_waits_here(request):
            self.waiting.park(request)
        elif self.replicator.is_coordinator:
            # One link with 60,000 OPENs under way once blocked the directory for all others for a minute.
            self.turns.add_unanswered(request, DIRECTORY_WEIGHT)
            self.replicator.submit(request)
        elif self.view is not None:
            self.forwarding.forward(request, self.view.coordinator)

    def _route_without_active(self, request: Request, entry: CheckpointEntry) -> None:
        replica = self.replicas.by_id.get(entry.creation_id)
        waits = entry.last_in_sync or entry.attributes.sync or not entry.attributes.collocated
        if request.kind == Kind.UPDATE and replica is not None and not waits:
            # It may have been applied before the active replica was lost, and have reached this replica.
            # (Not while the checkpoint waits for the nodes that were last in sync. The replica here is out of
            # date then, and what only it has staged is discarded.)
            answers = replica.log.answers.get(request.session)
            known = answers.by_request.get(request.number) if answers is not None else None
            if known is not None and known[1]:
                self.answer(request, known[1])
                return
        if request.kind == Kind.TRACK and not waits and parse_track(request.body).after is not None:
            self.change_feed.wait(request)
        elif waits:
            self.waiting.park(request)
        elif request.in_doubt:
            text = "the active replica was lost, perhaps together with this update"
            self.answer(request, answer_error(codes.TIMEOUT, text))
        else:
            text = "the checkpoint has no active replica: set one"
            self.answer(request, answer_error(codes.NOT_EXIST, text))

    def _serve_as_active(self, request: Request, entry: CheckpointEntry, replica: Replica | None) -> None:
        active = replica.active if replica is not None else None
        if replica is None or active is None or not active.ready:
            self.waiting.park(request)
        elif request.kind == Kind.SYNCHRONIZE:
            active.synchronize(request)
        elif request.kind in READ_KINDS:
            self.reads.serve(request, entry, replica)
        elif request.kind in (Kind.LEADER, Kind.LEADER_TRACK):
            self.leader_feed.serve(request, replica)
        else:
            self.answer(
                request,
                answer_error(codes.NOT_SUPPORTED, f"this node does not know requests of kind {request.kind}"),
            )

    def _refuse_closed(self, request: Request) -> None:
        """Answer at once, if nothing was done, a request whose checkpoint is closed.

        It makes no sense to park it: a closed checkpoint does not open again on its own.
        """
        if request.in_doubt or type(request.origin) is str:
            self.waiting.park(request)
        else:
            self.answer(request, answer_error(codes.TRY_AGAIN, self.withdrawals.why_parked(request)))

    # -- answering

    def answer(self, request: Request, body: bytes) -> None:
        """Give a request its one answer, unless the answer has to wait for a replica."""
        if request.weight:
            self.turns.remove_unanswered(request)
        if request.forwarded_to:
            self.waiting.forwarded.pop((request.session, request.number), None)
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
                if self._parks_open(request, body):
                    return
                body = self._refuse_if_lost(body)
            else:
                body = self._refuse_if_undone(request, body)
            if request.kind != Kind.ATTACH and self._awaits_local_replica(request, body):
                self.turns.add_unanswered(request, 1)
                self.waiting.deferred[request.session, request.number] = (request, body)
                return
        self._send_answer(request, body)

    def refuse_waiting(self, request: Request, body: bytes) -> None:
        """Answer a request that was taken back while it waited."""
        self.turns.remove_unanswered(request)
        if isinstance(request.origin, int):
            if request.kind == Kind.ATTACH:
                body = self.hub.on_attach_answered(request, body)
            self._send_answer(request, body)
        else:
            self.answer(request, body)

    def _send_answer(self, request: Request, body: bytes) -> None:
        """Send an answer to a client of this node."""
        ordinal = 0
        if request.creation_id:
            entry = self.replicator.directory.checkpoints.get(request.creation_id)
            ordinal = self.ordinals.get(entry.active, 0) if entry is not None else 0
        assert isinstance(request.origin, int)
        self.context.send_client(
            request.origin, encode_frame(_ANSWER, request.number, self.context.epoch, ordinal, body)
        )

    def _parks_open(self, request: Request, body: bytes) -> bool:
        """Park an OPEN that the coordinator had to defer until it can be done; True if it is parked."""
        if decode_answer(body)[0] == codes.TRY_AGAIN:
            # The coordinator knows every duplicate of it: none was done, and no earlier one will be.
            request.outcome_uncertain, request.open_deferred, request.forwarded_to = False, True, ""
            if not request.withdrawn and self.withdrawals.why_open_waits_here(request):
                self.waiting.park(request)
                return True
        return False

    def _refuse_if_lost(self, body: bytes) -> bytes:
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
        text = "every replica of the checkpoint was lost while it was being opened"
        return answer_error(codes.NOT_EXIST, text)

    def _refuse_if_undone(self, request: Request, body: bytes) -> bytes:
        """Return an ActiveReplicaSet's answer, or TIMEOUT if a view has taken the role away again.

        Such a view comes if the former active replica is lost before the one here has what that held.
        """
        creation_id = self._opened_by(request) if is_ok(body) else 0
        entry = self.replicator.directory.checkpoints.get(creation_id)
        if not creation_id or (entry is not None and entry.active is not None):
            return body
        text = "the former active replica was lost meanwhile, and no replica is active now"
        return answer_error(codes.TIMEOUT, text)

    def _opened_by(self, request: Request) -> int:
        """Return the checkpoint that an ActiveReplicaSet's handle stands for; 0 if it is closed."""
        session = self.replicator.directory.sessions.get(request.session)
        handle = parse_of_handle(request.kind, request.body).handle
        return session.opens[handle][0] if session is not None and handle in session.opens else 0

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
        entry = self.replicator.directory.checkpoints.get(self._opened_by(request))
        if entry is None:
            return False
        replica = self.replicas.by_id.get(entry.creation_id)
        ready = replica is not None and replica.active is not None and replica.active.ready
        return entry.active == self.context.node_id and not ready

    # -- when something changes

    def retry_parked(self, unanswered: Iterable[Request] = ()) -> None:
        """Try again what is parked, and requests whose replica lost its role: something changed."""
        for request in unanswered:
            request.outcome_uncertain = True
            if isinstance(request.origin, int):
                self.waiting.park(request)
        if self.waiting.deferred:
            for key, (request, body) in list(self.waiting.deferred.items()):
                if not self._awaits_local_replica(request, body):
                    del self.waiting.deferred[key]
                    self.answer(request, body)
        if self.waiting.parked and self.context.serving() and not self.draining:
            parked, self.waiting.parked = self.waiting.parked, {}
            for request in parked.values():
                self.turns.remove_unanswered(request)  # Else they keep the lanes full that they continue in.
            remaining = [request for request in parked.values() if not self.forwarding.session_left(request)]
            self.retry(remaining)
        if self.reads.queries_until_ready and self.context.serving():
            queries, self.reads.queries_until_ready = self.reads.queries_until_ready, []
            for node_id, frame in queries:
                self.reads.on_query(node_id, frame)

    def on_stops(self, creation_ids: list[int]) -> None:
        """Look again at what waits elsewhere for these checkpoints: they may be closed now, or open again."""
        for key, request in list(self.waiting.forwarded.items()):
            if request.creation_id in creation_ids and not self.forwarding.drop_if_session_left(request):
                del self.waiting.forwarded[key]
                request.forwarded_to = ""
                request.outcome_uncertain = True
                self.route(request)
        self.on_directory_changed(creation_ids)
        self.retry_parked()

    def retry(self, requests: list[Request]) -> None:
        """Try requests again that have waited: at once if they are few, otherwise in their turns."""
        if len(requests) > RETRY_AT_ONCE_MAX:
            self.turns.requeue(requests)
        else:
            for request in requests:
                self.route(request)

    def on_directory_changed(self, creation_ids: list[int]) -> None:
        """Send what was forwarded for these checkpoints to the nodes that are active now."""
        checkpoints = self.replicator.directory.checkpoints
        for request in list(self.waiting.forwarded.values()):
            if request.creation_id in creation_ids:
                entry = checkpoints.get(request.creation_id)
                unchanged = (
                    entry is not None
                    and entry.active == request.forwarded_to
                    and entry.activation_seq <= request.sent_seq
                )
                if not unchanged and not self.forwarding.drop_if_session_left(request):
                    del self.waiting.forwarded[request.session, request.number]
                    request.outcome_uncertain = True
                    self.route(request)
        for query_id, request in list(self.waiting.commit_queries.items()):
            if request.creation_id in creation_ids:
                del self.waiting.commit_queries[query_id]
                self.route(request)
        self.change_feed.recheck(creation_ids)
        self.leader_feed.recheck(creation_ids)

    def on_installed(self, view: View, unanswered: list[Request]) -> None:
        """Hold what waited, to send it again in the new epoch.

        Requests that other nodes sent here are dropped: those nodes send them again.
        """
        self.view = view
        self.ordinals = {node_id: position for position, node_id in enumerate(view.members, 1)}
        for request in self.waiting.forwarded.values():
            request.outcome_uncertain = True
        waiting = [
            *unanswered,
            *self.waiting.forwarded.values(),
            *self.waiting.commit_queries.values(),
            *self.waiting.parked.values(),
        ]
        waiting += [*self.change_feed.pop_all(), *self.leader_feed.pop_all()]
        self.waiting.forwarded, self.waiting.commit_queries, self.waiting.parked = {}, {}, {}
        self.reads.queries_until_ready.clear()
        for request in waiting:
            request.forwarded_to = ""
            if isinstance(request.origin, int) and request.origin in self.links:
                self.waiting.park(request)
            else:
                self.turns.remove_unanswered(request)

    def on_peer_connected(self, node_id: str) -> None:
        """Send again what a broken link may have lost."""
        for request in list(self.waiting.forwarded.values()):
            if request.forwarded_to == node_id and not self.forwarding.drop_if_session_left(request):
                self.forwarding.resend(request)
        for query_id, request in list(self.waiting.commit_queries.items()):
            entry = self.replicator.directory.checkpoints.get(request.creation_id)
            if entry is not None and entry.active == node_id:
                del self.waiting.commit_queries[query_id]
                self.route(request)

    def on_time(self) -> None:
        """Answer or forget what has waited for a long time."""
        self.change_feed.on_time()
        self.leader_feed.on_time()
        if self.context.now_ns < self.recheck_ns:
            return
        self.recheck_ns = self.context.now_ns + RECHECK_PER_REQUEST_NS * (
            len(self.waiting.parked) + len(self.waiting.forwarded)
        )
        self.waiting.check_backlog()
        self.turns.recount_unanswered(self.waiting.unanswered(self.replicator, self.replicas))
        self.withdrawals.on_time()
        abandoned_ns = self.context.now_ns - ABANDONED_REQUEST_NS
        for key, request in list(self.waiting.parked.items()):
            if request.received_ns <= abandoned_ns:
                del self.waiting.parked[key]
                self.turns.remove_unanswered(request)
        for key, request in list(self.waiting.forwarded.items()):
            if request.received_ns <= abandoned_ns and request.origin not in self.links:
                del self.waiting.forwarded[key]
                self.turns.remove_unanswered(request)
