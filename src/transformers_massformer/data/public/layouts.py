"""Layouts in which the owners of public data sets distribute them: photographs, label maps and splits."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...images import opened
from ..label_images import read_values
from .names import PublicDataSet
from .tables import Table, Value, owners_values, read_table


# Files named in an error.
NUM_NAMED = 5


@dataclass(frozen=True)
class Item:
    """
    A photograph and its label map.

    Args:
        image_id (`str`): Name of both in the output.
        image (`Path`): The photograph.
        label (`Path`): The owners' label map.
        split (`str`, *optional*): Folder of the owners' split in the output: train, val or test.
        sequence (`str`, *optional*): Name of the video.
    """

    image_id: str
    image: Path
    label: Path
    split: str | None = None
    sequence: str | None = None


@dataclass(frozen=True)
class Source:
    """
    A data set as it is on disk.

    Args:
        table ([`Table`]): Its classes.
        items (`list[Item]`): Its photographs.
        read (`Callable`): Reads a label map: ids of shape `(height, width)` or colours of shape `(height, width, 3)`.
        values (`dict[str, Value]`, *optional*): Values of the classes that the data set's own files state.
    """

    table: Table
    items: list[Item]
    read: Callable[[Path], np.ndarray]
    values: dict[str, Value] | None = None


# Readers of label maps


def read_ids(path: Path) -> np.ndarray:
    """Read a picture of class ids, or of numbered objects, by stored value."""
    return read_values(path, str(path))[0]


def read_colours(path: Path) -> np.ndarray:
    """Read a picture of colours."""
    with opened(path, str(path)) as image:
        return np.array(image.convert("RGB"))


def read_instances(path: Path) -> np.ndarray:
    """Read a picture that numbers objects of one class from 1, as 0 and 1."""
    return (read_ids(path) > 0).astype(np.uint8)


def read_text(path: Path) -> np.ndarray:
    """Read a text file with one row of ids per line."""
    try:
        return np.loadtxt(path, dtype=np.int32, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path} is not a table of class ids ({error}). Replace it with an intact copy.") from error


def read_matlab(path: Path, variable: str) -> np.ndarray:
    """Read a variable of a MATLAB file."""
    from scipy.io import loadmat

    try:
        return loadmat(path)[variable]
    except (ValueError, KeyError, NotImplementedError, TypeError) as error:
        raise ValueError(f"{path} has no readable variable {variable} ({error}). Get an intact copy.") from error


def read_groundtruth(path: Path) -> np.ndarray:
    """Read a label map of Clothing Co-Parsing."""
    return read_matlab(path, "groundtruth")


# Finding files


def find_folder(source: Path, *names: str) -> Path:
    """
    Return the first of several folders that exists.

    Raises:
        FileNotFoundError: If none exists.
    """
    for name in names:
        if (source / name).is_dir():
            return source / name
    if not source.is_dir():
        raise FileNotFoundError(f"The folder {source} does not exist.")
    found = ", ".join(sorted(path.name for path in source.iterdir())[:NUM_NAMED]) or "nothing"
    raise FileNotFoundError(f"{source} has no folder {' or '.join(names)}; it contains {found}.")


def match(
    images: Path,
    labels: Path,
    split: str | None = None,
    image_ending: str = ".jpg",
    label_ending: str = ".png",
) -> list[Item]:
    """List the photographs of a folder, also in its subfolders, with label maps of the same names in another one."""
    items = []
    for image in sorted(images.rglob(f"[!.]*{image_ending}")):
        name = image.name.removesuffix(image_ending)
        items.append(Item(name, image, labels / image.relative_to(images).parent / f"{name}{label_ending}", split))
    return items


def match_splits(splits: Iterable[tuple[str, Path, Path]], **endings: str) -> list[Item]:
    """List the photographs of several splits: their names, folders of photographs and folders of label maps."""
    return [item for split, images, labels in splits for item in match(images, labels, split, **endings)]


# The data sets


def find_ade20k(source: Path) -> Source:
    """Find the files of ADE20K in SceneParsing's layout."""
    splits = [
        (split, find_folder(source, f"images/{name}"), find_folder(source, f"annotations/{name}"))
        for split, name in (("train", "training"), ("val", "validation"))
    ]
    return Source(read_table("ade20k"), match_splits(splits), read_ids)


def find_coco_stuff(source: Path) -> Source:
    """Find the files of COCO-Stuff."""
    splits = []
    for split in ("train", "val"):
        images = find_folder(source, f"images/{split}2017", f"{split}2017")
        labels = find_folder(source, f"annotations/{split}2017", f"stuffthingmaps/{split}2017")
        splits.append((split, images, labels))
    return Source(read_table("coco-stuff"), match_splits(splits), read_ids)


def find_cityscapes(source: Path) -> Source:
    """Find the files of Cityscapes with fine labels."""
    # The label maps of the test split are empty.
    splits = [
        (split, find_folder(source, f"leftImg8bit/{split}"), find_folder(source, f"gtFine/{split}"))
        for split in ("train", "val")
    ]
    items = match_splits(splits, image_ending="_leftImg8bit.png", label_ending="_gtFine_labelIds.png")
    return Source(read_table("cityscapes"), items, read_ids)


def find_mapillary_vistas(source: Path) -> Source:
    """Find the files of Mapillary Vistas, by its own list of classes."""
    splits = []
    for split, name in (("train", "training"), ("val", "validation")):
        folders = (f"{name}/v2.0/labels", f"{name}/v1.2/labels", f"{name}/labels")
        splits.append((split, find_folder(source, f"{name}/images"), find_folder(source, *folders)))
    version = "2.0" if splits[0][2].parent.name == "v2.0" else "1.2"
    paths = [source / f"config_v{version}.json", source / "config.json"]
    config = next((path for path in paths if path.is_file()), None)
    if config is None:
        raise FileNotFoundError(f"{source} has neither {paths[0].name} nor {paths[1].name}.")
    try:
        names = [label["name"] for label in json.loads(config.read_bytes())["labels"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{config} does not list the classes ({error!r}). Get an intact copy.") from error
    table = read_table(f"mapillary-vistas-{version}")
    return Source(table, match_splits(splits), read_ids, owners_values(table, names, config))


def find_stanford_background(source: Path) -> Source:
    """Find the files of Stanford Background."""
    items = match(find_folder(source, "images"), find_folder(source, "labels"), label_ending=".regions.txt")
    return Source(read_table("stanford-background"), items, read_text)


def find_labelmefacade(source: Path) -> Source:
    """Find the files of LabelMeFacade."""
    labels = find_folder(source, "labels")
    find_folder(source, "images")
    items = []
    for split, name in (("train", "train.txt"), ("val", "test.txt")):
        if not (source / name).is_file():
            raise FileNotFoundError(f"{source} has no {name}, which lists photographs.")
        for line in (source / name).read_text(encoding="utf-8").split():
            image = source / line
            items.append(Item(image.stem, image, labels / f"{image.stem}.png", split))
    return Source(read_table("labelmefacade"), items, read_colours)


def find_camvid(source: Path) -> Source:
    """Find the files of CamVid in its owners' layout or SegNet's."""
    if (source / "trainannot").is_dir():
        splits = [
            (split, find_folder(source, split), find_folder(source, f"{split}annot")) for split in ("train", "val")
        ]
        if (source / "testannot").is_dir():
            splits.append(("test", find_folder(source, "test"), source / "testannot"))
        return Source(read_table("camvid-segnet"), match_splits(splits, image_ending=".png"), read_ids)
    images, labels = find_folder(source, "701_StillsRaw_full"), find_folder(source, "LabeledApproved_full")
    items = [
        Item(item.image_id, item.image, item.label, None, item.image_id.partition("_")[0])
        for item in match(images, labels, image_ending=".png", label_ending="_L.png")
    ]
    return Source(read_table("camvid"), items, read_colours)


def find_penn_fudan(source: Path) -> Source:
    """Find the files of Penn-Fudan."""
    folders = find_folder(source, "PNGImages"), find_folder(source, "PedMasks")
    items = match(*folders, image_ending=".png", label_ending="_mask.png")
    return Source(read_table("penn-fudan"), items, read_instances)


def find_clothing_co_parsing(source: Path) -> Source:
    """Find the files of Clothing Co-Parsing, by its own list of classes."""
    photos, labels = find_folder(source, "photos"), find_folder(source, "annotations/pixel-level")
    classes = source / "label_list.mat"
    if not classes.is_file():
        raise FileNotFoundError(f"{source} has no label_list.mat, which lists the classes.")
    table = read_table("clothing-co-parsing")
    names = [str(cell.item()) for cell in read_matlab(classes, "label_list").ravel()]
    # Half of the photographs have tags only.
    items = [Item(path.stem, photos / f"{path.stem}.jpg", path) for path in sorted(labels.glob("*.mat"))]
    return Source(table, items, read_groundtruth, owners_values(table, names, classes))


FINDERS: dict[PublicDataSet, tuple[Callable[[Path], Source], str]] = {
    PublicDataSet.ade20k: (
        find_ade20k,
        "ADEChallengeData2016: images/{training,validation}/*.jpg, annotations/{training,validation}/*.png",
    ),
    PublicDataSet.camvid: (
        find_camvid,
        "701_StillsRaw_full/*.png and LabeledApproved_full/*_L.png, or SegNet's {train,val,test}/*.png and "
        "{train,val,test}annot/*.png",
    ),
    PublicDataSet.cityscapes: (
        find_cityscapes,
        "leftImg8bit/{train,val}/CITY/*_leftImg8bit.png, gtFine/{train,val}/CITY/*_gtFine_labelIds.png",
    ),
    PublicDataSet.clothing_co_parsing: (
        find_clothing_co_parsing,
        "photos/*.jpg, annotations/pixel-level/*.mat, label_list.mat",
    ),
    PublicDataSet.coco_stuff: (
        find_coco_stuff,
        "images/{train,val}2017/*.jpg (or {train,val}2017), annotations/{train,val}2017/*.png (or stuffthingmaps)",
    ),
    PublicDataSet.labelmefacade: (find_labelmefacade, "images/*.jpg, labels/*.png, train.txt, test.txt"),
    PublicDataSet.mapillary_vistas: (
        find_mapillary_vistas,
        "{training,validation}/images/*.jpg, {training,validation}/[v2.0/|v1.2/]labels/*.png, config.json or "
        "config_v2.0.json",
    ),
    PublicDataSet.penn_fudan: (find_penn_fudan, "PNGImages/*.png, PedMasks/*_mask.png"),
    PublicDataSet.stanford_background: (find_stanford_background, "images/*.jpg, labels/*.regions.txt"),
}


def find_source(name: PublicDataSet, source: Path) -> Source:
    """
    Find the files of a data set.

    Args:
        name ([`PublicDataSet`]): The data set.
        source (`Path`): Its folder.

    Raises:
        FileNotFoundError: If the folder has another layout, or a photograph or label map is missing.
        ValueError: If a file that lists the classes is damaged, or lists other classes.
    """
    find, layout = FINDERS[name]
    try:
        found = find(source)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} The layout of {name} is {layout}.") from error
    if not found.items:
        raise FileNotFoundError(f"{source} has no photographs. The layout of {name} is {layout}.")
    for kind, paths in (
        ("photographs", [item.image for item in found.items]),
        ("label maps", [item.label for item in found.items]),
    ):
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} {kind} of {len(paths)} are missing, such as {', '.join(missing[:NUM_NAMED])}. "
                "Download them again."
            )
    return found
