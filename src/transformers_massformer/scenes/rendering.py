"""Render scenes: photograph, label map and exact alphas of the classes, from a seed and an index."""

from dataclasses import dataclass

import numpy as np

from .layout import compose
from .photograph import photograph
from .rasterize import class_alphas, paint


MIN_SIDE, MAX_SIDE = 16, 16384


@dataclass(frozen=True)
class Scene:
    """
    Procedural scene.

    Attributes:
        image (`np.ndarray`): uint8 of shape `(height, width, 3)`.
        label (`np.ndarray`): uint8 of shape `(height, width)`: the class with the largest alpha, the first
            in case of a tie.
        alpha (`np.ndarray`): uint8 of shape `(7, height, width)`: the share of each class in each pixel times 255.
            It sums to 255 over the classes.
        objects (`dict[str, np.ndarray]`): Alphas of objects within a class, uint8 of shape `(height, width)`:
            "bicycle", which is part of class others.
    """

    image: np.ndarray
    label: np.ndarray
    alpha: np.ndarray
    objects: dict[str, np.ndarray]


def check_size(size: tuple[int, int]):
    """Raise a ValueError if a side is out of range."""
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise ValueError(
            f"Cannot render a scene of {size[0]}x{size[1]}: both sides must lie between {MIN_SIDE} and {MAX_SIDE} "
            "pixels."
        )


def render_scene(seed: int, index: int, size: tuple[int, int] = (4096, 3072)) -> Scene:
    """
    Render a scene. It depends on the arguments alone; its layout, on seed, index and aspect ratio alone.

    Args:
        seed, index (`int`): Non-negative integers. Each pair gives a different scene.
        size (`tuple[int, int]`): Width and height in pixels.

    Raises:
        ImportError: If aggdraw is not installed.
        ValueError: If seed or index is negative, or a side is below 16 or above 16384 pixels.
    """
    check_size(size)
    if seed < 0 or index < 0:
        raise ValueError(f"Seed {seed}, index {index}: both must be 0 or more.")
    width, height = size
    layout_seed, camera_seed = np.random.SeedSequence([seed, index]).spawn(2)
    drawing = compose(np.random.default_rng(layout_seed), width / height, 1 / height)
    alpha, bicycle = class_alphas(drawing, width, height)
    image = photograph(np.random.default_rng(camera_seed), paint(drawing, width, height))
    return Scene(image, alpha.argmax(0).astype(np.uint8), alpha, {"bicycle": bicycle})
