"""Where windows lie that cover a photograph."""

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
