"""File systems of some kilobytes, to be filled and freed by a test. Linux and root."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ckptd.testing import LocalCluster

SMALL_BYTES: Final = 512 * 1024
BALLAST: Final = "ballast"
COMMAND_SECONDS: Final = 20.0


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=COMMAND_SECONDS)


@contextmanager
def small_disk(bytes_max: int = SMALL_BYTES) -> Iterator[Path]:
    """Yield a directory that is a file system of its own. Raises: CalledProcessError; OSError."""
    directory = Path(tempfile.mkdtemp(prefix="ckptd-disk-"))
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={bytes_max},mode=700", "tmpfs", str(directory))
        try:
            yield directory
        finally:
            _run("umount", str(directory))
    finally:
        directory.rmdir()


def why_unavailable() -> str:
    """Return why there can be no such file system here; "" if there can."""
    if os.geteuid() != 0:
        return "small file systems take root"
    try:
        with small_disk():
            return ""
    except (subprocess.SubprocessError, OSError) as error:
        return f"a small file system cannot be mounted here: {error}"


@contextmanager
def on_small_disk(cluster: LocalCluster, node: str, bytes_max: int = SMALL_BYTES) -> Iterator[Path]:
    """Let a cluster that is not entered yet keep a node's state on one. Exit this after the cluster."""
    with small_disk(bytes_max) as disk:
        cluster.state_path(node).symlink_to(disk, target_is_directory=True)
        yield disk


def fill(disk: Path) -> None:
    """Fill the file system to the last byte."""
    with open(disk / BALLAST, "wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            return


def free(disk: Path) -> None:
    """Free what `fill` took."""
    (disk / BALLAST).unlink()
