"""The default for the memory that replicas may take, and the tuning of Python's garbage collector."""

import gc
import os
import resource
from pathlib import Path
from typing import Final

SHARE: Final = 2
"""Replicas get one half. The other half is for logs, buffers, the chunks of a resync, and Python itself."""

UNLIMITED: Final = 2**60
"""A limit above this means that the kernel sets none (cgroup v1 shows 2**63 less a page)."""

_V2: Final = "0::"


def memory_for_replicas(root: Path = Path("/")) -> int:
    """Return half of the least of RAM, control group limit and RLIMIT_AS, in bytes. `root`: where / is."""
    limits = [_physical_bytes(), *_control_group_limits(root)]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    limits.append(address_space)
    return min(limit for limit in limits if limit > 0) // SHARE


def tune_garbage_collector() -> None:
    """Keep full garbage collections off the event loop: with millions of sections one takes 0.5 s.

    Sections have no reference cycles, so reference counting frees them, and it is enough to search the young
    generations. Call this after the start.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100_000)


def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _control_group_limits(root: Path) -> list[int]:
    """Return the limits of this process's control group and of all groups above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return []
    limits: list[int] = []
    for line in lines:
        if line.startswith(_V2):
            limits += _limits_up(root / "sys/fs/cgroup", line.removeprefix(_V2), "memory.max")
        else:
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if "memory" in controllers.split(","):
                limits += _limits_up(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
    return limits


def _limits_up(mount: Path, path: str, name: str) -> list[int]:
    # In a container its own group is the mount itself, although the path is given as the host sees it.
    group = mount / path.lstrip("/")
    limits: list[int] = []
    while True:
        try:
            text = (group / name).read_text("ascii").strip()
            if text.isdigit() and int(text) < UNLIMITED:
                limits.append(int(text))
        except (OSError, ValueError):
            pass
        if group == mount or mount not in group.parents:
            return limits
        group = group.parent
