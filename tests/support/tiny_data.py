"""Small photographs with label maps, as files."""

from pathlib import Path

import numpy as np
import PIL.Image
import torch

from support.tiny import block_labels


def write_pair(folder: Path, split: str, name: str, seed: int, size=(96, 80)) -> tuple[Path, Path]:
    """Writes a photograph of noise over flat colours, and its label map, in the layout of MaSS13K."""
    torch.manual_seed(seed)
    labels = block_labels(1, size[1], size[0], block=16)[0]
    colours = np.random.default_rng(0).integers(0, 256, (256, 3))
    photo = (colours[labels.numpy()] + np.random.default_rng(seed).normal(0, 8, (*labels.shape, 3))).clip(0, 255)
    paths = folder / "images" / split / f"{name}.jpg", folder / "annotations" / split / f"{name}.png"
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(photo.astype(np.uint8)).save(paths[0], quality=95)
    PIL.Image.fromarray(labels.to(torch.uint8).numpy()).save(paths[1])
    return paths


def smooth_photo(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    """Create a photo of smooth colours, in which no rounding decides a pixel's class."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return PIL.Image.fromarray(small).resize((width, height), PIL.Image.Resampling.BICUBIC)


def photo(width=96, height=80, seed=0) -> PIL.Image.Image:
    """Create a photo of smooth noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels).resize((width, height), PIL.Image.Resampling.BICUBIC)
