"""Who leads a checkpoint: LEADER is answered at once, LEADER_TRACK once that has changed.

Both are served at the active replica, which alone knows the newest leadership, and show what is committed.
"""

from typing import Any

from ckpt_protocol import codes
from ckpt_protocol.messages import Kind, answer_error, answer_ok
from ckpt_protocol.parse_requests import parse_leader, parse_leader_track
from ckptd.core.client_request import Request
from ckptd.core.content.leadership import Candidate, Leadership, seq_of
from ckptd.core.context import Context
from ckptd.core.directory.replicator import DirectoryReplicator
from ckptd.core.hub import Hub
from ckptd.core.replication.local_replicas import LocalReplicas
from ckptd.core.replication.replica import Replica
from ckptd.core.requests.change_feed import lineage_of
from ckptd.core.requests.turn_budget import Turns
from ckptd.core.requests.waiting_reads import WaitingReads
from ckptd.core.work_costs import ROW_WORK


class LeaderFeed(WaitingReads):
    """The LEADER_TRACK requests that wait here."""

    def __init__(
        self,
        context: Context,
        hub: Hub,
        turns: Turns,
        replicator: DirectoryReplicator,
        replicas: LocalReplicas,
    ) -> None:
        super().__init__(context, hub, turns)
        self.replicator = replicator
        self.replicas = replicas

    def serve(self, request: Request, replica: Replica) -> None:
        """Answer LEADER, or LEADER_TRACK if there is news; else let that wait. The replica is active."""
        active, leadership = replica.active, replica.sections.leadership
        assert active is not None
        if request.kind == Kind.LEADER:
            asked = parse_leader(request.body)
            active.renew_leadership((request.session, asked.handle), asked.epoch, asked.seq)
            self._answer(request, replica, asked.handle, asked.whole)
            return
        track = parse_leader_track(request.body)
        if track.version == leadership.version:
            self.wait(request)
        else:
            self._answer(request, replica, track.handle, whole=False)

    def answer_unchanged(self, request: Request) -> None:
        replica = self.replicas.by_id.get(request.creation_id)
        if replica is None or replica.active is None or not replica.active.ready:
            self.hub.answer(request, answer_error(codes.TRY_AGAIN, "the active replica is not ready yet"))
        else:
            self._answer(request, replica, parse_leader_track(request.body).handle, whole=False)

    def _answer(self, request: Request, replica: Replica, handle: int, whole: bool) -> None:
        active, leadership = replica.active, replica.sections.leadership
        assert active is not None
        rows: list[Any] = [[], []]
        if whole:
            rows = [
                [self._program(candidate) for candidate in leadership.waiting],
                [[*ended[:5], [ended.name, ended.host, ended.pid, "", False]] for ended in leadership.ended],
            ]
            self.context.work += ROW_WORK * (len(rows[0]) + len(rows[1]))
        body = answer_ok(
            [
                leadership.version,
                self._leader(leadership),
                leadership.position_of((request.session, handle)),
                lineage_of(replica),
                *rows,
            ]
        )
        active.answer_after_commit(request, body, seq_of(leadership.version))

    def _leader(self, leadership: Leadership) -> list[Any] | None:
        leader = leadership.leader
        if leader is None:
            return None
        program = leader.program
        return [
            leader.epoch,
            leader.seq,
            program.exclusive,
            leader.since_ns,
            program.ttl_ns,
            leader.data_may_be_lost,
            self._program(program),
        ]

    def _program(self, program: Candidate) -> list[Any]:
        session = self.replicator.directory.sessions.get(program.session)
        attached = ["", False] if session is None else [session.node_id, session.death_seen]
        return [program.name, program.host, program.pid, *attached]
