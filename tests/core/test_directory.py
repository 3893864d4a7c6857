"""The directory: how checkpoints come and go, how it travels, and what a new view makes of it."""

from typing import Any

import pytest

from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.constants import SA_TIME_END
from ckptd.core.directory.directory import EPOCH_SHIFT, RETENTION_NONE_BELOW_NS, Directory, DirectoryOp
from ckptd.core.directory.entries import CheckpointEntry, NamedLeader
from ckptd.core.directory.parse_directory import read_snapshot
from ckptd.core.view import View, bootstrap_view, successor_view

SYNC, ASYNC, SYNC_COLLOCATED, ASYNC_COLLOCATED, WEAK_COLLOCATED = 1, 2, 9, 10, 12
RETENTION_NS = 10 * RETENTION_NONE_BELOW_NS
READ = 1


class Ordered:
    """A directory of epoch 1 to which operations are applied one after the other.

    Session 11 is attached at node a, 12 at b, 13 at c.
    """

    def __init__(self) -> None:
        self.directory = Directory()
        self.directory.installed_epoch = 1
        self.now_ns = 1_000
        for session, node_id in ((11, "a"), (12, "b"), (13, "c")):
            self.do(DirectoryOp.ATTACH, session, 1, node_id)

    def do(self, *op: Any) -> None:
        self.directory.apply(list(op), self.directory.seq + 1, self.now_ns)
        check(self.directory)

    def create(
        self,
        name: bytes = b"n",
        flags: int = SYNC,
        retention_ns: int = RETENTION_NS,
        *,
        session: int = 11,
        handle: int = 1,
        replicas: tuple[str, ...] = ("a", "b"),
    ) -> CheckpointEntry:
        active = None if flags in (ASYNC_COLLOCATED, WEAK_COLLOCATED) else replicas[0]
        fields = [flags, 0, retention_ns, 4, 100, 8]
        self.do(DirectoryOp.CREATE, session, handle, 7, name, fields, list(replicas), active)
        entry = self.directory.find(name)
        assert entry is not None
        return entry

    def held(self) -> list[bytes]:
        """Names of the checkpoints there are, unlinked ones too."""
        return sorted(entry.name for entry in self.directory.checkpoints.values())


def check(directory: Directory) -> None:
    """What must hold after every operation."""
    linked = {e.name: e.creation_id for e in directory.checkpoints.values() if not e.unlinked}
    assert directory.names == linked
    assert set(directory.led) == {e.creation_id for e in directory.checkpoints.values() if e.leader}
    for creation_id, entry in directory.checkpoints.items():
        assert entry.creation_id == creation_id
        for (session, handle), flags in entry.opens.items():
            assert directory.sessions[session].opens[handle] == (creation_id, flags)


# -- leaders


@pytest.mark.parametrize("ends", ["named no more", "closed", "removed"])
def test_the_checkpoints_with_a_leader_are_known(ends: str) -> None:
    ordered = Ordered()
    entry = ordered.create(retention_ns=0)
    leader = NamedLeader(11, 1, 5, True, "one")
    ordered.do(DirectoryOp.LEADER, entry.creation_id, entry.activation_seq, *leader)
    assert list(ordered.directory.leaders()) == [(entry, leader)]
    if ends == "named no more":
        ordered.do(DirectoryOp.LEADER, entry.creation_id, entry.activation_seq, 0, 0, 0, False, "")
    elif ends == "closed":
        ordered.do(DirectoryOp.OPEN, 12, 1, entry.creation_id, 7)
        ordered.do(DirectoryOp.CLOSE, 11, 1)
    else:
        ordered.do(DirectoryOp.UNLINK, entry.name)
        ordered.do(DirectoryOp.CLOSE, 11, 1)
        assert ordered.held() == []
    assert list(ordered.directory.leaders()) == []


# -- sessions and opens


def test_a_created_checkpoint_is_found_by_name_open_and_placed() -> None:
    ordered = Ordered()
    entry = ordered.create(replicas=("b", "c"))
    assert entry.creation_id == (1 << EPOCH_SHIFT) + ordered.directory.seq
    assert (entry.replicas, entry.active, entry.activation_seq) == (
        {"b": True, "c": True},
        "b",
        ordered.directory.seq,
    )
    assert entry.opens == {(11, 1): 7}
    assert entry.creation_id in ordered.directory.dirty
    assert ordered.directory.find(b"m") is None


def test_a_creation_id_may_come_until_it_has_been_given() -> None:
    ordered = Ordered()
    next_id = (1 << EPOCH_SHIFT) + ordered.directory.seq + 1
    assert ordered.directory.may_still_be_created(next_id)
    assert ordered.create().creation_id == next_id
    assert not ordered.directory.may_still_be_created(next_id)
    assert ordered.directory.may_still_be_created(next_id + 1)


@pytest.mark.parametrize(
    ("flags", "replicas"),
    [
        (SYNC, {"a": True}),
        (ASYNC, {"a": True}),
        (SYNC_COLLOCATED, {"a": True, "b": False}),
        (ASYNC_COLLOCATED, {"a": True, "b": False}),
    ],
)
def test_an_open_at_another_node_adds_a_replica_there_when_collocated(
    flags: int, replicas: dict[str, bool]
) -> None:
    ordered = Ordered()
    entry = ordered.create(flags=flags, replicas=("a",))
    ordered.do(DirectoryOp.OPEN, 12, 5, entry.creation_id, READ)
    assert entry.replicas == replicas
    ordered.do(DirectoryOp.OPEN, 11, 6, entry.creation_id, READ)
    assert entry.replicas == replicas


def test_a_session_that_is_attached_elsewhere_keeps_what_it_has_open() -> None:
    ordered = Ordered()
    entry = ordered.create()
    ordered.do(DirectoryOp.ATTACH, 11, 2, "c")
    session = ordered.directory.sessions[11]
    assert (session.node_id, session.generation) == ("c", 2)
    assert session.opens == {1: (entry.creation_id, 7)}


def test_the_end_of_an_older_generation_does_not_end_a_session_that_moved() -> None:
    ordered = Ordered()
    ordered.create()
    ordered.do(DirectoryOp.ATTACH, 11, 2, "c")
    ordered.do(DirectoryOp.END, 11, 1)
    assert 11 in ordered.directory.sessions
    assert ordered.directory.ended == []
    ordered.do(DirectoryOp.END, 11, 2)
    assert 11 not in ordered.directory.sessions
    assert ordered.directory.ended == [11]


def test_the_end_of_a_session_closes_all_that_it_opened() -> None:
    ordered = Ordered()
    kept, lone = ordered.create(b"kept"), ordered.create(b"lone", retention_ns=0, handle=2)
    ordered.do(DirectoryOp.OPEN, 12, 5, kept.creation_id, READ)
    ordered.do(DirectoryOp.END, 11, 1)
    assert kept.opens == {(12, 5): READ}
    assert ordered.held() == [b"kept"]
    assert lone.creation_id in ordered.directory.dirty
    ordered.do(DirectoryOp.END, 11, 1)


@pytest.mark.parametrize(
    "op",
    [
        [DirectoryOp.OPEN, 99, 5, 1, READ],
        [DirectoryOp.OPEN, 11, 5, 1, READ],
        [DirectoryOp.CLOSE, 99, 1],
        [DirectoryOp.CLOSE, 11, 9],
        [DirectoryOp.END, 99, 1],
        [DirectoryOp.UNLINK, b"nothing"],
        [DirectoryOp.RETENTION_SET, 1, 5],
        [DirectoryOp.EXPIRE, 1, 0],
        [DirectoryOp.ACTIVE_SET, 1, "a"],
        [DirectoryOp.IN_SYNC, 1, "a"],
        [DirectoryOp.OUT_OF_SYNC, 1, "a"],
        [DirectoryOp.ADD_REPLICA, 1, "a"],
        [DirectoryOp.NO_OP],
        [99, 1, 2],
    ],
    ids=repr,
)
def test_an_operation_does_nothing_when_what_it_names_is_gone(op: list[Any]) -> None:
    ordered = Ordered()
    ordered.create()
    before = ordered.directory.snapshot(0)
    ordered.do(*op)
    before[1] += 1
    assert ordered.directory.snapshot(0) == before


# -- retention


def test_a_closed_checkpoint_is_retained_from_its_last_close() -> None:
    ordered = Ordered()
    entry = ordered.create()
    ordered.do(DirectoryOp.OPEN, 12, 5, entry.creation_id, READ)
    ordered.now_ns = 5_000
    ordered.do(DirectoryOp.CLOSE, 11, 1)
    assert ordered.directory.expires_ns(entry) is None
    ordered.now_ns = 7_000
    ordered.do(DirectoryOp.CLOSE, 12, 5)
    assert ordered.directory.expires_ns(entry) == 7_000 + RETENTION_NS
    ordered.do(DirectoryOp.EXPIRE, entry.creation_id, entry.retention_seq)
    assert ordered.held() == []


def test_a_reopen_ends_a_retention_and_the_next_close_begins_it_again() -> None:
    ordered = Ordered()
    entry = ordered.create()
    ordered.do(DirectoryOp.CLOSE, 11, 1)
    ordered.do(DirectoryOp.OPEN, 12, 5, entry.creation_id, READ)
    assert ordered.directory.expires_ns(entry) is None
    ordered.now_ns = 9_000
    ordered.do(DirectoryOp.CLOSE, 12, 5)
    assert ordered.directory.expires_ns(entry) == 9_000 + RETENTION_NS


@pytest.mark.parametrize("retention_ns", [0, RETENTION_NONE_BELOW_NS - 1])
def test_a_checkpoint_without_retention_goes_with_its_last_close(retention_ns: int) -> None:
    ordered = Ordered()
    entry = ordered.create(retention_ns=retention_ns)
    ordered.do(DirectoryOp.OPEN, 12, 5, entry.creation_id, READ)
    ordered.do(DirectoryOp.CLOSE, 11, 1)
    assert ordered.held() == [b"n"]
    ordered.do(DirectoryOp.CLOSE, 12, 5)
    assert ordered.held() == []


def test_a_checkpoint_with_the_least_retention_outlives_its_close() -> None:
    ordered = Ordered()
    ordered.create(retention_ns=RETENTION_NONE_BELOW_NS)
    ordered.do(DirectoryOp.CLOSE, 11, 1)
    assert ordered.held() == [b"n"]


def test_a_checkpoint_that_is_retained_for_ever_never_expires() -> None:
    ordered = Ordered()
    entry = ordered.create(retention_ns=SA_TIME_END)
    ordered.do(DirectoryOp.CLOSE, 11, 1)
    assert ordered.directory.expires_ns(entry) is None
    assert ordered.held() == [b"n"]


def test_a_new_retention_counts_for_the_next_close_and_not_in_the_attributes() -> None:
    ordered = Ordered()
    entry = ordered.create()
    ordered.do(DirectoryOp.RETENTION_SET, entry.creation_id, 0)
    assert (entry.retention_ns, entry.attributes.retention_ns) == (0, RETENTION_NS)
    ordered.do(DirectoryOp.CLOSE, 11, 1)
    assert ordered.held() == []


def test_an_expiration_that_was_ordered_after_an_open_does_nothing() -> None:
    """The open was answered: its checkpoint may not go under it."""
    ordered = Ordered()
    entry = ordered.create()
    ordered.do(DirectoryOp.CLOSE, 11, 1)
    due_seq = entry.retention_seq
    ordered.do(DirectoryOp.OPEN, 12, 5, entry.creation_id, READ)
    ordered.do(DirectoryOp.EXPIRE, entry.creation_id, due_seq)
    assert ordered.held() == [b"n"]
    ordered.do(DirectoryOp.CLOSE, 12, 5)
    ordered.do(DirectoryOp.EXPIRE, entry.creation_id, due_seq)
    assert ordered.held() == [b"n"], "the retention began anew with the second close"
    ordered.do(DirectoryOp.EXPIRE, entry.creation_id, entry.retention_seq)
    assert ordered.held() == []


# -- unlink


def test_an_unlinked_checkpoint_is_kept_while_it_is_open_and_goes_with_its_last_close() -> None:
    ordered = Ordered()
    entry = ordered.create(retention_ns=SA_TIME_END)
    ordered.do(DirectoryOp.UNLINK, b"n")
    assert entry.unlinked
    assert ordered.directory.find(b"n") is None
    assert ordered.held() == [b"n"]
    ordered.do(DirectoryOp.CLOSE, 11, 1)
    assert ordered.held() == []


def test_an_unlinked_checkpoint_goes_at_once_when_no_program_has_it_open() -> None:
    ordered = Ordered()
    ordered.create()
    ordered.do(DirectoryOp.CLOSE, 11, 1)
    ordered.do(DirectoryOp.UNLINK, b"n")
    assert ordered.held() == []


def test_the_same_name_means_the_new_checkpoint_when_the_unlinked_one_is_still_open() -> None:
    ordered = Ordered()
    old = ordered.create()
    ordered.do(DirectoryOp.UNLINK, b"n")
    new = ordered.create(handle=2)
    assert new is not old
    assert ordered.directory.find(b"n") is new
    ordered.do(DirectoryOp.CLOSE, 11, 1)
    assert list(ordered.directory.checkpoints) == [new.creation_id]
    assert ordered.directory.find(b"n") is new
    ordered.do(DirectoryOp.UNLINK, b"n")
    third = ordered.create(handle=3)
    assert set(ordered.directory.checkpoints) == {new.creation_id, third.creation_id}


# -- replicas


def test_replicas_are_added_out_of_sync_and_reported_in_and_out() -> None:
    ordered = Ordered()
    entry = ordered.create(replicas=("a",))
    ordered.do(DirectoryOp.ADD_REPLICA, entry.creation_id, "b")
    assert entry.replicas == {"a": True, "b": False}
    ordered.do(DirectoryOp.IN_SYNC, entry.creation_id, "b")
    assert entry.in_sync == ["a", "b"]
    ordered.do(DirectoryOp.ADD_REPLICA, entry.creation_id, "b")
    assert entry.in_sync == ["a", "b"]
    ordered.do(DirectoryOp.OUT_OF_SYNC, entry.creation_id, "a")
    assert entry.in_sync == ["b"]


def test_a_report_of_a_node_without_a_replica_makes_none() -> None:
    ordered = Ordered()
    entry = ordered.create(replicas=("a",))
    ordered.do(DirectoryOp.IN_SYNC, entry.creation_id, "c")
    assert entry.replicas == {"a": True}


def test_setting_the_active_replica_begins_a_new_term() -> None:
    ordered = Ordered()
    entry = ordered.create(flags=ASYNC_COLLOCATED, replicas=("a",))
    ordered.do(DirectoryOp.ACTIVE_SET, entry.creation_id, "a")
    assert (entry.active, entry.activation_seq) == ("a", ordered.directory.seq)


# -- travelling


def test_a_directory_is_the_same_after_it_travelled() -> None:
    ordered = Ordered()
    open_one = ordered.create(b"open")
    ordered.create(b"unlinked", handle=2)
    ordered.do(DirectoryOp.UNLINK, b"unlinked")
    ordered.create(b"unlinked", ASYNC_COLLOCATED, handle=3, replicas=("a",))
    closed = ordered.create(b"closed", handle=4)
    ordered.now_ns = 4_000
    ordered.do(DirectoryOp.CLOSE, 11, 4)
    ordered.do(DirectoryOp.RETENTION_SET, open_one.creation_id, 77)
    open_one.last_in_sync = {"b": 9}
    answers = ordered.directory.sessions[11].answers
    answers.trim(3)
    answers.record(3, 30, b"three")
    answers.record(5, 31, b"five")

    travelled = unpack_body(pack_body(ordered.directory.snapshot(10_000)))
    there = read_snapshot(travelled, 500_000)
    check(there)
    assert there.snapshot(500_000) == ordered.directory.snapshot(10_000)
    assert there.names == ordered.directory.names
    for creation_id, entry in ordered.directory.checkpoints.items():
        entry.last_closed_ns += 490_000
        assert there.checkpoints[creation_id] == entry
    assert there.expires_ns(there.checkpoints[closed.creation_id]) == 494_000 + RETENTION_NS
    for session, session_entry in ordered.directory.sessions.items():
        mine = there.sessions[session]
        assert (mine.node_id, mine.generation) == (session_entry.node_id, session_entry.generation)
        assert mine.opens == session_entry.opens
        assert mine.answers.by_request == session_entry.answers.by_request
        assert (mine.answers.first_unanswered, mine.answers.last) == (
            session_entry.answers.first_unanswered,
            session_entry.answers.last,
        )


def test_two_members_with_the_same_operations_have_the_same_directory() -> None:
    one, other = Ordered(), Ordered()
    other.now_ns += 5_000_000
    for ordered in (one, other):
        entry = ordered.create(flags=SYNC_COLLOCATED)
        ordered.do(DirectoryOp.OPEN, 13, 2, entry.creation_id, READ)
        ordered.do(DirectoryOp.END, 11, 1)
        ordered.do(DirectoryOp.CLOSE, 13, 2)
        assert ordered.held() == [b"n"]
    assert one.directory.snapshot(one.now_ns) == other.directory.snapshot(other.now_ns)


# -- a view's installation

A, B, C = {"a": 1}, {"b": 1}, {"c": 1}


def views(*memberships: dict[str, int]) -> list[View]:
    """Views of epochs 1, 2, ..."""
    made = [bootstrap_view(1, memberships[0])]
    for members in memberships[1:]:
        made.append(successor_view(made[-1], made[-1].epoch + 1, members))
    return made


def installed(ordered: Ordered, view: View, *stayed: str) -> None:
    ordered.directory.install(view, list(stayed), 0)
    check(ordered.directory)
    assert ordered.directory.installed_epoch == view.epoch


def test_replicas_of_nodes_that_left_go_and_another_in_sync_one_becomes_active() -> None:
    ordered = Ordered()
    entry = ordered.create(replicas=("a", "b"))
    installed(ordered, views(A | B | C, B | C)[-1], "b", "c")
    assert (entry.replicas, entry.active, entry.last_in_sync) == ({"b": True}, "b", {})


def test_an_active_replica_that_stayed_stays_active_in_a_new_term() -> None:
    ordered = Ordered()
    entry = ordered.create(replicas=("a", "b"))
    ordered.do(DirectoryOp.NO_OP)
    installed(ordered, views(A | B | C, A | B)[-1], "a", "b")
    assert (entry.replicas, entry.active, entry.activation_seq) == (
        {"a": True, "b": True},
        "a",
        ordered.directory.seq,
    )


def test_a_replica_that_is_not_in_sync_stays_and_never_becomes_active() -> None:
    ordered = Ordered()
    entry = ordered.create(replicas=("a", "b"))
    ordered.do(DirectoryOp.ADD_REPLICA, entry.creation_id, "c")
    installed(ordered, views(A | B | C, B | C)[-1], "b", "c")
    assert (entry.replicas, entry.active) == ({"b": True, "c": False}, "b")


def test_actives_are_spread_over_the_in_sync_replicas() -> None:
    ordered = Ordered()
    entries = [ordered.create(b"%d" % n, handle=n + 1, replicas=("a", "b", "c")) for n in range(4)]
    installed(ordered, views(A | B | C, B | C)[-1], "b", "c")
    assert sorted({entry.active for entry in entries if entry.active}) == ["b", "c"]


@pytest.mark.parametrize("flags", [ASYNC_COLLOCATED, WEAK_COLLOCATED])
def test_an_async_collocated_checkpoint_gets_no_active_replica_from_a_view(flags: int) -> None:
    ordered = Ordered()
    entry = ordered.create(flags=flags, replicas=("a", "b"))
    ordered.do(DirectoryOp.ACTIVE_SET, entry.creation_id, "a")
    installed(ordered, views(A | B, B)[-1], "b")
    assert (entry.replicas, entry.active) == ({"b": True}, None)


@pytest.mark.parametrize("flags", [ASYNC_COLLOCATED, WEAK_COLLOCATED])
def test_an_async_collocated_checkpoint_keeps_an_active_replica_that_stayed(flags: int) -> None:
    ordered = Ordered()
    entry = ordered.create(flags=flags, replicas=("a", "b"))
    ordered.do(DirectoryOp.ACTIVE_SET, entry.creation_id, "a")
    installed(ordered, views(A | B | C, A | B)[-1], "a", "b")
    assert entry.active == "a"


def test_a_checkpoint_waits_for_its_holder_when_no_in_sync_replica_stayed() -> None:
    ordered = Ordered()
    entry = ordered.create(session=12, replicas=("a",))
    _, second, third = views(A | B, B, A | B)
    installed(ordered, second, "b")
    assert (entry.replicas, entry.active, entry.last_in_sync) == ({}, None, {"a": 1})
    assert ordered.directory.find(b"n") is entry
    installed(ordered, third, "b")
    assert (entry.replicas, entry.active, entry.last_in_sync) == ({"a": True}, "a", {})


def test_a_checkpoint_is_lost_when_its_only_holder_was_restarted() -> None:
    ordered = Ordered()
    entry = ordered.create(session=12, replicas=("a",))
    _, second, third = views(A | B, B, {"a": 2} | B)
    installed(ordered, second, "b")
    installed(ordered, third, "b")
    assert ordered.held() == []
    assert entry.creation_id in ordered.directory.dirty
    ordered.do(DirectoryOp.CLOSE, 12, 1)
    assert ordered.directory.sessions[12].opens == {}


def test_a_checkpoint_is_lost_at_once_when_its_only_holder_has_already_another_incarnation() -> None:
    ordered = Ordered()
    ordered.create(session=12, replicas=("a",))
    installed(ordered, views(A | B, {"a": 2} | B)[-1], "b")
    assert ordered.held() == []


def test_all_holders_that_left_together_are_awaited_before_any_is_adopted() -> None:
    ordered = Ordered()
    entry = ordered.create(session=13, replicas=("a", "b"))
    _, alone, with_a, with_both = views(A | B | C, C, A | C, A | B | C)
    installed(ordered, alone, "c")
    assert entry.last_in_sync == {"a": 1, "b": 1}
    installed(ordered, with_a, "c")
    assert (entry.last_in_sync, entry.in_sync) == ({"a": 1, "b": 1}, [])
    installed(ordered, with_both, "c")
    assert entry.last_in_sync == {}


def test_a_single_holder_is_adopted_although_it_was_in_a_view_between() -> None:
    ordered = Ordered()
    entry = ordered.create(session=13, replicas=("a",))
    _, alone, _, now = views(A | C, C, A | C, A | C)
    installed(ordered, alone, "c")
    installed(ordered, now, "c")
    assert (entry.replicas, entry.last_in_sync) == ({"a": True}, {})


def test_a_holder_that_is_dead_is_not_awaited() -> None:
    ordered = Ordered()
    entry = ordered.create(session=13, replicas=("a", "b"))
    _, alone, third = views(A | B | C, C, A | C | {"b": 2})
    installed(ordered, alone, "c")
    installed(ordered, third, "c")
    assert (entry.replicas, entry.active, entry.last_in_sync) == ({"a": True}, "a", {})


def test_only_the_holder_that_stayed_longest_is_awaited_because_it_may_have_continued() -> None:
    """b left in epoch 2 and a in epoch 3, which this directory of epoch 1 has not seen."""
    ordered = Ordered()
    entry = ordered.create(session=13, replicas=("a", "b"))
    installed(ordered, views(A | B | C, A | C, C)[-1], "c")
    assert entry.last_in_sync == {"a": 1}


def test_a_replica_that_was_not_in_sync_is_no_holder() -> None:
    ordered = Ordered()
    entry = ordered.create(session=13, replicas=("a", "b"))
    ordered.do(DirectoryOp.OUT_OF_SYNC, entry.creation_id, "b")
    _, second = views(A | B | C, B | C)
    installed(ordered, second, "b", "c")
    assert entry.last_in_sync == {"a": 1}
    assert entry.in_sync == []


def test_an_unlinked_checkpoint_that_is_open_is_taken_into_a_view_too() -> None:
    ordered = Ordered()
    entry = ordered.create(replicas=("a", "b"))
    ordered.do(DirectoryOp.UNLINK, b"n")
    installed(ordered, views(A | B, B)[-1], "b")
    assert entry.active == "b"
    assert ordered.directory.find(b"n") is None


def test_the_same_view_makes_the_same_of_the_same_directory() -> None:
    ordered = Ordered()
    for n in range(5):
        ordered.create(b"%d" % n, handle=n + 1, replicas=("a", "b", "c")[n % 2 :])
    there = read_snapshot(unpack_body(pack_body(ordered.directory.snapshot(0))), 0)
    view = views(A | B | C, B | C)[-1]
    for directory in (ordered.directory, there):
        directory.install(view, ["b", "c"], 0)
    assert there.snapshot(0) == ordered.directory.snapshot(0)


def test_a_loss_that_was_finished_on_the_way_to_a_view_is_known_until_no_replica_is_left() -> None:
    """It was forgotten with the installation, and a copy of it went without quarantine (seed 204)."""
    ordered = Ordered()
    first, second, third = views({"a": 1, "b": 1}, {"b": 1}, {"b": 1, "c": 1})
    ordered.directory.install(first, ["a", "b"], 1_000)
    entry = ordered.create(replicas=("a",))
    installed(ordered, second, "b")
    assert entry.last_in_sync == {"a": 1}
    ordered.do(DirectoryOp.HOLDER_LOST, "a", 1)
    assert list(ordered.directory.lost) == [entry.creation_id]
    installed(ordered, third, "b")
    assert list(ordered.directory.lost) == [entry.creation_id]
    ordered.directory.forget_losses({entry.creation_id: None})
    assert list(ordered.directory.lost) == [entry.creation_id]
    ordered.directory.forget_losses({})
    assert not ordered.directory.lost
