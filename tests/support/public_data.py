"""Tiny replicas of public data sets in their owners' layouts: four label values per photograph, one per quadrant."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
from scipy.io import savemat


# Width and height of the photographs; each quadrant has one value.
SIZE = (12, 8)


def quadrants(values) -> np.ndarray:
    """Lay four values, or colours, out as the quadrants of a picture: the upper two, then the lower two."""
    grid = np.array(values).reshape(2, 2, *np.shape(values)[1:])
    return grid.repeat(SIZE[1] // 2, axis=0).repeat(SIZE[0] // 2, axis=1)


def save_photo(path: Path, seed: int = 0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path)


def save_map(path: Path, values, palette: bool = False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PIL.Image.fromarray(quadrants(values).astype(np.uint8))
    if palette:
        image.putpalette(bytes(range(256)) * 3)
    image.save(path)


def write_ade20k(root: Path, values):
    for split, name in (("training", "ADE_train_1"), ("training", "ADE_train_2"), ("validation", "ADE_val_1")):
        save_photo(root / "images" / split / f"{name}.jpg")
        save_map(root / "annotations" / split / f"{name}.png", values)


def write_coco_stuff(root: Path, values):
    for split, name in (("train2017", "000000000009"), ("val2017", "000000000139")):
        save_photo(root / "images" / split / f"{name}.jpg")
        save_map(root / "annotations" / split / f"{name}.png", values)


def write_cityscapes(root: Path, values):
    for split, name in (("train", "aachen_000000_000019"), ("val", "lindau_000001_000019")):
        city = name.partition("_")[0]
        save_photo(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
        save_map(root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png", values)
        save_map(root / "gtFine" / split / city / f"{name}_gtFine_color.png", [(0, 0, 0)] * 4)


def write_mapillary(root: Path, values, classes: list[str], config: str, labels: str):
    root.mkdir(parents=True, exist_ok=True)
    content = {"labels": [{"name": name, "color": [0, 0, 0]} for name in classes]}
    (root / config).write_text(json.dumps(content))
    for split in ("training", "validation"):
        save_photo(root / split / "images" / f"{split}1.jpg")
        save_map(root / split / labels / f"{split}1.png", values, palette=True)


def write_stanford(root: Path, values, count: int = 40):
    (root / "labels").mkdir(parents=True)
    for index in range(count):
        save_photo(root / "images" / f"{index:07}.jpg", index)
        np.savetxt(root / "labels" / f"{index:07}.regions.txt", quadrants(values), fmt="%d")


def write_labelmefacade(root: Path, values):
    for name in ("boston__p1", "boston__p2", "unlisted"):
        save_photo(root / "images" / f"{name}.jpg")
        save_map(root / "labels" / f"{name}.png", values)
    (root / "train.txt").write_text("images/boston__p1.jpg\n")
    (root / "test.txt").write_text("images/boston__p2.jpg")


def write_camvid(root: Path, values):
    for name in [f"0001TP_{index:06}" for index in range(10)] + [f"Seq05VD_f{index:05}" for index in range(20)]:
        save_photo(root / "701_StillsRaw_full" / f"{name}.png")
        save_map(root / "LabeledApproved_full" / f"{name}_L.png", values)


def write_camvid_segnet(root: Path, values):
    for split in ("train", "val", "test"):
        save_photo(root / split / f"{split}1.png")
        save_map(root / f"{split}annot" / f"{split}1.png", values)


def write_penn_fudan(root: Path, values):
    for index in range(40):
        save_photo(root / "PNGImages" / f"FudanPed{index:05}.png")
        save_map(root / "PedMasks" / f"FudanPed{index:05}_mask.png", values, palette=True)


def write_clothing_co_parsing(root: Path, values, classes: list[str]):
    labels = root / "annotations" / "pixel-level"
    labels.mkdir(parents=True)
    savemat(root / "label_list.mat", {"label_list": np.array([classes], dtype=object)})
    for index in range(1, 41):
        save_photo(root / "photos" / f"{index:04}.jpg")
        savemat(labels / f"{index:04}.mat", {"groundtruth": quadrants(values).astype(np.uint8)})
    # Tags only.
    save_photo(root / "photos" / "1005.jpg")
