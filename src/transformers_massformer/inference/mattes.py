"""Mattes: soft masks of the classes."""

from collections.abc import Sequence

import numpy as np
import PIL.Image
import torch


# Rows processed together, so that no second copy of all scores is needed.
BAND_ROWS = 256


def matte_values(scores: torch.Tensor) -> np.ndarray:
    """
    Compute the share of each class in all scores at each pixel, times 255; see [`class_mattes`].

    Args:
        scores (`torch.Tensor` of shape `(num_labels, height, width)`): Scores of 0 or more.

    Returns:
        `np.ndarray` of shape `(num_labels, height, width)`: uint8.
    """
    mattes = torch.empty(scores.shape, dtype=torch.uint8)
    for top in range(0, scores.shape[1], BAND_ROWS):
        band = scores[:, top : top + BAND_ROWS].float()
        total = band.sum(dim=0).clamp(min=torch.finfo(band.dtype).tiny)
        mattes[:, top : top + BAND_ROWS] = (band * (255 / total)).round_().to(torch.uint8)
    return mattes.numpy()


def class_mattes(scores: torch.Tensor) -> list[PIL.Image.Image]:
    """
    Make one matte per class: the share of the class in all scores at each pixel, times 255.

    Args:
        scores (`torch.Tensor` of shape `(num_labels, height, width)`):
            Scores of 0 or more, such as the `segmentation_scores` of
            [`MaSSFormerImageProcessor.post_process_semantic_segmentation`].

    Returns:
        `list[PIL.Image.Image]`: In mode L, in the order of the classes; black where all scores are 0.
    """
    return [PIL.Image.fromarray(matte) for matte in matte_values(scores)]


def as_array(picture: PIL.Image.Image | np.ndarray) -> np.ndarray:
    """Convert a picture to float32 values from 0 to 1."""
    values = np.asarray(picture)
    return values.astype(np.float32) / 255 if values.dtype == np.uint8 else values.astype(np.float32)


def joined_matte(mattes: Sequence[PIL.Image.Image | np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """
    Add up the mattes of several classes.

    Args:
        mattes (`Sequence[PIL.Image.Image | np.ndarray]`): In mode L, or values from 0 to 1; may be empty.
        size (`tuple[int, int]`): Width and height of the photograph, and of every matte.

    Returns:
        `np.ndarray` of shape `(height, width)`: float32, from 0 to 1.
    """
    joined = np.zeros(size[::-1], dtype=np.float32)
    for matte in mattes:
        joined += as_array(matte)
    return joined.clip(0, 1)
