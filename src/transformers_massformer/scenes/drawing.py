"""Represent a scene as an ordered list of polygons in picture coordinates, and generate such polygons."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Code:
    """Codes of samples: the classes of MaSS13K in their order, then objects distinguished within "others"."""

    OTHERS, HUMAN, BUILDING, VEGETATION, GROUND, SKY, WATER = range(7)
    BICYCLE = 7


NUM_CLASSES = 7


@dataclass(frozen=True)
class Shapes:
    """
    Polygons painted in order: `(count, corners, 2)` in picture heights, colours `(count, 4)`, RGB and opacity. `code`
    is `None` for polygons that only colour an existing surface, such as a window or a shadow.
    """

    polygons: np.ndarray
    colors: np.ndarray
    code: int | None


class Region(NamedTuple):
    """Pixels that a shader colours: their centres in picture heights, and the picture drawn so far."""

    y: np.ndarray
    x: np.ndarray
    picture: np.ndarray


@dataclass(frozen=True)
class Surface:
    """Polygon `(corners, 2)` whose shader returns the colours `(height, width, 3)` of a region of pixels."""

    polygon: np.ndarray
    shader: Callable[[Region], np.ndarray]
    code: int


@dataclass(frozen=True)
class Blur:
    """Defocus of everything drawn so far, which is farther away; the radius is in picture heights."""

    radius: float


@dataclass
class Drawing:
    """Shapes from back to front; x and y are in picture heights from the upper left corner, y downwards."""

    items: list[Shapes | Surface | Blur] = field(default_factory=list)

    def fill(self, polygons: np.ndarray, colors: ArrayLike, code: int | None, opacity: float = 1.0):
        """Add polygons `(count, corners, 2)` or `(corners, 2)` in colours `(count, 3)` or `(3,)` in 0 to 255."""
        polygons = np.asarray(polygons, float)
        polygons = polygons if polygons.ndim == 3 else polygons[None]
        rgba = np.empty((len(polygons), 4), np.uint8)
        rgba[:, :3] = np.clip(np.round(np.asarray(colors, float)), 0, 255)
        rgba[:, 3] = round(255 * opacity)
        if len(polygons):
            self.items.append(Shapes(polygons, rgba, code))

    def outlines(self) -> list[tuple[np.ndarray, int]]:
        """Return the polygons `(count, corners, 2)` that decide codes of samples, back to front, with their codes."""
        found = []
        for item in self.items:
            if isinstance(item, Surface):
                found.append((item.polygon[None], item.code))
            elif isinstance(item, Shapes) and item.code is not None:
                found.append((item.polygons, item.code))
        return found


def box(left: float, bottom: float, right: float, top: float) -> np.ndarray:
    """Return the corners of a rectangle."""
    return np.array([[left, bottom], [right, bottom], [right, top], [left, top]])


def ellipse(x: float, y: float, radius_x: float, radius_y: float, corners: int = 28) -> np.ndarray:
    """Return an ellipse as a polygon."""
    angles = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)


def ring(x: float, y: float, radius: float, width: float, corners: int = 48) -> np.ndarray:
    """Return a ring as one polygon: around the outside, then back along the inside."""
    outer = ellipse(x, y, radius, radius, corners)
    inner = ellipse(x, y, radius - width, radius - width, corners)
    return np.concatenate([outer, outer[:1], inner[:1], inner[::-1]])


def blobs(
    rng: np.random.Generator, centers: np.ndarray, radii: np.ndarray, roughness: float = 0.2, corners: int = 14
) -> np.ndarray:
    """Return uneven discs; each contains a disc of `(1 - roughness) * cos(pi / corners)` times its radius."""
    angles = np.arange(corners) * (2 * np.pi / corners)
    lengths = radii[:, None] * rng.uniform(1 - roughness, 1 + roughness, (len(centers), corners))
    return centers[:, None] + lengths[..., None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def directions(angles: np.ndarray) -> np.ndarray:
    """Return unit vectors `(..., 2)` of angles."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def limbs(
    starts: np.ndarray, ends: np.ndarray, start_widths: np.ndarray | float, end_widths: np.ndarray | float
) -> np.ndarray:
    """Return straight bars `(count, 4, 2)` between points `(count, 2)`."""
    along = ends - starts
    length = np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) / length / 2
    first = across * np.broadcast_to(start_widths, len(starts))[:, None]
    last = across * np.broadcast_to(end_widths, len(starts))[:, None]
    return np.stack([starts + first, ends + last, ends - last, starts - first], axis=1)


def ribbons(points: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Return bands `(count, 2 * steps, 2)` along lines `(count, steps, 2)`; widths broadcast to `(count, steps)`."""
    along = np.gradient(points, axis=1)
    length = np.maximum(np.linalg.norm(along, axis=2, keepdims=True), 1e-12)
    across = np.stack([-along[..., 1], along[..., 0]], axis=2) / length
    across *= np.broadcast_to(widths, points.shape[:2])[..., None] / 2
    return np.concatenate([points + across, (points - across)[:, ::-1]], axis=1)


def leaves(bases: np.ndarray, angles: np.ndarray, lengths: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Return pointed ovals `(count, 6, 2)` that start at the bases."""
    outline = np.array([[0, 0], [0.3, 0.5], [0.65, 0.42], [1, 0], [0.65, -0.42], [0.3, -0.5]])
    along = directions(angles)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    spine = (lengths[:, None] * outline[:, 0])[..., None] * along[:, None]
    return bases[:, None] + spine + (widths[:, None] * outline[:, 1])[..., None] * across[:, None]


def polyline_shapes(points: np.ndarray, width: float) -> np.ndarray:
    """Return the bars of a line through points `(count, 2)`."""
    return limbs(points[:-1], points[1:], width, width)
