"""Write files that are either complete or unchanged, even if a run is interrupted, and detect rewritten files."""

import contextlib
import os
import re
import shutil
import unicodedata
from collections.abc import Generator
from pathlib import Path


# Names that Windows reserves for devices, whatever follows a dot.
RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", re.IGNORECASE)


def file_name(label: str) -> str:
    """
    Turn the name of a class or a photo into a file name without suffix that every file system takes. Different names
    may give the same one; `utils.names.file_names` refuses that.
    """
    name = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", label))
    # Dots at the ends make hidden files, "..", or are dropped by Windows.
    name = re.sub(r"^\.+|\.+$", "_", name)
    return RESERVED.sub(r"\1_", name)


def file_state(path: Path) -> str:
    """Return a text that changes when the file is rewritten: its size in bytes and modification time."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def partial_path(path: Path) -> Path:
    """Return the path under which a file is written until it is complete."""
    return path.with_name(f".{path.name}.partial")


@contextlib.contextmanager
def written_whole(path: str | Path) -> Generator[Path]:
    """
    Yield a temporary path in the same folder, which is created if necessary. At the end of the block the temporary
    file replaces `path`; if the block fails, it is removed and `path` stays unchanged.

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


def link_or_copy(source: Path, target: Path):
    """Give a photograph a second name, or copy it where the file system has no hard links between the two."""
    with written_whole(target) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), partial)
        except OSError:
            shutil.copyfile(source, partial)
