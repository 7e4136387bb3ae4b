"""Compose a scene from back to front: sky, hills, a far bank, water, a near bank, and the objects on them."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from . import furniture, nature, people, structures, textures
from .camera import Camera, Frame, Light, Site
from .drawing import Blur, Code, Drawing, Surface, box
from .noise import Grain


# Sky above, sky at the horizon, sunlight, and metres after which haze replaces two thirds of a colour.
MOODS = [
    ([74, 128, 196], [198, 216, 232], [255, 246, 228], 420.0),
    ([96, 140, 188], [226, 222, 212], [255, 236, 204], 260.0),
    ([92, 112, 158], [244, 208, 168], [255, 206, 150], 300.0),
    ([150, 164, 180], [212, 218, 222], [238, 240, 244], 220.0),
    ([52, 104, 178], [182, 208, 232], [255, 250, 238], 700.0),
]
FOLIAGE = np.array([[96, 132, 58], [74, 116, 54], [118, 146, 66], [88, 112, 48], [64, 102, 62]])
SPRUCE = np.array([58, 92, 54])
AUTUMN = np.array([[196, 128, 44], [172, 84, 40], [204, 164, 60], [120, 124, 52]])
SOILS = [([176, 160, 134], 0.12), ([150, 142, 134], 0.06), ([192, 176, 142], 0.08), ([134, 116, 94], 0.14)]


@dataclass
class Stage:
    """State of a scene under composition; `things` are drawn from the farthest to the nearest."""

    rng: np.random.Generator
    site: Site
    foliage: np.ndarray
    turf: np.ndarray
    # Range of metres from the axis that is free on the near bank.
    free: tuple[float, float] = (-np.inf, np.inf)
    things: list[tuple[float, Callable[[np.random.Generator], None]]] = field(default_factory=list)

    def add(self, depth: float, draw: Callable[[np.random.Generator], None]):
        """Add an object to draw at a depth."""
        self.things.append((depth, draw))

    def place(self, depth: float, x: float) -> Frame:
        """Return a frame at a depth; x ranges from -1 at the left side of the picture to 1 at the right."""
        site = self.site
        return Frame.at(site, x * site.camera.half_width(depth), depth)

    def place_free(self, depth: float, x: float) -> Frame:
        """Return a frame on the near bank, clear of the house there."""
        half = self.site.camera.half_width(depth)
        return self.place(depth, float(np.clip(x, self.free[0] / half, self.free[1] / half)))

    def draw_things(self):
        """Draw the added objects with one generator each, so that the details of one do not affect the rest."""
        generators = self.rng.spawn(len(self.things))
        for (_, draw), rng in sorted(zip(self.things, generators, strict=True), key=lambda pair: -pair[0][0]):
            draw(rng)
        self.things.clear()

    def flatness(self, frame: Frame) -> float:
        """Return the ratio of height to width of a circle on the ground."""
        return self.site.camera.height / frame.depth


def compose(rng: np.random.Generator, aspect: float, pixel: float) -> Drawing:
    """
    Compose a scene as a drawing. Its layout depends on the generator alone, the fineness of details on the pixels.

    Args:
        rng (`numpy.random.Generator`): Source of all choices.
        aspect (`float`): Width of the picture divided by its height.
        pixel (`float`): Height of a pixel in picture heights.
    """
    camera = Camera(aspect, rng.uniform(0.42, 0.56), rng.uniform(1.0, 1.35), rng.uniform(2.0, 3.6))
    top, low, warmth, reach = MOODS[rng.integers(len(MOODS))]
    light = Light(
        float(rng.choice([-1.0, 1.0])), *(np.array(color, np.float32) for color in (top, low, warmth)), reach
    )
    palette = AUTUMN if rng.random() < 0.2 else FOLIAGE
    stage = Stage(
        rng,
        Site(Drawing(), camera, light, Grain(rng), pixel),
        palette[rng.permutation(len(palette))[:3]],
        FOLIAGE[rng.integers(5)] * 0.9 + [12, 16, 4],
    )
    bottom = camera.depth(np.array(1.0)).item()
    near, far = bottom * rng.uniform(1.9, 2.7), bottom * rng.uniform(3.8, 7)

    draw_backdrop(stage)
    add_far_bank(stage, far)
    stage.draw_things()
    stage.site.drawing.items.append(Blur(rng.uniform(0.0001, 0.0005)))
    draw_water(stage, near, far)
    add_near_bank(stage, bottom, near, far)
    stage.draw_things()
    if rng.random() < 0.55:
        draw_foreground(stage)
    return stage.site.drawing


def draw_backdrop(stage: Stage):
    """Draw sky, hills and bare ground."""
    rng, site = stage.rng, stage.site
    camera, items = site.camera, site.drawing.items
    items.append(Surface(box(-1, -1, camera.aspect + 1, 2), textures.sky(rng, site), Code.SKY))
    for depth in np.sort(rng.uniform(300, 1100, rng.integers(1, 4)))[::-1]:
        (generator,) = rng.spawn(1)
        height = rng.uniform(0.02, 0.10) * (0.5 + depth / 1100)
        nature.hill(generator, site, height, depth)
    color, grain = SOILS[rng.integers(len(SOILS))]
    shader = textures.ground(rng, site, site.light.sunlit(np.array(color, np.float32)), grain)
    items.append(Surface(box(-1, camera.horizon, camera.aspect + 1, 2), shader, Code.GROUND))


def ground_patch(
    rng: np.random.Generator, camera: Camera, sides: tuple[float, float], depths: tuple[float, float]
) -> np.ndarray:
    """
    Return the outline of a patch of ground between two sides (-1 to 1 in the picture) and two depths, with uneven
    edges. It runs along the far edge, down the right one, back along the near one and up the left one.
    """
    share = np.linspace(0, 1, 70)

    def wobble() -> np.ndarray:
        return sum(np.sin(share * frequency + rng.uniform(0, 6)) / frequency for frequency in (7, 17, 41)) * 0.55

    far, near = (depth * (1 + 0.6 * wobble()) for depth in depths)
    left, right = (side + 0.25 * wobble() for side in sides)
    across, down = sides[0] + share * (sides[1] - sides[0]), depths[0] + share * (depths[1] - depths[0])
    x = np.concatenate([across, right, across[::-1], left[::-1]])
    depth = np.concatenate([far, down, near[::-1], down[::-1]])
    return camera.project(x * camera.aspect / 2 * depth / camera.focal, 0, depth)


def add_meadow(stage: Stage, sides: tuple[float, float], depths: tuple[float, float]):
    """Add grass on the ground, with blades along its edges."""
    site, color = stage.site, stage.turf

    def draw(rng: np.random.Generator):
        outline = ground_patch(rng, site.camera, sides, depths)
        shader = textures.meadow(rng, site, site.light.sunlit(color).astype(np.float32))
        site.drawing.items.append(Surface(outline, shader, Code.VEGETATION))
        nature.meadow_grass(rng, site, outline, color)

    stage.add(max(depths) * 1.3, draw)


def add_tree(stage: Stage, depth: float, x: float, height: float, kind: float):
    """Add a broadleaf tree, a spruce or a bare tree, by `kind` in 0 to 1."""
    frame, color = stage.place(depth, x), stage.foliage[int(kind * 1000) % 3]

    def draw(rng: np.random.Generator):
        nature.shadow(rng, frame, height * 0.4, stage.flatness(frame))
        if kind < 0.68:
            nature.broadleaf(rng, frame, height, color, rng.uniform(0.6, 1.0))
        elif kind < 0.9:
            nature.conifer(rng, frame, height * 1.15, SPRUCE)
        else:
            nature.broadleaf(rng, frame, height, color, 0.0)

    stage.add(depth, draw)


def add_person(stage: Stage, frame: Frame):
    """Add a person with a shadow."""

    def draw(rng: np.random.Generator):
        nature.shadow(rng, frame, 0.5, stage.flatness(frame))
        people.person(rng, frame)

    stage.add(frame.depth, draw)


def add_far_bank(stage: Stage, far: float):
    """Add the far bank: a meadow, houses, a skyline, cranes, trees and people."""
    rng, site = stage.rng, stage.site
    camera = site.camera
    left = rng.uniform(-1.3, 0.0)
    add_meadow(stage, (left, left + rng.uniform(0.8, 2)), (far * 1.02, far * 2.5))
    if rng.random() < 0.6:
        stage.add(400.0, lambda generator: structures.skyline(generator, site, 300.0))
    for _ in range(rng.integers(0, 3)):
        depth, x = rng.uniform(110, 170), rng.uniform(-0.9, 0.9)
        stage.add(
            depth, lambda generator, d=depth, x=x: structures.crane(generator, site, x * camera.half_width(d), d)
        )
    positions = np.sort(rng.uniform(-1.0, 1.0, rng.integers(2, 5)))
    for position in positions:
        depth, width = far * rng.uniform(1.25, 2.4), rng.uniform(8, 17)
        start = position * camera.half_width(depth)
        height, length = rng.choice([rng.uniform(5, 9), rng.uniform(10, 20)]), rng.uniform(8, 16)
        stage.add(
            depth,
            lambda generator, a=(start, start + width, depth, length, height): structures.house(generator, site, *a),
        )
    for _ in range(rng.integers(7, 15)):
        add_tree(stage, far * rng.uniform(1.08, 3), rng.uniform(-1.05, 1.05), rng.uniform(5, 11), rng.random())
    for _ in range(rng.integers(2, 7)):
        frame, color = stage.place(far * rng.uniform(1.04, 1.3), rng.uniform(-1, 1)), stage.foliage[rng.integers(3)]
        height = rng.uniform(0.9, 2.2)
        stage.add(frame.depth, lambda generator, f=frame, h=height, c=color: nature.bush(generator, f, h, c))
    for _ in range(rng.integers(1, 5)):
        add_person(stage, stage.place(far * rng.uniform(1.04, 1.25), rng.uniform(-0.95, 0.95)))


def draw_water(stage: Stage, near: float, far: float):
    """Draw water from bank to bank, and a wet margin on the near one."""
    rng, site = stage.rng, stage.site
    outline = ground_patch(rng, site.camera, (-1.3, 1.3), (far, near))
    shore = site.camera.project(0.0, 0.0, far)[1]
    shader = textures.water(rng, site, float(shore))
    margin = outline[len(outline) // 2 : 3 * len(outline) // 4]
    band = np.concatenate([margin, (margin + [0, 0.012])[::-1]])
    site.drawing.fill(band, np.array([70, 62, 52]), Code.GROUND)
    site.drawing.items.append(Surface(outline, shader, Code.WATER))


def free_places(rng: np.random.Generator, count: int, gap: float) -> list[float]:
    """Draw random sides, -1 to 1, of objects that stand apart."""
    places = []
    for place in rng.uniform(-0.9, 0.9, 12 * count):
        if all(abs(place - other) > gap for other in places):
            places.append(float(place))
    return places[:count]


def add_near_bank(stage: Stage, bottom: float, near: float, far: float):
    """Add the near bank: a meadow, trees at the sides, possibly a house, people, and objects of class others."""
    rng = stage.rng
    side = rng.choice([-1.0, 1.0])
    inner = side * rng.uniform(-0.1, 0.35)
    add_meadow(stage, tuple(sorted((inner, 1.6 * side))), (near * 0.94, bottom * rng.uniform(0.6, 1.1)))
    if rng.random() < 0.35:
        add_near_house(stage, -side, bottom, near)
    for x in side * rng.uniform(0.5, 1.0, rng.integers(1, 3)):
        add_tree(stage, rng.uniform(bottom * 1.25, near * 0.93), x, rng.uniform(4.5, 8.5), rng.random())
    for _ in range(rng.integers(0, 4)):
        frame, height = (
            stage.place(rng.uniform(bottom * 1.1, near * 0.95), side * rng.uniform(0.5, 1)),
            rng.uniform(0.5, 1.3),
        )
        color = stage.foliage[rng.integers(3)]
        stage.add(frame.depth, lambda generator, f=frame, h=height, c=color: nature.bush(generator, f, h, c))
    for x in free_places(rng, int(rng.integers(2, 6)), 0.14):
        add_person(stage, stage.place_free(rng.uniform(bottom * 1.06, near * 0.95), x))
    add_furniture(stage, bottom, near, far)


def add_near_house(stage: Stage, side: float, bottom: float, near: float):
    """Add a house at the side of the picture whose long wall runs towards the water."""
    rng, site = stage.rng, stage.site
    depth = bottom * rng.uniform(1.15, 1.35)
    inner = side * rng.uniform(0.62, 0.8) * site.camera.half_width(depth)
    left, right = sorted((inner, inner + side * 12))
    length, height = max(near * 0.95 - depth, 3.0), rng.uniform(5, 12)
    stage.free = (-np.inf, inner - 0.8) if side > 0 else (inner + 0.8, np.inf)
    stage.add(near, lambda generator: structures.house(generator, site, left, right, depth, length, height))


def add_furniture(stage: Stage, bottom: float, near: float, far: float):
    """Add fences, lamps, benches, signs, bicycles, poles and wires."""
    rng, site = stage.rng, stage.site
    if rng.random() < 0.7:
        depth = near * 0.96
        ends = np.array([-1.1, rng.uniform(-0.2, 1.1)]) * site.camera.half_width(depth)
        start, end = (np.array([x, 0, depth]) for x in np.clip(ends, stage.free[0], stage.free[1]))
        wooden, height = rng.random() < 0.35, rng.uniform(0.9, 1.2)
        stage.add(depth, lambda _, h=height: furniture.fence(site, start, end, h, wooden))
    for x in free_places(rng, int(rng.integers(1, 4)), 0.4):
        frame = stage.place_free(rng.uniform(bottom * 1.25, near * 0.93), x)
        height, arm = rng.uniform(3.2, 5.5), rng.choice([0.0, 1.2, -1.2])
        stage.add(frame.depth, lambda _, f=frame, h=height, a=arm: furniture.lamp(f, h, a))
    for draw, chance in ((furniture.bench, 0.6), (furniture.sign, 0.4)):
        frame = stage.place_free(rng.uniform(bottom * 1.1, near * 0.9), rng.uniform(-0.85, 0.85))
        if rng.random() < chance:
            stage.add(frame.depth, lambda generator, f=frame, d=draw: d(generator, f))
    if rng.random() < 0.4:
        add_bicycles(stage, bottom, near)
    if rng.random() < 0.55:
        x = rng.choice([-1.0, 1.0]) * rng.uniform(0.25, 0.6) * site.camera.half_width(near)
        depths = np.array([bottom * 0.3, near * 0.9, far * 1.15, far * 2, far * 3])
        feet = np.stack([np.full(5, x), np.zeros(5), depths], axis=1)
        stage.add(near * 0.9, lambda _: furniture.pole_line(site, feet, 6.5))


def add_bicycles(stage: Stage, bottom: float, near: float):
    """Add two to five bicycles in a row."""
    rng = stage.rng
    depth, x = rng.uniform(bottom * 1.08, near * 0.8), rng.uniform(-0.8, 0.3)
    step = 2.0 / stage.site.camera.half_width(depth) * rng.uniform(0.5, 1.1)
    for index in range(rng.integers(2, 6)):
        frame = stage.place_free(depth * (1 - 0.015 * index), x + index * step)

        def draw(generator: np.random.Generator, frame: Frame = frame):
            nature.shadow(generator, frame, 0.9, stage.flatness(frame), 0.08)
            furniture.bicycle(generator, frame)

        stage.add(frame.depth, draw)


def draw_foreground(stage: Stage):
    """Draw a branch that hangs in from an upper corner, and grass in a lower one."""
    rng, site = stage.rng, stage.site
    side = rng.choice([-1.0, 1.0])
    camera = site.camera
    depth = 4.0
    branch, blades = rng.spawn(2)
    corner = Frame.at(site, side * camera.half_width(depth) * 1.04, depth)
    top = camera.height + depth / camera.focal * (camera.horizon - rng.uniform(-0.04, 0.12))
    angle = np.pi / 2 + side * rng.uniform(1.3, 2.0)
    nature.overhang(branch, corner.moved(0, top), rng.uniform(0.9, 1.5), angle, stage.foliage[1] * 0.8)
    count = 260
    x = camera.aspect * (0.5 - 0.5 * side * np.sqrt(blades.uniform(0.0, 1, count)))
    points = np.stack([x, blades.uniform(1.0, 1.06, count)], axis=1)
    heights = blades.uniform(0.05, 0.22, count) * np.abs(x / camera.aspect - 0.5) * 2
    nature.grass(blades, site, points, heights, np.full(count, 3.0), stage.turf * 0.8)
