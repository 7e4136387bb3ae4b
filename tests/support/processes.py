"""Run the package's commands in several processes, as a launcher does."""

import multiprocessing
import os
import socket
import sys
from pathlib import Path
from unittest import mock


# Processes fork from a server that has imported everything and started no threads, so they start at once.
CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["transformers_massformer.cli", "transformers_massformer.hq_sam", "transformers_massformer.evaluation.run"]
TIMEOUT = 300


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def process_environments(processes: int) -> list[dict[str, str]]:
    """Return the variables that a launcher sets for each of several processes."""
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
    return [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def run_in_process(arguments: list[str], environment: dict[str, str], log: Path):
    """Run a command in this process, with its output in a file."""
    import torch

    from transformers_massformer.cli import app

    os.environ.update(environment)
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    torch.set_num_threads(1)
    app(arguments)


def run_command(arguments: list[str], folder: Path, processes: int = 2):
    """
    Run a command of `massformer` in several processes and check that all succeed.

    Args:
        arguments (`list[str]`): Name and arguments of the command.
        folder (`Path`): Folder for the logs.
        processes (`int`): Number of processes.
    """
    CONTEXT.set_forkserver_preload([__name__, *PRELOADED])
    logs = [folder / f"log_{rank}.txt" for rank in range(processes)]
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}):
        started = [
            CONTEXT.Process(target=run_in_process, args=(arguments, environment, log))
            for environment, log in zip(process_environments(processes), logs, strict=True)
        ]
        for process in started:
            process.start()
    try:
        for process in started:
            process.join(TIMEOUT)
    finally:
        for process in started:
            process.kill()
            process.join()
    printed = "\n".join(log.read_text() for log in logs if log.exists())
    assert [process.exitcode for process in started] == [0] * processes, printed
