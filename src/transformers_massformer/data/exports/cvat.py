"""Exports of CVAT's "Segmentation mask 1.1": colours that a labelmap.txt names."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...images import opened
from ..label_headers import check_label_format
from .export import MASK_FOLDERS, Annotated, Export, Layer, split_of


LINE = re.compile(r"(?P<name>.+?):(?P<colour>\s*\d+\s*,\s*\d+\s*,\s*\d+\s*):[^:]*:[^:]*")
LABEL_MAP, MASKS = "labelmap.txt", MASK_FOLDERS[0]
# CVAT's name for pixels that nobody has annotated.
BACKGROUND = "background"
NUM_LISTED = 5

Colour = tuple[int, ...]


def read_label_map(path: Path) -> dict[Colour, str]:
    """
    Read the colours of the classes, lines of `name:r,g,b:parts:actions`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a line is malformed, or two classes share a colour or a name.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}. Export the task as `Segmentation mask 1.1`, and unpack the archive."
        )
    found: dict[Colour, str] = {}
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        colour = tuple(int(value) for value in match["colour"].split(",")) if match else ()
        if match is None or max(colour) > 255:
            raise ValueError(f"{path}: {line!r} is not NAME:RED,GREEN,BLUE:PARTS:ACTIONS. Export the task again.")
        name = match["name"].strip()
        if colour in found or name in found.values():
            raise ValueError(
                f"{path}: the colour or the name of {line!r} occurs twice. Give each class its own colour."
            )
        found[colour] = name
    return found


def read_layers(path: Path, colours: dict[Colour, str]) -> Iterator[Layer]:
    """
    Read the classes of a picture of colours.

    Raises:
        ValueError: If the file cannot be decoded, or has a colour that is not in the list.
    """
    with opened(path, str(path)) as image:
        file_format = image.format
        values = np.array(image.convert("RGB"))
    check_label_format(file_format, str(path))
    numbers = values[..., 0].astype(np.int32) << 16 | values[..., 1].astype(np.int32) << 8 | values[..., 2]
    known = {red << 16 | green << 8 | blue: name for (red, green, blue), name in colours.items()}
    used = np.unique(numbers).tolist()
    if unknown := [number for number in used if number not in known]:
        listed = ", ".join(f"{n >> 16},{n >> 8 & 255},{n & 255}" for n in unknown[:NUM_LISTED])
        more = ", ..." if len(unknown) > NUM_LISTED else ""
        raise ValueError(
            f"{path} has the colours {listed}{more}, which {LABEL_MAP} does not name. Add them there, or export the "
            "task again; a picture that was resized or compressed has mixed colours."
        )
    for number in used:
        yield known[number], numbers == number


def read_subsets(folder: Path) -> dict[str, str | None]:
    """Return the split of each photo by its name without suffix, from lists such as `train.txt`."""
    found: dict[str, str | None] = {}
    for path in sorted((folder / "ImageSets" / "Segmentation").glob("*.txt")):
        for line in path.read_text(encoding="utf-8-sig").splitlines():
            name = line.strip().strip('"')
            if name and found.setdefault(name, split_of(path.stem)) != split_of(path.stem):
                raise ValueError(f"{path}: {name} is in another list, too. Leave each photo in one.")
    return found


def read_cvat(folder: Path) -> Export:
    """
    Read an export.

    Args:
        folder (`Path`): The unpacked archive, with `SegmentationClass` and `labelmap.txt`.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is malformed.
    """
    colours = read_label_map(folder / LABEL_MAP)
    files = sorted((folder / MASKS).rglob("*.png"))
    masks = {path.relative_to(folder / MASKS).with_suffix("").as_posix(): path for path in files}
    subsets = read_subsets(folder)
    if missing := sorted(subsets.keys() - masks.keys()):
        raise FileNotFoundError(
            f"{folder / MASKS} has no {missing[0]}.png, which ImageSets lists ({len(missing)} are missing). Export "
            "the task again."
        )
    items = [
        Annotated(name, str(path), lambda path=path: read_layers(path, colours), subsets.get(name))
        for name, path in masks.items()
    ]
    classes = [name for name in colours.values() if name != BACKGROUND]
    photos = folder / "JPEGImages"
    return Export(items, classes, photos if photos.is_dir() else folder, BACKGROUND)
