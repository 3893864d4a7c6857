"""Files and directories that no other user may prepare, change or read.

A user who may write to a directory before we do can place a link there under the name of a file that we are
about to write, and so make us overwrite any file that we may write to. This module must not know what the
files are for.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Final

PRIVATE_MODE: Final = 0o600
_NEVER_FOLLOW: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""O_NONBLOCK because opening a FIFO that no process reads would wait for ever."""


def directory_fault(path: Path, *, sticky_is_safe: bool) -> str:
    """Return why another user could interfere with files that we keep in a directory; "" if none can.

    `sticky_is_safe`: accept a directory like /tmp, where every user may add files but not remove those of
    another user. Raises: OSError.
    """
    link, status = os.lstat(path), os.stat(path)
    if not _is_trusted(link.st_uid) or not _is_trusted(status.st_uid):
        return f"{path} belongs to another user"
    is_safe = sticky_is_safe and status.st_mode & stat.S_ISVTX
    if status.st_mode & stat.S_IWOTH and not is_safe:
        return f"every user may write to {path}"
    return ""


def secret_fault(path: Path, status: os.stat_result) -> str:
    """Return why a file is not safe for a secret; "" if it is. Access by its group is the owner's choice."""
    if not _is_trusted(status.st_uid):
        return "it belongs to another user"
    if status.st_mode & stat.S_IRWXO:
        return f"every user may read or change it: run chmod o-rwx {path}"
    return ""


def open_private(path: Path, flags: int) -> int:
    """Open a regular file of our own, never through a link. `flags` may create it, with mode 0600.

    Raises: OSError.
    """
    try:
        descriptor = os.open(path, flags | _NEVER_FOLLOW, PRIVATE_MODE)
    except OSError:
        if path.is_symlink():
            raise _permission_error(path, "is a symbolic link") from None
        raise
    status = os.fstat(descriptor)
    fault = ""
    if not stat.S_ISREG(status.st_mode):
        fault = "is not a regular file"
    elif not _is_trusted(status.st_uid):
        fault = "belongs to another user"
    elif status.st_nlink > 1 and flags & (os.O_WRONLY | os.O_RDWR):
        fault = "has a second name (a hard link)"
    if fault:
        os.close(descriptor)
        raise _permission_error(path, fault)
    return descriptor


def read_private(path: Path) -> bytes:
    """Return the content of a file of our own. Raises: OSError, including FileNotFoundError."""
    with open(open_private(path, os.O_RDONLY), "rb") as file:
        return file.read()


def write_private(path: Path, content: bytes) -> None:
    """Write a new file; return when it is on disk. Raises: OSError, including FileExistsError."""
    with open(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _is_trusted(user_id: int) -> bool:
    return user_id in (0, os.geteuid())


def _permission_error(path: Path, why: str) -> OSError:
    return OSError(errno.EPERM, f"{path} {why}")
