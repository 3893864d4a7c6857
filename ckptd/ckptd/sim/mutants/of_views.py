"""Mutants of the rules about views, leases, the register, sessions and the directory."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final
from zlib import crc32

from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.messages import Kind, answer_ok
from ckptd.core.arbiter.disk_record import NO_BALLOT, DiskRecord
from ckptd.core.arbiter.paxos import PaxosArbiter
from ckptd.core.arbiter.wait_for_disk import RecordStore
from ckptd.core.client_request import Request
from ckptd.core.context import NEVER_NS
from ckptd.core.directory import directory, replicator, transfer, validation
from ckptd.core.directory.directory import Directory, DirectoryOp
from ckptd.core.directory.replicator import DirectoryReplicator
from ckptd.core.liveness.heartbeat import Heartbeats
from ckptd.core.liveness.incarnations import Incarnations
from ckptd.core.liveness.lease import Lease
from ckptd.core.liveness.proofs_of_death import ProofsOfDeath
from ckptd.core.membership.reconfiguration import Reconfiguration
from ckptd.core.membership.retention import Retention
from ckptd.core.membership.view_change import ViewChange
from ckptd.core.operations.graceful_leave import GracefulLeave
from ckptd.core.requests.router import READ_KINDS, RequestRouter
from ckptd.core.requests.sessions import Sessions
from ckptd.sim.mutants.mutant import MutantTable, Patch

TABLE: Final = MutantTable()

# -- proof, votes, memberships


@TABLE.mutant(
    "incarnations by heartbeats",
    "an incarnation is known once it answered at its node's address",
    "impostors",
)
def _(patch: Patch) -> None:
    original = Heartbeats.receive

    def receive(heartbeats: Any, frame: Any, authentic: bool) -> Any:
        node_id, incarnation = unpack_body(frame.body)[:2]
        peer = heartbeats.peers.get(node_id)
        if peer is not None and incarnation > peer.incarnation:
            heartbeats.deaths.on_new_incarnation(peer, incarnation)
        return original(heartbeats, frame, authentic)

    patch(Heartbeats, "receive", receive)


@TABLE.mutant(
    "later incarnations hidden",
    "an incarnation below a known one starts again above it",
    "impostors",
)
def _(patch: Patch) -> None:
    def outranked(incarnations: Any, node_id: str, incarnation: int) -> None:
        pass

    patch(Incarnations, "on_outranked", outranked)


@TABLE.mutant(
    "stale leases prove",
    "R1: a dead coordinator is succeeded only if its lease was fresh when it died",
    "continued alone",
)
def _(patch: Patch) -> None:
    def note_lease_freshness(deaths: Any, peer: Any) -> None:
        peer.lease_fresh_at_death = (peer.incarnation, deaths.context.epoch)

    patch(ProofsOfDeath, "_note_lease_freshness", note_lease_freshness)


@TABLE.mutant(
    "old memberships count", "R2: a replica counts only with data of its node's join epoch", "take-overs"
)
def _(patch: Patch) -> None:
    original = Directory.install

    def install(directory: Any, view: Any, continuous_members: list[str], *served: bool) -> None:
        original(directory, view, list(view.members), *served)

    patch(Directory, "install", install)


@TABLE.mutant(
    "sent before on disk",
    "R3: promises and the epoch that a node serves in are on disk before they are sent",
    "restarts",
)
def _(patch: Patch) -> None:
    def save(store: Any, then: Any = None) -> None:
        store._write()
        if then is not None:
            then()

    patch(RecordStore, "persist", save)


@TABLE.mutant("votes forgotten", "R3: what a node promised and accepted is on disk", "take-overs")
def _(patch: Patch) -> None:
    patch(DiskRecord, "pack", _packed_without(promised=NO_BALLOT, accepted=NO_BALLOT, view=None))


@TABLE.mutant(
    "installed epoch forgotten", "R3: the epoch that a node serves in is on its disk", "continued alone"
)
def _(patch: Patch) -> None:
    patch(DiskRecord, "pack", _packed_without(installed_epoch=0))


def _packed_without(**forgotten: Any) -> Callable[[Any], bytes]:
    original = DiskRecord.pack
    return lambda record: original(replace(record, **forgotten))


@TABLE.mutant("lost disks unnoticed", "a node that lost its disk does not know what it promised and served")
def _(patch: Patch) -> None:
    original = RecordStore.__init__

    def start(store: Any, context: Any, packed: bytes) -> None:
        original(store, context, packed)
        store.amnesiac = False
        store.installed_by_earlier_incarnations = store.record.installed_epoch

    patch(RecordStore, "__init__", start)


@TABLE.mutant(
    "votes after amnesia", "a voter whose disk was lost abstains until a view names it", "amnesiac voters"
)
def _(patch: Patch) -> None:
    patch(PaxosArbiter, "_may_vote", lambda arbiter: True)


# -- leases


@TABLE.mutant("lease never ends", "updates and reads need the view's lease")
def _(patch: Patch) -> None:
    def renew(lease: Any, view: Any) -> None:
        lease.context.lease_until_ns = 2**63

    patch(Lease, "renew", renew)


@TABLE.mutant("reads without lease", "a read needs the view's lease", "sync splits")
def _(patch: Patch) -> None:
    original = RequestRouter.route

    def dispatch(requests: Any, request: Any) -> None:
        context = requests.context
        lease_until_ns = context.lease_until_ns
        if request.kind in READ_KINDS:
            context.lease_until_ns = NEVER_NS
        original(requests, request)
        context.lease_until_ns = lease_until_ns

    patch(RequestRouter, "route", dispatch)


@TABLE.mutant(
    "leases not waited out",
    "a coordinator waits until the leases of excluded nodes have ended",
    "short pauses",
)
def _(patch: Patch) -> None:
    patch(Lease, "excluded_leases_end_ns", lambda lease, view, installed_epoch, all_answered_ns: 0)


@TABLE.mutant(
    "no sealing", "a node that knows a decided view serves and acknowledges no older epoch", "short pauses"
)
def _(patch: Patch) -> None:
    original = Reconfiguration.adopt_decided

    def adopt_decided(reconfiguration: Any, view: Any) -> bool:
        sealed = reconfiguration.context.sealed
        newest = original(reconfiguration, view)
        reconfiguration.context.sealed = sealed
        return newest

    patch(Reconfiguration, "adopt_decided", adopt_decided)


# -- the directory


@TABLE.mutant("directory calls twice", "a repeated OPEN, CLOSE or UNLINK gets its first answer")
def _(patch: Patch) -> None:
    original = DirectoryReplicator._replicate_request

    def order_request(replicator: Any, request: Any) -> None:
        session = replicator.directory.sessions.get(request.session)
        if session is not None and request.kind in (Kind.OPEN, Kind.CLOSE, Kind.UNLINK):
            session.answers.by_request.clear()
        original(replicator, request)

    patch(DirectoryReplicator, "_replicate_request", order_request)


@TABLE.mutant(
    "directory acked by some", "a change of the directory is answered once every member has acknowledged it"
)
def _(patch: Patch) -> None:
    original = DirectoryReplicator._commit_if_acknowledged

    def commit_if_acknowledged(replicator: Any) -> None:
        replicator.awaiting_ack = []
        original(replicator)

    patch(DirectoryReplicator, "_commit_if_acknowledged", commit_if_acknowledged)


@TABLE.mutant(
    "staged operation dropped", "a new coordinator finishes the operation that was staged", "last answers"
)
def _(patch: Patch) -> None:
    original = ViewChange._install_collected

    def install_collected(view_change: Any, collection: Any) -> None:
        view_change.replicator.in_flight = None
        for reply in collection.replies.values():
            reply.staged = None
        original(view_change, collection)

    patch(ViewChange, "_install_collected", install_collected)


@TABLE.mutant("names as creation ids", "messages name a checkpoint by its creation id")
def _(patch: Patch) -> None:
    original_apply, original_plan = Directory.apply, validation.validate

    def named(name: bytes) -> int:
        return 2**62 + crc32(name)

    def apply(directory: Any, op: list[Any], seq: int, now_ns: int) -> None:
        original_apply(directory, op, seq, now_ns)
        if op[0] == DirectoryOp.CREATE and op[1] in directory.sessions:
            entry = directory.checkpoints.pop(directory.names[op[4]])
            directory.dirty.pop(entry.creation_id, None)
            entry.creation_id = directory.names[op[4]] = named(op[4])
            directory.checkpoints[entry.creation_id] = entry
            directory.sessions[op[1]].opens[op[2]] = (entry.creation_id, op[3])
            directory.dirty[entry.creation_id] = None

    def plan(*asked: Any) -> Any:
        op, answer = original_plan(*asked)
        if op and op[0] == DirectoryOp.CREATE:
            answer = answer_ok([op[2], named(op[4]), op[5]])
        return op, answer

    patch(Directory, "apply", apply)
    patch(replicator, "validate", plan)


# -- timers


@TABLE.mutant(
    "withdrawn though done",
    "a request that may have been carried out is not answered TRY_AGAIN",
    "calls run out",
)
def _(patch: Patch) -> None:
    patch(Request, "in_doubt", False)
    patch(DirectoryReplicator, "withdraw", _retract_blindly)


def _retract_blindly(replicator: Any, session: int, number: int, looked_at_max: int) -> Any:
    asked = replicator.waiting_request
    return asked if asked is not None and (asked.session, asked.number) == (session, number) else None


@TABLE.mutant(
    "opens of what is gone", "an open waits for the replicas that it needs (R29, R41)", "only replicas"
)
def _(patch: Patch) -> None:
    original = RequestRouter._awaits_local_replica

    def must_wait(requests: Any, request: Any, body: bytes) -> bool:
        return request.kind != Kind.OPEN and original(requests, request, body)

    patch(validation, "why_open_waits", lambda entry, node_id: "")
    patch(RequestRouter, "_awaits_local_replica", must_wait)


@TABLE.mutant("retention not re-armed", "a new coordinator re-arms the retentions")
def _(patch: Patch) -> None:
    def on_installed(retention: Any) -> None:
        retention.next_expiry_ns = NEVER_NS

    patch(Retention, "on_installed", on_installed)


@TABLE.mutant("retention never ends", "a checkpoint is deleted when its retention is over")
def _(patch: Patch) -> None:
    patch(Directory, "expires_ns", lambda directory, entry: None)


@TABLE.mutant(
    "last holder goes", "the node with the last replica waits for a peer to come back", shape="rolling"
)
def _(patch: Patch) -> None:
    patch(GracefulLeave, "_is_expected_elsewhere", lambda leaving, entry, staying: False)


@TABLE.mutant("retention ends early", "retention travels as passed time", "closed over restarts")
def _(patch: Patch) -> None:
    original = directory.fields_of

    def fields_of(entry: Any, now_ns: int, with_opens: bool) -> list[Any]:
        return original(entry, now_ns + 2**50, with_opens)

    patch(directory, "fields_of", fields_of)
    patch(transfer, "fields_of", fields_of)


@TABLE.mutant(
    "grace not re-armed", "after a view change a node re-arms the grace of the sessions attached to it"
)
def _(patch: Patch) -> None:
    patch(Sessions, "on_installed", lambda clients: None)


# Not here: "the sessions of a node that left end after their grace". At the end of a simulation every node is
# back and ends those sessions itself, so no checker can see that no other node would have. A scenario of the
# core shows it (tests/sim/test_rules_switched_off.py).


@TABLE.mutant("sessions never end", "a session without a connection ends after its grace")
def _(patch: Patch) -> None:
    patch(Sessions, "on_time", lambda clients: None)


@TABLE.mutant("sessions have no grace", "a session survives a lost connection for its grace")
def _(patch: Patch) -> None:
    original = Sessions.on_lost
    patch(Sessions, "on_lost", lambda clients, link, process_dead: original(clients, link, True))
