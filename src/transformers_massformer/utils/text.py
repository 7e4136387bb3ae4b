"""Format values for display."""

from collections.abc import Sequence


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
