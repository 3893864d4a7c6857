"""Bugs that the simulator or a real cluster showed, each with its story."""

from typing import Any

from ckptd.core.directory.attributes import Attributes
from ckptd.core.directory.directory import Directory, DirectoryOp
from ckptd.core.settings import SECOND_NS

ATTRIBUTES = Attributes(1, 1000, SECOND_NS, 10, 100, 10)


def apply(directory: Directory, *op: Any) -> None:
    directory.apply(list(op), directory.seq + 1, now_ns=0)


def closed_checkpoint() -> tuple[Directory, int, int]:
    """A directory with one checkpoint whose retention runs; its creation id, and since which seq."""
    directory = Directory()
    directory.installed_epoch = 1
    apply(directory, DirectoryOp.ATTACH, 7, 1, "a")
    apply(directory, DirectoryOp.CREATE, 7, 1, 7, b"t", ATTRIBUTES.fields(), ["a"], "a")
    apply(directory, DirectoryOp.CLOSE, 7, 1)
    (entry,) = directory.checkpoints.values()
    return directory, entry.creation_id, entry.retention_seq


def test_a_checkpoint_stays_when_it_is_opened_before_its_expiry_is_ordered() -> None:
    """Seed 20274: the expiry waited in the queue behind an open, and took an open checkpoint away."""
    directory, creation_id, since_seq = closed_checkpoint()
    apply(directory, DirectoryOp.OPEN, 7, 2, creation_id, 7)
    apply(directory, DirectoryOp.EXPIRE, creation_id, since_seq)
    assert creation_id in directory.checkpoints


def test_retention_begins_again_when_a_checkpoint_is_opened_and_closed_before_its_expiry_is_ordered() -> None:
    directory, creation_id, since_seq = closed_checkpoint()
    apply(directory, DirectoryOp.OPEN, 7, 2, creation_id, 7)
    apply(directory, DirectoryOp.CLOSE, 7, 2)
    apply(directory, DirectoryOp.EXPIRE, creation_id, since_seq)
    assert creation_id in directory.checkpoints
    apply(directory, DirectoryOp.EXPIRE, creation_id, directory.checkpoints[creation_id].retention_seq)
    assert creation_id not in directory.checkpoints


def test_a_session_can_end_when_a_checkpoint_that_it_has_open_was_lost_with_its_replicas() -> None:
    """Seed 14: a lost checkpoint stayed among the session's opens, and ending the session raised KeyError."""
    directory, creation_id, _ = closed_checkpoint()
    apply(directory, DirectoryOp.OPEN, 7, 2, creation_id, 7)
    directory._remove(creation_id)
    apply(directory, DirectoryOp.END, 7, 1)
    assert directory.sessions == {}
