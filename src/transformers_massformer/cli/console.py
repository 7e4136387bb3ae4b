"""What the subcommands share."""

from typing import NoReturn

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn


console = Console(highlight=False, soft_wrap=True)
error_console = Console(stderr=True, highlight=False, soft_wrap=True)


def progress_bar(*more: ProgressColumn) -> Progress:
    """A bar with the number of things done, and more, which goes away at the end."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(), *more)
    return Progress(*columns, console=error_console, transient=True)


def fail(message: object, code: int = 1) -> NoReturn:
    """Ends the command with a message for people, without a traceback."""
    error_console.print(f"error: {message}", style="red", markup=False)
    raise typer.Exit(code)
