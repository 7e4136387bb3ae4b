"""Make prompts from the known mask of an object: boxes, points and coarse masks (HQ-SAM, sections 3.3, 6 and 7)."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage


# Magnitude of a mask prompt's logits; SAM is trained on its own logits, which saturate at about this value.
MASK_LOGIT = 8.0
# Reach of the perturbed region on both sides of the boundary, as a fraction of the mask's diagonal.
BOUNDARY_SHARE = 0.02


def box_around(mask: np.ndarray) -> np.ndarray:
    """
    Compute the bounding box of a mask.

    Args:
        mask (`np.ndarray` of shape `(height, width)`): Boolean mask, not empty.

    Returns:
        `np.ndarray` of shape `(4,)`: Left, top, right and bottom in pixels; right and bottom are exclusive.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def noisy_box(box: np.ndarray, scale: float, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """
    Add noise to a box: shift its centre by up to `scale` half sides and change its sides by up to `scale` of their
    length (DN-DETR's noise, with which HQ-SAM is evaluated, section 6).

    Args:
        box (`np.ndarray` of shape `(4,)`): Left, top, right and bottom.
        scale (`float`): Amount of noise; 0.2 and 0.4 in the paper.
        size (`tuple[int, int]`): Height and width of the image, to which the box is clipped.
        rng (`np.random.Generator`): Source of the noise.

    Returns:
        `np.ndarray` of shape `(4,)`: The noisy box, at least one pixel wide and high.
    """
    sides = box[2:] - box[:2]
    centre = (box[:2] + box[2:]) / 2 + rng.uniform(-scale, scale, 2) * sides / 2
    sides = sides * (1 + rng.uniform(-scale, scale, 2))
    limits = np.array([size[1], size[0]])
    start = np.clip(centre - sides / 2, 0, limits - 1)
    return np.concatenate((start, np.clip(centre + sides / 2, start + 1, limits)))


def random_points(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """
    Draw random points inside a mask.

    Returns:
        `np.ndarray` of shape `(count, 2)`: x and y in pixels.
    """
    inside = np.flatnonzero(mask)
    chosen = rng.choice(inside, count, replace=len(inside) < count)
    return np.stack((chosen % mask.shape[1], chosen // mask.shape[1]), axis=1).astype(np.float64)


def centre_point(mask: np.ndarray) -> np.ndarray:
    """
    Find the point of a mask that is farthest from its outside; beyond the image border counts as outside (section 7).

    Returns:
        `np.ndarray` of shape `(1, 2)`: x and y in pixels.
    """
    distances = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(distances.argmax(), mask.shape)
    return np.array([[column, row]], np.float64)


def coarse_mask(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """
    Add Gaussian noise to the boundary of a mask (section 3.3): patches of pixels near it flip at random.

    Args:
        mask (`np.ndarray` of shape `(height, width)`): Boolean mask.
        rng (`np.random.Generator`): Source of the noise.

    Returns:
        `np.ndarray` of shape `(height, width)`: Boolean mask.
    """
    reach = max(1.0, BOUNDARY_SHARE * float(np.hypot(*mask.shape)))
    # Signed distance from the boundary in pixels, positive inside.
    depth = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    noise = ndimage.gaussian_filter(rng.standard_normal(mask.shape), reach / 4)
    disturbed = depth + noise * (reach / max(noise.std(), 1e-12))
    return np.where(np.abs(depth) <= reach, disturbed > 0, mask)


def mask_prompt(mask: np.ndarray, input_size: int, prompt_size: int) -> torch.Tensor:
    """
    Convert a mask to SAM's mask prompt: logits at the top left of a square, like the image.

    Args:
        mask (`np.ndarray` of shape `(height, width)`): Boolean mask of the size at which the model sees the image.
        input_size (`int`): Side of the model's square input.
        prompt_size (`int`): Side of the prompt.

    Returns:
        `torch.Tensor` of shape `(1, prompt_size, prompt_size)`: Logits in float32.
    """
    square = torch.zeros(1, input_size, input_size)
    square[0, : mask.shape[0], : mask.shape[1]] = torch.from_numpy(mask)
    return (2 * F.adaptive_avg_pool2d(square, prompt_size) - 1) * MASK_LOGIT
