"""Where windows lie that cover a photograph."""

import itertools
import math


def window_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where windows begin along an axis; the last ends with it."""
    if tile >= length:
        return [0]
    count = math.ceil((length - overlap) / (tile - overlap))
    return [min(index * (tile - overlap), length - tile) for index in range(count)]


def windows(height: int, width: int, tile: int | None, overlap: int) -> list[tuple[int, int, int, int]]:
    """Top, left, bottom and right of each window."""
    side = tile or max(height, width)
    return [
        (top, left, min(top + side, height), min(left + side, width))
        for top in window_starts(height, side, overlap)
        for left in window_starts(width, side, overlap)
    ]


def tile_spans(length: int, tile: int) -> list[tuple[int, int, int, int]]:
    """
    Tiles along one axis, evenly spread, which overlap by an eighth or more. Of an overlap, each tile keeps its half.

    Returns:
        `list[tuple[int, int, int, int]]`: first pixel and the one after the last, of each tile and of what it keeps.
    """
    if tile >= length:
        return [(0, length, 0, length)]
    overlap = tile // 8
    count = math.ceil((length - overlap) / (tile - overlap))
    starts = [round(index * (length - tile) / (count - 1)) for index in range(count)]
    cuts = [0, *((start + previous + tile) // 2 for previous, start in itertools.pairwise(starts)), length]
    return [(start, start + tile, *kept) for start, kept in zip(starts, itertools.pairwise(cuts), strict=True)]
