"""Console output shared by the commands."""

from collections.abc import Sequence
from typing import NoReturn

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn
from rich.table import Table


console = Console(highlight=False, soft_wrap=True)
error_console = Console(stderr=True, highlight=False, soft_wrap=True)


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
