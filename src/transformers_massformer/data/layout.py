"""
MaSS13K and every data set in its layout: photographs, label maps, and a `datasets` builder over files that stay where
they are.

Imports nothing but `datasets` and the standard library, because a copy of it travels as the loading script of
datasets 3.x.
"""

import hashlib
import json
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets


LABELS = ("others", "human", "building", "vegetation", "ground", "sky", "water")
# A label of no class, which neither training nor evaluation counts.
IGNORE_INDEX = 255
# The folders that may hold a split, and the photographs of the release (paper, section 5.1).
SPLIT_FOLDERS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
PUBLISHED_COUNTS = {"train": 11_348, "validation": 500, "test": 1_500}
# The release's folders of photographs, in the order in which they are tried.
IMAGE_FOLDERS = ("images_pad", "images", "images_copy")
LABEL_FOLDER = "annotations"
IMAGE_SUFFIXES, LABEL_SUFFIXES = (".jpg", ".jpeg", ".png"), (".png", ".json")
# EXIF orientations that turn a photograph by a quarter, and those that keep its size.
QUARTER_TURNS, SAME_SIZE_TURNS = (5, 6, 7, 8), (2, 3, 4)
ORIENTATION_TAG = 0x0112
HOW_TO_OBTAIN = "Get MaSS13K from https://github.com/xiechenxi99/MaSS13K and name the folder that holds `annotations`."
NUM_NAMED = 5

DESCRIPTION = (
    "13,348 photographs of about 4096 x 3072 pixels with label maps of matting quality in seven classes "
    "(MaSS13K, CVPR 2025, arXiv:2503.18364)."
)
CITATION = """@inproceedings{xie2025mass13k,
  title={MaSS13K: A Matting-level Semantic Segmentation Benchmark},
  author={Xie, Chenxi and Li, Minghan and Zeng, Hui and Luo, Jun and Zhang, Lei},
  booktitle={CVPR},
  year={2025}
}"""


@dataclass(frozen=True)
class Header:
    """Stored size of an image in pixels, and its EXIF orientation (1: upright; 0: no tag)."""

    width: int
    height: int
    orientation: int = 0

    @property
    def stored_size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def upright_size(self) -> tuple[int, int]:
        return (self.height, self.width) if self.orientation in QUARTER_TURNS else self.stored_size


@dataclass(frozen=True)
class Pair:
    """A photograph and its label map; the name of both without suffix is the id."""

    image_id: str
    image: Path
    label: Path


@dataclass(frozen=True)
class Fault:
    """Something wrong with the files of a split: what, the file, and details."""

    kind: str
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.detail})" if self.detail else self.name


@dataclass
class Split:
    """The files of one split: the folder its photographs are taken from, the pairs, and what is wrong with it."""

    image_folder: Path
    pairs: list[Pair] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def exif_orientation(tiff: bytes) -> int:
    """The orientation in the TIFF block of EXIF data; 0 if there is none."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 0
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    if start + 2 > len(tiff):
        return 0
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
        if tag == ORIENTATION_TAG and kind == 3:
            (orientation,) = struct.unpack_from(f"{order}H", tiff, entry + 8)
            return orientation if 1 <= orientation <= 8 else 0
    return 0


def read_png_header(file) -> Header:
    """Reads from behind the signature to the pixels."""
    width = height = orientation = 0
    while True:
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"IDAT":
            return Header(width, height, orientation)
        data = file.read(length)
        if kind == b"IHDR":
            width, height = struct.unpack_from(">II", data)
        elif kind == b"eXIf":
            orientation = exif_orientation(data)
        file.seek(4, 1)


def read_jpeg_header(file) -> Header:
    """Reads from behind the first marker to the frame's header."""
    orientation = 0
    while True:
        start, marker = struct.unpack(">BB", file.read(2))
        while marker == 0xFF:
            (marker,) = file.read(1)
        if start != 0xFF:
            raise ValueError("no marker where there should be one")
        (length,) = struct.unpack(">H", file.read(2))
        data = file.read(length - 2)
        # Start of a frame, of whatever kind; these three numbers are other segments.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">xHH", data)
            return Header(width, height, orientation)
        if marker == 0xE1 and data.startswith(b"Exif\0\0"):
            orientation = exif_orientation(data[6:])


def read_annotation(path: Path) -> dict[str, Any]:
    """
    A photograph's annotation in COCO's format, as JSON holds it; its masks are not decoded.

    Raises:
        ValueError: If it is no such file, or holds the annotations of several photographs.
    """
    try:
        content = json.loads(path.read_bytes())
        sizes = [side for image in content["images"] for side in (image["width"], image["height"])]
        ids, names = ([category[key] for category in content["categories"]] for key in ("id", "name"))
        if not isinstance(content["annotations"], list) or not all(isinstance(name, str) for name in names):
            raise ValueError("its annotations must be a list, and names of categories texts")
        if not all(type(number) is int for number in sizes + ids) or min(sizes, default=1) < 1:
            raise ValueError("its sizes and ids must be whole numbers, and sizes 1 or more")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no annotation in COCO's format: {error!r}. Write it again.") from error
    if len(content["images"]) != 1:
        count = len(content["images"])
        raise ValueError(f"{path} holds {count} photographs. Split it into a file for each, named like it.")
    return content


def read_header(path: Path) -> Header:
    """
    Reads the size and orientation of a JPEG, a PNG or an annotation in COCO's format, not its pixels. The latter lies
    on the upright photograph.

    Raises:
        ValueError: If the file is none of these, or ends too soon.
    """
    if path.suffix.lower() == ".json":
        image = read_annotation(path)["images"][0]
        return Header(image["width"], image["height"], orientation=1)
    with open(path, "rb") as file:
        start = file.read(8)
        try:
            if start == b"\x89PNG\r\n\x1a\n":
                return read_png_header(file)
            if start[:2] == b"\xff\xd8":
                file.seek(2)
                return read_jpeg_header(file)
        except (struct.error, ValueError) as error:
            raise ValueError(f"{path} is damaged: its header cannot be read. Get the file again.") from error
    raise ValueError(f"{path} is no JPEG or PNG, or it is empty. Get the file again.")


def label_orientation(image: Header, label: Header) -> int:
    """
    How a label map is to be turned to lie on the upright photograph: an EXIF orientation, 1 for not at all. A map
    without a tag that has the photograph's stored size is turned with it; one of the upright size stays.

    Raises:
        ValueError: If it has another size.
    """
    if label.upright_size == image.upright_size:
        return 1
    if not label.orientation and label.stored_size == image.stored_size:
        return image.orientation
    sizes = [f"{width} x {height}" for width, height in (label.upright_size, image.upright_size)]
    raise ValueError(f"{sizes[0]} for a photograph of {sizes[1]}")


def is_ambiguous(image: Header, label: Header) -> bool:
    """Whether sizes cannot tell if a label map without a tag lies as the photograph is stored or as it is upright."""
    turned = image.orientation in SAME_SIZE_TURNS or (
        image.orientation in QUARTER_TURNS and image.width == image.height
    )
    return turned and not label.orientation


def turned_png(path: Path, orientation: int) -> bytes:
    """The bytes of a PNG with an orientation tag, which every decoder follows that follows the photograph's."""
    data = path.read_bytes()
    exif = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, ORIENTATION_TAG, 3, 1, orientation, 0, 0)
    chunk = b"eXIf" + exif
    header_end = 8 + 8 + struct.unpack_from(">I", data, 8)[0] + 4
    length, checksum = struct.pack(">I", len(exif)), struct.pack(">I", zlib.crc32(chunk))
    return b"".join((data[:header_end], length, chunk, checksum, data[header_end:]))


def files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """The images of a folder, by name without suffix."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            found.setdefault(path.stem, []).append(path)
    return found


def read_split(image_folder: Path, label_folder: Path) -> Split:
    """The pairs of two folders, and their faults."""
    images = files_by_stem(image_folder, IMAGE_SUFFIXES)
    labels = files_by_stem(label_folder, LABEL_SUFFIXES)
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
            split.faults += size_faults(pair)
            split.pairs.append(pair)
    if not split.pairs:
        split.faults.append(Fault("no image with a label", str(image_folder)))
    return split


def size_faults(pair: Pair) -> list[Fault]:
    """What the headers of a pair show to be wrong."""
    headers, faults = [], []
    for path in (pair.image, pair.label):
        try:
            headers.append(read_header(path))
        except (OSError, ValueError) as error:
            faults.append(Fault("unreadable file", str(path), str(error)))
    if not faults:
        try:
            label_orientation(*headers)
        except ValueError as error:
            faults.append(Fault("label of another size than its image", str(pair.label), str(error)))
        faults += category_faults(pair.label)
    return faults


def category_faults(label: Path) -> list[Fault]:
    """Categories of an annotation in COCO's format that have a class's name, but not its index."""
    if label.suffix.lower() != ".json":
        return []
    return [
        Fault("category with another id than its class", str(label), f"{name} is {number}, the class {expected}")
        for number, name in ((category["id"], category["name"]) for category in read_annotation(label)["categories"])
        if name in LABELS and number != (expected := LABELS.index(name))
    ]


def find_root(data_dir: str | Path) -> Path:
    """The folder that holds `annotations`: the one given or `msem` in it."""
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"There is no folder {data_dir}. {HOW_TO_OBTAIN}")
    for root in (data_dir, data_dir / "msem"):
        if (root / LABEL_FOLDER).is_dir():
            return root
    present = ", ".join(sorted(path.name for path in data_dir.iterdir())[:NUM_NAMED]) or "nothing"
    raise FileNotFoundError(f"{data_dir} holds no folder `{LABEL_FOLDER}`, but {present}. {HOW_TO_OBTAIN}")


def find_splits(data_dir: str | Path) -> dict[str, Split]:
    """
    The splits in a folder of the release's layout (`[msem/]images_pad|images|images_copy/<split>/*.jpg` and
    `annotations/<split>/*.png`, or `*.json` in COCO's format). Where several folders hold the photographs of a split,
    the first without faults is taken; where all have faults, the first.

    Args:
        data_dir (`str` or `Path`): The folder.

    Returns:
        `dict[str, Split]`: Of `"train"`, `"validation"` and `"test"`, those that are there, with their faults.

    Raises:
        FileNotFoundError: If the folder or what it must hold is missing.
    """
    root = find_root(data_dir)
    splits: dict[str, Split] = {}
    for name, folders in SPLIT_FOLDERS.items():
        label_folder = next((f for folder in folders if (f := root / LABEL_FOLDER / folder).is_dir()), None)
        image_folders = [f for kind in IMAGE_FOLDERS for folder in folders if (f := root / kind / folder).is_dir()]
        if label_folder is None and not image_folders:
            continue
        if label_folder is None or not image_folders:
            missing = LABEL_FOLDER if label_folder is None else " nor ".join(IMAGE_FOLDERS)
            raise FileNotFoundError(f"{root} has split {name} only in part: there is no {missing}/{folders[0]}.")
        for image_folder in image_folders:
            split = read_split(image_folder, label_folder)
            if name not in splits or not split.faults:
                splits[name] = split
            if not split.faults:
                break
    if not splits:
        raise FileNotFoundError(f"{root} holds none of the splits {', '.join(SPLIT_FOLDERS)}. {HOW_TO_OBTAIN}")
    return splits


def choose_split(splits: Mapping[str, Split], name: str) -> Split:
    """
    A split by its name.

    Args:
        splits (`Mapping[str, Split]`): From [`find_splits`].
        name (`str`): `"train"`, `"validation"` (or `"val"`) or `"test"`.

    Raises:
        ValueError: If it is not there.
    """
    name = full_split_name(name)
    if name not in splits:
        raise ValueError(f"There is no split {name}; the data has {', '.join(splits)}.")
    return splits[name]


def full_split_name(name: str) -> str:
    """What [`find_splits`] calls a split."""
    return "validation" if name == "val" else name


def describe_faults(faults: list[Fault]) -> str:
    """How many of each kind, with the first names."""
    texts = []
    for kind, count in Counter(fault.kind for fault in faults).items():
        names = [str(fault) for fault in faults if fault.kind == kind][:NUM_NAMED]
        texts.append(f"{count} x {kind}: {', '.join(names)}{', ...' if count > len(names) else ''}")
    return "; ".join(texts)


def check_faults(split_name: str, split: Split):
    """
    Raises:
        ValueError: If anything is wrong with the split, with names and counts.
    """
    if split.faults:
        raise ValueError(
            f"Split {split_name} in {split.image_folder} is not whole. {describe_faults(split.faults)}. Get these "
            "files again or remove them; `massformer stats --verify` lists them all."
        )


def check_pictures(split: Split):
    """
    Raises:
        ValueError: If label maps are not all pictures, which a data set's column of images must hold.
    """
    others = [str(pair.label) for pair in split.pairs if pair.label.suffix.lower() == ".json"]
    if others:
        raise ValueError(
            f"{len(others)} label maps are no PNG, such as {others[0]}. Convert them: `massformer annotations "
            "DATA --format png --output FOLDER`."
        )


def fingerprint(splits: dict[str, Split]) -> str:
    """Changes when a file is added, removed, or written again, so that nothing stale is taken from a cache."""
    digest = hashlib.sha256()
    for split in splits.values():
        for path in (path for pair in split.pairs for path in (pair.image, pair.label)):
            status = path.stat()
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


class MaSS13K(datasets.GeneratorBasedBuilder):
    """
    Photographs with label maps, from the folder given as `data_dir`. Columns: `image`, upright; `label`, a map of
    class ids at the photograph's size; `image_id`, their name without suffix.
    """

    VERSION = datasets.Version("1.0.0")

    @staticmethod
    def features() -> datasets.Features:
        """The columns."""
        return datasets.Features(
            {"image": datasets.Image(mode="RGB"), "label": datasets.Image(), "image_id": datasets.Value("string")}
        )

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=DESCRIPTION,
            citation=CITATION,
            homepage="https://github.com/xiechenxi99/MaSS13K",
            features=self.features(),
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        if self.config.data_dir is None:
            raise ValueError(f"MaSS13K is no automatic download: pass `data_dir`. {HOW_TO_OBTAIN}")
        generators = []
        for name, split in find_splits(self.config.data_dir).items():
            check_faults(name, split)
            check_pictures(split)
            # Lists are what several processes share among themselves.
            files = {
                "image_ids": [pair.image_id for pair in split.pairs],
                "images": [str(pair.image) for pair in split.pairs],
                "labels": [str(pair.label) for pair in split.pairs],
            }
            generators.append(datasets.SplitGenerator(name=name, gen_kwargs=files))
        return generators

    def _generate_examples(self, **kwargs: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
        for image_id, image, label in zip(kwargs["image_ids"], kwargs["images"], kwargs["labels"], strict=True):
            orientation = label_orientation(read_header(Path(image)), read_header(Path(label)))
            label_file: Any = label
            if orientation not in (0, 1):
                label_file = {"path": None, "bytes": turned_png(Path(label), orientation)}
            yield image_id, {"image": image, "label": label_file, "image_id": image_id}


def load_mass13k(
    data_dir: str | Path,
    split: str | None = None,
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | Path | None = None,
) -> Any:
    """
    Loads MaSS13K, or any folder in its layout. The files stay where they are; the cache holds their names.

    Args:
        data_dir (`str` or `Path`):
            The folder that holds `annotations` and `images_pad`, `images` or `images_copy`, or one with these in
            `msem`.
        split (`str`, *optional*):
            `"train"`, `"validation"` (or `"val"`), `"test"`, or a part such as `"train[:10%]"`. By default all.
        streaming (`bool`, *optional*, defaults to `False`): Whether to go through the files without a cache.
        num_proc (`int`, *optional*): Processes that list the files.
        cache_dir (`str` or `Path`, *optional*): By default that of `datasets`.

    Returns:
        `datasets.Dataset`, or `datasets.IterableDataset` if streaming; without `split`, a dictionary of them.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If a split is not there; if files are missing, unreadable, of different sizes, or label maps no
            PNG, with names and counts.
    """
    data_dir = Path(data_dir).resolve()
    splits = find_splits(data_dir)
    if split is not None:
        split = re.sub(r"\bval\b", "validation", split)
        for name in re.findall(r"[a-z]\w*", re.sub(r"\[.*?\]", "", split)):
            if name != "all":
                choose_split(splits, name)
    cache = None if cache_dir is None else str(cache_dir)
    builder = MaSS13K(data_dir=str(data_dir), cache_dir=cache, hash=fingerprint(splits))
    if streaming:
        return builder.as_streaming_dataset(split)
    builder.download_and_prepare(num_proc=num_proc)
    return builder.as_dataset(split)
