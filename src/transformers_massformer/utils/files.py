"""Files that are either whole or as they were before, also when a run is interrupted."""

import contextlib
import os
import re
from collections.abc import Generator
from pathlib import Path


def file_name(label: str) -> str:
    """What a file is called after a class or a photograph: its name, without what file systems do not like."""
    return re.sub(r"[^\w.-]+", "_", label)


def partial_path(path: Path) -> Path:
    """What a file is called while it is written."""
    return path.with_name(f".{path.name}.partial")


@contextlib.contextmanager
def written_whole(path: str | Path) -> Generator[Path]:
    """
    Yields another path in the same folder, which is made if need be, to write to. At the end of the block the file
    takes its place; if the block fails, what it has written is removed.

    Args:
        path (`str` or `Path`): The file to write.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
