"""Draw people: clothes, limbs in mid-step, and single strands of hair."""

import numpy as np

from .camera import Frame
from .drawing import Code, ellipse, limbs, ribbons


SKINS = np.array([[236, 200, 176], [214, 170, 140], [172, 124, 94], [122, 82, 60], [88, 58, 44]])
HAIR_COLORS = np.array([[38, 28, 24], [72, 48, 32], [120, 84, 52], [178, 140, 88], [150, 146, 142], [110, 50, 30]])


def person(rng: np.random.Generator, frame: Frame):
    """Draw a standing or walking person, 1.5 to 1.9 m tall, seen from the front or from behind."""
    height = rng.uniform(1.5, 1.9)
    skin, hair = rng.choice(SKINS), rng.choice(HAIR_COLORS) * rng.uniform(0.9, 1.1)
    top, bottom = rng.uniform(40, 225, 3), rng.choice([[44, 50, 70], [60, 56, 52], [150, 134, 110], [34, 34, 38]])
    step, from_behind = rng.uniform(-0.16, 0.16), rng.random() < 0.35
    unit = height / 1.75
    long_hair = rng.random() < 0.6
    if long_hair and not from_behind:
        draw_hair(rng, frame, unit, hair, 0.42, 90)
    draw_legs(rng, frame, unit, np.array(bottom, float), step, skirt=rng.random() < 0.25, skin=skin)
    draw_body(rng, frame, unit, top, skin, step)
    draw_head(frame, unit, skin, from_behind)
    if from_behind or not long_hair:
        draw_hair(rng, frame, unit, hair, 0.4 if long_hair else 0.1, 130, cover=from_behind)
    else:
        draw_fringe(rng, frame, unit, hair)


def shaded(frame: Frame, polygons: np.ndarray, color: np.ndarray, width: float):
    """Draw a part of the body with a lit and a dark side."""
    polygons = polygons if polygons.ndim == 3 else polygons[None]
    frame.fill(polygons, color, Code.HUMAN)
    centers = polygons.mean(1, keepdims=True)
    for share, factor in ((0.22, 1.08), (-0.24, 0.88)):
        side = centers + (polygons - centers) * np.array([0.42, 0.96]) + [share * width * frame.light.sun, 0]
        frame.fill(side, np.clip(color * factor, 0, 255), None)


def draw_legs(
    rng: np.random.Generator, frame: Frame, unit: float, color: np.ndarray, step: float, skirt: bool, skin: np.ndarray
):
    """Draw legs, shoes, and trousers or a skirt."""
    hips = np.array([[-0.085, 0.9], [0.085, 0.9]]) * unit
    knees = np.array([[-0.09 - 0.5 * step, 0.48 + abs(step) * 0.2], [0.09 + 0.5 * step, 0.49]]) * unit
    feet = np.array([[-0.1 - step, 0.06 + max(step, 0) * 0.25], [0.1 + step, 0.06 + max(-step, 0) * 0.25]]) * unit
    legs = skin if skirt else color
    shaded(frame, limbs(hips, knees, 0.175 * unit, 0.125 * unit), legs * 0.98, 0.12 * unit)
    shaded(frame, limbs(knees, feet, 0.125 * unit, 0.085 * unit), legs, 0.09 * unit)
    for knee in knees:
        frame.fill(ellipse(knee[0], knee[1], 0.063 * unit, 0.063 * unit, 16), legs, Code.HUMAN)
    shoe = np.array([[-0.055, -0.06], [0.06, -0.06], [0.065, -0.02], [0.035, 0.03], [-0.045, 0.03]]) * unit
    shoes = rng.uniform(20, 90, 3)
    for foot, direction in zip(feet, (-1, 1), strict=True):
        frame.fill(foot + shoe * [direction, 1], shoes, Code.HUMAN)
    if skirt:
        outline = np.array([[-0.14, 1.02], [0.14, 1.02], [0.2, 0.8], [0.24, 0.55], [-0.24, 0.55], [-0.2, 0.8]]) * unit
        frame.fill(outline, color * 1.2, Code.HUMAN)
        folds = rng.uniform(-0.17, 0.17, 7) * unit
        starts, ends = (
            np.stack([folds * 0.7, np.full(7, 0.95 * unit)], 1),
            np.stack([folds * 1.2, np.full(7, 0.57 * unit)], 1),
        )
        frame.fill(limbs(starts, ends, 0.006, 0.03), color * 0.95, None)
    else:
        belt = np.array([[-0.16, 0.84], [0.16, 0.84], [0.15, 1.0], [-0.15, 1.0]]) * unit
        frame.fill(belt, color, Code.HUMAN)


def draw_body(rng: np.random.Generator, frame: Frame, unit: float, color: np.ndarray, skin: np.ndarray, step: float):
    """Draw torso and arms, and sometimes a bag."""
    shoulders = np.array([[-0.185, 1.4], [0.185, 1.4]]) * unit
    elbows = np.array([[-0.25 + step * 0.4, 1.13], [0.25 + step * 0.4, 1.13]]) * unit
    raised = rng.random() < 0.3
    hands = np.array([[-0.23 + step, 0.88], [0.23 + step, 0.88]]) * unit
    if raised:
        hands[1] = np.array([0.1, 1.22]) * unit
    bare = rng.random() < 0.5
    torso = np.array(
        [[-0.06, 1.49], [0.06, 1.49], [0.17, 1.45], [0.215, 1.37], [0.17, 1.12], [0.165, 0.9], [-0.165, 0.9],
         [-0.17, 1.12], [-0.215, 1.37], [-0.17, 1.45]]
    ) * unit  # fmt: skip
    shaded(frame, limbs(elbows, hands, 0.075 * unit, 0.055 * unit), skin if bare else color * 0.9, 0.06 * unit)
    for hand in hands:
        frame.fill(ellipse(hand[0], hand[1], 0.036 * unit, 0.05 * unit, 16), skin, Code.HUMAN)
    shaded(frame, torso, color, 0.26 * unit)
    shaded(frame, limbs(shoulders, elbows, 0.115 * unit, 0.085 * unit), color * 0.94, 0.08 * unit)
    folds = rng.uniform(-0.13, 0.13, (6, 2)) * unit + [0, 1.12 * unit]
    frame.fill(limbs(folds, folds + rng.normal(0, 0.05, (6, 2)) * unit, 0.004, 0.018), color * 0.78, None)
    if rng.random() < 0.35:
        strap = limbs(np.array([[-0.14, 1.45]]) * unit, np.array([[0.17, 0.95]]) * unit, 0.03 * unit, 0.03 * unit)
        bag = np.array([[0.1, 0.98], [0.3, 0.97], [0.31, 0.74], [0.11, 0.73]]) * unit
        frame.fill(strap, color * 0.35, None)
        shaded(frame, bag, np.array([92, 66, 44]), 0.1 * unit)


def draw_head(frame: Frame, unit: float, skin: np.ndarray, from_behind: bool):
    """Draw neck and head."""
    frame.fill(np.array([[-0.05, 1.45], [0.05, 1.45], [0.045, 1.56], [-0.045, 1.56]]) * unit, skin * 0.82, Code.HUMAN)
    shaded(frame, ellipse(0, 1.625 * unit, 0.078 * unit, 0.112 * unit), skin, 0.07 * unit)
    if not from_behind:
        for x in (-0.03, 0.03):
            frame.fill(ellipse(x * unit, 1.638 * unit, 0.012 * unit, 0.007 * unit, 10), [52, 40, 36], None)
        frame.fill(ellipse(0, 1.565 * unit, 0.024 * unit, 0.006 * unit, 10), skin * [0.8, 0.55, 0.55], None)
        frame.fill(np.array([[-0.006, 1.64], [0.006, 1.64], [0.012, 1.6], [-0.012, 1.6]]) * unit, skin * 0.88, None)


def draw_hair(
    rng: np.random.Generator,
    frame: Frame,
    unit: float,
    color: np.ndarray,
    length: float,
    count: int,
    cover: bool = True,
):
    """Draw a cap of hair, and strands that hang from it and are blown aside."""
    crown = np.array([0, 1.645]) * unit
    if cover or length > 0.2:
        frame.fill(ellipse(crown[0], crown[1], 0.093 * unit, 0.116 * unit), color * 0.75, Code.HUMAN)
    else:
        angles = np.linspace(-0.1, np.pi + 0.1, 20)
        outer = crown + np.stack([0.087 * np.cos(angles), 0.108 * np.sin(angles)], 1) * unit
        inner = crown + np.stack([0.07 * np.cos(angles), 0.02 + 0.055 * np.sin(angles)], 1)[::-1] * unit
        frame.fill(np.concatenate([outer, inner]), color * 0.75, Code.HUMAN)
    strands(rng, frame, unit, color, length, 3 * count)


def draw_fringe(rng: np.random.Generator, frame: Frame, unit: float, color: np.ndarray):
    """Draw the hair above a face."""
    angles = np.linspace(0.35, np.pi - 0.35, 16)
    outer = np.array([0, 1.645]) * unit + np.stack([0.088 * np.cos(angles), 0.108 * np.sin(angles)], 1) * unit
    inner = np.array([0, 1.66]) * unit + np.stack([0.082 * np.cos(angles), 0.045 * np.sin(angles)], 1)[::-1] * unit
    frame.fill(np.concatenate([outer, inner]), color, Code.HUMAN)


def strands(rng: np.random.Generator, frame: Frame, unit: float, color: np.ndarray, length: float, count: int):
    """Draw single strands of hair."""
    steps = np.linspace(0, 1, 7)
    start = rng.uniform(0.0, np.pi, count)
    root = np.stack([0.088 * np.cos(start), 1.645 + 0.11 * np.sin(start)], 1) * unit
    reach = length * unit * rng.uniform(0.35, 1.1, count)[:, None]
    wind = rng.normal(0.05, 0.13, count)[:, None] * unit * length
    side = np.cos(start)[:, None] * 0.075 * min(1.0, 3 * length) * unit
    x = root[:, :1] + side * np.sin(steps * 1.6) + wind * steps**2
    x = (
        x
        + 0.02 * length * unit * np.sin(steps * rng.uniform(4, 12, (count, 1)) + rng.uniform(0, 6, (count, 1))) * steps
    )
    y = root[:, 1:] + 0.02 * unit * np.sin(steps * 3) - reach * steps**1.35
    width = frame.at_least(0.0012, 0.55) * rng.uniform(0.8, 1.8, (count, 1)) * (1 - 0.6 * steps)
    shades = color * rng.uniform(0.65, 1.5, (count, 1))
    frame.fill(ribbons(np.stack([x, y], axis=2), width), shades, Code.HUMAN)
