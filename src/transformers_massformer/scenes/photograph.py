"""Simulate a camera: exposure, white balance, vignetting, noise and JPEG compression."""

import io

import numpy as np
from PIL import Image


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Encode uint8 `(height, width, 3)` as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def photograph(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Turn a picture, uint8 `(height, width, 3)`, into a photograph of it: colours change, positions do not."""
    height, width, _ = picture.shape
    exposure, noise, quality = rng.uniform(0.85, 1.12), rng.uniform(0.8, 4.5), int(rng.integers(82, 98))
    balance = rng.normal(1, 0.018, 3).astype(np.float32) * np.float32(exposure)
    contrast, corner = rng.uniform(0.0, 0.16), rng.uniform(0.0, 0.22)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    x = np.linspace(-1, 1, width, dtype=np.float32)[None] ** 2
    result = np.empty_like(picture)
    # In bands, to limit the memory of floating-point values.
    for top in range(0, height, 256):
        rows = slice(top, top + 256)
        values = picture[rows] * (balance / 255)
        values *= (1 - np.float32(corner / 2) * (y[rows] + x))[..., None]
        np.clip(values, 0, 1, out=values)
        values += np.float32(contrast) * (values * values * (3 - 2 * values) - values)
        # Shot noise: brighter pixels are noisier. Part of the noise is grey.
        deviation = np.float32(noise / 255) * np.sqrt(0.15 + values[..., 1:2])
        values += deviation * rng.standard_normal(values.shape, np.float32) * np.float32(0.6)
        values += deviation * rng.standard_normal((*values.shape[:2], 1), np.float32)
        result[rows] = np.round(np.clip(values, 0, 1) * 255)
    return np.asarray(Image.open(io.BytesIO(encode_jpeg(result, quality))))
