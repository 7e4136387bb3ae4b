"""Memory and processors that this process may use: the machine's, or less in a control group (containers, Slurm)."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil


# Where the controllers' hierarchies are mounted, below /sys/fs/cgroup; version 2 has a single one.
VERSION_2 = ("", "unified")
VERSION_1 = {"memory": ("memory",), "cpu": ("cpu", "cpu,cpuacct", "cpuacct,cpu")}


def control_groups(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """
    Yield the version and the folder of each control group that limits this process: its own and those around it. In
    containers the outer ones, and at times its own path, are missing.

    Args:
        controller (`str`): `"memory"` or `"cpu"`.
        root (`Path`): Root of the file system.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        version, mounts = (2, VERSION_2) if number == "0" else (1, VERSION_1[controller])
        if version == 2 or controller in controllers.split(","):
            own = PurePosixPath(path.lstrip("/"))
            for mount in mounts:
                for group in (own, *own.parents):
                    yield version, root / "sys/fs/cgroup" / mount / group


def numbers(path: Path) -> dict[str, int]:
    """Read a file with a name and a number on each line."""
    pairs = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def free_in_group(version: int, group: Path) -> int | None:
    """
    Return the bytes that a control group may still allocate, or `None` without a limit. The page cache, which the
    kernel drops when memory is short, is not counted as used.

    Raises:
        OSError: If there is no such group.
        ValueError: If its files are in an unknown format.
    """
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    limit, used = ((group / name).read_text(encoding="utf-8").strip() for name in names)
    if limit == "max":
        return None
    # Version 1 counts the groups inside only in the totals.
    prefix, statistics = "total_" if version == 1 else "", {}
    with contextlib.suppress(OSError, ValueError):
        statistics = numbers(group / "memory.stat")
    cache = sum(statistics.get(f"{prefix}{kind}_file", 0) for kind in ("inactive", "active"))
    return max(0, int(limit) - max(0, int(used) - cache))


def free_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process can still allocate: the machine's, or what its control groups allow."""
    free = psutil.virtual_memory().available
    for version, group in control_groups("memory", root):
        # Files of an unknown format limit nothing.
        with contextlib.suppress(OSError, ValueError, LookupError):
            left = free_in_group(version, group)
            free = free if left is None else min(free, left)
    return free


def quota_of_group(version: int, group: Path) -> float:
    """
    Return the processors that a control group may use, infinite without a limit.

    Raises:
        OSError: If there is no such group.
        ValueError: If its files are in an unknown format.
    """
    if version == 2:
        quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
    else:
        quota, period = (
            (group / f"cpu.cfs_{name}_us").read_text(encoding="utf-8").strip() for name in ("quota", "period")
        )
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)


def count_processors(root: Path = Path("/")) -> int:
    """Return the number of processors that this process may use, at least 1."""
    count: float = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    for version, group in control_groups("cpu", root):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            count = min(count, quota_of_group(version, group))
    return max(1, math.ceil(count))


def free_space(folder: Path) -> int | None:
    """Return the free bytes of the file system that a folder belongs to, or `None` if there is no such folder."""
    with contextlib.suppress(OSError):
        return psutil.disk_usage(str(folder)).free
    return None
