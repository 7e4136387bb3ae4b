"""Resumable jobs: record which job a folder belongs to, and what each of its results was made from."""

import contextlib
import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import folder_written_whole, written_whole
from .fingerprint import Origin, are_unchanged, content_of, differing, file_state, folder_files, times
from .json_files import without_nan, write_json


RECORDS_FOLDER = "records"
# Hidden folder with a record for each result, beside the results.
RESULTS_FOLDER = ".massformer"


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
    identity = json.loads(json.dumps(without_nan(identity)))
    if path.exists() and not overwrite:
        try:
            different = differing(json.loads(path.read_text(encoding="utf-8")), identity)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}). Choose another --output or pass --overwrite.") from error
        if different:
            raise ValueError(
                f"{path.parent} belongs to another {what} (different {', '.join(different)}). Choose another --output "
                "or pass --overwrite."
            )
        return False
    write_json(identity, path)
    return True


def clear_records(folder: Path):
    """Delete the records of all processes."""
    for old in (folder / RECORDS_FOLDER).glob("*.jsonl"):
        old.unlink(missing_ok=True)


def read_records(folder: Path) -> Iterator[dict[str, Any]]:
    """
    Yield the records of all processes, each in the order of writing. An incomplete line, left by an interruption, is
    skipped.
    """
    for path in sorted((folder / RECORDS_FOLDER).glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)


class RecordWriter:
    """
    Appends records to a file. Several runs may append to the same file at once.

    Args:
        folder (`Path`): Folder of the job.
        name (`int` or `str`): Name of the file, such as the index of a process.
    """

    def __init__(self, folder: Path, name: int | str):
        self.path = folder / RECORDS_FOLDER / f"{name}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open("ab", buffering=0)
        # End a line that an interruption cut off; otherwise the next record would be lost with it.
        if self.file.tell() and not self.path.read_bytes().endswith(b"\n"):
            self.file.write(b"\n")

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *exception):
        self.file.close()

    def write(self, record: Mapping[str, Any]):
        """Append a record in one piece, so that lines of several runs do not mix."""
        line = json.dumps(record).encode() + b"\n"
        if self.file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))


@dataclass(frozen=True)
class Standing:
    """
    What is known of a result, a file or folder.

    Attributes:
        is_finished (`bool`): Whether it exists and was made from the same.
        is_foreign (`bool`):
            Whether it exists, but not as it was written: edited since, or written by something else.
        reason (`str`): Why it is not finished, or what is foreign about it; empty for a new result.
    """

    is_finished: bool = False
    is_foreign: bool = False
    reason: str = ""

    @property
    def is_in_the_way(self) -> bool:
        """Whether writing the result again would destroy something that was not written here."""
        return self.is_foreign and not self.is_finished


class Results:
    """
    Results in a folder, files or folders, each with a record of what it was made from. A record is written before its
    result appears and completed afterwards, so an interrupted result is made again.

    Args:
        folder (`Path`): The folder; it may be moved or copied as a whole.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def record_path(self, result: Path) -> Path:
        """Return the file of a result's record. Its name is short, whatever the result's."""
        name = os.fsencode(result.relative_to(self.folder).as_posix())
        return self.folder / RESULTS_FOLDER / f"{hashlib.sha256(name).hexdigest()[:32]}.record"

    def read(self, result: Path) -> dict[str, Any] | None:
        """Return a result's record, or `None` without a readable one."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            record = json.loads(self.record_path(result).read_text(encoding="utf-8"))
            return {"made_from": dict(record["made_from"]), "state": record["state"]}
        return None

    def standing(self, result: Path, origin: Origin) -> Standing:
        """Compare a result with what it would be made from now."""
        record = self.read(result)
        if not os.path.lexists(result):
            return Standing(reason="" if record is None else f"without {result.name}")
        if record is None:
            return Standing(is_foreign=True, reason="exists already, and there is no record of what it was made from")
        if record["state"] is None:
            return Standing(reason="interrupted")
        differences = origin.differences(record["made_from"])
        edited = not are_unchanged(folder_files(result), record["state"])
        reason = f"another {', '.join(differences)}" if differences else ""
        if edited:
            reason = "was changed after it was written" + (f", and would now be made from {reason}" if reason else "")
        return Standing(is_finished=not differences, is_foreign=edited, reason=reason)

    def write_record(self, result: Path, made_from: Mapping[str, Any], state: str | None):
        """Write a result's record; the state is that of its files, `None` while it is being written."""
        write_json({"result": result.name, "made_from": made_from, "state": state}, self.record_path(result))

    @contextlib.contextmanager
    def writing(
        self, made_from: Mapping[Path, Mapping[str, Any]], folders: Iterable[Path] = ()
    ) -> Generator[dict[Path, Path]]:
        """
        Yield temporary paths for results that belong together. At the end of the block all of them appear, with their
        records; if the block fails, none does.

        Args:
            made_from (`Mapping[Path, Mapping]`): What each result is made from, as [`Origin.describe`] returns it.
            folders (`Iterable[Path]`, *optional*): Those of the results that are folders.

        Raises:
            OSError: If a result cannot be written.
        """
        folders, states = set(folders), {}
        with contextlib.ExitStack() as stack:
            partials = {
                result: stack.enter_context(
                    folder_written_whole(result) if result in folders else written_whole(result)
                )
                for result in made_from
            }
            yield partials
            # Of one's own files: another process may replace them at any time.
            for result, partial in partials.items():
                states[result] = [file_state(path) for path in folder_files(partial)]
            for result, described in made_from.items():
                self.write_record(result, described, None)
        for result, described in made_from.items():
            self.write_record(result, described, " ".join(after_moving(folder_files(result), states[result])))


def after_moving(paths: list[Path], states: list[str]) -> list[str]:
    """Update the change times of files that were given another name, unless other files have replaced them."""
    updated = []
    for path, state in zip(paths, states, strict=False):
        with contextlib.suppress(OSError):
            now = f"{content_of(state)}-{times(path)}"
            state = now if now.rpartition("-")[0] == state.rpartition("-")[0] else state
        updated.append(state)
    return [*updated, *states[len(updated) :]]


def summarize(standings: Iterable[Standing]) -> str:
    """Describe how many results are finished already, and how many are made again and why; empty if all are new."""
    standings = list(standings)
    finished = sum(each.is_finished for each in standings)
    reasons = Counter(each.reason for each in standings if not each.is_finished and each.reason)
    parts = [f"{finished} of {len(standings)} are finished already"] if finished else []
    return ", ".join([*parts, *(f"{count} again: {reason}" for reason, count in reasons.items())])
