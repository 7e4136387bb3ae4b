"""Segment the objects in boxes, one mask at a time at the photo's size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL.Image
import torch
from transformers import AutoModelForMaskGeneration, AutoProcessor


class BoxSegmenter(Protocol):
    """Protocol of a segmenter that is prompted with boxes."""

    def __call__(self, photo: PIL.Image.Image, boxes: torch.Tensor) -> Iterator[tuple[np.ndarray, float]]:
        """
        Segment the object in each box.

        Args:
            photo (`PIL.Image.Image`): Upright RGB photo.
            boxes (`torch.Tensor` of shape `(num_boxes, 4)`): Left, top, right and bottom in pixels.

        Yields:
            `tuple`: The mask of each box, a boolean `np.ndarray` of shape `(height, width)`, and its score in [0, 1].
            Masks come one at a time, so that full-size masks of all boxes are never in memory together.
        """
        ...


class SamSegmenter:
    """
    SAM, HQ-SAM or SAM 2 from transformers, prompted with boxes; one mask per box (HQ-SAM, section 4: single mask
    output).

    Args:
        model (`PreTrainedModel`): The model.
        processor (`ProcessorMixin`): The model's processor.
        batch_size (`int`, *optional*, defaults to 16): Number of boxes decoded together.
    """

    def __init__(self, model: Any, processor: Any, batch_size: int = 16):
        self.model, self.processor, self.batch_size = model.eval(), processor, batch_size

    @classmethod
    def load(
        cls, name: str | Path, device: str | torch.device, dtype: torch.dtype, batch_size: int = 16
    ) -> "SamSegmenter":
        """
        Load a model and its processor.

        Args:
            name (`str` or `Path`): Folder or Hub name of the model.
            device (`str` or `torch.device`): Device to run on.
            dtype (`torch.dtype`): Data type of the weights.
            batch_size (`int`, *optional*, defaults to 16): Number of boxes decoded together.

        Raises:
            OSError: If the model is not found.
            ValueError: If the model is not a mask generation model.
        """
        model: Any = AutoModelForMaskGeneration.from_pretrained(str(name), dtype=dtype)
        processor = AutoProcessor.from_pretrained(str(name))
        return cls(model.to(device), processor, batch_size)

    def encode(self, pixel_values: torch.Tensor) -> dict[str, Any]:
        """Encode a photo once for all its boxes and return the embeddings as arguments of the model."""
        embeddings = self.model.get_image_embeddings(pixel_values.to(self.model.device, self.model.dtype))
        if self.model.config.model_type == "sam_hq":
            return {"image_embeddings": embeddings[0], "intermediate_embeddings": embeddings[1]}
        return {"image_embeddings": embeddings}

    def native_mask(self, low_resolution: torch.Tensor, inputs: dict[str, Any]) -> np.ndarray:
        """Resize one of the decoder's masks to the photo's size, `(height, width)`, and binarize it."""
        sizes = [inputs[name] for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
        return self.processor.post_process_masks([low_resolution[None, None].float().cpu()], *sizes)[0][0, 0].numpy()

    @torch.inference_mode()
    def __call__(self, photo: PIL.Image.Image, boxes: torch.Tensor) -> Iterator[tuple[np.ndarray, float]]:
        """Segment the object in each box, see [`BoxSegmenter`]; the score is the IoU that the model predicts."""
        if not len(boxes):
            return
        inputs = dict(self.processor(images=photo, input_boxes=[boxes.tolist()], return_tensors="pt"))
        encoded = self.encode(inputs["pixel_values"])
        prompts = inputs["input_boxes"].to(self.model.device, self.model.dtype)
        for start in range(0, len(boxes), self.batch_size):
            chosen = prompts[:, start : start + self.batch_size]
            outputs = self.model(**encoded, input_boxes=chosen, multimask_output=False)
            scores = outputs.iou_scores[0, :, 0].float().clamp(0, 1).tolist()
            for mask, score in zip(outputs.pred_masks[0, :, 0], scores, strict=True):
                yield self.native_mask(mask, inputs), score
