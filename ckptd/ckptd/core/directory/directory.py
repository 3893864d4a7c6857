"""The directory: every checkpoint with its replicas and open handles, and every session.

Every member holds the whole directory. It changes only through ordered operations (`apply`), and when a view
is installed, by a rule that is the same at every member. Retention and grace are stored as the local time at
which they began, and are sent as the time that has passed since.
"""

from collections.abc import Container, Iterator
from typing import Any, Final

from ckpt_protocol.constants import SA_TIME_END
from ckptd.core.directory.attributes import Attributes, Limits
from ckptd.core.directory.entries import CheckpointEntry, NamedLeader, SessionEntry
from ckptd.core.reply_cache import ANSWER_MEMORY_FACTOR
from ckptd.core.view import View, last_epoch_of_membership

RETENTION_NONE_BELOW_NS: Final = 1_000_000
"""A retention of less than a millisecond has ended by the time the close is answered (R73)."""

EPOCH_SHIFT: Final = 40
"""A creation id consists of the epoch and the directory's seq of its CREATE, so no two are the same."""


CHECKPOINT_MEMORY_BYTES: Final = 900
"""Approximate memory of a checkpoint's entry, without its name, its former limits and its open handles."""

FORMER_MEMORY_BYTES: Final = 200
"""Approximate memory of a checkpoint's attributes before a resize."""

SESSION_MEMORY_BYTES: Final = 400
"""Approximate memory of a session, without its open handles and its answers."""

HANDLE_MEMORY_BYTES: Final = 250
"""Approximate memory of an open handle."""

OPENED_WITH_B01_RULES: Final = 8
"""Added to a handle's open flags if its program uses B.01, where iterating and RetentionDurationSet need no
access mode (R76, R110)."""


class DirectoryOp:
    """The operations of the directory: `[number, ...]`. The numbers are on the wire: append only."""

    ATTACH: Final = 1  # session, generation, node_id, true if the death of its client is seen
    END: Final = 2  # session, generation, client gone: no effect if it was attached again since
    OPEN: Final = 3  # session, handle, creation_id, flags
    CREATE: Final = 4  # session, handle, flags, name, attributes, replicas, active, ns since 1970
    CLOSE: Final = 5  # session, handle
    UNLINK: Final = 6  # name
    RETENTION_SET: Final = 7  # creation_id, retention_ns
    ACTIVE_SET: Final = 8  # creation_id, node_id
    IN_SYNC: Final = 9  # creation_id, node_id
    OUT_OF_SYNC: Final = 10  # creation_id, node_id
    ADD_REPLICA: Final = 11  # creation_id, node_id
    EXPIRE: Final = 12  # creation_id, retention_seq: no effect if its retention started again since
    NO_OP: Final = 13  # only records an answer
    HOLDER_LOST: Final = 14  # node_id, incarnation: that incarnation is dead, and what only it holds is lost
    LEADER: Final = 15  # creation_id, activation_seq, then `NamedLeader` (session 0: nobody)
    RESIZE: Final = 16  # creation_id, activation_seq, the resize's number, then `Limits`


class Directory:
    """The directory at one member.

    `dirty`, `attached`, `created` and `ended` collect what operations did, for the node to act upon.
    """

    def __init__(self) -> None:
        self.installed_epoch = 0
        self.seq = 0
        self.checkpoints: dict[int, CheckpointEntry] = {}
        self.names: dict[bytes, int] = {}
        self.led: dict[int, None] = {}
        """The checkpoints that name a leader."""
        self.sessions: dict[int, SessionEntry] = {}
        self.members: dict[str, int] = {}
        """The members of the view that the directory is installed in, each with its incarnation."""
        self.open_handles = 0
        self.resident_bytes = 0
        """Approximate memory of the whole directory."""
        self.dirty: dict[int, None] = {}
        """Checkpoints that operations touched."""
        self.lost: dict[int, None] = {}
        """Checkpoints that were lost with their last in-sync replica."""
        self.attached: list[int] = []
        """Sessions that operations attached to a node."""
        self.created: list[tuple[int, int]] = []
        """Checkpoints that operations created: (session, creation id)."""
        self.ended: list[int] = []
        """Sessions that operations ended."""

    def count(self) -> None:
        """Compute `open_handles` and `resident_bytes` of a directory that another member sent."""
        self.open_handles = sum(len(entry.opens) for entry in self.sessions.values())
        answers = sum(entry.answers.bytes for entry in self.sessions.values())
        self.resident_bytes = (
            sum(memory_of(entry) for entry in self.checkpoints.values())
            + SESSION_MEMORY_BYTES * len(self.sessions)
            + HANDLE_MEMORY_BYTES * self.open_handles
            + ANSWER_MEMORY_FACTOR * answers
        )

    def trim_answers(self, entry: "SessionEntry", first_unanswered: int) -> None:
        """Forget the answers below the session's lowest unanswered request: its client has them."""
        self.resident_bytes -= ANSWER_MEMORY_FACTOR * entry.answers.trim(first_unanswered)

    def record_reply(self, entry: "SessionEntry", number: int, answer: bytes) -> None:
        """Remember a session's answer to one request."""
        self.resident_bytes += ANSWER_MEMORY_FACTOR * entry.answers.record(number, self.seq, answer)

    def leaders(self) -> Iterator[tuple[CheckpointEntry, NamedLeader]]:
        """Yield the checkpoints that name a leader, with that."""
        for creation_id in self.led:
            entry = self.checkpoints[creation_id]
            assert entry.leader is not None
            yield entry, entry.leader

    def find(self, name: bytes) -> CheckpointEntry | None:
        """Return the checkpoint that has this name now, or None."""
        creation_id = self.names.get(name)
        return None if creation_id is None else self.checkpoints[creation_id]

    def may_still_be_created(self, creation_id: int) -> bool:
        """Return True if a checkpoint with this creation id may still be created in this epoch."""
        return creation_id > (self.installed_epoch << EPOCH_SHIFT) + self.seq

    # -- operations

    def apply(self, op: list[Any], seq: int, now_ns: int) -> None:
        """Apply one ordered operation.

        It was validated when it was ordered, but what it names may be gone by now.
        """
        self.seq = seq
        match op:
            case [DirectoryOp.ATTACH, session, generation, node_id, *seen]:
                if session not in self.sessions:
                    self.sessions[session] = SessionEntry(node_id, generation)
                    self.resident_bytes += SESSION_MEMORY_BYTES
                entry = self.sessions[session]
                migrated = entry.node_id != node_id
                entry.node_id, entry.generation, entry.death_seen = node_id, generation, seen == [True]
                self.attached.append(session)
                if migrated:
                    entry.migrated_seq = seq
                    self._follow_session(entry)
            case [DirectoryOp.END, session, generation, *gone]:
                if session in self.sessions and self.sessions[session].generation == generation:
                    self._end(session, now_ns, gone == [True])
            case [DirectoryOp.OPEN, session, handle, creation_id, flags]:
                self._open(session, handle, creation_id, flags)
            case [DirectoryOp.CREATE, session, handle, flags, name, attributes, replicas, active, *created]:
                creation_id = (self.installed_epoch << EPOCH_SHIFT) + seq
                parsed = Attributes(*attributes)
                holders = dict.fromkeys(replicas, True)
                made = CheckpointEntry(creation_id, name, parsed, parsed.retention_ns, holders, active, seq)
                made.created_ns = created[0] if created else 0
                self.checkpoints[creation_id] = made
                self.names[name] = creation_id
                self.resident_bytes += memory_of(made)
                self.created.append((session, creation_id))
                self._open(session, handle, creation_id, flags)
            case [DirectoryOp.CLOSE, session, handle]:
                self._close(session, handle, now_ns)
            case [DirectoryOp.UNLINK, name]:
                self._unlink(name)
            case [DirectoryOp.RETENTION_SET, creation_id, retention_ns] if creation_id in self.checkpoints:
                retained = self.checkpoints[creation_id]
                retained.retention_ns, retained.retention_seq = retention_ns, seq
                self.dirty[creation_id] = None
            case [DirectoryOp.EXPIRE, creation_id, retention_seq] if creation_id in self.checkpoints:
                expiring = self.checkpoints[creation_id]
                if not expiring.opens and expiring.retention_seq == retention_seq:
                    self._remove(creation_id)
            case [DirectoryOp.LEADER | DirectoryOp.RESIZE, *_] if self.would_change(op):
                self._follow_active_replica(op, now_ns)
            case [DirectoryOp.HOLDER_LOST, node_id, incarnation]:
                self._drop_dead_holder(node_id, incarnation, now_ns)
            case [
                DirectoryOp.ACTIVE_SET
                | DirectoryOp.IN_SYNC
                | DirectoryOp.OUT_OF_SYNC
                | DirectoryOp.ADD_REPLICA as number,
                creation_id,
                node_id,
            ]:
                self._change_replica(number, creation_id, node_id)

    def would_change(self, op: list[Any]) -> bool:
        """Return True if this LEADER or RESIZE changes anything; a former active replica has no say."""
        number, creation_id, activation_seq, *rest = op
        entry = self.checkpoints.get(creation_id)
        if entry is None or entry.activation_seq != activation_seq:
            return False
        if number == DirectoryOp.RESIZE:
            return bool(rest[0] > entry.resize_number)
        return entry.leader != (tuple(rest[:5]) if rest[0] else None)

    def _follow_active_replica(self, op: list[Any], now_ns: int) -> None:
        """Do what the active replica proposes: name a leader or none, or take the limits of a resize."""
        number, creation_id, _, *rest = op
        entry = self.checkpoints[creation_id]
        self.dirty[creation_id] = None
        if number == DirectoryOp.RESIZE:
            self.resident_bytes -= memory_of(entry)
            entry.resize(rest[0], Limits(*rest[1:4]))
            self.resident_bytes += memory_of(entry)
            return
        self.set_leader(entry, NamedLeader(*rest[:5]) if rest[0] else None)
        if not entry.leader and not entry.opens:
            self._begin_retention(entry, now_ns)

    def set_leader(self, entry: CheckpointEntry, leader: NamedLeader | None) -> None:
        """Name a checkpoint's leader, or none."""
        entry.leader = leader
        if leader is None:
            self.led.pop(entry.creation_id, None)
        else:
            self.led[entry.creation_id] = None

    def _change_replica(self, number: int, creation_id: int, node_id: str) -> None:
        entry = self.checkpoints.get(creation_id)
        if entry is None:
            return
        self.dirty[creation_id] = None
        if number == DirectoryOp.ACTIVE_SET:
            entry.active = node_id
            entry.activation_seq = self.seq
        elif number == DirectoryOp.ADD_REPLICA:
            entry.replicas.setdefault(node_id, False)
        elif node_id in entry.replicas:
            entry.replicas[node_id] = number == DirectoryOp.IN_SYNC

    def _drop_dead_holder(self, node_id: str, incarnation: int, now_ns: int) -> None:
        """Drop a dead node from the holders that checkpoints wait for; the others continue without it."""
        for entry in list(self.checkpoints.values()):
            if not 0 < entry.last_in_sync.get(node_id, 0) <= incarnation:
                continue
            del entry.last_in_sync[node_id]
            self._readopt_replicas(entry, now_ns)
            if entry.in_sync or entry.last_in_sync:
                self.dirty[entry.creation_id] = None
                self._choose_active(entry)
            else:
                self._remove_lost(entry)

    def _remove_lost(self, entry: CheckpointEntry) -> None:
        """Remove a checkpoint that is lost: no client ended it, but all its in-sync replicas are dead."""
        self.lost[entry.creation_id] = None
        self._remove(entry.creation_id)

    def forget_losses(self, replicas: Container[int]) -> None:
        """Forget the losses of checkpoints of which this node has no replica.

        The installation of a view alone does not clear `lost`. When it did, a loss that a coordinator
        finished on the way to the view was forgotten, and the replica was dropped without quarantine
        (seed 204).
        """
        self.lost = {creation_id: None for creation_id in self.lost if creation_id in replicas}

    def _open(self, session: int, handle: int, creation_id: int, flags: int) -> None:
        session_entry, entry = self.sessions.get(session), self.checkpoints.get(creation_id)
        if session_entry is None or entry is None:
            return
        if handle not in session_entry.opens:
            self.open_handles += 1
            self.resident_bytes += HANDLE_MEMORY_BYTES
        session_entry.opens[handle] = (creation_id, flags)
        entry.opens[session, handle] = flags
        self.dirty[creation_id] = None
        if entry.attributes.collocated:
            entry.replicas.setdefault(session_entry.node_id, False)

    def _follow_session(self, session_entry: SessionEntry) -> None:
        """Add a replica of the session's collocated checkpoints on the node that it has migrated to."""
        for creation_id, _ in session_entry.opens.values():
            entry = self.checkpoints.get(creation_id)
            if entry is not None and entry.attributes.collocated:
                entry.replicas.setdefault(session_entry.node_id, False)
                self.dirty[creation_id] = None

    def _close(self, session: int, handle: int, now_ns: int, client_gone: bool = True) -> None:
        session_entry = self.sessions.get(session)
        opened = session_entry.opens.pop(handle, None) if session_entry else None
        if opened is None:
            return
        self.open_handles -= 1
        self.resident_bytes -= HANDLE_MEMORY_BYTES
        entry = self.checkpoints.get(opened[0])
        if entry is None:
            return  # The checkpoint was lost with all its replicas.
        entry.opens.pop((session, handle), None)
        if client_gone and entry.leader is not None and entry.leader.key == (session, handle):
            self.set_leader(entry, None)
        self.dirty[entry.creation_id] = None
        if not entry.opens:
            self._begin_retention(entry, now_ns)

    def _begin_retention(self, entry: CheckpointEntry, now_ns: int) -> None:
        entry.last_closed_ns = now_ns
        entry.retention_seq = self.seq
        if entry.unlinked or entry.retention_ns < RETENTION_NONE_BELOW_NS:
            entry.retention_ns = 0
            if not entry.may_be_led:
                self._remove(entry.creation_id)

    def _end(self, session: int, now_ns: int, client_gone: bool) -> None:
        for handle in list(self.sessions[session].opens):
            self._close(session, handle, now_ns, client_gone)
        self.resident_bytes -= (
            SESSION_MEMORY_BYTES + ANSWER_MEMORY_FACTOR * self.sessions[session].answers.bytes
        )
        del self.sessions[session]
        self.ended.append(session)

    def _unlink(self, name: bytes) -> None:
        creation_id = self.names.pop(name, None)
        if creation_id is None:
            return
        entry = self.checkpoints[creation_id]
        entry.unlinked = True
        self.dirty[creation_id] = None
        if not entry.opens:
            self._remove(creation_id)

    def _remove(self, creation_id: int) -> None:
        entry = self.checkpoints.pop(creation_id)
        self.led.pop(creation_id, None)
        self.resident_bytes -= memory_of(entry)
        if self.names.get(entry.name) == creation_id:
            del self.names[entry.name]
        self.dirty[creation_id] = None

    # -- retention

    def expires_ns(self, entry: CheckpointEntry) -> int | None:
        """Return when a checkpoint's retention ends, by this node's clock.

        None while the checkpoint is open, and if its retention never ends. Also None while it is unavailable,
        since no client can open it then: retention starts again when it is back; and while a leader without a
        session may live, so that no program leads a newer checkpoint of this name at the same time.
        """
        if entry.opens or entry.last_in_sync or entry.retention_ns == SA_TIME_END or entry.may_be_led:
            return None
        return entry.last_closed_ns + entry.retention_ns

    # -- a view's installation

    def install(
        self, view: View, continuous_members: list[str], now_ns: int, may_have_served: bool = True
    ) -> None:
        """Install this directory in a view: drop replicas that left, readopt holders, place active replicas.

        A replica stays in sync only if its node is in `continuous_members`: it has been a member ever since
        this directory's epoch, or it was a member then and no view in between can have served (R2). If no
        in-sync replica is left, the checkpoint becomes unavailable: it keeps its name and waits for its
        holders, and is lost when all of them are dead. `may_have_served`: a view in between may have served,
        so the nodes that stayed longer may have continued without the others.
        """
        base_epoch = self.installed_epoch
        self.installed_epoch = view.epoch
        self.members = view.incarnations
        for entry in list(self.checkpoints.values()):
            if not entry.last_in_sync:
                self._keep_continuous_members(entry, view, base_epoch, continuous_members, may_have_served)
            if entry.last_in_sync:
                self._readopt_replicas(entry, now_ns)
            if not entry.in_sync and not entry.last_in_sync:
                self._remove_lost(entry)
                continue
            self._choose_active(entry)

    def _keep_continuous_members(
        self,
        entry: CheckpointEntry,
        view: View,
        base_epoch: int,
        continuous_members: list[str],
        may_have_served: bool,
    ) -> None:
        kept = {
            node_id: in_sync for node_id, in_sync in entry.replicas.items() if node_id in continuous_members
        }
        if not any(kept.values()):
            self._mark_unavailable(entry, view, base_epoch, may_have_served)
        entry.replicas = kept

    def _mark_unavailable(
        self, entry: CheckpointEntry, view: View, base_epoch: int, may_have_served: bool
    ) -> None:
        """Make a checkpoint unavailable: its holders are the in-sync nodes that stayed longest.

        Those may have continued without the others. If no view in between can have served, none has
        continued, and all of them are holders (seed 91).
        """
        memberships: dict[str, tuple[int, int]] = {}
        for node_id in entry.in_sync:
            for incarnation in self._incarnations_at(view, node_id, base_epoch):
                last = (
                    last_epoch_of_membership(view, node_id, incarnation, base_epoch)
                    if may_have_served
                    else base_epoch
                )
                memberships[node_id] = (last, incarnation)
        longest = max((last for last, _ in memberships.values()), default=0)
        entry.last_in_sync = {
            node_id: incarnation for node_id, (last, incarnation) in memberships.items() if last == longest
        }

    def _incarnations_at(self, view: View, node_id: str, base_epoch: int) -> list[int]:
        member = view.members.get(node_id)
        if member is not None and member.join_epoch <= base_epoch:
            return [member.incarnation]
        return [
            past.incarnation
            for past in view.past_memberships
            if past.node_id == node_id and past.join_epoch <= base_epoch <= past.last_epoch
        ]

    def _readopt_replicas(self, entry: CheckpointEntry, now_ns: int) -> None:
        """Count the holders as in sync again, once each is a member or dead.

        Nothing was ordered without them.
        If some of them continued after an earlier adoption, the active replica catches up with the most
        advanced one before it serves.
        """
        alive = {
            node_id: incarnation
            for node_id, incarnation in entry.last_in_sync.items()
            if self.members.get(node_id, incarnation) == incarnation
        }
        entry.last_in_sync = alive
        entry.active = None
        if any(node_id not in self.members for node_id in alive):
            return
        entry.last_in_sync = {}
        entry.replicas = dict.fromkeys(alive, True)
        entry.last_closed_ns = now_ns

    def _choose_active(self, entry: CheckpointEntry) -> None:
        in_sync = entry.in_sync
        entry.activation_seq = self.seq
        if entry.active in in_sync:
            return
        if not in_sync or (entry.attributes.collocated and not entry.attributes.sync):
            entry.active = None
        else:
            entry.active = in_sync[entry.creation_id % len(in_sync)]

    # -- sending

    def snapshot(self, now_ns: int) -> list[Any]:
        """Return the whole directory as it is sent, with the times that have passed since the last closes."""
        return [
            self.installed_epoch,
            self.seq,
            [fields_of(entry, now_ns, with_opens=True) for entry in self.checkpoints.values()],
            [
                [
                    session,
                    entry.node_id,
                    entry.generation,
                    [[handle, *opened] for handle, opened in entry.opens.items()],
                    entry.answers.first_unanswered,
                    [[request, *answer] for request, answer in entry.answers.by_request.items()],
                    entry.death_seen,
                ]
                for session, entry in self.sessions.items()
            ],
            list(self.members.items()),
        ]


def memory_of(entry: CheckpointEntry) -> int:
    """Return the approximate memory of a checkpoint's entry, without its open handles."""
    return CHECKPOINT_MEMORY_BYTES + len(entry.name) + FORMER_MEMORY_BYTES * len(entry.former)


def fields_of(entry: CheckpointEntry, now_ns: int, with_opens: bool) -> list[Any]:
    """Return a checkpoint as it is sent; without its open handles if those are sent with their sessions."""
    opens = entry.opens.items() if with_opens else ()
    return [
        entry.creation_id,
        entry.name,
        entry.attributes.fields(),
        entry.retention_ns,
        list(entry.replicas.items()),
        entry.active,
        [[session, handle, flags] for (session, handle), flags in opens],
        entry.unlinked,
        now_ns - entry.last_closed_ns,
        list(entry.last_in_sync.items()),
        entry.activation_seq,
        entry.retention_seq,
        entry.created_ns,
        entry.leader,
        [entry.resize_number, *(former.fields() for former in entry.former)] if entry.resize_number else None,
    ]
