"""Console output shared by the commands."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn
from rich.table import Table


if TYPE_CHECKING:
    from ..utils.resuming import Standing


# Every command has its own kind of job.
Job = TypeVar("Job")

console = Console(highlight=False, soft_wrap=True)
error_console = Console(stderr=True, highlight=False, soft_wrap=True)


def print_any_name():
    """Escape characters that the standard streams cannot encode, such as those of file names, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def progress_bar(*more: ProgressColumn) -> Progress:
    """Return a progress bar with a count and `more` columns, which disappears at the end."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(), *more)
    return Progress(*columns, console=error_console, transient=True)


def print_table(rows: Sequence[Sequence[str]]):
    """Print rows as a table; the first row is the header, and all columns but the first are right-aligned."""
    table = Table()
    for index, title in enumerate(rows[0]):
        table.add_column(title, justify="right" if index else "left")
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table)


def fail(message: object, code: int = 1) -> NoReturn:
    """End the command with an error message instead of a traceback."""
    error_console.print(f"error: {message}", style="red", markup=False)
    raise typer.Exit(code)


def fail_interrupted(what: str = "Finished items are kept; run the same command again to resume.") -> NoReturn:
    """End the command after Ctrl-C."""
    fail(f"interrupted. {what}", code=130)


def open_jobs(jobs: Sequence[Job], standings: Sequence[Standing], overwrite: bool) -> tuple[list[Job], int]:
    """
    Print how many results are finished already, which are made again and why, and which are kept.

    Args:
        jobs (`Sequence`): All jobs.
        standings (`Sequence[Standing]`): What is known of the result of each.
        overwrite (`bool`): Whether all are to be done again.

    Returns:
        `tuple[list, int]`: The jobs to do, and how many results are in the way and kept.
    """
    from ..utils.resuming import summarize

    if overwrite:
        return list(jobs), 0
    for each in standings:
        if each.is_in_the_way:
            error_console.print(
                f"kept: {each.reason}. --overwrite replaces it; or choose another --output.", style="red", markup=False
            )
        elif each.is_foreign:
            console.print(f"kept: {each.reason}. --overwrite makes it again.", markup=False)
    text = summarize([each for each in standings if not each.is_in_the_way])
    if text:
        console.print(f"{text}; --overwrite makes all again." if "finished" in text else f"{text}.", markup=False)
    pairs = zip(jobs, standings, strict=True)
    remaining = [job for job, each in pairs if not (each.is_finished or each.is_in_the_way)]
    return remaining, sum(each.is_in_the_way for each in standings)
