"""Turn photos and text prompts into objects: detection, segmentation and filters."""

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
    Options of detection and of the filters that accept objects.

    Args:
        tile (`int`, *optional*): Side in pixels of the additional windows in which small objects are detected.
        overlap (`int`, *optional*, defaults to 256): Overlap of neighbouring windows in pixels.
        nms_threshold (`float`, *optional*, defaults to 0.5): IoU above which only the best of two boxes is kept.
        batch_size (`int`, *optional*, defaults to 1): Photos or windows per forward pass of the detector.
        presence_score (`float`, *optional*, defaults to 0.0):
            Score that the best object of a class must reach in a photo; otherwise the class counts as absent. A
            detector also finds lookalikes of a class that the photo does not show.
        mask_score (`float`, *optional*, defaults to 0.0): Minimum score of a mask.
        min_area (`float`, *optional*, defaults to 0.0): Minimum area of an object, as a fraction of the photo.
        max_area (`float`, *optional*, defaults to 1.0): Maximum area of an object, as a fraction of the photo.

    Raises:
        ValueError: If a value is out of range.
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
            raise ValueError(f"overlap must be at least 0 and less than the tile ({self.tile}), got {self.overlap}.")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}.")
        for name in ("nms_threshold", "presence_score", "mask_score", "min_area", "max_area"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}.")


class Labeler:
    """
    Detects objects, segments them and filters the results.

    Args:
        detector ([`Detector`]): Detects boxes.
        segmenter ([`BoxSegmenter`]): Segments the object in each box.
        options ([`LabelOptions`], *optional*): Options of detection and filters.
    """

    def __init__(self, detector: Detector, segmenter: BoxSegmenter, options: LabelOptions | None = None):
        self.detector, self.segmenter, self.options = detector, segmenter, options or LabelOptions()

    def __call__(self, photos: Sequence[PIL.Image.Image], prompts: Mapping[int, str]) -> Iterator[list[Instance]]:
        """
        Find the objects of several classes.

        Args:
            photos (`Sequence[PIL.Image.Image]`): Upright RGB photos.
            prompts (`Mapping[int, str]`): Text prompts by class id.

        Yields:
            `list[Instance]`: The objects of each photo, including the rejected ones.
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
        """Segment and filter the boxes of a photo."""
        classes = [class_id for class_id, detections in found.items() for _ in range(len(detections))]
        joined = Detections.join(list(found.values()))
        # Rounded, so that writing boxes as text and reading them back gives the same values.
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
        """Return whether all scores of a class are below the presence score."""
        return bool(len(scores)) and scores.max().item() < self.options.presence_score

    def reason_to_reject(self, instance: Instance, absent: bool) -> str:
        """Return why the filters reject an object, or an empty string."""
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
