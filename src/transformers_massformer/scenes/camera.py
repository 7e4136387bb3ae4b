"""Geometry and light of a scene: a camera over flat ground, and the local frames of objects on it."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from .drawing import Drawing, limbs
from .noise import Grain


@dataclass(frozen=True)
class Camera:
    """Level camera; `horizon` and `focal` are in picture heights, `height` above the ground in metres."""

    aspect: float
    horizon: float
    focal: float
    height: float

    def project(self, x: np.ndarray | float, up: np.ndarray | float, depth: np.ndarray | float) -> np.ndarray:
        """Project metres to the right of the axis, above the ground and ahead to picture coordinates `(..., 2)`."""
        scale = self.focal / np.asarray(depth, float)
        return np.stack(
            np.broadcast_arrays(self.aspect / 2 + scale * x, self.horizon + scale * (self.height - np.asarray(up))),
            axis=-1,
        )

    def depth(self, y: np.ndarray) -> np.ndarray:
        """Return the distance in metres of the ground seen at y; very large at and above the horizon."""
        return self.focal * self.height / np.maximum(y - self.horizon, 1e-5)

    def half_width(self, depth: float) -> float:
        """Return the metres from the axis to the side of the picture at a depth."""
        return self.aspect / 2 * depth / self.focal


@dataclass(frozen=True)
class Light:
    """Position of the sun (-1 left, 1 right), and colours of the sky, the haze and sunlight."""

    sun: float
    sky_top: np.ndarray
    sky_low: np.ndarray
    warmth: np.ndarray
    reach: float

    def haze(self, colors: np.ndarray, depth: np.ndarray | float) -> np.ndarray:
        """Blend colours with haze according to their depth."""
        share = 1 - np.exp(-np.asarray(depth) / self.reach)
        return colors + share * (self.sky_low * 0.96 - colors)

    def sunlit(self, colors: np.ndarray) -> np.ndarray:
        """Tint colours with sunlight."""
        return colors * (0.8 + 0.2 * self.warmth / 255)


@dataclass(frozen=True)
class Site:
    """Drawing in which points are given in metres in space; `pixel` is the height of a pixel in picture heights."""

    drawing: Drawing
    camera: Camera
    light: Light
    grain: Grain
    pixel: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project points `(..., 3)`: x to the right, up, and depth."""
        return self.camera.project(points[..., 0], points[..., 1], np.maximum(points[..., 2], 0.3))

    def fill(self, points: np.ndarray, colors: ArrayLike, code: int | None, opacity: float = 1.0):
        """Draw polygons `(count, corners, 3)` or `(corners, 3)` in metres."""
        points = points if points.ndim == 3 else points[None]
        depths = points[..., 2].mean(1, keepdims=True)
        self.drawing.fill(self.project(points), self.light.haze(np.asarray(colors, float), depths), code, opacity)

    def bars(self, starts: np.ndarray, ends: np.ndarray, width: float, colors: ArrayLike, code: int | None):
        """Draw straight bars between points `(count, 3)`, of a width in metres but at least 0.7 pixels."""
        depths = np.stack([starts[:, 2], ends[:, 2]])
        first, last = np.maximum(width * self.camera.focal / np.maximum(depths, 0.3), 0.7 * self.pixel)
        shapes = limbs(self.project(starts), self.project(ends), first, last)
        self.drawing.fill(shapes, self.light.haze(np.asarray(colors, float), depths.mean(0)[:, None]), code)


@dataclass(frozen=True)
class Frame:
    """Local frame of an object: draws in metres, x to the right and y up from its foot; `pixel` is in metres."""

    drawing: Drawing
    light: Light
    foot: np.ndarray
    scale: float
    depth: float
    pixel: float

    @classmethod
    def at(cls, site: Site, x: float, depth: float) -> "Frame":
        """Return the frame of an object on the ground."""
        scale = site.camera.focal / depth
        return cls(site.drawing, site.light, site.camera.project(x, 0.0, depth), scale, depth, site.pixel / scale)

    def moved(self, x: float, y: float) -> "Frame":
        """Return the frame of a part with another foot."""
        return replace(self, foot=self.foot + self.scale * np.array([x, -y]))

    def fill(self, polygons: np.ndarray, colors: ArrayLike, code: int | None, opacity: float = 1.0):
        """Draw polygons in metres, in colours that haze is added to."""
        placed = self.foot + self.scale * polygons * np.array([1, -1])
        self.drawing.fill(placed, self.light.haze(np.asarray(colors, float), self.depth), code, opacity)

    def at_least(self, metres: float, pixels: float) -> float:
        """Return a size in metres, enlarged to a minimum in pixels if necessary."""
        return max(metres, pixels * self.pixel)
