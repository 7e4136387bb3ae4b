"""What the subcommands share."""

from typing import NoReturn

import typer
from rich.console import Console


console = Console(highlight=False, soft_wrap=True)
error_console = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(message: object, code: int = 1) -> NoReturn:
    """Ends the command with a message for people, without a traceback."""
    error_console.print(f"error: {message}", style="red", markup=False)
    raise typer.Exit(code)
