"""
Layout of MaSS13K and of every data set like it: folders, splits, pairs of photograph and label map, and their faults.

A copy travels with the loading script of datasets 3.x, so it imports only its sibling `headers`, `photo_headers`,
which travels, too, and the standard library.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..models.photo_headers import PHOTO_SUFFIXES
from .headers import is_ambiguous, label_orientation, read_header
from .label_headers import is_decoded_by_value, read_label_header


logger = logging.getLogger(__name__)

LABELS = ("others", "human", "building", "vegetation", "ground", "sky", "water")
# Label of pixels without a class, which neither training nor evaluation counts.
IGNORE_INDEX = 255
# The folders that may hold a split, and the number of photographs in the release (paper, section 5.1).
SPLIT_FOLDERS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
PUBLISHED_COUNTS = {"train": 11_348, "validation": 500, "test": 1_500}
# The release's folders of photographs, in the order in which they are tried.
IMAGE_FOLDERS = ("images_pad", "images", "images_copy")
LABEL_FOLDER = "annotations"
LABEL_SUFFIXES = (".png", ".json", ".tif", ".tiff", ".bmp", ".gif")
# Formats that change class ids, which are found in order to be refused by name.
LOSSY_LABEL_SUFFIXES = (".jpg", ".jpeg", ".webp", ".avif")
HOW_TO_OBTAIN = "Get MaSS13K from https://github.com/xiechenxi99/MaSS13K and pass the folder that holds `annotations`."
# Files named in an error.
NUM_NAMED = 5


@dataclass(frozen=True)
class Pair:
    """
    A photograph and its label map; the id is the name of both without suffix. Class ids of the stored values, if an
    option maps them, are pairs of numbers.
    """

    image_id: str
    image: Path
    label: Path
    mask_values: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class Fault:
    """A fault in the files of a split: its kind, the file and details."""

    kind: str
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.detail})" if self.detail else self.name


@dataclass
class Split:
    """The files of one split: the folder of its photographs, the pairs, the faults found, and what may be wrong."""

    image_folder: Path
    pairs: list[Pair] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)


def files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """Group the files of a folder that have one of the suffixes by name without suffix."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            found.setdefault(path.stem, []).append(path)
    return found


def read_split(image_folder: Path, label_folder: Path) -> Split:
    """Match the photographs and label maps of two folders by name, and collect the faults that headers reveal."""
    images = files_by_stem(image_folder, PHOTO_SUFFIXES)
    labels = files_by_stem(label_folder, LABEL_SUFFIXES + LOSSY_LABEL_SUFFIXES)
    split = Split(image_folder)
    for stem in sorted(images.keys() | labels.keys()):
        for kind, files in (("images", images), ("labels", labels)):
            if len(files.get(stem, [])) > 1:
                names = ", ".join(path.name for path in files[stem])
                split.faults.append(Fault(f"several {kind} of one name", str(files[stem][0]), names))
        if stem not in labels:
            split.faults.append(Fault("image without a label", str(images[stem][0])))
        elif stem not in images:
            split.faults.append(Fault("label without an image", str(labels[stem][0])))
        else:
            pair = Pair(stem, images[stem][0], labels[stem][0])
            check_pair(pair, split)
            split.pairs.append(pair)
    if not split.pairs:
        split.faults.append(Fault("no image with a label", str(image_folder)))
    return split


def check_pair(pair: Pair, split: Split):
    """Add the faults that the headers of a pair reveal, or a note if they leave open how the label map lies."""
    headers = []
    for path, read in ((pair.image, read_header), (pair.label, read_label_header)):
        try:
            headers.append(read(path))
        except (OSError, ValueError) as error:
            split.faults.append(Fault("unreadable file", str(path), str(error)))
    if len(headers) < 2:
        return
    image, label = headers
    try:
        label_orientation(image, label)
    except ValueError as error:
        split.faults.append(Fault("label of another size than its image", str(pair.label), str(error)))
    if is_ambiguous(image, label):
        detail = f"EXIF orientation {image.orientation}; the label map is taken as it is stored"
        split.notes.append(Fault("turned image whose label may lie otherwise", str(pair.image), detail))


def find_root(data_dir: str | Path) -> Path:
    """Return the folder that holds `annotations`: the given one or `msem` in it."""
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"The folder {data_dir} does not exist. {HOW_TO_OBTAIN}")
    for root in (data_dir, data_dir / "msem"):
        if (root / LABEL_FOLDER).is_dir():
            return root
    present = ", ".join(sorted(path.name for path in data_dir.iterdir())[:NUM_NAMED]) or "nothing"
    raise FileNotFoundError(f"{data_dir} has no folder `{LABEL_FOLDER}`; it contains {present}. {HOW_TO_OBTAIN}")


def find_splits(data_dir: str | Path) -> dict[str, Split]:
    """
    Find the splits in a folder of the release's layout (`[msem/]images_pad|images|images_copy/<split>/*.jpg` and
    `annotations/<split>/*.png`, or `*.json` in COCO format). If several folders hold the photographs of a split, the
    first one without faults is used, or the first one if all have faults.

    Args:
        data_dir (`str` or `Path`): The folder.

    Returns:
        `dict[str, Split]`: The splits found among `"train"`, `"validation"` and `"test"`, with their faults.

    Raises:
        FileNotFoundError: If the folder does not exist, or lacks a required subfolder.
    """
    root = find_root(data_dir)
    splits: dict[str, Split] = {}
    for name, folders in SPLIT_FOLDERS.items():
        label_folder = next((f for folder in folders if (f := root / LABEL_FOLDER / folder).is_dir()), None)
        image_folders = [f for kind in IMAGE_FOLDERS for folder in folders if (f := root / kind / folder).is_dir()]
        if label_folder is None and not image_folders:
            continue
        if label_folder is None or not image_folders:
            missing = LABEL_FOLDER if label_folder is None else " or ".join(IMAGE_FOLDERS)
            raise FileNotFoundError(f"Split {name} in {root} is incomplete: {missing}/{folders[0]} is missing.")
        for image_folder in image_folders:
            split = read_split(image_folder, label_folder)
            if name not in splits or not split.faults:
                splits[name] = split
            if not split.faults:
                break
    if not splits:
        raise FileNotFoundError(f"{root} contains none of the splits {', '.join(SPLIT_FOLDERS)}. {HOW_TO_OBTAIN}")
    return splits


def choose_split(splits: Mapping[str, Split], name: str) -> Split:
    """
    Return a split by name.

    Args:
        splits (`Mapping[str, Split]`): From [`find_splits`].
        name (`str`): `"train"`, `"validation"` (or `"val"`) or `"test"`.

    Raises:
        ValueError: If the data has no such split.
    """
    name = full_split_name(name)
    if name not in splits:
        raise ValueError(f"Unknown split {name}; the data has {', '.join(splits)}.")
    return splits[name]


def full_split_name(name: str) -> str:
    """Return the name that [`find_splits`] uses for a split."""
    return "validation" if name == "val" else name


def describe_faults(faults: list[Fault]) -> str:
    """Summarize faults: the count of each kind, with the first names."""
    texts = []
    for kind, count in Counter(fault.kind for fault in faults).items():
        names = [str(fault) for fault in faults if fault.kind == kind][:NUM_NAMED]
        texts.append(f"{count} x {kind}: {', '.join(names)}{', ...' if count > len(names) else ''}")
    return "; ".join(texts)


def check_faults(split_name: str, split: Split):
    """
    Refuse a split with faults, and warn of what may be wrong with it.

    Raises:
        ValueError: If the split has faults, with counts and names.
    """
    if split.faults:
        raise ValueError(
            f"Split {split_name} in {split.image_folder} has faults. {describe_faults(split.faults)}. Replace these "
            "files or remove them; `massformer stats --verify` lists them all."
        )
    if split.notes:
        logger.warning(
            f"Split {split_name} in {split.image_folder}: {describe_faults(split.notes)}. Label maps must lie on the "
            "upright photographs. Turn those that were drawn on the stored pixels, or give them the same orientation "
            "tag; `massformer stats --verify` lists them all."
        )


def check_pictures(split: Split):
    """
    Refuse label maps that the image column of a data set would not decode to their class ids: annotations in COCO
    format, and pictures whose values Pillow changes, such as grey ones of 2 or 4 bits per pixel.

    Raises:
        ValueError: If there are such label maps.
    """
    others = [
        str(pair.label)
        for pair in split.pairs
        if pair.label.suffix.lower() == ".json" or not is_decoded_by_value(pair.label)
    ]
    if others:
        raise ValueError(
            f"{len(others)} label maps are not PNG files of 8 bits per pixel, grey or with a palette, such as "
            f"{others[0]}. Convert them: `massformer annotations DATA --format png --output FOLDER`."
        )


def fingerprint(splits: dict[str, Split]) -> str:
    """Return a hash of all file names, sizes and times, so that a cache notices added, removed and changed files."""
    digest = hashlib.sha256()
    for split in splits.values():
        for path in (path for pair in split.pairs for path in (pair.image, pair.label)):
            status = path.stat()
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
