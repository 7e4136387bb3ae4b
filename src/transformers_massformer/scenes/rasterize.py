"""Rasterize drawings: paint colours with antialiasing, and compute the exact share of each class in each pixel."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from ..utils.extras import require
from .drawing import NUM_CLASSES, Blur, Code, Drawing, Region, Shapes, Surface


# Samples per side of a pixel. The rasterizer's own coverage does not suffice: where many thin shapes share a pixel,
# compositing their coverages one after the other is wrong by up to a quarter.
SAMPLES = 16
# Pixels per side of a tile that is sampled at once: a megabyte of samples, which stays in the cache.
TILE = 64
# The class of each code.
CLASSES = [*range(NUM_CLASSES), Code.OTHERS]
# Pixels by which aggdraw grows polygons, unless they have an outline.
GROWTH = 0.25


def aggdraw() -> Any:
    """Import aggdraw, which rasterizes polygons."""
    return require("aggdraw", "scenes", "Drawing scenes")


def no_outline() -> Any:
    """Return a pen of no width, which draws nothing and keeps polygons from growing."""
    return aggdraw().Pen("black", 0)


def paint(drawing: Drawing, width: int, height: int) -> np.ndarray:
    """Paint a drawing as a picture, uint8 of shape `(height, width, 3)`."""
    canvas = aggdraw().Draw("RGB", (width, height), "black")
    for item in drawing.items:
        if isinstance(item, Shapes):
            paint_shapes(canvas, item, width, height)
            continue
        picture = np.frombuffer(canvas.tobytes(), np.uint8).reshape(height, width, 3)
        canvas.frombytes((blur(picture, item) if isinstance(item, Blur) else shade(picture, item)).tobytes())
    return np.frombuffer(canvas.tobytes(), np.uint8).reshape(height, width, 3)


def paint_shapes(canvas: Any, shapes: Shapes, width: int, height: int):
    """Paint polygons on an aggdraw canvas, leaving out those outside the picture."""
    brush, outline = aggdraw().Brush, no_outline()
    seen = (shapes.polygons.max(1) > 0).all(1) & (shapes.polygons.min(1) < [width / height, 1]).all(1)
    polygons, colors = shapes.polygons[seen] * height, shapes.colors[seen]
    for polygon, color in zip(polygons.reshape(-1, 2 * polygons.shape[1]).tolist(), colors.tolist(), strict=True):
        canvas.polygon(polygon, outline, brush(tuple(color[:3]), color[3]))


def blur(picture: np.ndarray, item: Blur) -> np.ndarray:
    """Return a picture blurred by a Gaussian."""
    radius = item.radius * picture.shape[0]
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def shade(picture: np.ndarray, surface: Surface) -> np.ndarray:
    """Return a picture with a surface on top."""
    height, width, _ = picture.shape
    corners = surface.polygon * height
    left, top = np.clip(np.floor(corners.min(0)), 0, [width, height]).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(0)), 0, [width, height]).astype(int)
    if left >= right or top >= bottom:
        return picture
    coverage = aggdraw().Draw("L", (int(right - left), int(bottom - top)), 0)
    coverage.polygon((corners - [left, top]).ravel().tolist(), no_outline(), aggdraw().Brush("white"))
    opacity = np.frombuffer(coverage.tobytes(), np.uint8).reshape(bottom - top, right - left, 1) / np.float32(255)
    rows = (np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5)) / np.float32(height)
    columns = (np.arange(left, right, dtype=np.float32)[None] + np.float32(0.5)) / np.float32(height)
    colors = np.asarray(surface.shader(Region(rows, columns, picture)), np.float32)
    np.clip(colors, 0, 255, out=colors)
    result = picture.copy()
    behind = result[top:bottom, left:right]
    colors -= behind
    colors *= opacity
    colors += behind
    colors += np.float32(0.5)
    behind[:] = colors
    return result


def shrink(polygons: np.ndarray, distance: float) -> np.ndarray:
    """Move the edges of polygons `(count, corners, 2)` inwards, to compensate for aggdraw's growth."""
    x, y = polygons[..., 0], polygons[..., 1]
    area = (x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1)
    along = np.roll(polygons, -1, 1) - polygons
    along /= np.maximum(np.linalg.norm(along, axis=2, keepdims=True), 1e-9)
    inward = np.stack([-along[..., 1], along[..., 0]], axis=2) * np.sign(area)[:, None, None]
    before = np.roll(inward, 1, 1)
    # Where two edges meet at a sharp angle, aggdraw cuts the corner off at four times the distance.
    cosine = (inward * before).sum(2, keepdims=True)
    return polygons + distance * (inward + before) / np.maximum(1 + cosine, 2 / 4**2)


@dataclass(frozen=True)
class Outlines:
    """Polygons of a drawing that decide classes, concatenated, in pixels, with their bounds."""

    points: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    codes: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, drawing: Drawing, height: int) -> "Outlines":
        """Collect the outlines of a drawing at a height in pixels."""
        batches = [(shrink(polygons * height, GROWTH / SAMPLES), code) for polygons, code in drawing.outlines()]
        counts = np.concatenate([np.full(len(polygons), polygons.shape[1]) for polygons, _ in batches])
        return cls(
            points=np.concatenate([polygons.reshape(-1, 2) for polygons, _ in batches]),
            starts=np.cumsum(counts) - counts,
            counts=counts,
            codes=np.concatenate([np.full(len(polygons), code) for polygons, code in batches]),
            low=np.concatenate([polygons.min(1) for polygons, _ in batches]),
            high=np.concatenate([polygons.max(1) for polygons, _ in batches]),
        )

    def polygon(self, index: int) -> np.ndarray:
        """Return the corners of a polygon."""
        return self.points[self.starts[index] : self.starts[index] + self.counts[index]]

    def select(self, indices: np.ndarray) -> "Outlines":
        """Return some of the polygons."""
        counts = self.counts[indices]
        starts = np.cumsum(counts) - counts
        rows = np.repeat(self.starts[indices] - starts, counts) + np.arange(counts.sum())
        return Outlines(self.points[rows], starts, counts, self.codes[indices], self.low[indices], self.high[indices])


def covers(polygon: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """Return whether a rectangle surely lies inside a polygon: no edge is near it, and its centre is inside."""
    ends = np.roll(polygon, -1, axis=0)
    near = (np.maximum(polygon, ends) >= low).all(1) & (np.minimum(polygon, ends) <= high).all(1)
    if near.any():
        return False
    x, y = (low + high) / 2
    crossing = (polygon[:, 1] > y) != (ends[:, 1] > y)
    start, end = polygon[crossing], ends[crossing]
    right = start[:, 0] + (y - start[:, 1]) * (end[:, 0] - start[:, 0]) / (end[:, 1] - start[:, 1]) > x
    return bool(np.where(end[:, 1] > start[:, 1], 1, -1)[right].sum() != 0)


def visible(outlines: Outlines, low: np.ndarray, high: np.ndarray) -> Outlines:
    """Return the polygons that touch a rectangle, from the last one that fills it on."""
    indices = np.flatnonzero((outlines.high > low).all(1) & (outlines.low < high).all(1))
    wide = (outlines.low[indices] <= low).all(1) & (outlines.high[indices] >= high).all(1)
    for position in np.flatnonzero(wide)[::-1]:
        if covers(outlines.polygon(indices[position]), low, high):
            return outlines.select(indices[position:])
    return outlines.select(indices)


def count_samples(samples: np.ndarray, code: int) -> np.ndarray:
    """Count the samples of each pixel that show a code."""
    # Bytes of 0 and 1 are added eight at a time, as 64-bit integers; no sum exceeds SAMPLES.
    words = (samples == code).view(np.uint64).reshape(TILE, SAMPLES, TILE * SAMPLES // 8)
    return words.sum(axis=1).view(np.uint8).reshape(TILE, TILE, SAMPLES).sum(axis=2, dtype=np.uint16)


class Sampler:
    """Sampler that counts, tile by tile, the samples of each pixel that show each code."""

    def __init__(self):
        side = TILE * SAMPLES
        self.canvas = aggdraw().Draw("L", (side, side), 0)
        self.canvas.setantialias(False)
        self.brushes = [aggdraw().Brush((code, code, code)) for code in range(Code.BICYCLE + 1)]

    def __call__(self, outlines: Outlines, low: np.ndarray) -> dict[int, np.ndarray]:
        """Return the counts of each code, `(TILE, TILE)`."""
        found = visible(outlines, low, low + TILE)
        codes = np.unique(found.codes).tolist()
        if len(codes) == 1:
            return {codes[0]: np.full((TILE, TILE), SAMPLES**2, np.uint16)}
        coordinates = ((found.points - low) * SAMPLES).ravel().tolist()
        for start, count, code in zip(found.starts.tolist(), found.counts.tolist(), found.codes.tolist(), strict=True):
            self.canvas.polygon(coordinates[2 * start : 2 * (start + count)], self.brushes[code])
        samples = np.frombuffer(self.canvas.tobytes(), np.uint8).reshape(TILE * SAMPLES, TILE * SAMPLES)
        return {code: count_samples(samples, code) for code in codes}


def to_alphas(counts: np.ndarray) -> np.ndarray:
    """Convert counts `(codes, height, width)` to uint8 that sum to 255 over the codes: differences of rounded sums."""
    sums = np.cumsum(counts, axis=0, dtype=np.uint32)
    rounded = ((sums * 255 + SAMPLES**2 // 2) // SAMPLES**2).astype(np.uint8)
    return np.diff(rounded, axis=0, prepend=np.uint8(0))


def class_alphas(drawing: Drawing, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Compute the share of each class in each pixel, and that of the bicycles, which are part of class others.

    Args:
        drawing (`Drawing`): A drawing whose first polygon fills the picture.
        width, height (`int`): Size in pixels.

    Returns:
        uint8 of shape `(7, height, width)`, whose sum over the classes is 255, and uint8 of shape `(height, width)`.
    """
    outlines, sampler = Outlines.of(drawing, height), Sampler()
    alphas = np.zeros((NUM_CLASSES, height, width), np.uint8)
    bicycles = np.zeros((height, width), np.uint8)
    for top in range(0, height, TILE):
        inside = (outlines.high[:, 1] > top) & (outlines.low[:, 1] < top + TILE)
        band = outlines.select(np.flatnonzero(inside))
        for left in range(0, width, TILE):
            tile = (slice(top, min(top + TILE, height)), slice(left, min(left + TILE, width)))
            counts = sampler(band, np.array([left, top]))
            rows, columns = alphas[0][tile].shape
            shares = to_alphas(np.stack([count[:rows, :columns] for count in counts.values()]))
            for code, share in zip(counts, shares, strict=True):
                if code == Code.BICYCLE:
                    bicycles[tile] = share
                alphas[CLASSES[code]][tile] += share
    return alphas, bicycles
