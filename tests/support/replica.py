"""A data set in the layout of MaSS13K's release, with photographs that can be recognised."""

from pathlib import Path

import numpy as np
import PIL.Image


ORIENTATION = 0x0112


def checkered_labels(width: int, height: int, seed: int) -> np.ndarray:
    """Returns class ids in blocks, some of them ignored, different for each seed."""
    blocks = np.random.default_rng(seed).choice([0, 1, 2, 3, 4, 5, 6, 255], size=(7, 9)).astype(np.uint8)
    rows, columns = np.arange(height) * 7 // height, np.arange(width) * 9 // width
    return blocks[rows][:, columns]


def stored_as(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Returns the pixels as a camera stores them, so that the orientation tag turns them upright."""
    turns = {
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x),
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
        8: lambda x: np.rot90(x, -1),
    }
    return np.ascontiguousarray(turns.get(orientation, lambda x: x)(upright))


def write_pair(
    root: Path,
    split: str,
    name: str,
    size: tuple[int, int] = (48, 36),
    orientation: int = 1,
    turn_label: bool = False,
    seed: int = 0,
    folder: str = "images_pad",
) -> np.ndarray:
    """Writes a photograph and its label map, upright or stored like the photograph; returns the upright map."""
    labels = checkered_labels(*size, seed)
    colours = np.stack([labels * 30 % 251, labels * 70 % 241, labels * 110 % 239], axis=2).astype(np.uint8)
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    image_path = root / folder / split / f"{name}.jpg"
    label_path = root / "annotations" / split / f"{name}.png"
    for path in (image_path, label_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    tag = {} if orientation == 1 else {"exif": exif}
    PIL.Image.fromarray(stored_as(colours, orientation)).save(image_path, quality=95, **tag)
    PIL.Image.fromarray(stored_as(labels, orientation) if turn_label else labels).save(label_path)
    return labels


def write_replica(root: Path, size: tuple[int, int] = (48, 36), **options) -> dict[str, np.ndarray]:
    """Writes three splits with upright and turned photographs; returns the upright label maps by id."""
    width, height = size
    return {
        "plain": write_pair(root, "train", "plain", (width, height), seed=1, **options),
        "turned": write_pair(root, "train", "turned", (height, width), 6, seed=2, **options),
        "turned_with_label": write_pair(root, "train", "turned_with_label", (height, width), 8, True, 3, **options),
        "upside_down": write_pair(root, "val", "upside_down", (width, height), 3, seed=4, **options),
        "last": write_pair(root, "test", "last", (width, height), seed=5, **options),
    }
