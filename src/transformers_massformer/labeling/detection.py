"""Detect the objects that a text prompt names, in the complete photo and in windows of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import PIL.Image
import torch
from torchvision.ops import clip_boxes_to_image, nms
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from ..inference.tiling import plan_tiles


# A box closer than this, in pixels, to a window side inside the photo counts as cut by that side.
CUT_MARGIN = 2.0


@dataclass(frozen=True)
class Detections:
    """
    Boxes detected in an image.

    Attributes:
        boxes (`torch.Tensor` of shape `(num_boxes, 4)`): Left, top, right and bottom in pixels, float32.
        scores (`torch.Tensor` of shape `(num_boxes,)`): Scores in [0, 1], float32.
    """

    boxes: torch.Tensor
    scores: torch.Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def keep(self, chosen: torch.Tensor) -> "Detections":
        """Return a subset, selected by a mask or by indices."""
        return Detections(self.boxes[chosen], self.scores[chosen])

    def shifted(self, left: float, top: float) -> "Detections":
        """Return the boxes in the coordinates of an image that contains this one at `(left, top)`."""
        return Detections(self.boxes + self.boxes.new_tensor([left, top, left, top]), self.scores)

    @classmethod
    def join(cls, parts: Sequence["Detections"]) -> "Detections":
        """Concatenate several sets of detections."""
        return cls(torch.cat([part.boxes for part in parts]), torch.cat([part.scores for part in parts]))


class Detector(Protocol):
    """Protocol of an object detector with a text prompt."""

    def __call__(self, images: Sequence[PIL.Image.Image], prompt: str) -> list[Detections]:
        """
        Detect the objects that the prompt names.

        Args:
            images (`Sequence[PIL.Image.Image]`): RGB images of any sizes.
            prompt (`str`): Name of the objects, such as `"car"`.

        Returns:
            `list[Detections]`: The detections of each image.
        """
        ...


class ZeroShotDetector:
    """
    Zero-shot detector from transformers, such as Grounding DINO or OWLv2.

    Args:
        model (`PreTrainedModel`): The model.
        processor (`ProcessorMixin`): The model's processor.
        threshold (`float`, *optional*, defaults to 0.3): Minimum score of a box.
    """

    def __init__(self, model: Any, processor: Any, threshold: float = 0.3):
        self.model, self.processor, self.threshold = model.eval(), processor, threshold

    @classmethod
    def load(
        cls, name: str | Path, device: str | torch.device, dtype: torch.dtype, threshold: float = 0.3
    ) -> "ZeroShotDetector":
        """
        Load a detector and its processor.

        Args:
            name (`str` or `Path`): Folder or Hub name of the model.
            device (`str` or `torch.device`): Device to run on.
            dtype (`torch.dtype`): Data type of the weights.
            threshold (`float`, *optional*, defaults to 0.3): Minimum score of a box.

        Raises:
            OSError: If the model is not found.
            ValueError: If the model is not a zero-shot detector.
        """
        model: Any = AutoModelForZeroShotObjectDetection.from_pretrained(str(name), dtype=dtype)
        processor = AutoProcessor.from_pretrained(str(name))
        if not hasattr(processor, "post_process_grounded_object_detection"):
            raise ValueError(
                f"{name} is a model of type {model.config.model_type}; use a zero-shot detector such as Grounding "
                "DINO or OWLv2."
            )
        return cls(model.to(device), processor, threshold)

    @torch.inference_mode()
    def __call__(self, images: Sequence[PIL.Image.Image], prompt: str) -> list[Detections]:
        """Detect the objects that the prompt names, see [`Detector`]; they are clipped to the image, best first."""
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
        """Convert the processor's result for an image: clip boxes, drop those outside, sort by score."""
        boxes = clip_boxes_to_image(found["boxes"].float().cpu(), size)
        detections = Detections(boxes, found["scores"].float().cpu())
        order = detections.scores.argsort(descending=True, stable=True)
        detections = detections.keep(order)
        return detections.keep((detections.boxes[:, 2:] > detections.boxes[:, :2]).all(dim=1))


def views(height: int, width: int, tile: int | None, overlap: int) -> list[tuple[int, int, int, int]]:
    """Return top, left, bottom and right of the complete photo, then of the windows that show small objects larger."""
    whole = [(0, 0, height, width)]
    if tile is None or tile >= max(height, width):
        return whole
    boxes = [each.box for each in plan_tiles(height, width, tile, overlap)]
    return whole + [(top, left, bottom, right) for left, top, right, bottom in boxes]


def without_cut_boxes(found: Detections, view: tuple[int, int, int, int], photo_size: tuple[int, int]) -> Detections:
    """
    Convert a window's detections to the photo's coordinates and drop the boxes that the window's sides cut. Such an
    object is complete in the next window, if the overlap is large enough, or in the complete photo.
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
    """Yield batches of photo indices and views of equal size: padding would change the detections."""
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
    Detect objects in complete photos and in windows of them, which show small objects larger.

    Args:
        detector ([`Detector`]): The detector.
        photos (`Sequence[PIL.Image.Image]`): Upright RGB photos.
        prompt (`str`): Name of the objects.
        tile (`int`, *optional*): Side of the windows in pixels; no windows by default.
        overlap (`int`, *optional*, defaults to 0): Overlap of neighbouring windows in pixels.
        nms_threshold (`float`, *optional*, defaults to 0.5): IoU above which only the best of two boxes is kept.
        batch_size (`int`, *optional*, defaults to 1): Photos or windows per forward pass of the detector.

    Returns:
        `list[Detections]`: The detections of each photo, best first.
    """
    found: list[list[Detections]] = [[] for _ in photos]
    for batch in batches_of_equal_size(photos, tile, overlap, batch_size):
        crops = [photos[index].crop((left, top, right, bottom)) for index, (top, left, bottom, right) in batch]
        for (index, view), detections in zip(batch, detector(crops, prompt), strict=True):
            photo = photos[index]
            found[index].append(without_cut_boxes(detections, view, (photo.height, photo.width)))
    joined = [Detections.join(parts) for parts in found]
    return [each.keep(nms(each.boxes, each.scores, nms_threshold)) for each in joined]
