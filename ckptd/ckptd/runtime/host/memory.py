"""How much memory replicas may take, where nobody said, and when Python looks for garbage."""

import gc
import os
import resource
from pathlib import Path
from typing import Final

SHARE: Final = 2
"""Replicas get one half. The rest is for what is under way: logs, buffers, a join's chunks, Python."""

UNLIMITED: Final = 2**60
"""Above this a number is a kernel's way to say that there is no limit (cgroup v1: 2**63 less a page)."""

_V2: Final = "0::"


def memory_for_replicas(root: Path = Path("/")) -> int:
    """Half of the least of RAM, the control group's limit and RLIMIT_AS, in bytes; `root` is where / is."""
    limits = [_physical_bytes(), *_control_group_limits(root)]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    limits.append(address_space)
    return min(limit for limit in limits if limit > 0) // SHARE


def settle_garbage_collector() -> None:
    """Keep full collections off the loop: with millions of sections one takes half a second.

    Sections are free of cycles, so that reference counts free them; only the young
    generations are still searched. Call it after start.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100_000)


def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _control_group_limits(root: Path) -> list[int]:
    """Of this process's control group and all above it: the least one counts."""
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
    # A container sees its own group at the mount itself, though its path is told as the host sees it.
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
