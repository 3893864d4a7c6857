"""How much memory replicas may take: half of what the process may have, wherever that is said."""

import os
import resource
from pathlib import Path

import pytest

from ckptd.runtime.host.memory import memory_for_replicas

RAM = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
MiB = 1024 * 1024


@pytest.fixture(autouse=True)
def no_address_space_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_without_any_limit_it_is_half_of_the_ram(tmp_path: Path) -> None:
    assert memory_for_replicas(tmp_path) == RAM // 2


def test_the_limit_of_the_control_group_or_of_one_above_it_counts(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/system.slice/ckptd.service\n")
    write(tmp_path, "sys/fs/cgroup/system.slice/ckptd.service/memory.max", "max\n")
    write(tmp_path, "sys/fs/cgroup/system.slice/memory.max", f"{64 * MiB}\n")
    assert memory_for_replicas(tmp_path) == 32 * MiB
    write(tmp_path, "sys/fs/cgroup/system.slice/ckptd.service/memory.max", f"{16 * MiB}\n")
    assert memory_for_replicas(tmp_path) == 8 * MiB


def test_a_container_sees_its_group_at_the_mount(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/docker/0123\n")
    write(tmp_path, "sys/fs/cgroup/memory.max", f"{16 * MiB}\n")
    assert memory_for_replicas(tmp_path) == 8 * MiB


def test_control_groups_of_the_first_version_count(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/x\n1:name=systemd:/x\n")
    write(tmp_path, "sys/fs/cgroup/memory/x/memory.limit_in_bytes", f"{16 * MiB}\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_for_replicas(tmp_path) == 8 * MiB


def test_the_limit_of_the_address_space_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (16 * MiB, 16 * MiB))
    assert memory_for_replicas(tmp_path) == 8 * MiB


@pytest.mark.parametrize("text", ["", "many\n", "-5\n", "0\n"])
def test_nonsense_is_no_limit(tmp_path: Path, text: str) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/\nnonsense\n")
    write(tmp_path, "sys/fs/cgroup/memory.max", text)
    assert memory_for_replicas(tmp_path) == RAM // 2
