"""How a scene is seen: a camera over flat ground, its light, and the frames of what stands there."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from .drawing import Drawing, limbs
from .noise import Grain


@dataclass(frozen=True)
class Camera:
    """A level camera; `horizon` and `focal` are in picture heights, `height` above the ground in metres."""

    aspect: float
    horizon: float
    focal: float
    height: float

    def project(self, x: np.ndarray | float, up: np.ndarray | float, depth: np.ndarray | float) -> np.ndarray:
        """Metres to the right of the axis, above the ground and ahead, to picture coordinates `(..., 2)`."""
        scale = self.focal / np.asarray(depth, float)
        return np.stack(
            np.broadcast_arrays(self.aspect / 2 + scale * x, self.horizon + scale * (self.height - np.asarray(up))),
            axis=-1,
        )

    def depth(self, y: np.ndarray) -> np.ndarray:
        """How far ahead the ground is that is seen at y, in metres; far away at and above the horizon."""
        return self.focal * self.height / np.maximum(y - self.horizon, 1e-5)

    def half_width(self, depth: float) -> float:
        """Metres from the axis to the picture's side."""
        return self.aspect / 2 * depth / self.focal


@dataclass(frozen=True)
class Light:
    """Where the sun is (-1 left, 1 right), and the colours of the sky, of the haze and of sunlight."""

    sun: float
    sky_top: np.ndarray
    sky_low: np.ndarray
    warmth: np.ndarray
    reach: float

    def haze(self, colors: np.ndarray, depth: np.ndarray | float) -> np.ndarray:
        """Colours as seen through the air."""
        share = 1 - np.exp(-np.asarray(depth) / self.reach)
        return colors + share * (self.sky_low * 0.96 - colors)

    def sunlit(self, colors: np.ndarray) -> np.ndarray:
        return colors * (0.8 + 0.2 * self.warmth / 255)


@dataclass(frozen=True)
class Site:
    """A drawing of a place: what turns metres in space to picture coordinates; `pixel` is a pixel's height there."""

    drawing: Drawing
    camera: Camera
    light: Light
    grain: Grain
    pixel: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points `(..., 3)`: x to the right, up, and depth."""
        return self.camera.project(points[..., 0], points[..., 1], np.maximum(points[..., 2], 0.3))

    def fill(self, points: np.ndarray, colors: ArrayLike, code: int | None, opacity: float = 1.0):
        """Polygons `(count, corners, 3)` or `(corners, 3)` in metres."""
        points = points if points.ndim == 3 else points[None]
        depths = points[..., 2].mean(1, keepdims=True)
        self.drawing.fill(self.project(points), self.light.haze(np.asarray(colors, float), depths), code, opacity)

    def bars(self, starts: np.ndarray, ends: np.ndarray, width: float, colors: ArrayLike, code: int | None):
        """Straight bars of a width in metres, but no thinner than most of a pixel, between points `(count, 3)`."""
        depths = np.stack([starts[:, 2], ends[:, 2]])
        first, last = np.maximum(width * self.camera.focal / np.maximum(depths, 0.3), 0.7 * self.pixel)
        shapes = limbs(self.project(starts), self.project(ends), first, last)
        self.drawing.fill(shapes, self.light.haze(np.asarray(colors, float), depths.mean(0)[:, None]), code)


@dataclass(frozen=True)
class Frame:
    """Where one element stands: it draws in metres, x to the right and y up from its foot; `pixel` is in metres."""

    drawing: Drawing
    light: Light
    foot: np.ndarray
    scale: float
    depth: float
    pixel: float

    @classmethod
    def at(cls, site: Site, x: float, depth: float) -> "Frame":
        """The frame of what stands on the ground."""
        scale = site.camera.focal / depth
        return cls(site.drawing, site.light, site.camera.project(x, 0.0, depth), scale, depth, site.pixel / scale)

    def moved(self, x: float, y: float) -> "Frame":
        """The frame of a part whose foot is elsewhere."""
        return replace(self, foot=self.foot + self.scale * np.array([x, -y]))

    def fill(self, polygons: np.ndarray, colors: ArrayLike, code: int | None, opacity: float = 1.0):
        """Draws polygons in metres in colours that the haze is added to."""
        placed = self.foot + self.scale * polygons * np.array([1, -1])
        self.drawing.fill(placed, self.light.haze(np.asarray(colors, float), self.depth), code, opacity)

    def at_least(self, metres: float, pixels: float) -> float:
        """A size, but no smaller than so many pixels."""
        return max(metres, pixels * self.pixel)
