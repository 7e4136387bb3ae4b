"""What the subcommands share."""

from collections.abc import Sequence
from typing import NoReturn

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn
from rich.table import Table


console = Console(highlight=False, soft_wrap=True)
error_console = Console(stderr=True, highlight=False, soft_wrap=True)


def progress_bar(*more: ProgressColumn) -> Progress:
    """A bar with the number of things done, and more, which goes away at the end."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(), *more)
    return Progress(*columns, console=error_console, transient=True)


def print_table(rows: Sequence[Sequence[str]]):
    """Rows, the first of which is the header, as a table; numbers to the right."""
    table = Table()
    for index, title in enumerate(rows[0]):
        table.add_column(title, justify="right" if index else "left")
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table)


def fail(message: object, code: int = 1) -> NoReturn:
    """Ends the command with a message for people, without a traceback."""
    error_console.print(f"error: {message}", style="red", markup=False)
    raise typer.Exit(code)
