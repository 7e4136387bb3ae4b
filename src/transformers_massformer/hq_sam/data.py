"""Objects with exact masks, of any folder of images and masks, as training samples for HQ-SAM (section 3.3)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from ..data.layout import IGNORE_INDEX, LABEL_FOLDER, Pair, check_faults, choose_split, find_splits, read_split
from ..data.training_set import TrainingSet
from ..models.image_processing_massformer import to_rgb
from .prompts import box_around, coarse_mask, mask_prompt, random_points


# Folders of images and of binary masks, as DIS5K, ThinObject-5K and the like have them.
BINARY_FOLDERS = (("im", "gt"), ("images", "masks"), ("image", "mask"))
# Large-scale jitter: the image is shown at this many times the size at which it just fits (section 3.3; [13] there).
SCALES = (0.1, 2.0)
# Points of a prompt by points; the paper says "randomly sampled", its evaluation has 1 to 10.
MAX_POINTS = 10
# Crops that are tried before the whole image is taken, because the object must be in it, with so many pixels.
NUM_TRIES, MIN_PIXELS = 10, 16
PROMPT_KINDS = ("box", "points", "mask")


def find_objects(data: str | Path, split: str) -> tuple[list[Pair], bool]:
    """
    Images and masks of a folder.

    Args:
        data (`str` or `Path`):
            A folder in the layout of MaSS13K, whose classes are the objects; or one with images in `im` (`images`,
            `image`) and binary masks of the same names in `gt` (`masks`, `mask`), each by itself or in a folder named
            like the split.
        split (`str`): Which of them.

    Returns:
        `tuple`: the pairs, and whether their masks are binary.

    Raises:
        FileNotFoundError: If the folder is missing or holds neither.
        ValueError: If something is wrong with its files.
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
        raise FileNotFoundError(f"{data} holds neither {LABEL_FOLDER} (the layout of MaSS13K) nor {folders}.")
    found = choose_split(find_splits(data), split)
    check_faults(split, found)
    return found.pairs, False


def object_masks(label: torch.Tensor, binary: bool) -> dict[int, np.ndarray]:
    """
    The objects of a label map.

    Args:
        label (`torch.Tensor` of shape `(height, width)`): Classes, or a binary mask (0 and 1, or 0 and 255).
        binary (`bool`): Which.

    Returns:
        `dict`: for each class that is there its mask; 1 for that of a binary one.
    """
    values = label.numpy()
    if binary:
        mask = values > values.max(initial=1) // 2
        return {1: mask} if mask.any() else {}
    return {int(value): values == value for value in np.unique(values) if value != IGNORE_INDEX}


class ObjectTransform:
    """
    Makes of an image and its label map a sample for HQ-SAM: one of its objects at a random scale and place, and a
    prompt for it, of a random kind.

    Args:
        image_processor (`BaseImageProcessor`): SAM's, of which mean and standard deviation are taken.
        input_size (`int`): Side of the square that the model sees.
        prompt_size (`int`): Side of its mask prompts.
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
        Args:
            image (`PIL.Image.Image`): Upright.
            label (`torch.Tensor` of shape `(height, width)`): Its label map.
            rng (`np.random.Generator`): Source of the random choices.
            name (`str`): What errors call the label map.

        Returns:
            `dict[str, torch.Tensor]`: `pixel_values` of shape `(3, input_size, input_size)`; `labels`, the mask, of
            shape `(input_size, input_size)`; and one of `input_boxes` `(4,)`, `input_points` `(num_points, 2)` and
            `input_masks` `(1, prompt_size, prompt_size)`.

        Raises:
            ValueError: If there is no object.
        """
        objects = object_masks(label, self.binary)
        if not objects:
            raise ValueError(f"{name} shows no object: the mask is empty. Remove it and its image.")
        mask = objects[sorted(objects)[rng.integers(len(objects))]]
        image, mask = self.jitter(to_rgb(image), mask, rng)
        pixel_values = torch.zeros(3, self.input_size, self.input_size)
        normalised = (np.asarray(image, np.float32) / 255 - self.mean) / self.std
        pixel_values[:, : image.height, : image.width] = torch.from_numpy(normalised).permute(2, 0, 1)
        labels = torch.zeros(self.input_size, self.input_size)
        labels[: image.height, : image.width] = torch.from_numpy(mask)
        return {"pixel_values": pixel_values, "labels": labels, **self.prompt(mask, rng)}

    def jitter(
        self, image: PIL.Image.Image, mask: np.ndarray, rng: np.random.Generator
    ) -> tuple[PIL.Image.Image, np.ndarray]:
        """Large-scale jitter: image and mask at a random scale, and of it what a square at a random place shows."""
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
                # An object smaller than a pixel there: the pixel that holds most of it.
                row, column = np.argwhere(mask)[0]
                shown[min(int(row * scale), size[1] - 1), min(int(column * scale), size[0] - 1)] = True
        return image.resize(size, PIL.Image.Resampling.BILINEAR, box=window), shown

    def random_window(
        self, size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
        """What is shown of an image of `(width, height)`: left, top, right and bottom, and the size it is shown at."""
        scale = rng.uniform(*SCALES) * self.input_size / max(size)
        shown = [max(1, min(round(length * scale), self.input_size)) for length in size]
        extent = [min(pixels / scale, length) for pixels, length in zip(shown, size, strict=True)]
        left, top = (rng.uniform(0, length - part) for length, part in zip(size, extent, strict=True))
        return (left, top, left + extent[0], top + extent[1]), (shown[0], shown[1])

    def show(self, mask: np.ndarray, window: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
        """A window of a mask at another size."""
        picture = PIL.Image.fromarray(mask.astype(np.uint8) * 255)
        return np.asarray(picture.resize(size, PIL.Image.Resampling.BILINEAR, box=window)) >= 128

    def prompt(self, mask: np.ndarray, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """One of the three kinds."""
        kind = PROMPT_KINDS[rng.integers(len(PROMPT_KINDS))]
        if kind == "box":
            return {"input_boxes": torch.from_numpy(box_around(mask)).float()}
        if kind == "points":
            points = random_points(mask, int(rng.integers(1, MAX_POINTS + 1)), rng)
            return {"input_points": torch.from_numpy(points).float()}
        return {"input_masks": mask_prompt(coarse_mask(mask, rng), self.input_size, self.prompt_size)}


class ObjectSet(TrainingSet):
    """
    Training samples for HQ-SAM, a function of seed, epoch and index alone.

    Args:
        pairs (`Sequence[Pair]`), binary (`bool`): From [`find_objects`].
        model (`SamHQModel`): The model, for its sizes.
        image_processor (`BaseImageProcessor`): SAM's.
        seed (`int`, *optional*, defaults to 0): Another seed gives other samples.
    """

    def __init__(self, pairs: Sequence[Pair], binary: bool, model: Any, image_processor: Any, seed: int = 0):
        input_size = model.config.vision_config.image_size
        transform: Any = ObjectTransform(image_processor, input_size, prompt_size(model), binary)
        super().__init__([{"image": pair.image, "label": pair.label} for pair in pairs], transform, seed)


def prompt_size(model: Any) -> int:
    """Side of a SAM's mask prompts."""
    return 4 * model.prompt_encoder.image_embedding_size[0]


def collate_objects(samples: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, Any]:
    """Images and masks as stacked tensors, prompts as a list."""
    stacked = {name: torch.stack([sample[name] for sample in samples]) for name in ("pixel_values", "labels")}
    prompts = [{name: value for name, value in sample.items() if name not in stacked} for sample in samples]
    return {**stacked, "prompts": prompts}
