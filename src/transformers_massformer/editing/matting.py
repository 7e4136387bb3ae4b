"""What needs a matting library: refined mattes, and the colours of what lies before a background."""

import os
from typing import Any

import numpy as np
import PIL.Image
import torch
from scipy import ndimage, sparse

from ..inference.mattes import as_array
from ..inference.tiling import plan_tiles


# A matte is surely background below, surely foreground above: a model's scores hardly ever come to nothing or to all.
SURE_BACKGROUND, SURE_FOREGROUND = 0.1, 0.9
# How much a given matte counts beside the photograph's colours: in the band, where it is soft and where it is wholly
# one or the other (thin branches have nothing else to hold on to), and elsewhere.
SOFT_CONFIDENCE, SOLID_CONFIDENCE, KNOWN_CONFIDENCE = 0.01, 0.1, 100.0
# What colours may vary by without meaning anything (epsilon of Levin et al.), for the noise and blocks of JPEG; its
# usual 1e-7 is for pictures without.
COLOUR_VARIANCE = 1e-5
# Tiles of refinement in pixels, and what they share with their neighbours. Its memory and time grow with the tile.
TILE, OVERLAP = 512, 64


def matting_library() -> Any:
    """
    pymatting, which takes a minute to prepare itself the first time.

    Raises:
        ImportError: If it is not installed.
    """
    # numba starts as many of OpenMP's threads as there are cores, and PyTorch would compute with as many from then on.
    os.environ.setdefault("NUMBA_NUM_THREADS", str(torch.get_num_threads()))
    try:
        import pymatting
    except ImportError as error:
        raise ImportError(
            "Refined mattes, cut-outs and bokeh need pymatting: pip install 'transformers-massformer[editing]'"
        ) from error
    return pymatting


def check_matte(photo: PIL.Image.Image, matte: np.ndarray):
    """
    Raises:
        ValueError: If it is not of the photograph's size.
    """
    if matte.shape != (photo.height, photo.width):
        raise ValueError(
            f"The matte, {matte.shape[0]} x {matte.shape[1]}, must be of the photograph's size, {photo.height} x "
            f"{photo.width} (height x width)."
        )


def firm_matte(matte: PIL.Image.Image | np.ndarray) -> np.ndarray:
    """
    A matte that is wholly background where it is so but for a tenth, and wholly foreground likewise; between, it is
    stretched. A model is seldom wholly sure, and what is in front would let the background through.

    Args:
        matte (`PIL.Image.Image` or `np.ndarray` of shape `(height, width)`): In mode L, or values from 0 to 1.

    Returns:
        `np.ndarray` of shape `(height, width)`: float32, from 0 to 1.
    """
    return ((as_array(matte) - SURE_BACKGROUND) / (SURE_FOREGROUND - SURE_BACKGROUND)).clip(0, 1)


def edge_band(matte: np.ndarray, band: int) -> np.ndarray:
    """Where a matte is soft or jumps, and `band` pixels around: booleans of shape `(height, width)`."""
    soft = (matte > 0) & (matte < 1)
    solid = matte > 0.5
    soft |= ndimage.maximum_filter(solid, 3) != ndimage.minimum_filter(solid, 3)
    return ndimage.maximum_filter(soft, 2 * band + 1)


def solve_matte(pixels: np.ndarray, matte: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """
    The matte that agrees best with the photograph's colours (closed-form matting) and with the given one, of which
    little is believed where it is unknown, least where it is soft, and all elsewhere.

    Args:
        pixels (`np.ndarray` of shape `(height, width, 3)`): float64, from 0 to 1.
        matte (`np.ndarray` of shape `(height, width)`): From 0 to 1.
        unknown (`np.ndarray` of shape `(height, width)`): Booleans.
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
    A matte whose edges follow the photograph's colours: closed-form matting (Levin et al. 2008; pymatting) of a band
    around its edges, in overlapping tiles. Tiles without an edge cost nothing. Of the given one [`firm_matte`] is
    taken.

    Args:
        photo (`PIL.Image.Image`): The photograph.
        matte (`PIL.Image.Image` or `np.ndarray` of shape `(height, width)`): In mode L, or values from 0 to 1.
        band (`int`, *optional*, defaults to 2): Pixels around its edges which are found anew.

    Returns:
        `PIL.Image.Image`: In mode L.

    Raises:
        ImportError: If pymatting is not installed.
        ValueError: If the sizes differ or the band has no pixels.
    """
    if band < 1:
        raise ValueError(f"The band must be 1 pixel or more, got {band}.")
    values = firm_matte(matte)
    check_matte(photo, values)
    unknown = edge_band(values, band)
    total, weight = np.zeros_like(values), np.zeros_like(values)
    for tile in plan_tiles(photo.height, photo.width, TILE, OVERLAP):
        left, top, right, bottom = tile.box
        place = slice(top, bottom), slice(left, right)
        found = values[place]
        # What is the same everywhere stays so; the solver fails for nothing but zeros.
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
    The colours that a photograph is a mixture of, by its matte (multi-level estimation, Germer et al. 2021, of
    pymatting).

    Args:
        photo (`PIL.Image.Image`): The photograph.
        matte (`PIL.Image.Image` or `np.ndarray` of shape `(height, width)`): In mode L, or values from 0 to 1.

    Returns:
        `tuple(np.ndarray)`: colours of the foreground and of the background, float32 of shape `(height, width, 3)`
        from 0 to 1.

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
    A photograph's foreground, to be put before anything: its own colours, without the old background shining through,
    and the matte as alpha.

    Args:
        photo (`PIL.Image.Image`): The photograph.
        matte (`PIL.Image.Image` or `np.ndarray` of shape `(height, width)`): In mode L, or values from 0 to 1.

    Returns:
        `PIL.Image.Image`: In mode RGBA.

    Raises:
        ImportError: If pymatting is not installed.
        ValueError: If the sizes differ.
    """
    foreground, _ = foreground_and_background(photo, matte)
    pixels = np.concatenate([foreground, as_array(matte)[:, :, None]], axis=2)
    return PIL.Image.fromarray((pixels * 255).round().clip(0, 255).astype(np.uint8))
