"""Refine label maps with HQ-SAM: prompt with each connected part of a class and replace it by the predicted mask."""

from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from scipy import ndimage

from ..data.layout import IGNORE_INDEX
from ..labeling.segmentation import BoxSegmenter


@dataclass(frozen=True)
class Part:
    """A connected part of a class: its class, its bounding rows and columns, and its area in pixels."""

    class_id: int
    rows: slice
    columns: slice
    area: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom."""
        return self.columns.start, self.rows.start, self.columns.stop, self.rows.stop

    def window(self, margin: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Return the bounding rectangle with a margin, clipped to an image of `(height, width)`."""
        rows, columns = (
            slice(max(0, part.start - margin), min(length, part.stop + margin))
            for part, length in zip((self.rows, self.columns), shape, strict=True)
        )
        return rows, columns

    def within(self, window: tuple[slice, slice]) -> tuple[slice, slice]:
        """Return the bounding rectangle in the coordinates of a window."""
        rows, columns = (
            slice(part.start - outer.start, part.stop - outer.start)
            for part, outer in zip((self.rows, self.columns), window, strict=True)
        )
        return rows, columns


class Refiner:
    """
    Prompts a segmenter with the boxes of a label map's connected parts and merges its masks back. A mask replaces its
    part only if the two overlap well enough; otherwise the label map is kept.

    Args:
        segmenter ([`BoxSegmenter`]): The segmenter, such as a [`SamSegmenter`] with HQ-SAM.
        classes (`list[int]`, *optional*): Classes to refine; all but "others" by default.
        min_area (`float`, *optional*, defaults to 1e-3): Minimum area of a part, as a fraction of the photo.
        min_iou (`float`, *optional*, defaults to 0.7): Minimum IoU of a mask with its part.
        band (`float`, *optional*, defaults to 0.01):
            Distance from the part's boundary, as a fraction of the diagonal, within which pixels may change.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(
        self,
        segmenter: BoxSegmenter,
        classes: list[int] | None = None,
        min_area: float = 1e-3,
        min_iou: float = 0.7,
        band: float = 0.01,
    ):
        for name, value in (("min_area", min_area), ("min_iou", min_iou), ("band", band)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}.")
        self.segmenter, self.classes = segmenter, classes
        self.min_area, self.min_iou, self.band = min_area, min_iou, band

    def parts(self, label_map: np.ndarray) -> list[tuple[Part, np.ndarray]]:
        """Find the parts of at least the minimum area, largest first, each with its mask in the bounding rectangle."""
        present = {*np.unique(label_map).tolist()} - {IGNORE_INDEX}
        found = []
        for class_id in sorted(present - {0} if self.classes is None else present & {*self.classes}):
            numbered, _ = ndimage.label(label_map == class_id, np.ones((3, 3)))
            for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
                mask = numbered[rows, columns] == number
                area = int(mask.sum())
                if area >= self.min_area * label_map.size:
                    found.append((Part(class_id, rows, columns, area), mask))
        return sorted(found, key=lambda each: -each[0].area)

    def __call__(self, photo: PIL.Image.Image, label_map: np.ndarray) -> np.ndarray:
        """
        Refine a label map.

        Args:
            photo (`PIL.Image.Image`): Upright RGB photo.
            label_map (`np.ndarray` of shape `(height, width)`): Class ids of the photo.

        Returns:
            `np.ndarray` of shape `(height, width)`: The refined label map.
        """
        parts = self.parts(label_map)
        refined = label_map.copy()
        boxes = torch.tensor([part.box for part, _ in parts], dtype=torch.float32).reshape(-1, 4)
        for (part, inside), (mask, _) in zip(parts, self.segmenter(photo, boxes), strict=True):
            self.merge(refined, part, inside, mask)
        return refined

    def merge(self, refined: np.ndarray, part: Part, inside: np.ndarray, mask: np.ndarray):
        """Replace a part by its mask in place, near the part's boundary."""
        reach = max(1, round(self.band * float(np.hypot(*refined.shape))))
        window = part.window(reach + 1, refined.shape)
        shown, values = mask[window], refined[window]
        own = np.zeros(shown.shape, bool)
        own[part.within(window)] = inside
        overlap = int((own & shown).sum())
        if overlap < self.min_iou * (part.area + int(mask.sum()) - overlap):
            return
        depth, nearest = ndimage.distance_transform_edt(own, return_indices=True)
        near = (depth + ndimage.distance_transform_edt(~own)) <= reach
        lost = own & ~shown & near & (values == part.class_id)
        if not own.all():
            values[lost] = values[nearest[0][lost], nearest[1][lost]]
        values[shown & ~own & near & (values != IGNORE_INDEX)] = part.class_id
