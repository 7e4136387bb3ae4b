"""Generate value noise, the texture of all surfaces."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage


SIDE = 1024


def resize(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a float array `(height, width)` smoothly."""
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Noise:
    """Random function of the plane with mean 0, standard deviation 1 and period 1."""

    values: np.ndarray
    offset: np.ndarray

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = np.broadcast_arrays(x, y)
        places = np.stack([y + self.offset[1], x + self.offset[0]]) * np.float32(SIDE)
        return ndimage.map_coordinates(self.values, places, order=1, mode="grid-wrap", output=np.float32)


def fractal_noise(rng: np.random.Generator, cells: int, octaves: int) -> np.ndarray:
    """Generate a period of noise, `(SIDE, SIDE)`: a sum of smooth grids, each twice as fine and half as strong."""
    total = np.zeros((SIDE, SIDE), np.float32)
    for octave in range(octaves):
        count = cells * 2**octave
        grid = np.pad(rng.standard_normal((count, count), np.float32), 2, mode="wrap")
        margin = 2 * SIDE // count
        total += resize(grid, SIDE + 2 * margin, SIDE + 2 * margin)[margin:-margin, margin:-margin] / 2**octave
    return (total - total.mean()) / total.std()


class Grain:
    """Noise of a scene; each surface uses its own offset."""

    def __init__(self, rng: np.random.Generator):
        self.broad_values = fractal_noise(rng, 4, 8)
        self.fine_values = fractal_noise(rng, 64, 4)

    def broad(self, rng: np.random.Generator) -> Noise:
        """Return noise with details from a quarter of the period to a 512th."""
        return Noise(self.broad_values, rng.uniform(0, 1, 2).astype(np.float32))

    def fine(self, rng: np.random.Generator) -> Noise:
        """Return noise with details from a 64th of the period to a 512th."""
        return Noise(self.fine_values, rng.uniform(0, 1, 2).astype(np.float32))
