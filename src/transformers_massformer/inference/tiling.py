"""The one way to divide a photograph into overlapping tiles and to join what was computed for each."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple


# Smaller tiles show a model too little of the photograph.
MIN_TILE = 64


class Span(NamedTuple):
    """Start and stop of a tile along one axis, and of the part of it that is kept, in pixels."""

    start: int
    stop: int
    kept_start: int
    kept_stop: int

    @property
    def kept(self) -> slice:
        """The kept pixels in the photograph."""
        return slice(self.kept_start, self.kept_stop)

    @property
    def kept_in_tile(self) -> slice:
        """The kept pixels in the tile."""
        return slice(self.kept_start - self.start, self.kept_stop - self.start)


class Tile(NamedTuple):
    """A tile: its rows and its columns."""

    rows: Span
    columns: Span

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, as `PIL.Image.Image.crop` takes them."""
        return self.columns.start, self.rows.start, self.columns.stop, self.rows.stop

    @property
    def kept(self) -> tuple[slice, slice]:
        """Rows and columns of the photograph that this tile decides."""
        return self.rows.kept, self.columns.kept

    @property
    def kept_in_tile(self) -> tuple[slice, slice]:
        """The same rows and columns, in the tile."""
        return self.rows.kept_in_tile, self.columns.kept_in_tile


def default_overlap(tile: int) -> int:
    """Return the pixels that neighbouring tiles share unless told otherwise: an eighth of a tile."""
    return tile // 8


def tile_spans(length: int, tile: int, overlap: int | None = None) -> list[Span]:
    """
    Place tiles evenly along an axis. Each shared stretch is cut in its middle, so that every pixel is decided by
    exactly one tile, away from the tile's border.

    Args:
        length (`int`): Length of the axis in pixels.
        tile (`int`): Length of a tile; a shorter axis is one tile.
        overlap (`int`, *optional*):
            Pixels that neighbours share at least. By default [`default_overlap`].

    Returns:
        `list[Span]`: The tiles, in order; their kept parts cover the axis once.
    """
    if tile >= length:
        return [Span(0, length, 0, length)]
    overlap = default_overlap(tile) if overlap is None else overlap
    count = math.ceil((length - overlap) / (tile - overlap))
    starts = [round(index * (length - tile) / (count - 1)) for index in range(count)]
    cuts = [0, *((start + previous + tile) // 2 for previous, start in itertools.pairwise(starts)), length]
    return [Span(start, start + tile, *kept) for start, kept in zip(starts, itertools.pairwise(cuts), strict=True)]


def plan_tiles(height: int, width: int, tile: int | None, overlap: int | None = None) -> Iterator[Tile]:
    """
    Divide a photograph into tiles.

    Args:
        height (`int`), width (`int`): Size of the photograph in pixels.
        tile (`int`, *optional*): Side of a tile in pixels. Without it the photograph is one tile.
        overlap (`int`, *optional*): See [`tile_spans`].

    Yields:
        [`Tile`]: Row by row.
    """
    side = tile or max(height, width)
    for rows in tile_spans(height, side, overlap):
        for columns in tile_spans(width, side, overlap):
            yield Tile(rows, columns)
