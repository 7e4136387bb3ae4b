"""Shade large surfaces: sky with clouds, ground in perspective, water with reflections, walls."""

from collections.abc import Callable

import numpy as np

from .camera import Site
from .drawing import Region
from .noise import Noise, resize


Shader = Callable[[Region], np.ndarray]


def coarse(region: Region, step: int, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Evaluate a smooth function of y and x on every `step`th pixel, and enlarge the result."""
    height, width = len(region.y), region.x.shape[1]
    rows, columns = max(2, -(-height // step)), max(2, -(-width // step))
    y = np.linspace(region.y[0, 0], region.y[-1, 0], rows, dtype=np.float32)[:, None]
    x = np.linspace(region.x[0, 0], region.x[0, -1], columns, dtype=np.float32)[None]
    values = function(y, x)
    return np.stack([resize(channel, height, width) for channel in np.moveaxis(values, -1, 0)], axis=-1)


def sky(rng: np.random.Generator, site: Site) -> Shader:
    """Return a shader of the sky: a gradient, a glow around the sun, and clouds that flatten towards the horizon."""
    camera, light, noise = site.camera, site.light, site.grain.broad(rng)
    cover, stretch = rng.uniform(-0.5, 0.9), rng.uniform(0.12, 0.22)

    def colors(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        up = np.clip((camera.horizon - y) / camera.horizon, 0, 1)
        base = light.sky_low + (light.sky_top - light.sky_low) * (up**0.7)[..., None]
        glow = np.exp(-((x / camera.aspect - 0.5 + 0.5 * light.sun) ** 2) * 5 - up**2 * 4)
        base = base + glow[..., None] * (light.warmth - base) * 0.45
        # A layer of clouds at constant height, whose distance grows towards the horizon.
        distance = 1 / (up + 0.12)
        u, v = (x - camera.aspect / 2) * distance * stretch, distance * stretch * 1.6
        density = noise(u, v) + 0.35 * noise(4 * u, 4 * v) + cover
        toward_sun = noise(u + 0.012 * light.sun, v + 0.008) + 0.35 * noise(4 * u + 0.048 * light.sun, 4 * v) + cover
        amount = np.clip(density * 0.9, 0, 1) ** 1.4 * np.clip(up * 5, 0, 1)
        lit = np.clip(0.86 + 0.16 * (density - toward_sun) * 2 - 0.08 * np.clip(density, 0, 2), 0.55, 1.04)
        cloud = lit[..., None] * np.array([252, 250, 248], np.float32) * (0.75 + 0.25 * light.warmth / 255)
        return base + (amount * 0.92)[..., None] * (cloud - base)

    return lambda region: coarse(region, 3, colors)


def ground(rng: np.random.Generator, site: Site, color: np.ndarray, grain: float) -> Shader:
    """Return a shader of soil, gravel, sand or paving in perspective; `grain` is the strength of its texture."""
    camera, light, broad, fine = site.camera, site.light, site.grain.broad(rng), site.grain.fine(rng)

    def colors(region: Region) -> np.ndarray:
        depth = np.maximum(camera.depth(region.y), 0.5)
        across = (region.x - camera.aspect / 2) * depth / camera.focal
        tint = 1 + 0.10 * broad(across / 40, depth / 40)
        # Detail smaller than a few pixels is left out, because it would flicker far away.
        strength = grain * np.clip(7 / depth, 0, 1)
        tint += strength * fine(across / 3.5, depth / 3.5) + 0.3 * strength * broad(across / 2, depth / 2)
        lit = np.maximum(tint, 0.35)[..., None] * color * (1 + 0.10 * (region.y[..., None] - camera.horizon))
        return light.haze(lit, depth[..., None])

    return colors


def water(rng: np.random.Generator, site: Site, shore: float) -> Shader:
    """Return a shader of water: the picture above `shore` (y of the far bank) mirrored in ripples, darker nearby."""
    camera, light, noise = site.camera, site.light, site.grain.fine(rng)
    deep = (np.array([38, 66, 72]) * rng.uniform(0.7, 1.2) + rng.uniform(-12, 12, 3)).astype(np.float32)
    swell = rng.uniform(0.5, 1.2)

    def colors(region: Region) -> np.ndarray:
        depth = np.maximum(camera.depth(region.y), 0.5)
        across = (region.x - camera.aspect / 2) * depth / camera.focal
        ripple = noise(across / 58, depth / 24) + 0.5 * noise(across / 16, depth / 6)
        below = region.y - shore
        height, width, _ = region.picture.shape
        offset = swell * ripple * (0.0016 + 0.035 * np.clip(below, 0, 1))
        source_y = np.clip((shore - below + offset) * height, 0, max(shore * height - 1, 0)).astype(int)
        source_x = np.clip((region.x + 0.25 * offset) * height, 0, width - 1).astype(int)
        mirrored = region.picture[source_y, source_x].astype(np.float32)
        reflects = np.clip(0.86 - 1.0 * below / (1 - camera.horizon), 0.35, 0.86)[..., None]
        shimmer = np.clip(ripple - 1.1, 0, 2)[..., None] * 16
        return light.haze(
            reflects * mirrored + (1 - reflects) * (deep + 14 * ripple[..., None]) + shimmer, depth[..., None] / 2
        )

    return colors


def wall(noise: Noise, color: np.ndarray, metres: float, brightness: float) -> Shader:
    """Return a shader of a plastered wall with stains, darker at its foot; `metres` is those per picture height."""

    def colors(region: Region) -> np.ndarray:
        stains = noise(region.x * metres / 17, region.y * metres / 31)
        height = region.y[-1, 0] - region.y[0, 0] + 1e-6
        gradient = brightness * (1 - 0.14 * (region.y - region.y[0, 0]) / height)
        return (gradient * (1 + 0.028 * stains))[..., None] * color.astype(np.float32)

    return colors


def meadow(rng: np.random.Generator, site: Site, color: np.ndarray) -> Shader:
    """Return a shader of grass: patches of colour, and streaks that get finer with distance."""
    camera, light, broad, fine = site.camera, site.light, site.grain.broad(rng), site.grain.fine(rng)
    other = color * np.array([1.22, 1.06, 0.8], np.float32)

    def colors(region: Region) -> np.ndarray:
        depth = np.maximum(camera.depth(region.y), 0.5)
        across = (region.x - camera.aspect / 2) * depth / camera.focal
        patches = np.clip(0.5 + 0.35 * broad(across / 30, depth / 30), 0, 1)[..., None]
        tint = 1 + 0.17 * np.clip(8 / depth, 0.25, 1) * fine(across / 1.9, depth / 4.5)
        return light.haze(tint[..., None] * (color + patches * (other - color)), depth[..., None])

    return colors
