"""Background blur as of a wide lens."""

import numpy as np
import PIL.Image
from scipy import ndimage, signal

from .matting import as_array, check_matte, foreground_and_background


# Pixels beside the foreground whose colours are not spread: mattes are rarely exact to the pixel.
GUARD = 2
# Less background than this in reach of the lens has no colour to give.
LEAST_WEIGHT = 1e-3
# Rows that are blurred together.
BAND_ROWS = 512


def to_linear(values: np.ndarray) -> np.ndarray:
    """sRGB values from 0 to 1 as amounts of light."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(values: np.ndarray) -> np.ndarray:
    """The inverse of [`to_linear`]."""
    values = values.clip(0, 1)
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055).astype(np.float32)


def disc(radius: float) -> np.ndarray:
    """What a round lens makes of a point: a disc of this radius in pixels, smooth at its rim, whose sum is 1."""
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = (radius + 0.5 - np.hypot(x, y)).clip(0, 1)
    return (kernel / kernel.sum()).astype(np.float32)


def blur(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolution of `(height, width)` values, zeros outside, in bands of rows."""
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
    Raises:
        ValueError: If it is not between 0 and 0.1.
    """
    if not 0 < strength <= 0.1:
        raise ValueError(f"The strength of the bokeh must be above 0 and at most 0.1 of the diagonal, got {strength}.")


def bokeh(
    photo: PIL.Image.Image, matte: PIL.Image.Image | np.ndarray, strength: float = 0.01, guard: int = GUARD
) -> PIL.Image.Image:
    """
    A photograph whose background is out of focus. Each point of the background becomes a disc, as light, so that lamps
    bloom. The foreground gives nothing to it: blurred is the background alone, with its own colours, and divided by
    how much of it there was; the foreground is put before it again with its own colours.

    Args:
        photo (`PIL.Image.Image`): The photograph.
        matte (`PIL.Image.Image` or `np.ndarray` of shape `(height, width)`):
            What is to stay in focus: in mode L, or values from 0 to 1.
        strength (`float`, *optional*, defaults to 0.01): Radius of the discs, as a share of the diagonal.
        guard (`int`, *optional*, defaults to 2): Pixels beside the foreground whose colours are not spread.

    Returns:
        `PIL.Image.Image`: In mode RGB.

    Raises:
        ImportError: If pymatting is not installed.
        ValueError: If the sizes differ or the strength is not between 0 and 0.1.
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
        # Deep behind the foreground no background is in reach, and none is seen.
        blurred = np.where(spread > LEAST_WEIGHT, blurred, light)
        mixed = alpha * to_linear(foreground[:, :, channel]) + (1 - alpha) * blurred
        # What is wholly in focus is the photograph's own.
        values = np.where(alpha > 254.5 / 255, as_array(photo.convert("RGB"))[:, :, channel], to_srgb(mixed))
        result[:, :, channel] = (values * 255).round().clip(0, 255)
    return PIL.Image.fromarray(result)
