"""What the readers of exports have in common: annotated photographs, layers of classes, and the search for photos."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ...models.photo_headers import PHOTO_SUFFIXES
from ..layout import SPLIT_FOLDERS


# CVAT's folders of label maps, whose files have the names of photographs.
MASK_FOLDERS = ("SegmentationClass", "SegmentationObject")

# A class name and a boolean mask of shape (height, width).
Layer = tuple[str, np.ndarray]


@dataclass(frozen=True)
class Annotated:
    """
    A photograph in an export.

    Attributes:
        photo (`str`): Its name, as the tool gives it; with or without a folder and a suffix.
        origin (`str`): The file and the place in it, for errors.
        read (`Callable`): Returns the layers in the order in which they were drawn, all of one size.
        split (`str`, *optional*): Folder of the split, if the export names it.
    """

    photo: str
    origin: str
    read: Callable[[], Iterator[Layer]]
    split: str | None = None


@dataclass(frozen=True)
class Export:
    """
    An export of an annotation tool.

    Attributes:
        items (`list[Annotated]`): The annotated photographs.
        classes (`list[str]`): Names of the classes, in the order that the tool gives.
        photos (`Path`): Where the photographs are unless the user says so.
        unlabelled (`str`, *optional*): The tool's name for pixels that nobody has annotated.
    """

    items: list[Annotated]
    classes: list[str]
    photos: Path
    unlabelled: str | None = None


def split_of(name: str) -> str | None:
    """Return the folder of the split that a file name ends with, such as `instances_train2017`, or `None`."""
    stem = re.sub(r"\d+$", "", name.lower())
    for folders in SPLIT_FOLDERS.values():
        if any(stem == folder or stem.endswith((f"_{folder}", f"-{folder}")) for folder in folders):
            return folders[0]
    return None


class PhotoFinder:
    """
    Finds photographs by the names that tools give.

    Args:
        folder (`Path`): The folder, which is searched recursively.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.files = [
            path
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in PHOTO_SUFFIXES
            and path.is_file()
            and not path.name.startswith(".")
            and not set(MASK_FOLDERS) & set(path.parts)
        ]

    def find(self, name: str, origin: str, aliases: Sequence[str] = ()) -> Path:
        """
        Find a photograph: the file whose path ends with the name, else the only one with the same file name, else the
        only one with this name before the suffix.

        Args:
            name (`str`): The name, with or without a folder and a suffix.
            origin (`str`): Where the name stands, for errors.
            aliases (`Sequence[str]`): Further names to try.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If there are several.
        """
        for wanted in (name, *aliases):
            parts = PurePosixPath(wanted.replace("\\", "/")).parts
            for matches in (
                lambda path, parts=parts: path.parts[-len(parts) :] == parts,
                lambda path, parts=parts: path.name == parts[-1],
                lambda path, parts=parts: path.stem == parts[-1],
            ):
                found = [path for path in self.files if parts and matches(path)]
                if len(found) == 1:
                    return found[0]
                if found:
                    raise ValueError(
                        f"{origin}: {wanted} may be {found[0]} or {found[1]}. Pass the folder of the right ones with "
                        "--photos."
                    )
        raise FileNotFoundError(
            f"{origin}: there is no photo {name} in {self.folder} ({', '.join(PHOTO_SUFFIXES)}). Pass the folder of "
            "the photos with --photos."
        )
