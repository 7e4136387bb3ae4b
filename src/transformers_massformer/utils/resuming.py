"""Resumable jobs: record which job a folder belongs to and which items are done."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .files import written_whole


RECORDS_FOLDER = "records"


def claim(path: Path, identity: Mapping[str, Any], what: str, overwrite: bool) -> bool:
    """
    Record which job a folder belongs to.

    Args:
        path (`Path`): The file in that folder that stores the job's identity.
        identity (`Mapping[str, Any]`): JSON-serializable settings that identify the job.
        what (`str`): Kind of the job, used in errors.
        overwrite (`bool`): Whether to replace another job.

    Returns:
        `bool`: `True` if the job starts from scratch, `False` if it is resumed.

    Raises:
        ValueError: If the folder belongs to another job.
    """
    identity = json.loads(json.dumps(identity))
    if path.exists() and not overwrite:
        found = json.loads(path.read_text())
        differing = sorted(name for name in {**found, **identity} if found.get(name) != identity.get(name))
        if differing:
            raise ValueError(
                f"{path.parent} belongs to another {what} (different {', '.join(differing)}). Choose another --output "
                "or pass --overwrite."
            )
        return False
    with written_whole(path) as partial:
        partial.write_text(json.dumps(identity, indent=1) + "\n")
    return True


def clear_records(folder: Path):
    """Delete the records of all processes."""
    for old in (folder / RECORDS_FOLDER).glob("*.jsonl"):
        old.unlink()


def read_records(folder: Path) -> Iterator[dict[str, Any]]:
    """
    Yield the records of all processes, each in the order of writing. An incomplete line, left by an interruption, is
    skipped.
    """
    for path in sorted((folder / RECORDS_FOLDER).glob("*.jsonl")):
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)


class RecordWriter:
    """
    Appends records to a file.

    Args:
        folder (`Path`): Folder of the job.
        name (`int` or `str`): Name of the file, such as the index of a process.
    """

    def __init__(self, folder: Path, name: int | str):
        self.path = folder / RECORDS_FOLDER / f"{name}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # End a line that an interruption cut off; otherwise the next record would be lost with it.
        text = self.path.read_text() if self.path.exists() else ""
        self.file = self.path.open("a")
        if text and not text.endswith("\n"):
            self.file.write("\n")

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *exception):
        self.file.close()

    def write(self, record: Mapping[str, Any]):
        """Append a record and flush it to the file."""
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
