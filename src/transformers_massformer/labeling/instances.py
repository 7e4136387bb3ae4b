"""Represent single objects: class, box, scores and mask."""

from dataclasses import dataclass, replace
from typing import Any

from ..data.annotations import coco_masks


@dataclass(frozen=True)
class Instance:
    """
    One object in a photo.

    Attributes:
        class_id (`int`): Class of the object.
        box (`tuple[float, float, float, float]`): Left, top, right and bottom in pixels of the upright photo.
        score (`float`): The detector's score.
        mask_score (`float`): The segmenter's score.
        mask (`dict`): COCO run-length encoding at the photo's size.
        accepted (`bool`): Whether the object is part of the label map; set by filters and by review.
        reason (`str`): Why the object was rejected, or an empty string.
    """

    class_id: int
    box: tuple[float, float, float, float]
    score: float
    mask_score: float
    mask: dict[str, Any]
    accepted: bool = True
    reason: str = ""

    @property
    def area(self) -> int:
        """Return the number of pixels in the mask."""
        return int(coco_masks().area(self.mask))

    @property
    def share(self) -> float:
        """Return the fraction of the photo that the mask covers."""
        height, width = self.mask["size"]
        return self.area / (height * width)

    def decided(self, accepted: bool, reason: str = "") -> "Instance":
        """Return a copy with another decision."""
        return replace(self, accepted=accepted, reason=reason)

    def to_coco(self) -> dict[str, Any]:
        """Convert the object to a COCO annotation without ids."""
        left, top, right, bottom = self.box
        return {
            "category_id": self.class_id,
            "bbox": [left, top, right - left, bottom - top],
            "score": self.score,
            "mask_score": self.mask_score,
            "area": self.area,
            "segmentation": self.mask,
            "iscrowd": 0,
            "accepted": self.accepted,
            "reason": self.reason,
        }

    @classmethod
    def from_coco(cls, fields: dict[str, Any]) -> "Instance":
        """Restore an object from [`Instance.to_coco`]."""
        left, top, width, height = fields["bbox"]
        return cls(
            fields["category_id"],
            (left, top, left + width, top + height),
            fields["score"],
            fields["mask_score"],
            fields["segmentation"],
            fields["accepted"],
            fields["reason"],
        )
