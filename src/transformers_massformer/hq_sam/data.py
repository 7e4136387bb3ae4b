"""Read objects with exact masks from folders of images and masks as training samples for HQ-SAM (section 3.3)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from ..data.layout import IGNORE_INDEX, LABEL_FOLDER, Pair, check_faults, choose_split, find_splits, read_split
from ..data.training_set import TrainingSet
from .prompts import box_around, coarse_mask, mask_prompt, random_points


# Folders of images and binary masks in data sets such as DIS5K and ThinObject-5K.
BINARY_FOLDERS = (("im", "gt"), ("images", "masks"), ("image", "mask"))
# Range of the scale of large-scale jitter, relative to the size at which the image just fits (section 3.3, ref. [13]).
SCALES = (0.1, 2.0)
# Maximum number of points of a prompt; the paper says "randomly sampled" and evaluates 1 to 10.
MAX_POINTS = 10
# Random crops tried before falling back to the complete image, and pixels of the object that a crop must contain.
NUM_TRIES, MIN_PIXELS = 10, 16
PROMPT_KINDS = ("box", "points", "mask")


def find_objects(data: str | Path, split: str) -> tuple[list[Pair], bool]:
    """
    Find the images and masks of a folder.

    Args:
        data (`str` or `Path`):
            A folder in the layout of MaSS13K, whose classes are the objects, or a folder with images in `im`
            (`images`, `image`) and binary masks of the same names in `gt` (`masks`, `mask`), either directly or inside
            a folder named after the split.
        split (`str`): Name of the split.

    Returns:
        `tuple`: The pairs, and whether their masks are binary.

    Raises:
        FileNotFoundError: If the folder is missing or has neither layout.
        ValueError: If images and masks do not match.
    """
    data = Path(data)
    for root in (data / split, data):
        for image_folder, mask_folder in BINARY_FOLDERS:
            if (root / image_folder).is_dir() and (root / mask_folder).is_dir():
                found = read_split(root / image_folder, root / mask_folder)
                check_faults(split, found)
                return found.pairs, True
    if data.is_dir() and not any((root / LABEL_FOLDER).is_dir() for root in (data, data / "msem")):
        folders = " or ".join(f"{image} and {mask}" for image, mask in BINARY_FOLDERS)
        raise FileNotFoundError(f"{data} contains neither {LABEL_FOLDER} (the layout of MaSS13K) nor {folders}.")
    found = choose_split(find_splits(data), split)
    check_faults(split, found)
    return found.pairs, False


def object_masks(label: torch.Tensor, binary: bool) -> dict[int, np.ndarray]:
    """
    Split a label map into the masks of its objects.

    Args:
        label (`torch.Tensor` of shape `(height, width)`): Classes, or a binary mask (0 and 1, or 0 and 255).
        binary (`bool`): Whether the label map is a binary mask.

    Returns:
        `dict`: The mask of each class present; the object of a binary mask has class 1.
    """
    values = label.numpy()
    if binary:
        mask = values > values.max(initial=1) // 2
        return {1: mask} if mask.any() else {}
    return {int(value): values == value for value in np.unique(values) if value != IGNORE_INDEX}


class ObjectTransform:
    """
    Turns an image and its label map into a sample for HQ-SAM: a random object at a random scale and place, with a
    prompt of a random kind.

    Args:
        image_processor (`BaseImageProcessor`): SAM's image processor; provides mean and standard deviation.
        input_size (`int`): Side of the model's square input.
        prompt_size (`int`): Side of the model's mask prompts.
        binary (`bool`): Whether label maps are binary masks.
    """

    def __init__(self, image_processor: Any, input_size: int, prompt_size: int, binary: bool):
        self.input_size, self.prompt_size, self.binary = input_size, prompt_size, binary
        self.mean = np.array(image_processor.image_mean, np.float32)
        self.std = np.array(image_processor.image_std, np.float32)

    def __call__(
        self, image: PIL.Image.Image, label: torch.Tensor, rng: np.random.Generator, name: str
    ) -> dict[str, torch.Tensor]:
        """
        Draw a random sample from an image.

        Args:
            image (`PIL.Image.Image`): Upright RGB image.
            label (`torch.Tensor` of shape `(height, width)`): Label map of the image.
            rng (`np.random.Generator`): Source of the random choices.
            name (`str`): Name of the label map, used in errors.

        Returns:
            `dict[str, torch.Tensor]`: `pixel_values` of shape `(3, input_size, input_size)`; `labels`, the mask, of
            shape `(input_size, input_size)`; and one of `input_boxes` `(4,)`, `input_points` `(num_points, 2)` and
            `input_masks` `(1, prompt_size, prompt_size)`.

        Raises:
            ValueError: If the label map contains no object.
        """
        objects = object_masks(label, self.binary)
        if not objects:
            raise ValueError(f"{name} contains no object: the mask is empty. Remove it and its image.")
        mask = objects[sorted(objects)[rng.integers(len(objects))]]
        image, mask = self.jitter(image, mask, rng)
        pixel_values = torch.zeros(3, self.input_size, self.input_size)
        normalised = (np.asarray(image, np.float32) / 255 - self.mean) / self.std
        pixel_values[:, : image.height, : image.width] = torch.from_numpy(normalised).permute(2, 0, 1)
        labels = torch.zeros(self.input_size, self.input_size)
        labels[: image.height, : image.width] = torch.from_numpy(mask)
        return {"pixel_values": pixel_values, "labels": labels, **self.prompt(mask, rng)}

    def jitter(
        self, image: PIL.Image.Image, mask: np.ndarray, rng: np.random.Generator
    ) -> tuple[PIL.Image.Image, np.ndarray]:
        """Apply large-scale jitter: resize image and mask by a random scale and crop a square at a random place."""
        for _ in range(NUM_TRIES):
            window, size = self.random_window((image.width, image.height), rng)
            shown = self.show(mask, window, size)
            if shown.sum() >= MIN_PIXELS:
                break
        else:
            window = 0.0, 0.0, float(image.width), float(image.height)
            scale = self.input_size / max(image.size)
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            shown = self.show(mask, window, size)
            if not shown.any():
                # The object is smaller than a pixel at this scale: mark the pixel that contains it.
                row, column = np.argwhere(mask)[0]
                shown[min(int(row * scale), size[1] - 1), min(int(column * scale), size[0] - 1)] = True
        return image.resize(size, PIL.Image.Resampling.BILINEAR, box=window), shown

    def random_window(
        self, size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
        """
        Draw a random window of an image of `(width, height)`: left, top, right and bottom, and the size to which it is
        resized.
        """
        scale = rng.uniform(*SCALES) * self.input_size / max(size)
        shown = [max(1, min(round(length * scale), self.input_size)) for length in size]
        extent = [min(pixels / scale, length) for pixels, length in zip(shown, size, strict=True)]
        left, top = (rng.uniform(0, length - part) for length, part in zip(size, extent, strict=True))
        return (left, top, left + extent[0], top + extent[1]), (shown[0], shown[1])

    def show(self, mask: np.ndarray, window: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
        """Crop a window of a mask and resize it."""
        picture = PIL.Image.fromarray(mask.astype(np.uint8) * 255)
        return np.asarray(picture.resize(size, PIL.Image.Resampling.BILINEAR, box=window)) >= 128

    def prompt(self, mask: np.ndarray, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Draw a prompt of a random kind for a mask."""
        kind = PROMPT_KINDS[rng.integers(len(PROMPT_KINDS))]
        if kind == "box":
            return {"input_boxes": torch.from_numpy(box_around(mask)).float()}
        if kind == "points":
            points = random_points(mask, int(rng.integers(1, MAX_POINTS + 1)), rng)
            return {"input_points": torch.from_numpy(points).float()}
        return {"input_masks": mask_prompt(coarse_mask(mask, rng), self.input_size, self.prompt_size)}


class ObjectSet(TrainingSet):
    """
    Training samples for HQ-SAM that depend only on seed, epoch and index.

    Args:
        pairs (`Sequence[Pair]`): Images and masks, from [`find_objects`].
        binary (`bool`): Whether the masks are binary, from [`find_objects`].
        model (`SamHQModel`): The model, which defines the input and prompt sizes.
        image_processor (`BaseImageProcessor`): SAM's image processor.
        seed (`int`, *optional*, defaults to 0): Seed of the random choices.
    """

    def __init__(self, pairs: Sequence[Pair], binary: bool, model: Any, image_processor: Any, seed: int = 0):
        input_size = model.config.vision_config.image_size
        transform: Any = ObjectTransform(image_processor, input_size, prompt_size(model), binary)
        super().__init__([{"image": pair.image, "label": pair.label} for pair in pairs], transform, seed)


def prompt_size(model: Any) -> int:
    """Return the side of a SAM model's mask prompts."""
    return 4 * model.prompt_encoder.image_embedding_size[0]


def collate_objects(samples: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, Any]:
    """Stack images and masks into tensors and collect prompts in a list."""
    stacked = {name: torch.stack([sample[name] for sample in samples]) for name in ("pixel_values", "labels")}
    prompts = [{name: value for name, value in sample.items() if name not in stacked} for sample in samples]
    return {**stacked, "prompts": prompts}
