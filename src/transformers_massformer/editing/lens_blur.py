"""Blur the background like a lens with a wide aperture."""

import numpy as np
import PIL.Image
from scipy import ndimage, signal

from .matting import as_array, check_matte, foreground_and_background


# Width in pixels of the margin around the foreground that is excluded from the blur: mattes are rarely pixel-exact.
GUARD = 2
# Minimum fraction of background within the disc for a blurred colour to be defined.
LEAST_WEIGHT = 1e-3
# Rows blurred together.
BAND_ROWS = 512


def to_linear(values: np.ndarray) -> np.ndarray:
    """Convert sRGB values from 0 to 1 to linear light."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(values: np.ndarray) -> np.ndarray:
    """Convert linear light to sRGB values; inverse of [`to_linear`]."""
    values = values.clip(0, 1)
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055).astype(np.float32)


def disc(radius: float) -> np.ndarray:
    """Return the blur kernel of a round aperture: a disc of this radius in pixels with a smooth rim and sum 1."""
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = (radius + 0.5 - np.hypot(x, y)).clip(0, 1)
    return (kernel / kernel.sum()).astype(np.float32)


def blur(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve values of shape `(height, width)`, padded with zeros, in bands of rows."""
    reach = kernel.shape[0] // 2
    padded = np.pad(values, ((reach, reach), (0, 0)))
    blurred = np.empty_like(values)
    for top in range(0, len(values), BAND_ROWS):
        bottom = min(top + BAND_ROWS, len(values))
        band = signal.oaconvolve(padded[top : bottom + 2 * reach], kernel, mode="same")
        blurred[top:bottom] = band[reach : reach + bottom - top]
    return blurred


def check_strength(strength: float):
    """
    Check the strength of the bokeh.

    Raises:
        ValueError: If the strength is not above 0 and at most 0.1.
    """
    if not 0 < strength <= 0.1:
        raise ValueError(f"The strength of the bokeh must be above 0 and at most 0.1 of the diagonal, got {strength}.")


def bokeh(
    photo: PIL.Image.Image, matte: PIL.Image.Image | np.ndarray, strength: float = 0.01, guard: int = GUARD
) -> PIL.Image.Image:
    """
    Put the background of a photo out of focus. Each background point spreads over a disc in linear light, so that
    lamps bloom. The foreground does not bleed into the blur: only the background's own colours are blurred, normalized
    by the amount of background within the disc, and the foreground's own colours are composited on top.

    Args:
        photo (`PIL.Image.Image`): The photo.
        matte (`PIL.Image.Image` or `np.ndarray` of shape `(height, width)`):
            Matte of what stays in focus: an image in mode L, or values from 0 to 1.
        strength (`float`, *optional*, defaults to 0.01): Radius of the discs, as a fraction of the diagonal.
        guard (`int`, *optional*, defaults to 2):
            Width in pixels of the margin around the foreground that is excluded from the blur.

    Returns:
        `PIL.Image.Image`: The edited photo in mode RGB.

    Raises:
        ImportError: If pymatting is not installed.
        ValueError: If the sizes differ or the strength is not above 0 and at most 0.1.
    """
    check_strength(strength)
    alpha = as_array(matte)
    check_matte(photo, alpha)
    foreground, background = foreground_and_background(photo, alpha)
    kernel = disc(strength * float(np.hypot(photo.height, photo.width)))
    weight = 1 - ndimage.maximum_filter(alpha, 2 * guard + 1)
    spread = blur(weight, kernel)
    result = np.empty((photo.height, photo.width, 3), dtype=np.uint8)
    for channel in range(3):
        light = to_linear(background[:, :, channel])
        blurred = blur(light * weight, kernel) / np.maximum(spread, LEAST_WEIGHT)
        # Deep behind the foreground no background is within the disc, and none is visible.
        blurred = np.where(spread > LEAST_WEIGHT, blurred, light)
        mixed = alpha * to_linear(foreground[:, :, channel]) + (1 - alpha) * blurred
        # Pixels completely in focus keep the photo's values.
        values = np.where(alpha > 254.5 / 255, as_array(photo.convert("RGB"))[:, :, channel], to_srgb(mixed))
        result[:, :, channel] = (values * 255).round().clip(0, 255)
    return PIL.Image.fromarray(result)
