"""The state directory: durable, locked, of one node; whatever is wrong with it refuses the start."""

import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptd.runtime.errors import StartError
from ckptd.runtime.host.state_directory import RECORD_BYTES_SPARE, QuarantineFull, StateDirectory


def opened(path: Path, cluster: str = "ckptd", node_id: str = "a") -> StateDirectory:
    return StateDirectory(path, cluster, node_id, quarantine_bytes_max=100)


def test_a_record_survives_a_restart(tmp_path: Path) -> None:
    state = opened(tmp_path / "deep" / "state")
    assert state.record == b""
    state.write_record(b"first")
    state.write_record(b"second")
    state.close()
    assert opened(tmp_path / "deep" / "state").record == b"second"


def test_a_record_that_was_half_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = opened(tmp_path)
    state.write_record(b"first")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        state.write_record(b"second")
    monkeypatch.undo()
    state.close()
    assert opened(tmp_path).record == b"first"


def test_the_record_is_on_disk_before_its_name_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = opened(tmp_path)
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), replace(a, b)))
    state.write_record(b"first")
    assert order == [str(tmp_path / "record.new"), "rename", str(tmp_path)]


@pytest.mark.parametrize("damage", [b"", b"x", b"ckptd record 1\n\0\0\0\0promise"])
def test_a_damaged_record_is_refused_not_ignored(tmp_path: Path, damage: bytes) -> None:
    """A node that forgets a promise may give it twice, and two views would be agreed."""
    opened(tmp_path).close()
    (tmp_path / "record").write_bytes(damage)
    with pytest.raises(StartError, match="is damaged"):
        opened(tmp_path)
    # The refusal gave the lock back.
    (tmp_path / "record").unlink()
    opened(tmp_path).close()


def test_incarnations_grow_even_when_the_wall_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = time.time_ns()
    first = opened(tmp_path)
    first.close()
    assert first.incarnation >= before
    monkeypatch.setattr(time, "time_ns", lambda: 5)
    assert opened(tmp_path).incarnation == first.incarnation + 1


def test_a_second_daemon_is_refused_with_the_id_of_the_first(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(StartError, match=rf"process {os.getpid()}\) uses the state directory"):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


@pytest.mark.parametrize(("cluster", "node_id"), [("other", "a"), ("ckptd", "b")])
def test_the_directory_of_another_node_is_refused(tmp_path: Path, cluster: str, node_id: str) -> None:
    opened(tmp_path).close()
    with pytest.raises(StartError, match="belongs to node 'a' of cluster 'ckptd'"):
        opened(tmp_path, cluster, node_id)


@pytest.mark.parametrize("content", ["", "[]", '{"incarnation": "x"}'])
def test_a_damaged_incarnation_is_refused(tmp_path: Path, content: str) -> None:
    opened(tmp_path).close()
    (tmp_path / "node.json").write_text(content)
    with pytest.raises(StartError, match=r"node\.json is damaged"):
        opened(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_directory_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(source: object, target: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StartError, match=os.strerror(code)):
        opened(tmp_path)


def test_a_full_disk_is_refused_at_the_start_and_survived_later(small_disk: Path) -> None:
    state = opened(small_disk / "state")
    state.write_record(b"first")
    ballast = small_disk / "ballast"
    fill(ballast)
    with pytest.raises(OSError, match="No space left on device"):
        state.write_record(bytes(8192))
    ballast.unlink()
    state.write_record(b"second")
    fill(ballast)
    state.close()
    with pytest.raises(StartError, match=r"state cannot be used: No space left on device"):
        opened(small_disk / "state")
    ballast.unlink()
    assert opened(small_disk / "state").record == b"second"


def test_a_disk_with_little_left_is_refused_before_the_first_promise(small_disk: Path) -> None:
    """node.json alone had fitted, and the node's first record had not."""
    (small_disk / "ballast").write_bytes(bytes(128 * 1024 - RECORD_BYTES_SPARE))
    with pytest.raises(StartError, match=r"No space left on device"):
        opened(small_disk / "state")
    assert not (small_disk / "state" / "node.json").exists()


def test_a_read_only_file_system_is_refused(small_disk: Path) -> None:
    opened(small_disk / "state").close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StartError, match=r"state cannot be used: Read-only file system"):
        opened(small_disk / "state")


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_quarantine_that_does_not_fit_leaves_no_part_of_it(small_disk: Path) -> None:
    state = StateDirectory(small_disk / "state", "ckptd", "a", quarantine_bytes_max=2**20)
    with pytest.raises(OSError, match="No space left on device"):
        state.quarantine("x", bytes(256 * 1024))
    assert list((small_disk / "state" / "quarantine").iterdir()) == []


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="cannot be used: it is not a directory"):
        opened(tmp_path / "file")


OTHER = 54_321
"""The id of a user who is neither root nor ours."""


@pytest.mark.parametrize("name", ["lock", "record", "record.new", "node.json", "node.json.new"])
@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_what_another_user_put_in_the_place_of_a_file_is_not_written_through(
    tmp_path: Path, name: str, link: Callable[[Path, Path], None]
) -> None:
    """Daemons overwrote any file that they may write to, where `lock` or `record.new` was a link to it."""
    victim, directory = tmp_path / "victim", tmp_path / "state"
    victim.write_bytes(b"precious")
    directory.mkdir()
    link(directory / name, victim)
    with contextlib.suppress(StartError):
        state = opened(directory)
        state.write_record(b"promise")
        state.close()
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["lock", "record", "node.json"])
def test_a_link_in_the_place_of_a_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match=f"state/{name} is a symbolic link"):
        opened(tmp_path / "state")


@pytest.mark.parametrize("name", ["lock", "record", "record.new", "node.json", "node.json.new"])
def test_a_pipe_in_the_place_of_a_file_holds_nothing_up(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    try:
        opened(tmp_path).close()
    except StartError as refused:
        assert f"{name} is not a regular file" in str(refused)


def test_what_is_written_is_for_its_owner_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        state = opened(tmp_path / "state")
        state.write_record(b"promise")
        state.quarantine("x", b"content")
    finally:
        os.umask(umask)
    for path in (tmp_path / "state").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("mode", [0o777, 0o1777])
@pytest.mark.parametrize("name", ["state", "state/quarantine"])
def test_a_directory_that_every_user_may_write_to_is_refused(tmp_path: Path, mode: int, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name).chmod(mode)
    with pytest.raises(StartError, match=f"every user may write to {tmp_path / name}"):
        opened(tmp_path / "state")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", ["", "quarantine", "lock", "record", "node.json"])
def test_what_belongs_to_another_user_is_refused(tmp_path: Path, name: str) -> None:
    state = opened(tmp_path)
    state.write_record(b"promise")
    state.quarantine("x", b"content")
    state.close()
    os.chown(tmp_path / name, OTHER, -1)
    with pytest.raises(StartError, match=f"{tmp_path / name} belongs to another user"):
        opened(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_link_to_a_directory_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "home")
    os.chown(tmp_path / "state", OTHER, -1, follow_symlinks=False)
    with pytest.raises(StartError, match="belongs to another user"):
        opened(tmp_path / "state")
    assert not any((tmp_path / "home").iterdir())
    os.chown(tmp_path / "state", 0, -1, follow_symlinks=False)
    opened(tmp_path / "state").close()  # The operator's own: another disk.


def test_quarantine_files_are_named_after_the_checkpoint_and_never_replaced(tmp_path: Path) -> None:
    state = opened(tmp_path)
    paths = [state.quarantine("../safe/é", content) for content in (b"one", b"two")]
    assert [path.read_bytes() for path in paths] == [b"one", b"two"]
    assert all(path.parent == tmp_path / "quarantine" for path in paths)
    assert paths[0].name.startswith("..%2Fsafe%2F%C3%A9-")


def test_a_full_quarantine_says_so(tmp_path: Path) -> None:
    state = opened(tmp_path)
    state.quarantine("x", bytes(60))
    with pytest.raises(QuarantineFull):
        state.quarantine("y", bytes(60))
