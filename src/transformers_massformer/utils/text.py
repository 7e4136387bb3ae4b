"""Texts for display."""


def format_bytes(num_bytes: float | None) -> str:
    """Format a byte count for display; `None` is unknown."""
    return "unknown" if num_bytes is None else f"{num_bytes / 2**30:.2f} GiB"
