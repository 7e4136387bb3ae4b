"""Run functions and commands in several new processes, as a launcher does."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock


# Processes fork from a server that has imported everything and started no threads, so they start at once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "transformers_massformer.cli",
        "transformers_massformer.evaluation.run",
        "transformers_massformer.hq_sam",
        "transformers_massformer.metrics.boundary_segmentation",
        "transformers_massformer.training.session",
    ]
)
TIMEOUT = 300


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def process_environments(processes: int) -> list[dict[str, str]]:
    """Return the variables that a launcher sets for each of several processes."""
    if processes == 1:
        return [{}]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
    return [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def call(function: Callable, arguments: tuple, environment: dict[str, str], log: Path):
    """Call a function in this process, with its output in a file."""
    import torch

    os.environ.update(environment)
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    # Workers of data loaders start as in any other process.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    function(*arguments)


def run_in_processes(function: Callable, arguments: tuple, folder: Path, processes: int = 2, code: int = 0):
    """
    Call a function in several new processes and check their exit codes.

    Args:
        function (`Callable`): A function of a module.
        arguments (`tuple`): Its arguments.
        folder (`Path`): Folder for the logs.
        processes (`int`): Number of processes.
        code (`int`): Expected exit code.
    """
    logs = [folder / f"log_{rank}.txt" for rank in range(processes)]
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}):
        started = [
            CONTEXT.Process(target=call, args=(function, arguments, environment, log))
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
    assert [process.exitcode for process in started] == [code] * processes, printed


def command(arguments: list[str]):
    """Run a command of `massformer`."""
    from transformers_massformer.cli import app

    app(arguments)


def run_command(arguments: list[str], folder: Path, processes: int = 2):
    """
    Run a command of `massformer` in several processes and check that all succeed.

    Args:
        arguments (`list[str]`): Name and arguments of the command.
        folder (`Path`): Folder for the logs.
        processes (`int`): Number of processes.
    """
    run_in_processes(command, (arguments,), folder, processes)
