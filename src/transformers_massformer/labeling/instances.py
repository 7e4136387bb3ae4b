"""Single objects: box, scores and mask."""

from dataclasses import dataclass, replace
from typing import Any

from pycocotools import mask as coco


@dataclass(frozen=True)
class Instance:
    """
    One object in a photograph.

    Attributes:
        class_id (`int`): Its class.
        box (`tuple[float, float, float, float]`): Left, top, right and bottom in pixels of the upright photograph.
        score (`float`): The detector's.
        mask_score (`float`): The segmenter's.
        mask (`dict`): COCO's run-length encoding, at the photograph's size.
        accepted (`bool`): Whether it goes into the label map; set by filters and by review.
        reason (`str`): If not, why.
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
        """Pixels of the mask."""
        return int(coco.area(self.mask))

    @property
    def share(self) -> float:
        """Share of the photograph that the mask covers."""
        height, width = self.mask["size"]
        return self.area / (height * width)

    def decided(self, accepted: bool, reason: str = "") -> "Instance":
        """The same with another decision."""
        return replace(self, accepted=accepted, reason=reason)

    def to_coco(self) -> dict[str, Any]:
        """As an annotation of COCO's format, without the ids."""
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
