"""
Class names of data: given by the caller, beside the data (`classes.txt`, one name per line in the order of ids, or
`id2label.json`), or the categories of its label maps in COCO format. Sources that disagree are an error.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..utils.files import written_whole
from ..utils.names import check_names, find_name, list_names, name_key, names_in_order, same_names
from ..utils.text import readable_names
from .label_headers import read_annotation
from .layout import LABEL_FOLDER, LABELS, Fault, Split, describe_faults, find_root


CLASSES_FILE, ID2LABEL_FILE, CONFIG_FILE = CLASS_FILES = "classes.txt", "id2label.json", "config.json"
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


@dataclass(frozen=True)
class DataClasses:
    """
    The classes of a data set.

    Attributes:
        names (`list[str]`): Their names in the order of ids.
        origin (`str`): Where the names come from, for errors.
        is_assumed (`bool`): Whether nothing names them, so that they are taken to be MaSS13K's.
    """

    names: list[str]
    origin: str
    is_assumed: bool = False


def read_given_names(values: Sequence[str] | None) -> list[str] | None:
    """
    Return the class names that an option gives.

    Args:
        values (`Sequence[str]`, *optional*):
            The names in the order of ids; or one path: of a file like `classes.txt` or `id2label.json`, or of a folder
            with such a file or with the `config.json` of a model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is malformed, or the names do not fit together.
    """
    if not values:
        return None
    values = readable_names(values, "--labels")
    path = Path(values[0])
    if len(values) > 1 or not (path.exists() or path.suffix in (".txt", ".json")):
        return check_names(values, "--labels")
    if path.is_dir():
        found = read_class_names(path) or read_config_names(path / CONFIG_FILE)
        # A class may have the name of some folder.
        return check_names(values, "--labels") if found is None else found
    if path.suffix == ".json":
        return read_config_names(path) or read_id2label_file(path)
    return read_names_file(path)


def read_config_names(path: Path) -> list[str] | None:
    """Return the class names in the configuration of a model, or `None` if the file is not a configuration."""
    if not path.is_file():
        return None
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error
    table = content.get("id2label") if isinstance(content, dict) else None
    return check_names(names_in_order(table, str(path)), str(path)) if isinstance(table, dict) else None


def read_categories(splits: Mapping[str, Split]) -> dict[Path, dict[int, str]]:
    """Return the names of the categories by id of every label map in COCO format."""
    unreadable = {fault.name for split in splits.values() for fault in split.faults}
    labels = [pair.label for split in splits.values() for pair in split.pairs]
    return {
        path: {category["id"]: category["name"] for category in read_annotation(path)["categories"]}
        for path in labels
        if path.suffix.lower() == ".json" and str(path) not in unreadable
    }


def category_faults(categories: Mapping[Path, Mapping[int, str]], names: Sequence[str]) -> list[Fault]:
    """Return a fault per category, of [`read_categories`], that has another name or id than its class."""
    faults = []
    for path, found in categories.items():
        for number, name in found.items():
            expected = find_name(name, names)
            if expected is not None and expected != number:
                detail = f"{name} is {number}, the class {expected}"
                faults.append(Fault("category with another id than its class", str(path), detail))
            elif 0 <= number < len(names) and expected is None:
                detail = f"{number} is {name}, the class {names[number]}"
                faults.append(Fault("category with another name than its class", str(path), detail))
    return faults


def names_of_categories(categories: Mapping[Path, Mapping[int, str]]) -> DataClasses | None:
    """Return the classes that label maps in COCO format name, or `None` if they name nothing but MaSS13K's."""
    joined: dict[int, str] = {}
    for found in categories.values():
        joined = {**found, **joined}
    known = {index: name_key(name) for index, name in enumerate(LABELS)}
    if {name_key(name) for name in joined.values()} <= set(known.values()):
        return None
    origin = f"the categories in {next(iter(categories))}"
    # Classes that follow MaSS13K's may stand alone; otherwise every class must be named.
    is_extended = all(known.get(index, name_key(name)) == name_key(name) for index, name in joined.items())
    names = names_in_order({**dict(enumerate(LABELS)), **joined} if is_extended else joined, origin)
    return DataClasses(check_names(names, origin), origin)


def find_classes(
    data_dir: str | Path,
    categories: Mapping[Path, Mapping[int, str]],
    given: Sequence[str] | None = None,
    added: Sequence[str] = (),
) -> DataClasses:
    """
    Return the classes of a data set: the given ones, those of the file beside it, of its label maps in COCO format, or
    else of MaSS13K.

    Args:
        data_dir (`str` or `Path`): The folder, see [`find_root`].
        categories (`Mapping`): From [`read_categories`].
        given (`Sequence[str]`, *optional*): Names that the caller gives, see [`read_given_names`].
        added (`Sequence[str]`, *optional*): Further names, whose ids follow.

    Raises:
        ValueError: If names are malformed, do not fit together, or differ between sources.
    """
    root, named = find_root(data_dir), read_given_names(given)
    beside = read_class_names(root)
    path = root / (CLASSES_FILE if (root / CLASSES_FILE).is_file() else ID2LABEL_FILE)
    if named is not None and beside is not None and not same_names(named, beside):
        raise ValueError(
            f"--labels and {path} differ: {list_names(named)}; and {list_names(beside)}. Leave out --labels, or "
            "correct the file."
        )
    if named is not None:
        classes = DataClasses(named, "--labels")
    elif beside is not None:
        classes = DataClasses(beside, str(path))
    else:
        assumed = DataClasses(list(LABELS), f"MaSS13K, since {data_dir} has no {CLASSES_FILE}", is_assumed=True)
        classes = names_of_categories(categories) or assumed
    check_names_of_splits(root, classes)
    if not added:
        return classes
    added = readable_names(added, "--add-class")
    owner = f"The classes of {classes.origin}, and --add-class"
    return DataClasses(check_names([*classes.names, *added], owner), classes.origin)


def check_names_of_splits(root: Path, classes: DataClasses):
    """Raise a `ValueError` if the folder of a split, such as the results of a model, names other classes."""
    annotations = root / LABEL_FOLDER
    for folder in (annotations, *sorted(path for path in annotations.iterdir() if path.is_dir())):
        names = read_class_names(folder)
        if names is not None and not same_names(names, classes.names):
            raise ValueError(
                f"{folder} has a {CLASSES_FILE} or {ID2LABEL_FILE} with {list_names(names)}; the classes of "
                f"{classes.origin} are {list_names(classes.names)}. Move it to {root}, or remove it."
            )


def data_classes(
    data_dir: str | Path,
    splits: Mapping[str, Split],
    given: Sequence[str] | None = None,
    added: Sequence[str] = (),
) -> DataClasses:
    """
    Return the classes of a data set, see [`find_classes`], after comparing them with the categories of its label maps
    in COCO format.

    Args:
        data_dir (`str` or `Path`): The folder.
        splits (`Mapping[str, Split]`): Its splits, from [`find_splits`].
        given (`Sequence[str]`, *optional*): Names that the caller gives, see [`read_given_names`].
        added (`Sequence[str]`, *optional*): Further names, whose ids follow.

    Raises:
        ValueError: If names are malformed, do not fit together, or differ between sources.
    """
    categories = read_categories(splits)
    classes = find_classes(data_dir, categories, given, added)
    faults = category_faults(categories, classes.names)
    if faults:
        raise ValueError(
            f"The label maps name other classes than {classes.origin}. {describe_faults(faults)}. The categories of "
            "label maps in COCO format must have the names and ids of the classes."
        )
    return classes


def write_own_class_names(folder: str | Path, names: Sequence[str]):
    """Write `classes.txt` beside written data, unless its classes are MaSS13K's and the folder names no others."""
    if not same_names(names, LABELS) or (Path(folder) / CLASSES_FILE).exists():
        write_class_names(folder, names)
