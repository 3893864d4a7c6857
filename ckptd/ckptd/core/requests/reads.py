"""Reads: answered from the replica here, with what is committed.

If an update that is pending touches what is asked for, a replica first asks the active one what is committed
(QUERY). It answers from its own content once it has that.
"""

from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.errors import FrameError, RequestError
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.messages import (
    Kind,
    answer_error,
    answer_ok,
)
from ckpt_protocol.parse_requests import (
    Elements,
    Iterate,
    parse_iterate,
    parse_nothing,
    parse_read,
    parse_track,
)
from ckptd.core.client_request import Request
from ckptd.core.containment import contain_request
from ckptd.core.context import Context
from ckptd.core.directory.entries import CheckpointEntry
from ckptd.core.directory.replicator import DirectoryReplicator
from ckptd.core.hub import Hub
from ckptd.core.replication.local_replicas import LocalReplicas
from ckptd.core.replication.replica import Replica
from ckptd.core.requests.change_feed import ChangeFeed, position_of
from ckptd.core.requests.leader_feed import LeaderFeed
from ckptd.core.requests.turn_budget import Turns
from ckptd.core.requests.waiting_requests import WaitingRequests
from ckptd.core.work_costs import REFUSED_SHIFT

# Looking up a name of this module takes a fifth of the time that an attribute of a class takes.
_UPDATE: Final = Kind.UPDATE
_READ: Final = Kind.READ


def elements_of(request: Request) -> Elements:
    """Return what a READ asks for. It is parsed once. Raises: FrameError, RequestError."""
    if request.elements is None:
        request.elements = parse_read(request.body)
    return request.elements


class Reads:
    """Serves READ, ITERATE, STATUS and TRACK, LEADER and LEADER_TRACK."""

    def __init__(
        self,
        context: Context,
        hub: Hub,
        replicator: DirectoryReplicator,
        replicas: LocalReplicas,
        turns: Turns,
        waiting: WaitingRequests,
    ) -> None:
        self.context = context
        self.hub = hub
        self.replicator = replicator
        self.replicas = replicas
        self.turns = turns
        self.waiting = waiting
        self.change_feed = ChangeFeed(context, hub, turns)
        self.leader_feed = LeaderFeed(context, hub, turns, replicator, replicas)
        self.last_query_id = 0
        self.queries_until_ready: list[tuple[str, Frame]] = []
        """QUERYs of other nodes that wait until this node's active replica serves."""

    def read_locally(self, request: Request, entry: CheckpointEntry, replica: Replica | None) -> None:
        """Read the local replica of a sync checkpoint.

        If a pending update touches what is asked for, ask the active replica first, which knows what is
        committed.
        """
        if replica is None or replica.ignores_updates or not replica.complete:
            self.waiting.park(request)
            return
        active = replica.active
        if active is not None:
            if active.ready:
                self.serve(request, entry, replica)
            else:
                self.waiting.park(request)
            return
        if replica.log.pending and self._touches_pending(request, replica) and entry.active is not None:
            self.last_query_id += 1
            self.turns.add_unanswered(request, 1)
            self.waiting.commit_queries[self.last_query_id] = request
            frame = encode_frame(Kind.QUERY, replica.creation_id, self.context.epoch, self.last_query_id)
            self.context.send_peer(entry.active, frame)
            return
        self.serve(request, entry, replica)

    def _touches_pending(self, request: Request, replica: Replica) -> bool:
        if request.kind == Kind.TRACK:  # A first one does; later ones report only committed changes.
            return parse_track(request.body).after is None
        if request.kind != Kind.READ:
            return True
        try:
            return replica.pending_touches([element[0] for element in elements_of(request)])
        except (FrameError, RequestError):
            return False  # Its answer will say what is wrong.

    def serve(self, request: Request, entry: CheckpointEntry, replica: Replica) -> None:
        if request.kind == Kind.TRACK:
            self.change_feed.serve(request, replica)
            return
        try:
            if request.kind == _READ:
                body = replica.read(elements_of(request))
            elif request.kind == Kind.ITERATE:
                asked = parse_iterate(request.body)
                if asked.with_position:
                    replica.flush_batch()  # What it shows is in the sequence then.
                page = replica.iterate(asked)
                if isinstance(page, Iterate):
                    request.body = pack_body(list(page))  # Do the rest after others have had their turn.
                    self.turns.requeue([request])
                    return
                if asked.with_position:
                    page += position_of(replica)
                body = answer_ok(page)
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
        self.hub.answer(request, body)

    def _status(self, entry: CheckpointEntry, replica: Replica) -> bytes:
        count, content_bytes = replica.count_and_bytes()
        attributes = replica.committed_attributes().fields()
        attributes[2] = entry.retention_ns
        replicas = [[node_id, in_sync] for node_id, in_sync in sorted(entry.replicas.items())]
        return answer_ok(
            [attributes, count, content_bytes, entry.active, replicas, len(entry.opens), entry.unlinked]
        )

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
        request = self.waiting.commit_queries.pop(frame.c, None)
        entry = self.replicator.directory.checkpoints.get(frame.a)
        replica = self.replicas.by_id.get(frame.a)
        if request is None:
            return
        if entry is None or replica is None or replica.ignores_updates or not self.context.serving():
            self.hub.route(request)
        else:
            self.serve(request, entry, replica)
