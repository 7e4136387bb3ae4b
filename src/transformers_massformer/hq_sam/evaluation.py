"""Evaluate HQ-SAM's masks for each kind of prompt: mIoU and mBIoU (HQ-SAM, sections 4.1, 6 and 7)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch

from ..data.layout import Pair
from ..data.reading import read_pair
from ..labeling.segmentation import SamSegmenter
from ..metrics import CountSettings, class_scores, count_image
from .data import object_masks, prompt_size
from .prompts import box_around, centre_point, coarse_mask, mask_prompt, noisy_box, random_points


# The HQ-SAM paper's boundary band is 2 % of the diagonal wide, MaSS13K's 0.1 %.
SETTINGS = CountSettings(boundary_ratio=0.02)
# Trials with prompts of several random points (section 7).
NUM_TRIALS = 3

Prompt = dict[str, np.ndarray]


@dataclass(frozen=True)
class PromptKind:
    """
    A way to prompt for an object.

    Attributes:
        make (`Callable`): Makes a prompt, in the photo's pixels, from a mask `(height, width)` and a random generator.
        trials (`int`): Number of random prompts per object.
    """

    make: Callable[[np.ndarray, np.random.Generator], Prompt]
    trials: int = 1


def box_prompt(noise: float) -> PromptKind:
    """Make prompts with a box, with or without noise."""

    def make(mask: np.ndarray, rng: np.random.Generator) -> Prompt:
        box = box_around(mask)
        return {"box": noisy_box(box, noise, (mask.shape[0], mask.shape[1]), rng) if noise else box}

    return PromptKind(make)


def points_prompt(count: int) -> PromptKind:
    """Make prompts with one point at the centre of the object, or with several random points."""
    if count == 1:
        return PromptKind(lambda mask, rng: {"points": centre_point(mask)})
    return PromptKind(lambda mask, rng: {"points": random_points(mask, count, rng)}, NUM_TRIALS)


PROMPTS: dict[str, PromptKind] = {
    "box": box_prompt(0.0),
    "box, noise 0.2": box_prompt(0.2),
    "box, noise 0.4": box_prompt(0.4),
    "coarse mask": PromptKind(lambda mask, rng: {"mask": coarse_mask(mask, rng)}),
    **{f"{count} point{'s' if count > 1 else ''}": points_prompt(count) for count in range(1, 11)},
}


class PromptedSam:
    """
    SAM or HQ-SAM with one encoded photo, to be prompted repeatedly.

    Args:
        segmenter ([`SamSegmenter`]): The model and its processor.
        photo (`PIL.Image.Image`): Upright RGB photo.
        hq_token_only (`bool`, *optional*, defaults to `False`):
            Whether to use only HQ-SAM's own masks instead of their sum with SAM's (section 3.3).

    Raises:
        ValueError: If the model is neither SAM nor HQ-SAM.
    """

    def __init__(self, segmenter: SamSegmenter, photo: PIL.Image.Image, hq_token_only: bool = False):
        self.segmenter, self.model = segmenter, segmenter.model
        model_type = self.model.config.model_type
        if model_type not in ("sam", "sam_hq"):
            raise ValueError(f"The model is of type {model_type}; use a SAM (sam) or HQ-SAM (sam_hq) model.")
        self.inputs = dict(segmenter.processor(images=photo, return_tensors="pt"))
        self.encoded = segmenter.encode(self.inputs["pixel_values"])
        height, width = self.inputs["reshaped_input_sizes"][0].tolist()
        self.shown_size = height, width
        self.scale = np.array([width / photo.width, height / photo.height])
        self.options = {"hq_token_only": hq_token_only} if model_type == "sam_hq" else {}

    def tensors(self, prompt: Prompt) -> dict[str, torch.Tensor]:
        """Convert a prompt to the model's arguments."""
        found = {}
        if "box" in prompt:
            found["input_boxes"] = torch.from_numpy(prompt["box"] * np.tile(self.scale, 2))[None, None]
        if "points" in prompt:
            found["input_points"] = torch.from_numpy(prompt["points"] * self.scale)[None, None]
        if "mask" in prompt:
            picture = PIL.Image.fromarray(prompt["mask"].astype(np.uint8) * 255)
            shown = np.asarray(picture.resize(self.shown_size[::-1], PIL.Image.Resampling.BILINEAR)) >= 128
            side = self.inputs["pixel_values"].shape[-1]
            found["input_masks"] = mask_prompt(shown, side, prompt_size(self.model))[None]
        return {name: value.to(self.model.device, self.model.dtype) for name, value in found.items()}

    @torch.inference_mode()
    def __call__(self, prompt: Prompt) -> np.ndarray:
        """
        Segment the object that a prompt points at.

        Args:
            prompt (`dict`):
                `box` of shape `(4,)`, `points` of shape `(num_points, 2)` or `mask` of shape `(height, width)`, in the
                photo's pixels.

        Returns:
            `np.ndarray` of shape `(height, width)`: The boolean mask.
        """
        outputs = self.model(**self.encoded, **self.tensors(prompt), multimask_output=False, **self.options)
        return self.segmenter.native_mask(outputs.pred_masks[0, 0, 0], self.inputs)


def mask_scores(prediction: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Compute IoU and Boundary IoU of a mask."""
    counts = count_image(torch.from_numpy(prediction).long(), torch.from_numpy(mask).long(), 2, SETTINGS)
    scores = class_scores(counts)
    return scores.iou[1].item(), scores.boundary_iou[1].item()


def evaluate_prompts(
    segmenter: SamSegmenter,
    pairs: Sequence[Pair],
    binary: bool,
    kinds: dict[str, PromptKind] | None = None,
    hq_token_only: bool = False,
    seed: int = 0,
) -> Iterator[dict[str, list[tuple[float, float]]]]:
    """
    Compute IoU and Boundary IoU of every object at the photo's size, for every kind of prompt.

    Args:
        segmenter ([`SamSegmenter`]): SAM or HQ-SAM.
        pairs (`Sequence[Pair]`): Images and masks, from [`find_objects`].
        binary (`bool`): Whether the masks are binary, from [`find_objects`].
        kinds (`dict[str, PromptKind]`, *optional*): Kinds of prompts; all of `PROMPTS` by default.
        hq_token_only (`bool`, *optional*, defaults to `False`): Whether to use only HQ-SAM's own masks.
        seed (`int`, *optional*, defaults to 0): Seed of noise and points.

    Yields:
        `dict`: The scores of each object and trial of a photo, by kind of prompt.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file cannot be decoded.
    """
    for index, pair in enumerate(pairs):
        photo, label = read_pair(pair.image, pair.label, (str(pair.image), str(pair.label)))
        prompted = PromptedSam(segmenter, photo, hq_token_only)
        scores: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds or PROMPTS}
        for class_id, mask in object_masks(label.as_subclass(torch.Tensor), binary).items():
            for number, (name, kind) in enumerate((kinds or PROMPTS).items()):
                rng = np.random.default_rng([seed, index, class_id, number])
                for _ in range(kind.trials):
                    scores[name].append(mask_scores(prompted(kind.make(mask, rng)), mask))
        yield scores


def mean_scores(found: Sequence[dict[str, list[tuple[float, float]]]]) -> dict[str, dict[str, Any]]:
    """Compute mIoU and mBIoU over all objects, by kind of prompt."""
    means = {}
    for name in found[0]:
        values = np.array([score for each in found for score in each[name]]).reshape(-1, 2)
        miou, mbiou = np.nanmean(values, axis=0)
        means[name] = {"miou": float(miou), "mbiou": float(mbiou), "objects": len(values)}
    return means
