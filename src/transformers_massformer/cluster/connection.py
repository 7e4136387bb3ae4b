"""Connect to a Ray cluster, or start one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..utils.extras import require
from ..utils.machine import count_processors, free_space
from ..utils.text import format_bytes


LOCAL, AUTO = "local", "auto"
ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:]+\]|[^\s:/]+):(?P<port>\d+)")
# How often a cluster on this machine is started at most.
START_TRIES = 3
# Seconds for a cluster to answer.
TIMEOUT = 10
# What passes through the object store are names of files and encoded masks, never pixels.
STORE_BYTES = 256 * 2**20
SHARED_MEMORY = Path("/dev/shm")
# Threads of an actor by default: one gets most out of a core, more need less memory per core.
CPUS_PER_ACTOR = 2


@dataclass(frozen=True)
class Resources:
    """
    What a pool of actors takes.

    Args:
        num_actors (`int`): Processes with a model each.
        cpus_per_actor (`int`): Processors, and threads, of each.
        gpus_per_actor (`float`): GPUs of each; a fraction shares one.
    """

    num_actors: int
    cpus_per_actor: int
    gpus_per_actor: float

    def describe(self) -> str:
        """Describe the pool for a report."""
        actors = "1 actor" if self.num_actors == 1 else f"{self.num_actors} actors"
        gpus = f" and {self.gpus_per_actor:g} GPUs" if self.gpus_per_actor else ""
        return f"{actors} of {self.cpus_per_actor} CPUs{gpus}"


def check_address(address: str):
    """
    Check that a cluster answers; Ray itself would try for minutes.

    Raises:
        ValueError: If the address is malformed, or nothing listens there.
    """
    if address in (LOCAL, AUTO):
        return
    match = ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError(
            f"{address!r} is not the address of a Ray cluster. Give local, to start one on this machine, auto, for "
            "the one that this machine belongs to, or HOST:6379."
        )
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"No Ray cluster answers at {address}: {error}. Start one with `ray start --head`, or check the address."
        ) from error


def shared_memory_remark(folder: Path = SHARED_MEMORY) -> str:
    """Return a remark if shared memory is too small for Ray's object store, which then lies on disk; else nothing."""
    free = free_space(folder)
    if free is None or free >= STORE_BYTES:
        return ""
    return (
        f"{folder} has {format_bytes(free)} free, less than the {format_bytes(STORE_BYTES)} of Ray's object store, "
        "which is kept on disk instead. In a container, pass --shm-size=1g."
    )


def start(address: str):
    """
    Connect this process to a cluster, which is started for `"local"`.

    Raises:
        ValueError: If there is no such cluster, or it cannot be started.
    """
    import ray

    is_own = address == LOCAL
    own: dict[str, Any] = {"num_cpus": count_processors(), "object_store_memory": STORE_BYTES}
    own["include_dashboard"] = False
    for tries_left in reversed(range(START_TRIES if is_own else 1)):
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **(own if is_own else {}))
            return
        # Ray raises plain exceptions, too.
        except Exception as error:
            ray.shutdown()
            # A busy machine does not start the processes within the 30 seconds that Ray gives them.
            if not tries_left or "timed out during startup" not in str(error):
                what = "Ray did not start" if is_own else f"No connection to the Ray cluster at {address}"
                raise ValueError(f"{what}: {error}") from error


@contextlib.contextmanager
def connected(address: str) -> Generator[None]:
    """
    Connect to a Ray cluster for the duration of a block. A connection that there is already is used and kept.

    Args:
        address (`str`): `"local"` starts a cluster on this machine, which ends with the block.

    Raises:
        MissingExtraError: If Ray is not installed.
        ValueError: If there is no such cluster, or it cannot be started.
    """
    # Before the import, which reads it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    ray = require("ray", "ray", "--ray")
    require("ray.data", "ray", "--ray")
    if ray.is_initialized():
        yield
        return
    check_address(address)
    start(address)
    try:
        yield
    finally:
        ray.shutdown()


def node_resources() -> list[Mapping[str, float]]:
    """Return the processors and GPUs of each running node of the cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def fitting(nodes: Sequence[Mapping[str, float]], cpus: float, gpus: float) -> int:
    """Return how many actors fit the nodes."""
    return sum(
        int(min(node.get("CPU", 0) // cpus, node.get("GPU", 0) / gpus + 1e-6 if gpus else float("inf")))
        for node in nodes
    )


def plan_resources(
    nodes: Sequence[Mapping[str, float]],
    num_actors: int | None = None,
    cpus_per_actor: int | None = None,
    gpus_per_actor: float = 0,
) -> Resources:
    """
    Complete the resources of a pool: by default as many actors as the nodes hold, with up to two processors each.

    Args:
        nodes (`Sequence[Mapping]`): From [`node_resources`].
        num_actors (`int`, *optional*): As given. More than fit wait for nodes to join.
        cpus_per_actor (`int`, *optional*): As given.
        gpus_per_actor (`float`, *optional*, defaults to 0): As given.

    Raises:
        ValueError: If no node holds a single actor.
    """
    cpus = cpus_per_actor
    if cpus is None:
        # As many actors as are asked for, or as GPUs allow, come before more threads for each.
        most = fitting(nodes, 1, gpus_per_actor)
        enough = min(most, num_actors or (most if gpus_per_actor else 1))
        counts = range(CPUS_PER_ACTOR, 1, -1)
        cpus = next((each for each in counts if fitting(nodes, each, gpus_per_actor) >= enough), 1)
    count = fitting(nodes, cpus, gpus_per_actor)
    if not count:
        largest = max((node.get("CPU", 0), node.get("GPU", 0)) for node in nodes) if nodes else (0, 0)
        raise ValueError(
            f"No machine of the cluster holds an actor with {cpus} CPUs and {gpus_per_actor:g} GPUs; the largest has "
            f"{largest[0]:g} and {largest[1]:g}. Lower --cpus-per-actor or --gpus-per-actor."
        )
    return Resources(num_actors or count, cpus, gpus_per_actor)
