"""Tell what a result was made from, and whether files have changed since: by content, whatever their times say."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def times(path: Path) -> str:
    """Return size, modification time and change time, which differ whenever a file has been written."""
    status = path.stat()
    # The modification time can be set to any value, the change time cannot.
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def file_state(path: Path) -> str:
    """Return a text without spaces that describes a file's content, and its times, which save reading it again."""
    seen = times(path)
    return f"{file_hash(path)}-{seen}"


def content_of(state: str) -> str:
    """Return the part of [`file_state`] that describes the content."""
    return state.partition("-")[0]


def is_unchanged(path: Path, state: str) -> bool:
    """Return whether a file has the content that [`file_state`] described; a file that was only copied has."""
    content, _, seen = state.partition("-")
    try:
        return times(path) == seen or file_hash(path) == content
    except OSError:
        return False


def files_state(paths: Iterable[Path]) -> str:
    """Return the states of several files, separated by spaces."""
    return " ".join(map(file_state, paths))


def are_unchanged(paths: Iterable[Path], states: str) -> bool:
    """Return whether the files are those that [`files_state`] described, in the same order."""
    paths, found = list(paths), states.split()
    return len(paths) == len(found) and all(map(is_unchanged, paths, found))


def folder_files(path: Path) -> list[Path]:
    """Return the files in a folder, sorted, or the path itself if it is a file."""
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]


def differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the names under which two mappings have different values, in alphabetical order."""
    return sorted(name for name in {**found, **wanted} if found.get(name) != wanted.get(name))


@dataclass(frozen=True)
class Origin:
    """
    What a result is made from. Everything that changes the result is part of it; devices and batch sizes, which only
    change its rounding, are not.

    Args:
        files (`Mapping[str, Path]`): Files that are read, by what they are, such as `"photo"`.
        settings (`Mapping[str, Any]`): Everything else, as JSON values by name, such as `"model"` and `"tile"`.
    """

    files: Mapping[str, Path]
    settings: Mapping[str, Any]

    def describe(self, state_of: Callable[[Path], str] = file_state) -> dict[str, dict[str, Any]]:
        """
        Return a description in JSON values. Call it before the files are read for the result.

        Args:
            state_of (`Callable`, *optional*): [`file_state`], or what remembers it for several results.
        """
        return {
            "files": {role: state_of(path) for role, path in self.files.items()},
            "settings": dict(self.settings),
        }

    def differences(self, described: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Return the names of files and settings that differ from those described."""
        found = described["files"]
        unchanged = {
            role for role, path in self.files.items() if role in found and is_unchanged(path, str(found[role]))
        }
        return sorted({*found, *self.files} - unchanged) + differing(described["settings"], self.settings)
