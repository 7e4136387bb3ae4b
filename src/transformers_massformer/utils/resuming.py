"""Work on many files that can be interrupted: which work a folder holds, and what of it is done."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .files import written_whole


RECORDS_FOLDER = "records"


def claim(path: Path, identity: Mapping[str, Any], what: str, overwrite: bool) -> bool:
    """
    Notes which work a folder holds.

    Args:
        path (`Path`): The file with the note, in that folder.
        identity (`Mapping[str, Any]`): By what the work is known again; of what JSON can hold.
        what (`str`): What errors call it.
        overwrite (`bool`): Whether to forget other work.

    Returns:
        `bool`: Whether the work is begun anew, rather than gone on with.

    Raises:
        ValueError: If the folder holds other work.
    """
    identity = json.loads(json.dumps(identity))
    if path.exists() and not overwrite:
        found = json.loads(path.read_text())
        differing = sorted(name for name in {**found, **identity} if found.get(name) != identity.get(name))
        if differing:
            raise ValueError(
                f"{path.parent} holds another {what} (other {', '.join(differing)}). Choose another --output, or "
                "--overwrite it."
            )
        return False
    with written_whole(path) as partial:
        partial.write_text(json.dumps(identity, indent=1) + "\n")
    return True


def clear_records(folder: Path):
    """Forgets what is done."""
    for old in (folder / RECORDS_FOLDER).glob("*.jsonl"):
        old.unlink()


def read_records(folder: Path) -> Iterator[dict[str, Any]]:
    """What is done, from all processes, in the order in which each wrote; where one was interrupted a line may be cut
    off, and is left out."""
    for path in sorted((folder / RECORDS_FOLDER).glob("*.jsonl")):
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)


class RecordWriter:
    """Appends records to a file of their own: that of a process, by its index, or one with another name."""

    def __init__(self, folder: Path, name: int | str):
        self.path = folder / RECORDS_FOLDER / f"{name}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A line that an interruption cut off ends here, or the next would be lost with it.
        text = self.path.read_text() if self.path.exists() else ""
        self.file = self.path.open("a")
        if text and not text.endswith("\n"):
            self.file.write("\n")

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *exception):
        self.file.close()

    def write(self, record: Mapping[str, Any]):
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
