"""A node's last words, and what the others do when they receive them: see `stops_by_bugs`.

A node that stops by its own fault sends its last words over the links to the peers, and writes them to its
record on disk. Both are best effort: if they are lost, one more node stops, and reports the same again.
"""

from typing import Any

from ckpt_protocol import codes
from ckpt_protocol.errors import RequestError
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import CREATION_KINDS, REPLICATE_ROUTE, Kind
from ckptd.core.arbiter.wait_for_disk import RecordStore
from ckptd.core.client_request import Request
from ckptd.core.containment import describe
from ckptd.core.context import Context
from ckptd.core.directory.replicator import DirectoryReplicator, Operation
from ckptd.core.events import Effect, Log, Persist, SendPeer
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.replication.local_replicas import LocalReplicas
from ckptd.core.replication.replica import Replica
from ckptd.core.requests.router import RequestRouter
from ckptd.core.stops_by_bugs import STOPS_ON_DISK_MAX, Phase, Stop, parse_faults


class LastWords:
    """Keeps `context.stops` in line with the peers, the disk and the directory."""

    def __init__(
        self,
        context: Context,
        liveness: Liveness,
        store: RecordStore,
        replicator: DirectoryReplicator,
        replicas: LocalReplicas,
        requests: RequestRouter,
    ) -> None:
        self.context = context
        self.liveness = liveness
        self.store = store
        self.replicator = replicator
        self.replicas = replicas
        self.requests = requests
        context.stops.add(store.record.stops)

    # -- before this node ends

    def last_words(self) -> list[Effect]:
        """Return the effects that remain to be carried out after the core raised an exception."""
        context = self.context
        stop = self._stop_of_cause()
        if stop is None:
            return []
        context.stops.add([stop])
        frame = context.stops.frame(context.epoch)
        text = f"this node stops: {stop.describe()}"
        if isinstance(context.cause, Request | Frame):
            text += f"; {describe(context.cause.kind, context.cause.body)}"
        effects: list[Effect] = [Log("critical", text)]
        peers = [peer.node_id for peer in self.liveness.peers.values() if peer.connected]
        effects += [SendPeer(node_id, frame) for node_id in peers]
        self._record_stops()
        effects.append(Persist(self.store.record.pack(), self.store.number + 1))
        return effects

    def _stop_of_cause(self) -> Stop | None:
        """Return what this node was doing; None if there is nothing that the others could avoid."""
        cause = self.context.cause
        match cause:
            case Request():
                creation_id = cause.creation_id
                replica = self.replicas.by_id.get(creation_id)
                phase, seq = (Phase.PASS if creation_id else Phase.PLAN), 0
                if replica is not None and replica.active is not None:
                    phase, seq = Phase.ORDER, replica.log.seq + 1
                number = 0 if cause.kind == Kind.ATTACH else cause.number
                return self._stop_at(phase, creation_id, self.context.epoch, seq, cause.session, number)
            case Replica():
                phase = Phase.LEAD if cause.active is not None else Phase.COPY
                return self._stop_at(phase, cause.creation_id, cause.log.epoch, cause.log.seq)
            case Operation(seq, creation_id, session, request, first):
                phase = Phase.COORDINATE if first else Phase.FOLLOW
                return self._stop_at(phase, creation_id, self.context.epoch, seq, session, request)
            case Frame(Kind.FORWARD_ANSWER | Kind.FORWARD_REFUSED, number, epoch, session):
                return self._stop_at(Phase.PASS, 0, epoch, 0, session, number)
            case Frame(kind, creation_id, epoch, seq, body) if kind in CREATION_KINDS and creation_id:
                if kind == Kind.REPLICATE:
                    session, request, _, _, _, ordered = REPLICATE_ROUTE.unpack_from(body)
                    return self._stop_at(Phase.STAGE, creation_id, ordered, seq, session, request)
                replica = self.replicas.by_id.get(creation_id)
                active = replica is not None and replica.active is not None
                return self._stop_at(Phase.LEAD if active else Phase.COPY, creation_id, epoch, seq)
        return None

    def _stop_at(
        self, phase: int, creation_id: int, epoch: int, seq: int, session: int = 0, request: int = 0
    ) -> Stop:
        context = self.context
        return Stop(context.node_id, context.incarnation, phase, creation_id, epoch, seq, session, request)

    # -- what the others report

    def on_stopped(self, node_id: str, frame: Frame) -> None:
        """Learn the stops that a node reports, and pass on what is new to all peers. Raises: FrameError."""
        stops, forgotten = parse_faults(frame)
        context = self.context
        new = context.stops.add(stops)
        again = [creation_id for creation_id in forgotten if context.stops.forget(creation_id)]
        for stop in new:
            context.count("stops_heard_of")
            context.log(f"a node stopped because of a fault of its own: {stop.describe()}", "error")
        if new or again:
            self._broadcast(again, node_id)
            self._apply({*(stop.creation_id for stop in new), *again})

    def on_peer_connected(self, node_id: str) -> None:
        """Send a peer what this node knows: it may have been away, or may have just started."""
        if self.context.stops.known:
            self.context.send_peer(node_id, self.context.stops.frame(self.context.epoch))

    def prune(self) -> None:
        """Forget the stops that no longer matter: sessions have ended, or checkpoints are gone."""
        if self.context.stops.known and self.context.stops.prune(self.replicator.directory):
            self._record_stops()

    def retry(self, name: Any) -> str:
        """Serve a checkpoint again, as an operator asks. Raises: RequestError."""
        entry = self.replicator.directory.find(name.encode()) if type(name) is str else None
        if entry is None:
            raise RequestError(codes.NOT_EXIST, f"there is no checkpoint {name!r}")
        if not self.context.stops.forget(entry.creation_id):
            raise RequestError(
                codes.BAD_OPERATION, f"this node does not know of any node that checkpoint {name!r} stopped"
            )
        self._broadcast([entry.creation_id], "")
        self._apply({entry.creation_id})
        return (
            f"checkpoint {name!r} is tried again; the request that stopped a node before may stop the "
            "next one"
        )

    def _broadcast(self, forgotten: list[int], but: str) -> None:
        frame = self.context.stops.frame(self.context.epoch, forgotten)
        for peer in self.liveness.peers.values():
            if peer.connected and peer.node_id != but and not peer.is_witness:
                self.context.send_peer(peer.node_id, frame)

    def _record_stops(self) -> None:
        """Put the stops into the record. It is written with the next change of it."""
        self.store.record.stops = tuple(self.context.stops.known)[-STOPS_ON_DISK_MAX:]

    def _apply(self, creation_ids: set[int]) -> None:
        self._record_stops()
        if self.context.sealed:
            return  # The installation of the next view looks at everything.
        changed = sorted(creation_ids)
        self.replicas.on_stops(changed)
        self.requests.on_stops(changed)
