"""Find photographs: which files of folders are photographs, and why others are passed over."""

import glob
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .models.photo_headers import PHOTO_SUFFIXES
from .utils.resuming import RESULTS_FOLDER, Results


# Folders in which storage devices, file managers and archives keep copies of photographs or deleted ones.
SYSTEM_FOLDERS = ("@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "__macosx", "lost+found")
# Names that results of `massformer segment` have behind those of their label maps.
RESULT_NAMES, RESULT_FOLDERS = ("_overlay", "_bokeh", "_semantic_priors"), ("_mattes", "_cutouts")
LABEL_MAP_SUFFIXES = (".png", ".json")
# Names in the description of a search, per reason.
NUM_NAMED = 3
HIDDEN, SYSTEM, RESULT, LINK = "hidden", "in a folder of the system", "results of an earlier run", "broken links"
NO_PHOTO, UNREADABLE = "not photographs", "folders that cannot be read"


@dataclass
class Search:
    """
    Photographs found, and what was passed over.

    Attributes:
        photos (`list[tuple[Path, Path]]`): Each photograph, and its path relative to the folder that was given.
        passed_over (`dict[str, list[str]]`): Names of files and folders by the reason for which they were passed over.
    """

    photos: list[tuple[Path, Path]] = field(default_factory=list)
    passed_over: dict[str, list[str]] = field(default_factory=dict)

    def pass_over(self, path: Path, reason: str):
        """Note a file or folder that is not a photograph to use."""
        self.passed_over.setdefault(reason, []).append(path.name)

    def describe(self) -> str:
        """Describe what was passed over, such as `"2 passed over: 1 hidden (._a.jpg), 1 ..."`; empty if nothing."""
        parts = []
        for reason, names in self.passed_over.items():
            more = ", ..." if len(names) > NUM_NAMED else ""
            parts.append(f"{len(names)} {reason} ({', '.join(names[:NUM_NAMED])}{more})")
        total = sum(map(len, self.passed_over.values()))
        return f"{total} passed over: {', '.join(parts)}" if total else ""


def find_photos(arguments: Iterable[str], output: Path) -> Search:
    """
    Find the photographs that a command's arguments name. A file is always taken; folders are searched recursively for
    files with the suffix of a photograph. Hidden files, thumbnails and results of earlier runs are passed over, and a
    photograph that is named twice is taken once.

    Args:
        arguments (`Iterable[str]`): Files, folders or globs; a leading `~` stands for the home folder.
        output (`Path`): The folder for results.

    Returns:
        [`Search`]: The photographs, in the order of the arguments and of their names.

    Raises:
        FileNotFoundError: If an argument names no photographs.
        ValueError: If a folder is also the output.
    """
    search, seen = Search(), set()
    for argument in arguments:
        found = Search(passed_over=search.passed_over)
        search_argument(argument, output, found)
        if not found.photos:
            note = f" {found.describe()}." if found.passed_over else ""
            raise FileNotFoundError(f"{argument} names no photographs ({', '.join(PHOTO_SUFFIXES)}).{note}")
        for photo, relative in found.photos:
            # Links are names of their own; folders may be reached in several ways.
            place = photo.parent.resolve() / photo.name
            if place not in seen:
                seen.add(place)
                search.photos.append((photo, relative))
    return search


def search_argument(argument: str, output: Path, found: Search):
    """Add the photographs that one argument names."""
    name = argument if os.path.lexists(argument) else os.path.expanduser(argument)
    path = Path(name)
    if path.is_dir():
        if path.resolve() == output.resolve():
            raise ValueError(f"{path} holds the photographs; choose another folder for the results with --output.")
        search_files(path, files_below(path, output.resolve(), found), found)
    elif os.path.lexists(path):
        found.photos.append((path, Path(path.name)))
    elif glob.has_magic(name):
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        matches = (Path(match) for match in sorted(glob.glob(name, recursive=True)))
        matches = (match for match in matches if not match.is_dir())
        # An output that holds all of the photographs has results of its own to pass over, not them.
        is_inside = root.resolve() in output.resolve().parents
        kept = (match for match in matches if not (is_inside and output.resolve() in match.resolve().parents))
        search_files(root, kept, found)
    else:
        raise FileNotFoundError(f"There is no file or folder {argument}.")


def search_files(root: Path, files: Iterable[Path], found: Search):
    """Add those of the files that are photographs."""
    for path in files:
        reason = reason_against(path, root)
        if reason:
            found.pass_over(path, reason)
        else:
            found.photos.append((path, path.relative_to(root)))


def files_below(root: Path, output: Path, found: Search) -> Iterator[Path]:
    """Yield the files of a folder and of the folders in it, sorted, each folder once, but not those of the output."""
    visited, files = set(), []
    for name, folders, names in os.walk(root, onerror=lambda error: unreadable(error, found), followlinks=True):
        folder = Path(name)
        status = os.stat(folder)
        # Symbolic links may lead back to a folder above.
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        kept = []
        for each in sorted(folders):
            reason = reason_against_folder(folder / each, root)
            if reason and each != RESULTS_FOLDER:
                found.pass_over(folder / each, reason)
            elif not reason and (folder / each).resolve() != output:
                kept.append(each)
        folders[:] = kept
        files += [folder / each for each in names]
    yield from sorted(files)


def unreadable(error: OSError, found: Search):
    """Note a folder that cannot be read."""
    found.pass_over(Path(error.filename or "?"), UNREADABLE)


def reason_against(path: Path, root: Path) -> str:
    """Return why a file below a folder is passed over, empty if it is a photograph to use."""
    for folder in path.parents[: len(path.relative_to(root).parts) - 1]:
        if reason := reason_against_folder(folder, root):
            return reason
    if path.name.startswith("."):
        return HIDDEN
    if not path.exists():
        return LINK
    if path.suffix.lower() not in PHOTO_SUFFIXES or not path.is_file():
        return NO_PHOTO
    return RESULT if is_result(path, root) else ""


def reason_against_folder(path: Path, root: Path) -> str:
    """Return why a folder is not searched, empty if it is."""
    if path.name.startswith("."):
        return HIDDEN
    if path.name.lower() in SYSTEM_FOLDERS:
        return SYSTEM
    return RESULT if is_result(path, root) else ""


def is_result(path: Path, root: Path) -> bool:
    """
    Return whether `massformer segment` wrote a file or folder: a folder above records it, or it is named after a label
    map beside it.
    """
    for folder in path.parents:
        if (folder / RESULTS_FOLDER).is_dir() and Results(folder).record_path(path).exists():
            return True
        if folder == root:
            break
    is_folder = path.is_dir()
    if not is_folder and path.suffix != ".png":
        return False
    stem = path.name if is_folder else path.stem
    endings = [ending for ending in (RESULT_FOLDERS if is_folder else RESULT_NAMES) if stem.endswith(ending)]
    return any(
        path.with_name(stem.removesuffix(ending) + suffix).exists()
        for ending in endings
        for suffix in LABEL_MAP_SUFFIXES
    )
