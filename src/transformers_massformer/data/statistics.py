"""Compute statistics of label maps: complexity, pixel shares and sizes (paper, Table 1 and Figure 8)."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.fingerprint import file_state, is_unchanged
from ..utils.tables import read_table, write_table
from .layout import IGNORE_INDEX, LABELS, Pair, Split
from .mask_values import check_ids
from .reading import read_label


# Steps from pixel to pixel in eight directions, sorted by angle. By Crofton's formula, the length of a curve is half
# the integral over directions of its crossings with parallel lines, times the distance between these lines.
STEPS = ((0, 1), (1, 2), (1, 1), (2, 1), (1, 0), (2, -1), (1, -1), (1, -2))
MARGIN = 2


@dataclass(frozen=True)
class ImageStatistics:
    """
    Statistics of one label map.

    Attributes:
        width (`int`), height (`int`): Size in pixels.
        areas (`np.ndarray` of shape `(num_labels,)`): Pixels of each class.
        perimeters (`np.ndarray` of shape `(num_labels,)`): Length of each class's boundary in pixels.
    """

    width: int
    height: int
    areas: np.ndarray
    perimeters: np.ndarray

    @property
    def diagonal(self) -> float:
        """Length of the diagonal in pixels."""
        return math.hypot(self.width, self.height)

    @property
    def ipq(self) -> np.ndarray:
        """Isoperimetric quotient L^2 / (4 pi A) of each class, about 1 for a disc; NaN for absent classes."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.perimeters**2 / (4 * math.pi * self.areas)

    @property
    def mipq(self) -> float:
        """Mean of the quotients of the classes in the image (paper, section 3); NaN if there is none."""
        present = self.ipq[self.areas > 0]
        return float(present.mean()) if len(present) else math.nan


def crofton_weights() -> list[float]:
    """Return the length in pixels that a change of class along each of the steps contributes."""
    angles = [math.atan2(down, right) for down, right in STEPS]
    gaps = np.diff([*angles, angles[0] + math.pi])
    shares = (gaps + np.roll(gaps, 1)) / 2
    return [float(share / 2 / math.hypot(*step)) for share, step in zip(shares, STEPS, strict=True)]


def crossings(padded: np.ndarray, step: tuple[int, int]) -> np.ndarray:
    """Count how often the lines from pixel to pixel with a step cross the boundary of each label."""
    height, width = padded.shape
    left, right, down = max(0, -step[1]), max(0, step[1]), step[0]

    def shifted(y: int, x: int) -> np.ndarray:
        return padded[y : height - down + y, left + x : width - right + x]

    start, end = shifted(0, 0), shifted(*step)
    changes = start != end
    found = [start[changes], end[changes]]
    if abs(step[1]) + down == 3:
        # A long step passes between two pixels. A label on both of them, but on neither end, such as a thin wire, is
        # crossed twice.
        middle = (step[0] // 2, int(step[1] / 2))
        one, other = shifted(*middle), shifted(step[0] - middle[0], step[1] - middle[1])
        bridge = one[(one == other) & (one != start) & (one != end)]
        gap = start[~changes & (one != start) & (other != start)]
        found += [bridge, bridge, gap, gap]
    return np.bincount(np.concatenate(found), minlength=IGNORE_INDEX + 1)


def class_perimeters(label_map: np.ndarray, num_labels: int) -> np.ndarray:
    """
    Compute the boundary length of each class by Crofton's formula in eight directions: exact for a large disc, and
    within 1.5 % for straight edges of any direction. Borders of the image and of ignored pixels count as boundary.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): Class ids. Values from `num_labels` on are ignored.
        num_labels (`int`): Number of classes.

    Returns:
        `np.ndarray` of shape `(num_labels,)`: Lengths in pixels.
    """
    padded = np.full([side + 2 * MARGIN for side in label_map.shape], IGNORE_INDEX, dtype=np.uint8)
    padded[MARGIN:-MARGIN, MARGIN:-MARGIN] = np.where(label_map < num_labels, label_map, IGNORE_INDEX)
    lengths = np.zeros(IGNORE_INDEX + 1)
    for step, weight in zip(STEPS, crofton_weights(), strict=True):
        lengths += weight * crossings(padded, step)
    return lengths[:num_labels]


def image_statistics(
    label_map: np.ndarray, num_labels: int = len(LABELS), name: str = "The label map"
) -> ImageStatistics:
    """
    Compute the statistics of one label map.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): Class ids in `uint8`; 255 is ignored.
        num_labels (`int`, *optional*, defaults to 7): Number of classes.
        name (`str`, *optional*): Name of the label map in errors.

    Returns:
        [`ImageStatistics`]

    Raises:
        ValueError: If there are unknown labels, or the map is not a two-dimensional array of `uint8`.
    """
    if label_map.ndim != 2 or label_map.dtype != np.uint8:
        raise ValueError(
            f"A label map must be a two-dimensional array of uint8, got {label_map.dtype} of shape {label_map.shape}."
        )
    counts = np.bincount(label_map.reshape(-1), minlength=IGNORE_INDEX + 1)
    check_ids(label_map, num_labels, name)
    height, width = label_map.shape
    return ImageStatistics(width, height, counts[:num_labels], class_perimeters(label_map, num_labels))


def columns(labels: Iterable[str] = LABELS) -> list[str]:
    """Return the columns of the table of images."""
    fixed = ["split", "image_id", "label_state", "width", "height", "diagonal", "num_labels", "mipq"]
    return [*fixed, *(f"{kind}_{label}" for kind in ("area", "perimeter", "ipq") for label in labels)]


def mapping_text(pair: Pair) -> str:
    """Return how the stored values of a label map are mapped to classes, empty if they are class ids."""
    return ",".join(f"{value}:{index}" for value, index in pair.mask_values or ())


def table_row(split: str, pair: Pair, labels: Sequence[str]) -> dict[str, str]:
    """
    Compute the row of one image in the table of images; absent classes have an area of 0 and no quotient.

    Raises:
        ValueError: If the label map cannot be read, or has unknown labels.
    """
    state = f"{file_state(pair.label)} {mapping_text(pair)}".rstrip()
    label, _ = read_label(pair.label, str(pair.label), pair.mask_values)
    found = image_statistics(label.numpy(), len(labels), str(pair.label))
    row = {
        "split": split,
        "image_id": pair.image_id,
        "label_state": state,
        "width": str(found.width),
        "height": str(found.height),
        "diagonal": f"{found.diagonal:.2f}",
        "num_labels": str(int((found.areas > 0).sum())),
        "mipq": f"{found.mipq:.6g}",
    }
    for label, area, perimeter, ipq in zip(labels, found.areas, found.perimeters, found.ipq, strict=True):
        row[f"area_{label}"], row[f"perimeter_{label}"] = str(area), f"{perimeter:.2f}"
        row[f"ipq_{label}"] = f"{ipq:.6g}" if area else ""
    return row


def is_usable(row: Mapping[str, str], labels: Sequence[str]) -> bool:
    """Return whether a row has all columns, with numbers that a spreadsheet has not rewritten for another country."""
    try:
        [int(row[name]) for name in columns(labels) if name.startswith("area_")]
        [
            float(row[name] or 0)
            for name in columns(labels)
            if name.startswith(("perimeter_", "ipq_", "diagonal", "mipq"))
        ]
    except (KeyError, ValueError):
        return False
    return True


class StatisticsTable:
    """
    Table of images in a CSV file. Rows are appended as they are computed, so that an interrupted run can be resumed;
    `write` sorts them.

    Args:
        path (`str` or `Path`): The file. Rows of a table with other classes are not used.
        labels (`Sequence[str]`, *optional*): Names of the classes in the order of ids; by default, MaSS13K's.
    """

    def __init__(self, path: str | Path, labels: Sequence[str] = LABELS):
        self.path, self.labels = Path(path), list(labels)
        self.rows: dict[tuple[str, str], dict[str, str]] = {}
        if self.path.exists():
            rows = read_table(self.path, ("split", "image_id", "label_state"), "table of this command")
            # The last row of an interrupted run may be incomplete.
            complete = len(rows) if self.path.read_bytes().endswith(b"\n") else -1
            for _, row in rows[:complete]:
                if is_usable(row, self.labels):
                    self.rows[row["split"], row["image_id"]] = {name: row[name] for name in columns(self.labels)}

    def is_current(self, split: str, pair: Pair) -> bool:
        """Return whether the table has the image's row and the label map has not changed since."""
        row = self.rows.get((split, pair.image_id))
        if row is None:
            return False
        state, _, mapped = row["label_state"].partition(" ")
        return mapped == mapping_text(pair) and is_unchanged(pair.label, state)

    def compute(self, pairs: Iterable[tuple[str, Pair]], map_function: Any = map) -> Iterator[dict[str, str]]:
        """Compute the rows of pairs, with `map` or a parallel equivalent, and append them to the file."""
        self.write()
        with self.path.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.DictWriter(file, columns(self.labels))
            for row in map_function(lambda item: table_row(*item, self.labels), pairs):
                self.rows[row["split"], row["image_id"]] = row
                writer.writerow(row)
                file.flush()
                yield row

    def drop_missing(self, splits: dict[str, Split]):
        """Drop the rows of images that these splits no longer have; rows of other splits stay."""
        present = {(name, pair.image_id) for name, split in splits.items() for pair in split.pairs}
        self.rows = {key: row for key, row in self.rows.items() if key in present or key[0] not in splits}

    def write(self):
        """Write all rows in order; if interrupted, the file stays as it was."""
        write_table(self.path, columns(self.labels), (self.rows[key] for key in sorted(self.rows)))


def summarize(rows: Iterable[dict[str, str]], labels: Sequence[str] = LABELS) -> dict[str, Any]:
    """
    Summarize a data set as the paper does: Table 1 (count; mean and standard deviation of diagonal and mIPQ; number of
    classes) and Figure 8 (share of each class among labelled pixels), and the mean quotient of each class over the
    images that show it.

    Args:
        rows (`Iterable[dict[str, str]]`): Rows of the table of images.
        labels (`Sequence[str]`, *optional*): Names of the classes; by default, MaSS13K's.

    Returns:
        `dict`: Figures by name.
    """
    rows = list(rows)
    diagonals, mipq = (np.array([float(row[name]) for row in rows]) for name in ("diagonal", "mipq"))
    mipq = mipq[~np.isnan(mipq)]
    areas = {label: sum(int(row[f"area_{label}"]) for row in rows) for label in labels}
    total = sum(areas.values())
    ipq = {label: [float(row[f"ipq_{label}"]) for row in rows if row[f"ipq_{label}"]] for label in labels}
    return {
        "images": len(rows),
        "diagonal_mean": float(diagonals.mean()),
        "diagonal_std": float(diagonals.std()),
        "classes": sum(area > 0 for area in areas.values()),
        "mipq_mean": float(mipq.mean()) if len(mipq) else math.nan,
        "mipq_std": float(mipq.std()) if len(mipq) else math.nan,
        "pixel_share": {label: area / total if total else 0.0 for label, area in areas.items()},
        "ipq_mean": {label: float(np.mean(values)) if values else math.nan for label, values in ipq.items()},
    }
