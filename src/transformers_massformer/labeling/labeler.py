"""From photographs and texts to objects: detection, segmentation, and filters."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import PIL.Image
import torch

from ..data.annotations import encode_mask
from .detection import Detections, Detector, detect
from .instances import Instance
from .segmentation import BoxSegmenter


@dataclass(frozen=True)
class LabelOptions:
    """
    How objects are found, and which are kept.

    Args:
        tile (`int`, *optional*): Look also in windows of so many pixels, for small objects.
        overlap (`int`, *optional*, defaults to 256): Pixels that neighbouring windows have in common.
        nms_threshold (`float`, *optional*, defaults to 0.5): Of boxes that overlap by more (IoU) the best remains.
        batch_size (`int`, *optional*, defaults to 1): Photographs or windows that the detector gets at once.
        presence_score (`float`, *optional*, defaults to 0.0):
            If no object of a class scores as much in a photograph, the class is taken to be absent from it: a detector
            that is asked for something finds its like.
        mask_score (`float`, *optional*, defaults to 0.0): Masks with a lower score are rejected.
        min_area (`float`, *optional*, defaults to 0.0): Smaller objects are rejected; share of the photograph.
        max_area (`float`, *optional*, defaults to 1.0): Larger ones too.

    Raises:
        ValueError: If a value is out of its range.
    """

    tile: int | None = None
    overlap: int = 256
    nms_threshold: float = 0.5
    batch_size: int = 1
    presence_score: float = 0.0
    mask_score: float = 0.0
    min_area: float = 0.0
    max_area: float = 1.0

    def __post_init__(self):
        if self.tile is not None and not 0 <= self.overlap < self.tile:
            raise ValueError(f"The overlap, {self.overlap}, must be from 0 to less than the tile, {self.tile}.")
        if self.batch_size < 1:
            raise ValueError(f"The batch size is {self.batch_size}; it must be 1 or more.")
        for name in ("nms_threshold", "presence_score", "mask_score", "min_area", "max_area"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to 1.")


class Labeler:
    """
    Finds objects and makes their masks.

    Args:
        detector ([`Detector`]): Finds boxes.
        segmenter ([`BoxSegmenter`]): Makes masks of what they enclose.
        options ([`LabelOptions`], *optional*): How, and which are kept.
    """

    def __init__(self, detector: Detector, segmenter: BoxSegmenter, options: LabelOptions | None = None):
        self.detector, self.segmenter, self.options = detector, segmenter, options or LabelOptions()

    def __call__(self, photos: Sequence[PIL.Image.Image], prompts: Mapping[int, str]) -> Iterator[list[Instance]]:
        """
        Args:
            photos (`Sequence[PIL.Image.Image]`): Upright, in mode RGB.
            prompts (`Mapping[int, str]`): What to look for, by the id of its class.

        Yields:
            `list[Instance]`: the objects of each photograph, those that filters reject among them.
        """
        options = self.options
        found = {
            class_id: detect(
                self.detector,
                photos,
                prompt,
                options.tile,
                options.overlap,
                options.nms_threshold,
                options.batch_size,
            )
            for class_id, prompt in prompts.items()
        }
        for index, photo in enumerate(photos):
            yield self.instances(photo, {class_id: each[index] for class_id, each in found.items()})

    def instances(self, photo: PIL.Image.Image, found: Mapping[int, Detections]) -> list[Instance]:
        """The objects of a photograph, from its boxes by class."""
        classes = [class_id for class_id, detections in found.items() for _ in range(len(detections))]
        joined = Detections.join(list(found.values()))
        # Written as text and read back they are the same.
        boxes = joined.boxes.double().mul(100).round().div(100)
        absent = {class_id for class_id, each in found.items() if self.is_absent(each.scores)}
        instances = []
        masks = self.segmenter(photo, joined.boxes)
        for class_id, box, score, (mask, mask_score) in zip(
            classes, boxes.tolist(), joined.scores.tolist(), masks, strict=True
        ):
            instance = Instance(class_id, tuple(box), round(score, 4), round(mask_score, 4), encode_mask(mask))
            reason = self.reason_to_reject(instance, class_id in absent)
            instances.append(instance.decided(not reason, reason))
        return instances

    def is_absent(self, scores: torch.Tensor) -> bool:
        """Whether no object of a class is certain enough for the class to be there."""
        return bool(len(scores)) and scores.max().item() < self.options.presence_score

    def reason_to_reject(self, instance: Instance, absent: bool) -> str:
        """Why filters reject an object; empty if they do not."""
        options = self.options
        if absent:
            return f"class absent: best score below {options.presence_score}"
        if instance.mask_score < options.mask_score:
            return f"mask score below {options.mask_score}"
        if instance.area == 0:
            return "empty mask"
        if instance.share < options.min_area:
            return f"area below {options.min_area}"
        if instance.share > options.max_area:
            return f"area above {options.max_area}"
        return ""
