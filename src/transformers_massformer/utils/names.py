"""
Names of classes: check a set of names, and bring two sets together. Names decide, never positions.

Names that differ only in letter case, in white space or in the Unicode form (composed, decomposed, full width) belong
to the same class: nobody can tell them apart reliably, and some file systems cannot either.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from .files import file_name


# Names that transformers gives to classes without names.
PLACEHOLDER = re.compile(r"label_\d+")
# Names listed in an error.
NUM_LISTED = 30


def clean_name(name: Any) -> str:
    """Return a name as it is stored: composed characters, single spaces, and none at the ends."""
    return unicodedata.normalize("NFC", " ".join(str(name).removeprefix("\ufeff").split()))


def name_key(name: str) -> str:
    """Return a text that is equal for names of the same class."""
    folded = unicodedata.normalize("NFKC", clean_name(name)).casefold()
    visible = "".join(letter for letter in folded if unicodedata.category(letter) != "Cf")
    return clean_name(unicodedata.normalize("NFKC", visible))


def list_names(names: Sequence[str]) -> str:
    """Format names with their ids for an error, such as "0 others, 1 human"."""
    shown = ", ".join(f"{index} {name}" for index, name in enumerate(names[:NUM_LISTED]))
    return shown if len(names) <= NUM_LISTED else f"{shown}, ... ({len(names)} in all)"


def are_placeholders(names: Sequence[str]) -> bool:
    """Tell whether all names are transformers' placeholders, LABEL_0, LABEL_1, ..."""
    return bool(names) and all(PLACEHOLDER.fullmatch(name_key(name)) for name in names)


def unique_keys(names: Sequence[str], owner: str) -> dict[str, int]:
    """
    Return the ids of names by [`name_key`].

    Args:
        names (`Sequence[str]`): Names in the order of their ids.
        owner (`str`): Whose names they are, for errors.

    Raises:
        ValueError: If a name is empty, or two are of the same class.
    """
    ids: dict[str, int] = {}
    for index, name in enumerate(names):
        key = name_key(name)
        if not key:
            raise ValueError(f"{owner}: the name of class {index} is empty. Name it.")
        other = ids.setdefault(key, index)
        if other != index:
            how = "twice" if names[other] == name else f"as {names[other]!r} and {name!r}"
            raise ValueError(
                f"{owner}: classes {other} and {index} have the same name, {how} (letter case, spaces and the Unicode "
                "form do not tell classes apart). Rename one of them."
            )
    return ids


def file_names(names: Sequence[str], owner: str = "The classes") -> list[str]:
    """
    Return a file name per class, without suffix.

    Args:
        names (`Sequence[str]`): Names of classes.
        owner (`str`, *optional*): Whose names they are, for errors.

    Raises:
        ValueError: If two classes would share a file, on any file system.
    """
    found: dict[str, str] = {}
    for name in names:
        key = name_key(file_name(name))
        if key in found:
            raise ValueError(
                f"{owner}: {found[key]!r} and {name!r} would both be written to files named {file_name(name)!r}. "
                "Rename one of them."
            )
        found[key] = name
    return [file_name(name) for name in names]


def check_names(names: Sequence[Any], owner: str) -> list[str]:
    """
    Check the names of a set of classes and return them as they are stored, see [`clean_name`].

    Args:
        names (`Sequence`): Names in the order of their ids.
        owner (`str`): Whose names they are, for errors.

    Raises:
        ValueError: If there is none; a name is no text, is empty or has characters
            that no text has; or two names are of the
            same class or would give files the same name.
    """
    if not names:
        raise ValueError(f"{owner}: there are no class names. Give one per class, in the order of the ids.")
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(f"{owner}: the name of class {index} is {name!r}; names must be text.")
        if any(unicodedata.category(letter) == "Cc" for letter in name.strip()):
            raise ValueError(f"{owner}: the name of class {index}, {name!r}, has control characters. Remove them.")
        if any(unicodedata.category(letter) == "Cs" for letter in name):
            raise ValueError(
                f"{owner}: the name of class {index}, {name!r}, cannot be read in this locale. Set PYTHONUTF8=1."
            )
    cleaned = [clean_name(name) for name in names]
    unique_keys(cleaned, owner)
    file_names(cleaned, owner)
    return cleaned


def names_in_order(id2label: Mapping[Any, Any], owner: str) -> list[str]:
    """
    Return the names of a mapping from ids to names in the order of the ids, which may be numbers or their text.

    Args:
        id2label (`Mapping`): Names by id.
        owner (`str`): Whose names they are, for errors.

    Raises:
        ValueError: If an id is no number, occurs twice (such as 1 and "1"), or one is missing.
    """
    by_id: dict[int, Any] = {}
    for key, name in id2label.items():
        try:
            index = int(key) if not isinstance(key, bool | float) else -1
        except (TypeError, ValueError):
            index = -1
        if index < 0:
            raise ValueError(
                f'{owner}: {key!r} is not the id of a class. Map ids to names, such as {{"0": "others", "1": "sky"}}.'
            )
        if index in by_id:
            raise ValueError(f"{owner}: the id {index} occurs twice, as {by_id[index]} and {name}. Remove one.")
        by_id[index] = name
    missing = sorted(set(range(len(by_id))) - by_id.keys())
    if missing:
        raise ValueError(
            f"{owner}: the ids have gaps, {', '.join(map(str, missing[:10]))} of 0 to {max(by_id)} missing. Name the "
            "class of every id."
        )
    return [by_id[index] for index in range(len(by_id))]


def same_names(names: Sequence[str], others: Sequence[str]) -> bool:
    """Tell whether two sets have the same classes at the same ids."""
    return list(map(name_key, names)) == list(map(name_key, others))


def find_name(name: str, names: Sequence[str]) -> int | None:
    """Return the id of a name among others, or `None`."""
    key = name_key(name)
    return next((index for index, other in enumerate(names) if name_key(other) == key), None)


def match_names(names: Sequence[str], others: Sequence[str], owner: str, other_owner: str) -> list[int | None]:
    """
    Bring two sets of class names together: return, for each name, the id of the same class among the others, or `None`
    where they lack it.

    Args:
        names (`Sequence[str]`): Names in the order of their ids.
        others (`Sequence[str]`): The names to find them among, in the order of their ids. Names that are not looked
            for may be empty or occur twice, as in some published models.
        owner (`str`): Whose names `names` are, for errors.
        other_owner (`str`): Whose names `others` are.

    Raises:
        ValueError: If a name is empty or occurs twice, or is that of several others.
    """
    keys = unique_keys(names, owner)
    known: dict[str, list[int]] = {}
    for index, other in enumerate(others):
        known.setdefault(name_key(other), []).append(index)
    for key, index in keys.items():
        if len(known.get(key, ())) > 1:
            listed = " and ".join(f"{other} {others[other]!r}" for other in known[key])
            raise ValueError(f"{other_owner}: classes {listed} have the name {names[index]!r} of {owner}. Rename one.")
    return [known[key][0] if key in known else None for key in keys]
