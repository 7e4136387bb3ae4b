"""Draw buildings: houses with windows and railings, a skyline, lattice cranes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .camera import Site
from .drawing import Code, Surface
from .textures import wall


WALLS = np.array(
    [
        [214, 202, 182],
        [196, 164, 132],
        [168, 108, 84],
        [188, 186, 182],
        [226, 218, 206],
        [152, 142, 134],
        [206, 178, 120],
    ]
)
ROOFS = np.array([[128, 70, 56], [92, 84, 82], [74, 78, 88], [146, 88, 62]])


@dataclass(frozen=True)
class Facade:
    """Vertical rectangle in space: a corner on the ground, the direction along the wall, its length and height."""

    corner: np.ndarray
    along: np.ndarray
    length: float
    height: float

    def points(self, u: ArrayLike, v: ArrayLike) -> np.ndarray:
        """Convert positions on the wall, in metres along it and up, to points in space."""
        flat = self.corner + np.asarray(u)[..., None] * self.along
        return flat + np.asarray(v)[..., None] * np.array([0, 1.0, 0])

    def boxes(self, left: ArrayLike, low: ArrayLike, right: ArrayLike, high: ArrayLike) -> np.ndarray:
        """Return rectangles on the wall, `(count, 4, 3)`."""
        corners = np.atleast_1d(left, low, right, high)
        left, low, right, high = np.broadcast_arrays(*corners)
        return self.points(np.stack([left, right, right, left], 1), np.stack([low, low, high, high], 1))


def draw_wall(rng: np.random.Generator, site: Site, facade: Facade, color: np.ndarray, brightness: float):
    """Draw the plain wall of a facade."""
    depth = facade.corner[2] + facade.along[2] * facade.length / 2
    shader = wall(site.grain.broad(rng), site.light.haze(color, depth), depth / site.camera.focal, brightness)
    outline = facade.boxes(0.0, 0.0, facade.length, facade.height)[0]
    site.drawing.items.append(Surface(site.project(outline), shader, Code.BUILDING))


def draw_windows(rng: np.random.Generator, site: Site, facade: Facade, color: np.ndarray, balconies: bool):
    """Draw rows of windows with frames, sills and crossbars; glass mirrors the sky, some is lit or curtained."""
    floor, bay = rng.uniform(2.9, 3.5), rng.uniform(2.0, 3.2)
    floors, bays = int((facade.height - 0.5) / floor), int((facade.length - 0.6) / bay)
    if floors < 1 or bays < 1:
        return
    margin = (facade.length - bays * bay) / 2
    width, height = bay * rng.uniform(0.42, 0.62), floor * rng.uniform(0.45, 0.6)
    low, left = np.meshgrid(np.arange(floors) * floor + 0.9, margin + np.arange(bays) * bay + (bay - width) / 2)
    left, low = left.ravel(), low.ravel()
    count = len(left)
    site.fill(facade.boxes(left - 0.1, low - 0.12, left + width + 0.1, low + height + 0.1), color * 1.14, None)
    mirror = 0.25 + 0.45 * rng.uniform(0, 1, (count, 1)) * np.clip(low / facade.height + 0.3, 0, 1)[:, None]
    glass = np.array([44, 52, 60]) + mirror * (site.light.sky_low - np.array([44, 52, 60]))
    warm = rng.random((count, 1)) < 0.08
    site.fill(facade.boxes(left, low, left + width, low + height), np.where(warm, [236, 206, 150], glass), None)
    site.fill(facade.boxes(left, low + height * 0.55, left + width, low + height), glass * 0.8, None, 0.5)
    curtain = rng.random(count) < 0.35
    share = rng.uniform(0.15, 0.45, curtain.sum()) * width
    site.fill(
        facade.boxes(left[curtain], low[curtain], left[curtain] + share, low[curtain] + height), [204, 198, 188], None
    )
    bar = facade.boxes(left + width / 2 - 0.03, low, left + width / 2 + 0.03, low + height)
    cross = facade.boxes(left, low + height * 0.62, left + width, low + height * 0.66)
    site.fill(np.concatenate([bar, cross]), [232, 230, 224], None)
    site.fill(facade.boxes(left - 0.15, low - 0.2, left + width + 0.15, low - 0.1), color * 0.7, None)
    bands = np.arange(1, floors + 1) * floor
    site.fill(facade.boxes(0.0, bands - 0.1, facade.length, bands), color * 0.86, None)
    if balconies:
        chosen = (rng.random(count) < 0.3) & (low > floor)
        draw_balconies(site, facade, left[chosen] - 0.3, low[chosen] - 0.1, width + 0.6)


def draw_balconies(site: Site, facade: Facade, left: np.ndarray, low: np.ndarray, width: float):
    """Draw balconies with railings."""
    site.fill(facade.boxes(left, low - 0.18, left + width, low), [120, 116, 112], None)
    posts = left[:, None] + np.linspace(0, width, 13)
    starts = facade.points(posts, np.broadcast_to(low[:, None], posts.shape)).reshape(-1, 3)
    site.bars(starts, starts + [0, 0.95, 0], 0.02, [52, 52, 56], None)
    tops = facade.points(left, low + 0.95)
    site.bars(tops, tops + width * facade.along, 0.05, [52, 52, 56], None)


def railing(
    site: Site, start: np.ndarray, end: np.ndarray, height: float, spacing: float, color: list[float], code: int
):
    """Draw balusters, two rails and posts between two points in space."""
    length = float(np.linalg.norm(end - start))
    share = np.linspace(0, 1, max(2, int(length / spacing) + 1))[:, None]
    feet = start + share * (end - start)
    up = np.array([0, height, 0])
    site.bars(feet, feet + up, 0.018, color, code)
    site.bars(feet[::10], feet[::10] + up * 1.06, 0.05, color, code)
    rails = np.stack([up * 0.12, up])
    # In pieces, because distant ones are thinner.
    pieces = np.linspace(0, 1, 9)[:, None, None]
    points = start + pieces * (end - start) + rails
    site.bars(points[:-1].reshape(-1, 3), points[1:].reshape(-1, 3), 0.045, color, code)


def house(rng: np.random.Generator, site: Site, left: float, right: float, depth: float, length: float, height: float):
    """Draw a house with its front towards the camera, and the visible side."""
    color = site.light.sunlit(WALLS[rng.integers(len(WALLS))] * rng.uniform(0.85, 1.08))
    front = Facade(np.array([left, 0, depth]), np.array([1.0, 0, 0]), right - left, height)
    inner = right if right < 0 else left if left > 0 else None
    balconies = rng.random() < 0.6
    gabled = height < 11 and rng.random() < 0.6
    if gabled:
        draw_gable(rng, site, front, length, color, inner)
    else:
        draw_flat_roof(rng, site, front, length)
    if inner is not None:
        side = Facade(np.array([inner, 0, depth + length]), np.array([0, 0, -1.0]), length, height)
        lit = 1.04 if (inner < 0) == (site.light.sun > 0) else 0.66
        draw_wall(rng, site, side, color, lit)
        draw_windows(rng, site, side, color * lit, balconies)
    draw_wall(rng, site, front, color, 0.92)
    draw_windows(rng, site, front, color * 0.92, balconies)
    door = facade_door(front)
    site.fill(door, color * 0.35, None)
    site.fill(front.boxes(0.0, 0.0, front.length, 0.45), color * 0.62, None)
    if not gabled:
        site.fill(front.boxes(-0.12, height - 0.3, front.length + 0.12, height + 0.12), color * 0.84, Code.BUILDING)


def facade_door(facade: Facade) -> np.ndarray:
    """Return the rectangle of a door in the middle of a facade."""
    middle = facade.length * 0.5
    return facade.boxes(middle - 0.55, 0.0, middle + 0.55, 2.15)


def draw_flat_roof(rng: np.random.Generator, site: Site, front: Facade, length: float):
    """Draw a railing around the roof, antennas and a chimney, all against the sky."""
    top = np.array([0, front.height, 0])
    corners = front.corner + top, front.corner + front.length * front.along + top
    back = np.array([0, 0, length * 0.6])
    for start, end in (
        (corners[0] + back, corners[1] + back),
        (corners[0] + back, corners[0]),
        (corners[1] + back, corners[1]),
    ):
        railing(site, start, end, 1.05, 0.22, [70, 70, 74], Code.BUILDING)
    for _ in range(rng.integers(1, 4)):
        foot = corners[0] + front.along * rng.uniform(0.1, 0.9) * front.length + [0, 0, length * 0.3]
        draw_antenna(rng, site, foot, rng.uniform(1.5, 3.5))
    stack = Facade(corners[0] * [1, 0, 1] + [front.length * rng.uniform(0.2, 0.7), front.height, length * 0.4],
                   front.along, rng.uniform(1, 2.6), rng.uniform(0.9, 2.2))  # fmt: skip
    site.fill(stack.boxes(0.0, -0.3, stack.length, stack.height), [132, 122, 116], Code.BUILDING)
    site.fill(stack.boxes(-0.06, stack.height - 0.16, stack.length + 0.06, stack.height), [96, 90, 86], Code.BUILDING)
    railing(site, corners[0], corners[1], 1.05, 0.16, [58, 58, 62], Code.BUILDING)


def draw_antenna(rng: np.random.Generator, site: Site, foot: np.ndarray, height: float):
    """Draw an antenna with crossbars."""
    heights = height * np.linspace(0.55, 1, 6)[:, None] * np.array([0, 1.0, 0])
    reach = rng.uniform(0.25, 0.6) * np.array([1.0, 0, 0])
    starts = np.concatenate([foot[None], foot + heights - reach])
    ends = np.concatenate([foot[None] + [0, height, 0], foot + heights + reach])
    site.bars(starts, ends, 0.03, [64, 64, 68], Code.BUILDING)


def draw_gable(
    rng: np.random.Generator, site: Site, front: Facade, length: float, color: np.ndarray, inner: float | None
):
    """Draw a pitched roof whose ridge runs away from the camera, with rows of tiles and a chimney."""
    rise, roof = front.length * rng.uniform(0.3, 0.45), ROOFS[rng.integers(len(ROOFS))] * rng.uniform(0.9, 1.1)
    ridge = front.points(np.array(front.length / 2), np.array(front.height + rise))
    back = np.array([0, 0, length])
    overhang = 0.35
    for u in (-overhang, front.length + overhang):
        eave = front.points(np.array(u), np.array(front.height - 0.2))
        slope = np.stack([eave - [0, 0, overhang], ridge - [0, 0, overhang], ridge + back, eave + back])
        site.fill(slope, roof * (1.0 if (u < 0) == (site.light.sun < 0) else 0.72), Code.BUILDING)
        rows = np.linspace(0.04, 0.96, 26)[:, None]
        starts = slope[0] + rows * (slope[1] - slope[0])
        site.bars(starts, starts + back, 0.03, roof * 0.62, None)
    chimney = Facade(ridge + [front.length * 0.12, -rise * 0.6, length * 0.35], front.along, 0.8, rise * 0.6 + 1.0)
    site.fill(chimney.boxes(0.0, 0.0, chimney.length, chimney.height), [140, 84, 66], Code.BUILDING)
    site.fill(chimney.boxes(-0.08, chimney.height - 0.15, 0.88, chimney.height), [84, 74, 70], Code.BUILDING)
    eaves = front.points(np.array([0.0, front.length]), np.array([front.height, front.height]))
    site.fill(np.stack([eaves[0], eaves[1], ridge]), color * 0.9, Code.BUILDING)
    site.bars(np.stack([eaves[0], eaves[1]]), np.stack([ridge, ridge]), 0.22, [222, 216, 204], Code.BUILDING)


def skyline(rng: np.random.Generator, site: Site, depth: float):
    """Draw distant high-rises as boxes with rows of windows."""
    half = site.camera.half_width(depth)
    center = rng.uniform(-0.6, 0.6) * half
    for index in np.argsort(rng.random(16)):
        # Some overlap others.
        distance = depth * (1.3 - 0.02 * index)
        width = rng.uniform(10, 26)
        left = center + rng.normal(0, 0.34) * half
        height = rng.uniform(18, 62) * np.exp(-(((left - center) / half) ** 2) * 2)
        facade = Facade(np.array([left, 0, distance]), np.array([1.0, 0, 0]), width, height)
        color = site.light.sunlit(WALLS[rng.integers(len(WALLS))] * rng.uniform(0.6, 0.95))
        site.fill(facade.boxes(0.0, 0.0, width, height)[0], color, Code.BUILDING)
        shade = facade.boxes(
            0.0 if site.light.sun > 0 else width * 0.6, 0.0, width * 0.4 if site.light.sun > 0 else width, height
        )
        site.fill(shade, color * 0.78, None)
        low, start = np.meshgrid(np.arange(1.5, height - 2, 3.6), np.arange(0.8, width - 1.8, 2.6))
        if low.size:
            shades = color * rng.uniform(0.5, 0.95, (low.size, 1))
            site.fill(facade.boxes(start.ravel(), low.ravel(), start.ravel() + 1.5, low.ravel() + 1.9), shades, None)
        if rng.random() < 0.4:
            mast = facade.points(np.array([width / 2]), np.array([height]))
            site.bars(mast, mast + [0, rng.uniform(4, 14), 0], 0.5, color * 0.5, Code.BUILDING)


def lattice(
    site: Site, start: np.ndarray, end: np.ndarray, across: np.ndarray, sections: int, width: float, color: np.ndarray
):
    """Draw a lattice girder: two chords with rungs and diagonals between them."""
    share = np.linspace(0, 1, sections + 1)[:, None]
    low = start + share * (end - start)
    high = low + across
    pairs = [(low[:-1], low[1:]), (high[:-1], high[1:]), (low, high), (low[:-1], high[1:]), (high[:-1], low[1:])]
    for index, (first, last) in enumerate(pairs):
        site.bars(first, last, width * (1.6 if index < 2 else 0.8), color, Code.BUILDING)


def crane(rng: np.random.Generator, site: Site, x: float, depth: float):
    """Draw a tower crane: mast, jib, counterweight, stays, cabin and a hook on its ropes."""
    height, jib, color = rng.uniform(26, 44), rng.uniform(24, 40), np.array([214, 164, 40]) * rng.uniform(0.8, 1.05)
    side = rng.choice([-1.0, 1.0])
    foot = np.array([x, 0, depth])
    top = foot + [0, height, 0]
    right = np.array([side, 0, 0])
    lattice(site, foot, top, np.array([1.6, 0, 0]), int(height / 1.7), 0.13, color)
    lattice(site, top, top + right * jib, np.array([0, 1.3, 0]), int(jib / 1.4), 0.1, color)
    lattice(site, top, top - right * jib * 0.33, np.array([0, 0.9, 0]), 7, 0.1, color)
    peak = top + [0.8, 6.5, 0]
    lattice(site, top, peak, np.array([0.9, 0, 0]), 5, 0.1, color)
    ends = np.stack(
        [top + right * jib * 0.5 + [0, 1.3, 0], top + right * jib * 0.9 + [0, 1.3, 0], top - right * jib * 0.3]
    )
    site.bars(np.repeat(peak[None], 3, axis=0), ends, 0.09, color * 0.5, Code.BUILDING)
    weight = Facade(top - right * jib * 0.33 - [1.2, 2.4, 0], np.array([1.0, 0, 0]), 2.4, 2.4)
    site.fill(weight.boxes(0.0, 0.0, 2.4, 2.4), [110, 108, 104], Code.BUILDING)
    cabin = Facade(top + [1.5 * side - 0.8, -1.8, 0], np.array([1.0, 0, 0]), 1.6, 1.9)
    site.fill(cabin.boxes(0.0, 0.0, 1.6, 1.9), color * 0.8, Code.BUILDING)
    site.fill(cabin.boxes(0.3, 0.7, 1.3, 1.6), [58, 70, 80], None)
    hook = top + right * jib * rng.uniform(0.4, 0.85)
    drop = np.array([0, -rng.uniform(6, 0.6 * height), 0])
    for shift in (-0.25, 0.25):
        site.bars((hook + [shift, 0, 0])[None], (hook + [shift, 0, 0] + drop)[None], 0.05, [60, 58, 56], Code.BUILDING)
    block = Facade(hook + drop - [0.4, 0.8, 0], np.array([1.0, 0, 0]), 0.8, 0.8)
    site.fill(block.boxes(0.0, 0.0, 0.8, 0.8), color * 0.7, Code.BUILDING)
