"""Format values for display."""

from collections.abc import Iterable, Sequence


def format_bytes(num_bytes: float | None) -> str:
    """Format a byte count for display; `None` is unknown."""
    return "unknown" if num_bytes is None else f"{num_bytes / 2**30:.2f} GiB"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Format rows, the first of which is the header, as a Markdown table; all columns but the first align right."""
    lines = [
        "| " + " | ".join(rows[0]) + " |",
        "| " + " | ".join(["---"] + ["---:"] * (len(rows[0]) - 1)) + " |",
        *("| " + " | ".join(row) + " |" for row in rows[1:]),
    ]
    return "\n".join(lines) + "\n"


def readable_names(names: Iterable[str], option: str) -> list[str]:
    """
    Return names from the command line, decoded as UTF-8 if the locale's encoding could not represent them.

    Args:
        names (`Iterable[str]`): The names.
        option (`str`): The option that they were given with, for errors.

    Raises:
        ValueError: If a name is not UTF-8.
    """
    found = []
    for name in names:
        try:
            found.append(name.encode("utf-8", "surrogateescape").decode("utf-8"))
        except UnicodeError as error:
            raise ValueError(
                f"{option} {name!r} is not UTF-8, so it cannot be stored. Set the terminal to UTF-8, or name it in a "
                "YAML recipe."
            ) from error
    return found
