"""Draw plants: branching trees with leaves, conifers, bushes, grass and wooded hills."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import KDTree

from .camera import Frame, Site
from .drawing import Code, blobs, directions, leaves, limbs, ribbons


CORE_ROUGHNESS, CORE_CORNERS = 0.2, 14
BARK = np.array([92, 76, 60])


@dataclass(frozen=True)
class Branches:
    """Segments of a tree in metres, trunk first, and the points where leaves grow."""

    starts: np.ndarray
    ends: np.ndarray
    start_widths: np.ndarray
    end_widths: np.ndarray
    tips: np.ndarray

    def scaled(self, scale: float) -> "Branches":
        """Return scaled branches of the same widths."""
        return replace(self, starts=self.starts * scale, ends=self.ends * scale, tips=self.tips * scale)


def grow(
    rng: np.random.Generator, length: float, width: float, angle: float, levels: int, spread: float, lift: float
) -> Branches:
    """Grow branches recursively from the origin; `lift` bends twigs up (or down, if negative) at each level."""
    start, angles = np.zeros((1, 2)), np.array([angle])
    lengths, widths = np.array([length]), np.array([width])
    levels_drawn, tips = [], []
    for level in range(levels):
        end = start + lengths[:, None] * directions(angles)
        narrowed = widths * 0.72
        levels_drawn.append((start, end, widths, narrowed))
        if level >= levels - 2:
            tips.append(end)
        # One child continues from the end, the rest branch off on the way there.
        children = 3 if level else 4
        along = np.concatenate([np.ones((len(start), 1)), rng.uniform(0.45, 1.0, (len(start), children - 1))], axis=1)
        starts = start[:, None] + along[..., None] * (end - start)[:, None]
        fan = np.linspace(-1, 1, children)[rng.permuted(np.tile(np.arange(children), (len(start), 1)), axis=1)]
        turned = angles[:, None] + spread * fan + rng.normal(0, 0.22, fan.shape)
        turned += lift * np.cos(turned)
        start, angles = starts.reshape(-1, 2), turned.ravel()
        lengths = (lengths[:, None] * rng.uniform(0.6, 0.84, fan.shape)).ravel()
        widths = (narrowed[:, None] * (1 - 0.35 * rng.uniform(0, 1, fan.shape))).ravel()
    starts, ends, first, last = (np.concatenate(parts) for parts in zip(*levels_drawn, strict=True))
    return Branches(starts, ends, first, last, np.concatenate(tips))


def draw_branches(frame: Frame, branches: Branches, color: np.ndarray):
    """Draw segments with a lit side, and knots where they meet."""
    least = frame.at_least(0, 0.6)
    first, last = np.maximum(branches.start_widths, least), np.maximum(branches.end_widths, least)
    frame.fill(limbs(branches.starts, branches.ends, first, last), color, Code.VEGETATION)
    thick = last > 3 * frame.pixel
    angles = np.arange(10) * (2 * np.pi / 10)
    knots = branches.ends[thick][:, None] + last[thick][:, None, None] / 2 * directions(angles)
    frame.fill(knots, color, Code.VEGETATION)
    shift = np.array([frame.light.sun * 0.22, 0])
    starts = branches.starts[thick] + shift * first[thick][:, None]
    ends = branches.ends[thick] + shift * last[thick][:, None]
    frame.fill(limbs(starts, ends, first[thick] * 0.4, last[thick] * 0.4), color * 1.35, None)


def draw_leaves(
    rng: np.random.Generator,
    frame: Frame,
    tips: np.ndarray,
    radius: float,
    leaf: float,
    color: np.ndarray,
    density: float,
):
    """Draw clusters of leaves around the tips, darker inside and away from the sun, over cores without gaps."""
    length = frame.at_least(leaf, 4.5)
    radii = radius * rng.uniform(0.7, 1.25, len(tips))
    core_radii = 0.4 * radii * min(1.0, density)
    cores = blobs(rng, tips, core_radii, CORE_ROUGHNESS, CORE_CORNERS)
    low, high = tips.min(0) - radius, tips.max(0) + radius
    frame.fill(cores, color * 0.5, Code.VEGETATION)

    counts = np.ceil(density * 1.15 * radii**2 / (0.45 * length**2)).astype(int)
    owner = np.repeat(np.arange(len(tips)), counts)
    reach = radii[owner] * np.sqrt(rng.uniform(0.0, 1.3, len(owner)))
    offsets = reach[:, None] * directions(rng.uniform(0, 2 * np.pi, len(owner)))
    bases = tips[owner] + offsets
    lengths = length * rng.uniform(0.65, 1.25, len(owner))
    shapes = leaves(
        bases, rng.uniform(0, 2 * np.pi, len(owner)), lengths, lengths * rng.uniform(0.38, 0.6, len(owner))
    )

    outward = offsets / radii[owner][:, None]
    light = 0.72 + 0.16 * outward[:, 1] + 0.12 * frame.light.sun * outward[:, 0]
    place = (bases - low) / np.maximum(high - low, 1e-6)
    light += 0.22 * (place[:, 1] - 0.5) + 0.16 * frame.light.sun * (place[:, 0] - 0.5)
    light += rng.normal(0, 0.10, len(owner)) + rng.normal(0, 0.06, len(tips))[owner]
    yellow = rng.normal(0, 0.05, (len(owner), 1)) * np.array([1.4, 0.6, 0.2])
    colors = frame.light.sunlit(color * (np.clip(light, 0.3, 1.35)[:, None] + yellow))
    order = np.argsort(light + rng.normal(0, 0.15, len(owner)))

    # Leaves within a core do not change the class of any sample: they only add colour.
    distance, nearest = KDTree(tips).query(bases, k=1)
    solid = core_radii[nearest] * (1 - CORE_ROUGHNESS) * np.cos(np.pi / CORE_CORNERS)
    inner = distance + lengths < solid
    frame.fill(shapes[order[inner[order]]], colors[order[inner[order]]], None)
    frame.fill(shapes[order[~inner[order]]], colors[order[~inner[order]]], Code.VEGETATION)
    draw_inner_leaves(rng, frame, tips, core_radii, 0.6 * length, color)


def draw_inner_leaves(
    rng: np.random.Generator, frame: Frame, tips: np.ndarray, core_radii: np.ndarray, length: float, color: np.ndarray
):
    """Draw small leaves in the shade, each within its core."""
    room = core_radii * (1 - CORE_ROUGHNESS) * np.cos(np.pi / CORE_CORNERS) - length
    counts = np.where(room > 0, np.ceil(0.8 * core_radii**2 / (0.45 * length**2)), 0).astype(int)
    owner = np.repeat(np.arange(len(tips)), counts)
    reach = room[owner] * np.sqrt(rng.uniform(0, 1, len(owner)))
    bases = tips[owner] + reach[:, None] * directions(rng.uniform(0, 2 * np.pi, len(owner)))
    angles, lengths = rng.uniform(0, 2 * np.pi, len(owner)), length * rng.uniform(0.7, 1, len(owner))
    shades = frame.light.sunlit(color * rng.uniform(0.5, 0.95, (len(owner), 1)))
    frame.fill(leaves(bases, angles, lengths, lengths * 0.5), shades, None)


def shadow(rng: np.random.Generator, frame: Frame, width: float, flatness: float, opacity: float = 0.13):
    """Draw dapples on the ground, away from the sun; `flatness` is height by width of a circle on the ground."""
    centers = np.stack(
        [-frame.light.sun * width * rng.uniform(-0.2, 0.9, 9), width * flatness * rng.uniform(-0.3, 0.3, 9)], axis=1
    )
    dapples = blobs(rng, centers * [1, 0], width * rng.uniform(0.18, 0.45, 9), 0.15, 24)
    dapples[..., 1] = centers[:, None, 1] + dapples[..., 1] * flatness
    for dapple in dapples:
        frame.fill(dapple, [22, 24, 34], None, opacity)


def broadleaf(rng: np.random.Generator, frame: Frame, height: float, color: np.ndarray, density: float):
    """Draw a tree with a crown; `density` is the density of its leaves, 0 in winter."""
    spread, levels = rng.uniform(0.5, 0.75), 6
    length = height * 0.27
    branches = grow(
        rng, length, height * 0.035, np.pi / 2 + rng.normal(0, 0.06), levels, spread, rng.uniform(0.02, 0.14)
    )
    scale = height / max(branches.ends[:, 1].max() * 1.06, 1e-6)
    branches = branches.scaled(scale)
    bark, foot = BARK * rng.uniform(0.7, 1.1), height * 0.03
    flare = np.array([[-foot, 0], [-foot / 1.8, foot * 1.5], [-foot / 2.2, foot * 4], [0, foot * 5]])
    frame.fill(np.concatenate([flare, (flare * [-1, 1])[::-1]]), bark, Code.VEGETATION)
    draw_branches(frame, branches, bark)
    if density > 0:
        tips = branches.tips[rng.permutation(len(branches.tips))[:330]]
        tips = tips[tips[:, 1] > height * 0.2]
        draw_leaves(rng, frame, tips, height * 0.062, height * 0.011 + 0.03, color, density)


def conifer(rng: np.random.Generator, frame: Frame, height: float, color: np.ndarray):
    """Draw a spruce: a trunk, and branches that hang in tiers with needles along them."""
    trunk = np.array([[-0.014, 0], [0.014, 0], [0.002, 1], [-0.002, 1]]) * height
    frame.fill(trunk, BARK * 0.7, Code.VEGETATION)
    count = 260
    level = rng.uniform(0.07, 0.985, count) ** 0.9
    # Branches point in all directions: their visible length is their length times the sine of a direction.
    side = np.sin(rng.uniform(-np.pi / 2, np.pi / 2, count) * rng.uniform(0.6, 1, count))
    reach = ((1 - level) ** 0.8 * 0.21 + 0.006) * height * rng.uniform(0.8, 1.08, count) * side
    hang = (1 - level) ** 0.8 * 0.21 * height * (0.45 + 0.5 * (1 - np.abs(side)))
    order = np.argsort(-np.abs(side) + 0.3 * level)
    level, side, reach, hang = level[order], side[order], reach[order], hang[order]

    def points(along: np.ndarray) -> np.ndarray:
        fall = hang[:, None] * (0.25 * along - 0.75 * along**2)
        return np.stack([reach[:, None] * along, level[:, None] * height + fall], axis=2)

    steps = np.linspace(0, 1, 6)
    body = frame.at_least(0.0035 * height, 0.6) * (1 - 0.8 * steps) * (0.4 + 2.2 * (1 - level[:, None]))
    shade = (0.62 + 0.3 * frame.light.sun * side + 0.12 * level + rng.normal(0, 0.09, count))[:, None]
    frame.fill(ribbons(points(steps), body), color * np.clip(shade * 0.6, 0.25, 0.9), Code.VEGETATION)
    needle = frame.at_least(0.011 * height, 6)
    per_branch = int(np.clip(0.75 * height / needle, 10, 70))
    along = rng.uniform(0.08, 1, (count, per_branch))
    bases = points(along).reshape(-1, 2)
    angles = np.where(reach > 0, -0.7, np.pi + 0.7).repeat(per_branch) + rng.normal(0, 0.65, len(bases))
    lengths = needle * rng.uniform(0.7, 1.7, len(bases))
    tint = np.repeat(shade[:, 0], per_branch) * rng.uniform(0.7, 1.45, len(bases))
    frame.fill(leaves(bases, angles, lengths, lengths * 0.2), color * tint[:, None], Code.VEGETATION)


def bush(rng: np.random.Generator, frame: Frame, height: float, color: np.ndarray):
    """Draw a bush."""
    count = 16
    tips = np.stack([rng.normal(0, height * 0.45, count), height * rng.uniform(0.12, 0.75, count)], axis=1)
    stems = np.stack([tips[:, 0] * 0.3, np.zeros(count)], axis=1)
    frame.fill(limbs(stems, tips, 0.03, 0.012), BARK * 0.7, Code.VEGETATION)
    draw_leaves(rng, frame, tips, height * 0.32, 0.07, color, 1.0)


def overhang(rng: np.random.Generator, frame: Frame, length: float, angle: float, color: np.ndarray):
    """Draw a branch that hangs into the picture."""
    branches = grow(rng, length * 0.3, length * 0.016, angle, 5, 0.42, 0.03)
    draw_branches(frame, branches, BARK * 0.55)
    tips = branches.tips[rng.permutation(len(branches.tips))[:130]]
    draw_leaves(rng, frame, tips, length * 0.055, length * 0.032, color, 0.55)


def grass(
    rng: np.random.Generator,
    site: Site,
    points: np.ndarray,
    heights: np.ndarray,
    depths: np.ndarray,
    color: np.ndarray,
):
    """Draw bent blades at picture points `(count, 2)`, with heights in picture heights."""
    count, steps = len(points), np.linspace(0, 1, 4)
    lean = rng.normal(0, 0.45, count)[:, None] * heights[:, None]
    lines = np.stack([points[:, :1] + lean * steps**2, points[:, 1:] - heights[:, None] * steps], axis=2)
    widths = np.maximum(heights * 0.045, 0.9 * site.pixel)[:, None] * (1 - 0.85 * steps)
    shades = rng.uniform(0.55, 1.25, (count, 1)) * color + rng.normal(0, 6, (count, 1)) * np.array([1.0, 0.4, 0])
    colors = site.light.haze(site.light.sunlit(shades), depths[:, None])
    site.drawing.fill(ribbons(lines, widths), colors, Code.VEGETATION)


def meadow_grass(rng: np.random.Generator, site: Site, outline: np.ndarray, color: np.ndarray):
    """Draw blades along the edge of a meadow, given in picture coordinates, and single ones on it."""
    ends = np.roll(outline, -1, axis=0)
    lengths = np.linalg.norm(ends - outline, axis=1)
    count = int(np.clip(lengths.sum() / (1.5 * site.pixel), 50, 9000))
    edge = rng.choice(len(outline), count, p=lengths / lengths.sum())
    points = outline[edge] + rng.uniform(0, 1, (count, 1)) * (ends - outline)[edge]
    quarter = len(outline) // 4
    places, share = rng.integers(0, quarter, count // 2), rng.uniform(0, 1, (count // 2, 1))
    points = np.concatenate(
        [points, outline[places] + share * (outline[2 * quarter : 3 * quarter][::-1][places] - outline[places])]
    )
    depths = site.camera.depth(points[:, 1])
    heights = site.camera.focal / depths * rng.uniform(0.05, 0.22, len(points))
    seen = (
        (heights > 1.5 * site.pixel) & (np.abs(points[:, 0] / site.camera.aspect - 0.5) < 0.55) & (points[:, 1] < 1.1)
    )
    points, heights, depths = points[seen], heights[seen], depths[seen]
    order = np.argsort(points[:, 1])
    grass(rng, site, points[order], heights[order], depths[order], color)


def hill(rng: np.random.Generator, site: Site, height: float, depth: float):
    """Draw a wooded ridge along the horizon with single crowns on its edge."""
    camera, light, drawing = site.camera, site.light, site.drawing
    x = np.linspace(-0.05, camera.aspect + 0.05, 40)
    phases = rng.uniform(0, 2 * np.pi, 4)
    waves = np.arange(1, 5)[:, None] * 2.1 / camera.aspect
    ridge = height * (0.65 + 0.35 * (np.sin(waves * x + phases[:, None]) / np.arange(1, 5)[:, None]).sum(0) / 1.6)
    color = np.array([58, 84, 52]) * rng.uniform(0.85, 1.1)
    top = np.stack([x, camera.horizon - np.maximum(ridge, 0.002)], axis=1)
    base = np.array([[camera.aspect + 0.05, camera.horizon + 0.003], [-0.05, camera.horizon + 0.003]])
    drawing.fill(np.concatenate([top, base]), light.haze(color * 0.9, depth), Code.VEGETATION)
    crown = max(2.2 * camera.focal / depth * 3, 2.5 * site.pixel)
    count = int(min(camera.aspect / crown * 5, 3500))
    places = rng.uniform(-0.04, camera.aspect + 0.04, count)
    down = rng.uniform(0, 1, count) ** 1.5
    centers = np.stack([places, camera.horizon - np.interp(places, x, ridge) * (1 - 0.8 * down)], axis=1)
    order = np.argsort(centers[:, 1])
    crowns = blobs(rng, centers, crown * rng.uniform(0.5, 1.1, count), 0.3, 9)[order]
    crowns[..., 1] = np.minimum(crowns[..., 1], camera.horizon + 0.003)
    shades = light.haze(color * rng.uniform(0.75, 1.2, (count, 1)), depth)
    drawing.fill(crowns, shades, Code.VEGETATION)
