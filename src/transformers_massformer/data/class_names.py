"""Class names that lie beside a data set: `classes.txt`, one name per line in the order of ids, or `id2label.json`."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..utils.files import written_whole
from ..utils.names import check_names, list_names, names_in_order


CLASSES_FILE, ID2LABEL_FILE = "classes.txt", "id2label.json"
# A line that starts with a number, as some tools write.
NUMBERED = re.compile(r"(\d+)\s*[\s:;,=]\s*\S")


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}). Save it in this encoding.") from error


def read_names_file(path: str | Path) -> list[str]:
    """
    Read class names from a text file: one per line, in the order of ids, in UTF-8. Lines that start with `#` are
    comments. Blank lines may stand at the start and the end only, because others would shift ids in some readers.

    Args:
        path (`str` or `Path`): The file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it has no names, a blank line between names, numbered lines, or names that do not fit together.
    """
    path = Path(path)
    # Not `splitlines`: it also splits at characters that names may contain.
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", read_text(path)) if not line.lstrip().startswith("#")]
    names = "\n".join(lines).strip("\n").split("\n")
    if names == [""]:
        raise ValueError(f"{path} has no class names. Write one per line, in the order of the ids.")
    if "" in names:
        raise ValueError(
            f"{path} has a blank line after {names[names.index('') - 1]!r}. Write the name of the class there, or "
            "remove the line."
        )
    numbers = [int(match[1]) for name in names if (match := NUMBERED.match(name))]
    if numbers in (list(range(len(names))), list(range(1, len(names) + 1))):
        raise ValueError(f"{path} has numbered lines ({names[0]!r}). Write names only, in the order of the ids.")
    return check_names(names, str(path))


def without_duplicates(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of a JSON file; raise a `ValueError` if a key occurs twice."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{path}: the key {key!r} occurs twice. Remove one.")
        found[key] = value
    return found


def read_id2label_file(path: str | Path) -> list[str]:
    """
    Read class names from a JSON file that maps ids to names, `{"0": "others", "1": "sky"}`, in UTF-8.

    Args:
        path (`str` or `Path`): The file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not such a file, ids are missing, or names do not fit together.
    """
    path = Path(path)
    text = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=lambda pairs: without_duplicates(path, pairs))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} must contain one object that maps ids to names, such as {{"0": "others"}}.')
    return check_names(names_in_order(content, str(path)), str(path))


def read_class_names(folder: str | Path) -> list[str] | None:
    """
    Return the class names beside a data set, in the order of their ids: from `classes.txt` or `id2label.json`, or
    `None` if it has neither.

    Args:
        folder (`str` or `Path`): The folder that holds `annotations`.

    Raises:
        ValueError: If a file is malformed, or both exist and differ.
    """
    texts, table = Path(folder) / CLASSES_FILE, Path(folder) / ID2LABEL_FILE
    names = read_names_file(texts) if texts.is_file() else None
    if not table.is_file():
        return names
    found = read_id2label_file(table)
    if names is not None and names != found:
        raise ValueError(
            f"{texts} and {table} differ: {list_names(names)}; and {list_names(found)}. Correct one, or remove it."
        )
    return found


def write_class_names(folder: str | Path, names: Sequence[str]):
    """
    Write `classes.txt` into a folder, in UTF-8.

    Args:
        folder (`str` or `Path`): The folder that holds `annotations`.
        names (`Sequence[str]`): The names in the order of their ids.

    Raises:
        ValueError: If the names do not fit together, or the file could not tell one from a comment.
    """
    path = Path(folder) / CLASSES_FILE
    cleaned = check_names(names, str(path))
    for name in cleaned:
        if name.startswith("#"):
            raise ValueError(f"{path}: {name!r} would be a comment. Choose a name that does not start with #.")
    with written_whole(path) as partial:
        partial.write_text("".join(f"{name}\n" for name in cleaned), encoding="utf-8", newline="\n")
