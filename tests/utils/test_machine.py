"""Test memory and processors on file trees like those of containers."""

import os

import psutil
import pytest

from transformers_massformer.utils.machine import count_processors, free_memory, free_space


GIB = 2**30
UNLIMITED = 9223372036854771712


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def version_2(group, limit, used, cache=0):
    return {
        f"sys/fs/cgroup{group}/memory.max": limit,
        f"sys/fs/cgroup{group}/memory.current": used,
        f"sys/fs/cgroup{group}/memory.stat": f"anon 1\nfile {cache}\ninactive_file {cache // 2}\n"
        f"active_file {cache - cache // 2}",
    }


def version_1(group, limit, used, cache=0):
    return {
        f"sys/fs/cgroup/memory{group}/memory.limit_in_bytes": limit,
        f"sys/fs/cgroup/memory{group}/memory.usage_in_bytes": used,
        f"sys/fs/cgroup/memory{group}/memory.stat": f"cache 5\ninactive_file 0\ntotal_inactive_file {cache}",
    }


ONE, TWO = "9:name=systemd:/x\n4:cpu,memory:/x/y\n0::/", "0::/x/y"
# Trees, and the bytes that are free in them; None without a limit.
MEMORY = {
    "no control groups": ({}, None),
    "version 2, no limit": ({"proc/self/cgroup": TWO, **version_2("/x/y", "max", 9)}, None),
    "version 2": ({"proc/self/cgroup": TWO, **version_2("/x/y", 2 * GIB, GIB)}, GIB),
    "version 2, page cache": ({"proc/self/cgroup": TWO, **version_2("/x/y", 2 * GIB, 2 * GIB, GIB)}, GIB),
    "version 2, outer group": (
        {"proc/self/cgroup": TWO, **version_2("/x/y", "max", 9), **version_2("/x", GIB, GIB // 2)},
        GIB // 2,
    ),
    "version 2, root of a container": ({"proc/self/cgroup": "0::/", **version_2("", GIB, 0)}, GIB),
    "version 2, path of the host": ({"proc/self/cgroup": "0::/../h", **version_2("", GIB, 0)}, GIB),
    "version 2, over the limit": ({"proc/self/cgroup": TWO, **version_2("/x/y", GIB, 2 * GIB)}, 0),
    "version 1": ({"proc/self/cgroup": ONE, **version_1("/x/y", 2 * GIB, GIB)}, GIB),
    "version 1, page cache": ({"proc/self/cgroup": ONE, **version_1("/x/y", GIB, GIB, GIB // 4)}, GIB // 4),
    "version 1, no limit": ({"proc/self/cgroup": ONE, **version_1("/x/y", UNLIMITED, GIB)}, None),
    "version 1, path of the host": ({"proc/self/cgroup": ONE, **version_1("", GIB, 0)}, GIB),
    "both, unified": (
        {"proc/self/cgroup": ONE, **version_1("/x/y", UNLIMITED, 9), **version_2("/unified", GIB, 0)},
        GIB,
    ),
    "damaged": ({"proc/self/cgroup": TWO, **version_2("/x/y", "a lot", "")}, None),
    "without statistics": (
        {"proc/self/cgroup": TWO, "sys/fs/cgroup/x/y/memory.max": GIB, "sys/fs/cgroup/x/y/memory.current": 0},
        GIB,
    ),
}


@pytest.mark.parametrize("name", MEMORY)
def test_free_memory(tmp_path, name, monkeypatch):
    files, expected = MEMORY[name]
    machine = psutil.virtual_memory()._replace(available=64 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    assert free_memory(tree(tmp_path, files)) == (64 * GIB if expected is None else expected)


CPU = "sys/fs/cgroup/cpu/x/y/cpu.cfs"
PROCESSORS = {
    "no control groups": ({}, 8),
    "version 2, no quota": ({"proc/self/cgroup": TWO, "sys/fs/cgroup/x/y/cpu.max": "max 100000"}, 8),
    "version 2": ({"proc/self/cgroup": TWO, "sys/fs/cgroup/x/y/cpu.max": "250000 100000"}, 3),
    "version 2, outer group": ({"proc/self/cgroup": TWO, "sys/fs/cgroup/x/cpu.max": "50000 100000"}, 1),
    "version 1": ({"proc/self/cgroup": ONE, f"{CPU}_quota_us": 200000, f"{CPU}_period_us": 100000}, 2),
    "version 1, no quota": ({"proc/self/cgroup": ONE, f"{CPU}_quota_us": -1, f"{CPU}_period_us": 100000}, 8),
    "more than there are": ({"proc/self/cgroup": TWO, "sys/fs/cgroup/x/y/cpu.max": "9900000 100000"}, 8),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors(tmp_path, name, monkeypatch):
    files, expected = PROCESSORS[name]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert count_processors(tree(tmp_path, files)) == expected


def test_processors_without_affinity(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count_processors(tmp_path) == 1


def test_free_space(tmp_path):
    assert free_space(tmp_path) > 0
    assert free_space(tmp_path / "missing") is None
