"""Refine mattes and estimate foreground colours with pymatting."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from scipy import ndimage, sparse
from transformers.utils import logging

from ..inference.mattes import as_array
from ..inference.tiling import plan_tiles
from ..utils.caches import is_writable, temporary_cache, user_cache
from ..utils.extras import require


logger = logging.get_logger(__name__)

# Matte values at and beyond which a pixel counts as pure background or foreground: a model's scores hardly ever reach
# 0 or 1.
SURE_BACKGROUND, SURE_FOREGROUND = 0.1, 0.9
# Weights of the given matte relative to the photo's colours: in the band where the matte is soft, in the band where it
# is 0 or 1 (the only support of thin branches), and outside the band.
SOFT_CONFIDENCE, SOLID_CONFIDENCE, KNOWN_CONFIDENCE = 0.01, 0.1, 100.0
# Colour variance treated as noise (epsilon of Levin et al.), chosen for JPEG's noise and blocks; the usual 1e-7 is for
# images without them.
COLOUR_VARIANCE = 1e-5
# Side and overlap of refinement's tiles in pixels. Memory and time grow with the tile.
TILE, OVERLAP = 512, 64


def use_writable_cache():
    """
    Let numba, which pymatting needs, store its code among temporary files where it finds no other place: without one,
    pymatting cannot be imported.
    """
    package = importlib.util.find_spec("pymatting")
    if package is None or package.origin is None:
        return
    # The places where numba looks, in this order.
    own = os.environ.get("NUMBA_CACHE_DIR")
    places = [Path(own)] if own else [Path(package.origin).with_name("__pycache__"), user_cache() / "numba"]
    if any(map(is_writable, places)):
        return
    folder = temporary_cache("numba")
    logger.warning(f"numba finds no writable cache and uses {folder}. Set NUMBA_CACHE_DIR to a folder that lasts.")
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    if "numba" in sys.modules:
        sys.modules["numba"].config.reload_config()


def matting_library() -> Any:
    """
    Import pymatting, whose first import takes a minute because it compiles code.

    Raises:
        ImportError: If pymatting is not installed.
    """
    use_writable_cache()
    # By default numba starts an OpenMP thread per core, and PyTorch would use that number from then on.
    os.environ.setdefault("NUMBA_NUM_THREADS", str(torch.get_num_threads()))
    return require("pymatting", "editing", "Matting (refined mattes, cut-outs, bokeh)")


def check_matte(photo: PIL.Image.Image, matte: np.ndarray):
    """
    Check that a matte has the photo's size.

    Raises:
        ValueError: If the sizes differ.
    """
    if matte.shape != (photo.height, photo.width):
        raise ValueError(
            f"The matte has size {matte.shape[0]} x {matte.shape[1]}, the photo {photo.height} x {photo.width} "
            "(height x width). Use a matte of the photo's size."
        )


def firm_matte(matte: PIL.Image.Image | np.ndarray) -> np.ndarray:
    """
    Stretch the contrast of a matte: values up to 0.1 become 0, values from 0.9 become 1, linear between. Models are
    seldom completely certain, and without this the background would show through the foreground.

    Args:
        matte (`PIL.Image.Image` or `np.ndarray` of shape `(height, width)`): Image in mode L, or values from 0 to 1.

    Returns:
        `np.ndarray` of shape `(height, width)`: Values from 0 to 1, float32.
    """
    return ((as_array(matte) - SURE_BACKGROUND) / (SURE_FOREGROUND - SURE_BACKGROUND)).clip(0, 1)


def edge_band(matte: np.ndarray, band: int) -> np.ndarray:
    """Return a boolean map of shape `(height, width)`: pixels within `band` of where the matte is soft or jumps."""
    soft = (matte > 0) & (matte < 1)
    solid = matte > 0.5
    soft |= ndimage.maximum_filter(solid, 3) != ndimage.minimum_filter(solid, 3)
    return ndimage.maximum_filter(soft, 2 * band + 1)


def solve_matte(pixels: np.ndarray, matte: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """
    Solve for the matte that agrees best with the photo's colours (closed-form matting) and with the given matte, which
    has little weight where it is unknown, least where it is also soft, and a high weight elsewhere.

    Args:
        pixels (`np.ndarray` of shape `(height, width, 3)`): Colours from 0 to 1, float64.
        matte (`np.ndarray` of shape `(height, width)`): Values from 0 to 1.
        unknown (`np.ndarray` of shape `(height, width)`): Boolean map of the pixels to solve for.
    """
    library = matting_library()
    soft = (matte > 0) & (matte < 1)
    confidence = np.where(unknown, np.where(soft, SOFT_CONFIDENCE, SOLID_CONFIDENCE), KNOWN_CONFIDENCE).ravel()
    system = library.cf_laplacian(pixels, epsilon=COLOUR_VARIANCE) + sparse.diags(confidence)
    preconditioner = library.ichol(system.tocsc(), discard_threshold=1e-3)
    solved = library.cg(system, confidence * matte.ravel(), M=preconditioner)
    return solved.reshape(matte.shape).clip(0, 1)


def refine_matte(photo: PIL.Image.Image, matte: PIL.Image.Image | np.ndarray, band: int = 2) -> PIL.Image.Image:
    """
    Align the edges of a matte with the photo's colours: closed-form matting (Levin et al. 2008; pymatting) of a band
    around the edges, in overlapping tiles. Tiles without an edge cost nothing. The matte passes through [`firm_matte`]
    first.

    Args:
        photo (`PIL.Image.Image`): The photo.
        matte (`PIL.Image.Image` or `np.ndarray` of shape `(height, width)`): Image in mode L, or values from 0 to 1.
        band (`int`, *optional*, defaults to 2): Pixels around the edges in which the matte is recomputed.

    Returns:
        `PIL.Image.Image`: The refined matte in mode L.

    Raises:
        ImportError: If pymatting is not installed.
        ValueError: If the sizes differ or the band is below 1.
    """
    if band < 1:
        raise ValueError(f"The band must be at least 1 pixel, got {band}.")
    values = firm_matte(matte)
    check_matte(photo, values)
    unknown = edge_band(values, band)
    total, weight = np.zeros_like(values), np.zeros_like(values)
    for tile in plan_tiles(photo.height, photo.width, TILE, OVERLAP):
        left, top, right, bottom = tile.box
        place = slice(top, bottom), slice(left, right)
        found = values[place]
        # A constant matte stays as it is; the solver fails on all zeros.
        if unknown[place].any() and found.min() < found.max() and min(found.shape) > 2:
            pixels = as_array(photo.crop(tile.box).convert("RGB")).astype(np.float64)
            found = solve_matte(pixels, found.astype(np.float64), unknown[place])
        total[place] += found
        weight[place] += 1
    refined = np.where(unknown, total / weight, values)
    return PIL.Image.fromarray((refined * 255).round().astype(np.uint8))


def foreground_and_background(
    photo: PIL.Image.Image, matte: PIL.Image.Image | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """
    Estimate the foreground and background colours of which a photo is a mixture, given its matte (multi-level
    estimation, Germer et al. 2021; pymatting).

    Args:
        photo (`PIL.Image.Image`): The photo.
        matte (`PIL.Image.Image` or `np.ndarray` of shape `(height, width)`): Image in mode L, or values from 0 to 1.

    Returns:
        `tuple(np.ndarray)`: Colours of the foreground and of the background, each of shape `(height, width, 3)`, from
        0 to 1, float32.

    Raises:
        ImportError: If pymatting is not installed.
        ValueError: If the sizes differ.
    """
    values = as_array(matte)
    check_matte(photo, values)
    estimate = matting_library().estimate_foreground_ml
    foreground, background = estimate(as_array(photo.convert("RGB")), values, return_background=True)
    return foreground, background


def cut_out(photo: PIL.Image.Image, matte: PIL.Image.Image | np.ndarray) -> PIL.Image.Image:
    """
    Cut out the foreground of a photo for compositing: its own colours, without traces of the old background, and the
    matte as alpha.

    Args:
        photo (`PIL.Image.Image`): The photo.
        matte (`PIL.Image.Image` or `np.ndarray` of shape `(height, width)`): Image in mode L, or values from 0 to 1.

    Returns:
        `PIL.Image.Image`: The cut-out in mode RGBA.

    Raises:
        ImportError: If pymatting is not installed.
        ValueError: If the sizes differ.
    """
    foreground, _ = foreground_and_background(photo, matte)
    pixels = np.concatenate([foreground, as_array(matte)[:, :, None]], axis=2)
    return PIL.Image.fromarray((pixels * 255).round().clip(0, 255).astype(np.uint8))
