# Copyright 2026 The transformers-massformer authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Convert images of any mode and colour profile to 8-bit sRGB."""

import io
from functools import lru_cache

import numpy as np
import PIL.Image
from PIL import ImageCms
from transformers.utils import logging


logger = logging.get_logger(__name__)

# Colour space in the header of a profile, by the mode of the images that it fits.
PROFILE_SPACES = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK", "LAB": b"Lab "}
# Values of 8 bits by which profiles may differ from sRGB without being applied.
SAME_COLOURS = 2
# Modes with alpha, and how it is made explicit.
ALPHA_MODES = {"LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}


def to_rgb(image: PIL.Image.Image, name: str = "") -> PIL.Image.Image:
    """
    Convert an image of any mode to 8-bit sRGB. Its colour profile is applied (perceptual intent), transparent parts
    are composed on white, 16 bits are scaled to 8, and floating-point greys range from black 0 to white 1. A profile
    that is damaged or made for other colours is ignored with a warning. EXIF orientation is not applied.

    Args:
        image (`PIL.Image.Image`): The image, loaded.
        name (`str`, *optional*): Its name in warnings.

    Returns:
        `PIL.Image.Image`: In mode RGB. An opaque sRGB image is returned itself, not a copy.
    """
    profile = image.info.get("icc_profile")
    colours, alpha = split_alpha(image)
    colours = apply_profile(colours, profile, name) if profile else colours
    colours = colours if colours.mode == "RGB" else colours.convert("RGB")
    if alpha is not None:
        colours = PIL.Image.composite(colours, PIL.Image.new("RGB", image.size, "white"), alpha)
    if colours is not image:
        colours.info.clear()
    return colours


def split_alpha(image: PIL.Image.Image) -> tuple[PIL.Image.Image, PIL.Image.Image | None]:
    """Return an image's colours, in mode L, RGB, CMYK or LAB, and its alpha in mode L, `None` if it is opaque."""
    transparency = image.info.get("transparency")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        white = 1.0 if image.mode == "F" else 65535.0
        scaled = np.nan_to_num(values / white * 255).clip(0, 255).round()
        colours = PIL.Image.fromarray(scaled.astype(np.uint8))
        if not isinstance(transparency, int):
            return colours, None
        return colours, PIL.Image.fromarray(np.where(values == transparency, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        explicit = ALPHA_MODES.get(image.mode, "LA" if image.mode in ("1", "L") else "RGBA")
        *bands, alpha = (image if image.mode == explicit else image.convert(explicit)).split()
        return (bands[0] if explicit == "LA" else PIL.Image.merge("RGB", bands)), alpha
    if image.mode in PROFILE_SPACES:
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def apply_profile(image: PIL.Image.Image, profile: bytes, name: str) -> PIL.Image.Image:
    """Convert an opaque image to sRGB by its profile; without a usable one, return it itself with a warning."""
    try:
        transform = transform_to_srgb(profile, image.mode)
    except ImportError:
        logger.warning_once("Pillow was built without ImageCms; colour profiles are ignored.")
        return image
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError) as error:
        logger.warning_once(f"{name or 'An image'}: its colour profile is ignored ({error}).")
        return image
    return image if transform is None else transform.apply(image)


@lru_cache(maxsize=32)
def transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """
    Return the transform from a profile's colours to sRGB, `None` if it changes nothing.

    Raises:
        ImportError: If Pillow was built without ImageCms.
        OSError, ValueError, TypeError, PIL.ImageCms.PyCMSError: If the profile is damaged or does not fit the mode.
    """
    space = profile[16:20]
    if space != PROFILE_SPACES[mode]:
        raise ValueError(f"it is for {space.decode('latin-1').strip() or 'nothing'}, the image is {mode}")
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(source, target, mode, "RGB", ImageCms.Intent.PERCEPTUAL)
    if mode not in ("L", "RGB"):
        return transform
    # All combinations of evenly spaced values, of 17 per channel and of all for greys.
    steps = np.linspace(0, 255, 17).round() if mode == "RGB" else np.arange(256)
    grid = np.stack(np.meshgrid(*[steps] * len(mode), indexing="ij"), axis=-1).astype(np.uint8)
    probe = PIL.Image.fromarray(grid.reshape(1, -1, 3) if mode == "RGB" else grid.reshape(1, -1))
    change = np.asarray(transform.apply(probe), dtype=int) - np.asarray(probe.convert("RGB"), dtype=int)
    return None if np.abs(change).max() <= SAME_COLOURS else transform
