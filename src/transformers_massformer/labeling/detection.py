"""Boxes around what a text names, in whole photographs and in windows of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import PIL.Image
import torch
from torchvision.ops import clip_boxes_to_image, nms
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from ..inference.tiling import plan_tiles


# Boxes that come closer than this to a side where a window cuts the photograph are taken to be cut themselves.
CUT_MARGIN = 2.0


@dataclass(frozen=True)
class Detections:
    """
    What was found in an image.

    Attributes:
        boxes (`torch.Tensor` of shape `(num_boxes, 4)`): float32; left, top, right and bottom in pixels.
        scores (`torch.Tensor` of shape `(num_boxes,)`): float32, in [0, 1].
    """

    boxes: torch.Tensor
    scores: torch.Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def keep(self, chosen: torch.Tensor) -> "Detections":
        """Some of them, by a mask or by indices."""
        return Detections(self.boxes[chosen], self.scores[chosen])

    def shifted(self, left: float, top: float) -> "Detections":
        """In the coordinates of an image in which this one begins at `(left, top)`."""
        return Detections(self.boxes + self.boxes.new_tensor([left, top, left, top]), self.scores)

    @classmethod
    def join(cls, parts: Sequence["Detections"]) -> "Detections":
        """All of several."""
        return cls(torch.cat([part.boxes for part in parts]), torch.cat([part.scores for part in parts]))


class Detector(Protocol):
    """Whatever finds what a text names."""

    def __call__(self, images: Sequence[PIL.Image.Image], prompt: str) -> list[Detections]:
        """
        Args:
            images (`Sequence[PIL.Image.Image]`): In mode RGB, of any sizes.
            prompt (`str`): What to look for, such as `"car"`.

        Returns:
            `list[Detections]`: One per image.
        """
        ...


class ZeroShotDetector:
    """
    A zero-shot detector of transformers, such as Grounding DINO or OWLv2.

    Args:
        model (`PreTrainedModel`): The model.
        processor (`ProcessorMixin`): Its processor.
        threshold (`float`, *optional*, defaults to 0.3): Boxes with lower scores are dropped.
    """

    def __init__(self, model: Any, processor: Any, threshold: float = 0.3):
        self.model, self.processor, self.threshold = model.eval(), processor, threshold

    @classmethod
    def load(
        cls, name: str | Path, device: str | torch.device, dtype: torch.dtype, threshold: float = 0.3
    ) -> "ZeroShotDetector":
        """
        Args:
            name (`str` or `Path`): Folder or Hub name.
            device (`str` or `torch.device`): Where to compute.
            dtype (`torch.dtype`): Precision of the weights.
            threshold (`float`, *optional*, defaults to 0.3): Boxes with lower scores are dropped.

        Raises:
            OSError: If there is no such model.
            ValueError: If it is no zero-shot detector.
        """
        model: Any = AutoModelForZeroShotObjectDetection.from_pretrained(str(name), dtype=dtype)
        processor = AutoProcessor.from_pretrained(str(name))
        if not hasattr(processor, "post_process_grounded_object_detection"):
            raise ValueError(
                f"{name} is a model of type {model.config.model_type}; take a zero-shot detector such as Grounding "
                "DINO or OWLv2."
            )
        return cls(model.to(device), processor, threshold)

    @torch.inference_mode()
    def __call__(self, images: Sequence[PIL.Image.Image], prompt: str) -> list[Detections]:
        """
        Args:
            images (`Sequence[PIL.Image.Image]`): In mode RGB, of any sizes.
            prompt (`str`): What to look for.

        Returns:
            `list[Detections]`: One per image, within it, best first.
        """
        texts = [[prompt]] * len(images)
        inputs = self.processor(images=list(images), text=texts, return_tensors="pt").to(self.model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        outputs = self.model(**inputs)
        sizes = [(image.height, image.width) for image in images]
        found = self.processor.post_process_grounded_object_detection(
            outputs, threshold=self.threshold, target_sizes=sizes
        )
        return [self.in_image(each, size) for each, size in zip(found, sizes, strict=True)]

    def in_image(self, found: dict[str, Any], size: tuple[int, int]) -> Detections:
        """What the processor returns for an image, best first, without boxes that do not lie in it."""
        boxes = clip_boxes_to_image(found["boxes"].float().cpu(), size)
        detections = Detections(boxes, found["scores"].float().cpu())
        order = detections.scores.argsort(descending=True, stable=True)
        detections = detections.keep(order)
        return detections.keep((detections.boxes[:, 2:] > detections.boxes[:, :2]).all(dim=1))


def views(height: int, width: int, tile: int | None, overlap: int) -> list[tuple[int, int, int, int]]:
    """Top, left, bottom and right of the whole photograph, and of the windows in which smaller things are found."""
    whole = [(0, 0, height, width)]
    if tile is None or tile >= max(height, width):
        return whole
    boxes = [each.box for each in plan_tiles(height, width, tile, overlap)]
    return whole + [(top, left, bottom, right) for left, top, right, bottom in boxes]


def without_cut_boxes(found: Detections, view: tuple[int, int, int, int], photo_size: tuple[int, int]) -> Detections:
    """
    What was found in a window, in the photograph's coordinates, without what the window's sides cut; that is whole in
    the next window, if the overlap is as large, or in the whole photograph.
    """
    top, left, bottom, right = view
    found = found.shifted(left, top)
    height, width = photo_size
    cut = torch.zeros(len(found), dtype=torch.bool)
    for side, edge, ends in ((0, left, 0), (1, top, 0), (2, right, width), (3, bottom, height)):
        if edge != ends:
            cut |= (found.boxes[:, side] - edge).abs() <= CUT_MARGIN
    return found.keep(~cut)


def batches_of_equal_size(
    photos: Sequence[PIL.Image.Image], tile: int | None, overlap: int, batch_size: int
) -> Iterator[list[tuple[int, tuple[int, int, int, int]]]]:
    """Index and view of what a detector gets at once: padding would change what it finds."""
    by_size: dict[tuple[int, int], list[tuple[int, tuple[int, int, int, int]]]] = {}
    for index, photo in enumerate(photos):
        for view in views(photo.height, photo.width, tile, overlap):
            by_size.setdefault((view[2] - view[0], view[3] - view[1]), []).append((index, view))
    for places in by_size.values():
        for start in range(0, len(places), batch_size):
            yield places[start : start + batch_size]


def detect(
    detector: Detector,
    photos: Sequence[PIL.Image.Image],
    prompt: str,
    tile: int | None = None,
    overlap: int = 0,
    nms_threshold: float = 0.5,
    batch_size: int = 1,
) -> list[Detections]:
    """
    Finds what a text names in whole photographs, and in windows of them, where small things are larger.

    Args:
        detector ([`Detector`]): What finds it.
        photos (`Sequence[PIL.Image.Image]`): Upright, in mode RGB.
        prompt (`str`): What to look for.
        tile (`int`, *optional*): Side of the windows in pixels; by default there are none.
        overlap (`int`, *optional*, defaults to 0): Pixels that neighbouring windows have in common.
        nms_threshold (`float`, *optional*, defaults to 0.5): Of boxes that overlap by more (IoU) the best remains.
        batch_size (`int`, *optional*, defaults to 1): Photographs or windows that the detector gets at once.

    Returns:
        `list[Detections]`: One per photograph, best first.
    """
    found: list[list[Detections]] = [[] for _ in photos]
    for batch in batches_of_equal_size(photos, tile, overlap, batch_size):
        crops = [photos[index].crop((left, top, right, bottom)) for index, (top, left, bottom, right) in batch]
        for (index, view), detections in zip(batch, detector(crops, prompt), strict=True):
            photo = photos[index]
            found[index].append(without_cut_boxes(detections, view, (photo.height, photo.width)))
    joined = [Detections.join(parts) for parts in found]
    return [each.keep(nms(each.boxes, each.scores, nms_threshold)) for each in joined]
