"""The processes among which `accelerate launch` or `torchrun` shares a command."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

import typer

from .console import fail


if TYPE_CHECKING:
    from accelerate import PartialState


Value = TypeVar("Value")
Errors = tuple[type[Exception], ...]
# The first process that is done waits this long for the last one.
PATIENCE = timedelta(days=30)


def join_processes(device: str | None) -> PartialState:
    """
    Join the other processes of the command; without a launcher there are none.

    Args:
        device (`str`, *optional*): The device asked for; by default the fastest one available.
    """
    from accelerate import PartialState

    from ..inference.loading import default_device

    # What is exchanged is small. Without these, cards that cannot exchange data directly are refused.
    os.environ.setdefault("NCCL_P2P_DISABLE", "1")
    os.environ.setdefault("NCCL_IB_DISABLE", "1")
    return PartialState(cpu=(device or default_device()) == "cpu", timeout=PATIENCE)


def own_device(state: PartialState, device: str | None) -> str | None:
    """Return the device of this process: its own GPU if there are several processes, else the one asked for."""
    return str(state.device) if state.num_processes > 1 else device


def from_main(state: PartialState, make: Callable[[], Value], errors: Errors) -> Value:
    """
    Call a function in the main process only, and return its value in every process. If it raises, the command ends:
    the main process prints the error.

    Args:
        state (`PartialState`): The processes.
        make (`Callable`): Returns something that can be pickled.
        errors (`tuple[type[Exception], ...]`): What it may raise.
    """
    from accelerate.utils import broadcast_object_list

    value: list[tuple[Value] | None] = [None]
    failure = None
    try:
        if state.is_main_process:
            value = [(make(),)]
    except errors as error:
        failure = error
    finally:
        broadcast_object_list(value)
    if failure is not None:
        fail(failure)
    if value[0] is None:
        raise typer.Exit
    return value[0][0]


def in_all(state: PartialState, make: Callable[[], Value], errors: Errors) -> Value:
    """
    Call a function in every process and return its value there. If it raises in any, the command ends in all: the main
    process prints the errors, each once.

    Args:
        state (`PartialState`): The processes.
        make (`Callable`): The function.
        errors (`tuple[type[Exception], ...]`): What it may raise.
    """
    value, failure = None, ""
    try:
        value = make()
    except errors as error:
        failure = str(error) or type(error).__name__
    end_together(state, [each for each in gather(state, failure) if each])
    return cast(Value, value)


def end_together(state: PartialState, failures: Sequence[str]):
    """
    End the command in all processes if there are failures. Only the main one has an exit code other than 0: launchers
    kill all processes after the first that fails, and the main one has to print the failures before.
    """
    if failures:
        if state.is_main_process:
            fail("; ".join(dict.fromkeys(failures)))
        raise typer.Exit


def gather(state: PartialState, value: Value) -> list[Value]:
    """Return the values of all processes, in their order."""
    from accelerate.utils import gather_object

    return gather_object([value]) if state.num_processes > 1 else [value]
