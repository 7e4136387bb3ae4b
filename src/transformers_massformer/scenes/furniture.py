"""Draw objects of class others: bicycles, lamps, fences, benches, poles and wires."""

import numpy as np

from .camera import Frame, Site
from .drawing import Code, box, ellipse, limbs, polyline_shapes, ribbons, ring
from .structures import railing


METAL = np.array([62, 64, 68])


def bicycle(rng: np.random.Generator, frame: Frame):
    """Draw a bicycle from the side, 1.75 m long, of class others with its own code."""
    color = rng.choice([[186, 40, 36], [36, 76, 150], [40, 44, 48], [52, 120, 84], [214, 190, 70]]) * 1.0
    wheels = np.array([[-0.53, 0.345], [0.53, 0.345]])
    for wheel in wheels:
        draw_wheel(rng, frame, wheel)
    rear, front = wheels
    pedals, saddle, head, stem = np.array([[-0.08, 0.3], [-0.24, 0.82], [0.33, 0.76], [0.29, 0.94]])
    tubes = [(rear, pedals), (rear, saddle * [1, 0.94]), (pedals, saddle * [1, 1.08]), (pedals, head),
             (saddle * [1, 0.95], head + [0, 0.03]), (head, stem), (head, front)]  # fmt: skip
    starts, ends = (np.array(part) for part in zip(*tubes, strict=True))
    width = frame.at_least(0.034, 1.2)
    frame.fill(limbs(starts, ends, width, width), color, Code.BICYCLE)
    frame.fill(
        limbs(starts + [0, 0.006], ends + [0, 0.006], width * 0.3, width * 0.3),
        np.minimum(color * 1.6 + 30, 255),
        None,
    )
    bar = np.array([stem + [0.0, 0], stem + [0.1, 0.05], stem + [0.14, 0.0], stem + [0.05, -0.06]])
    frame.fill(polyline_shapes(bar, frame.at_least(0.028, 1.0)), METAL * 0.6, Code.BICYCLE)
    seat = np.array([[-0.15, 0.06], [0.14, 0.045], [0.14, 0.02], [-0.05, 0.0], [-0.15, 0.01]]) + saddle * [1, 1.08]
    frame.fill(seat, [38, 32, 30], Code.BICYCLE)
    frame.fill(ring(pedals[0], pedals[1], 0.09, 0.018, 28), METAL, Code.BICYCLE)
    chain = np.array([[pedals + [0, 0.085], rear + [0, 0.03]], [pedals - [0, 0.085], rear - [0, 0.03]]])
    frame.fill(limbs(chain[:, 0], chain[:, 1], 0.008, 0.008), METAL * 0.7, Code.BICYCLE)
    angle = rng.uniform(0, np.pi)
    crank = 0.17 * np.array([[np.cos(angle), np.sin(angle)]])
    frame.fill(limbs(pedals - crank, pedals + crank, 0.02, 0.02), METAL, Code.BICYCLE)
    for end in (pedals - crank[0], pedals + crank[0]):
        frame.fill(box(end[0] - 0.05, end[1] - 0.012, end[0] + 0.05, end[1] + 0.012), METAL * 0.5, Code.BICYCLE)


def draw_wheel(rng: np.random.Generator, frame: Frame, center: np.ndarray):
    """Draw a wheel with spokes and mudguard."""
    angles = np.arange(28) * (2 * np.pi / 28) + rng.uniform(0, 1)
    hub = center + 0.02 * np.stack([np.cos(angles + 1.2), np.sin(angles + 1.2)], 1)
    rim = center + 0.32 * np.stack([np.cos(angles), np.sin(angles)], 1)
    spoke = frame.at_least(0.0025, 0.5)
    frame.fill(limbs(hub, rim, spoke, spoke), [150, 150, 150], Code.BICYCLE)
    frame.fill(ring(center[0], center[1], 0.345, frame.at_least(0.034, 1.3), 64), [34, 33, 33], Code.BICYCLE)
    frame.fill(ring(center[0], center[1], 0.312, frame.at_least(0.012, 0.7), 64), [164, 164, 168], Code.BICYCLE)
    frame.fill(ellipse(center[0], center[1], 0.03, 0.03, 14), METAL, Code.BICYCLE)
    guard = np.linspace(0.5, 2.6, 16)
    line = center + 0.375 * np.stack([np.cos(guard), np.sin(guard)], 1)
    frame.fill(ribbons(line[None], np.array([frame.at_least(0.014, 0.8)])), METAL * 0.7, Code.BICYCLE)


def lamp(frame: Frame, height: float, arm: float):
    """Draw a street lamp with an arm, or a lantern if the arm is short."""
    post = np.array([[-0.075, 0], [0.075, 0], [0.04, height], [-0.04, height]])
    frame.fill(post, METAL * 0.7, Code.OTHERS)
    frame.fill(post * [0.35, 1] + [0.02 * frame.light.sun, 0], METAL * 1.3, None)
    frame.fill(box(-0.12, 0, 0.12, 0.5), METAL * 0.6, Code.OTHERS)
    if abs(arm) < 0.5:
        glass = np.array([[-0.13, 0], [0.13, 0], [0.2, 0.42], [-0.2, 0.42]]) + [0, height]
        frame.fill(glass, [236, 230, 206], Code.OTHERS)
        frame.fill(limbs(glass[[0, 1, 3]], glass[[3, 2, 2]], 0.025, 0.025), METAL * 0.5, Code.OTHERS)
        frame.fill(np.array([[-0.26, 0.42], [0.26, 0.42], [0, 0.66]]) + [0, height], METAL * 0.6, Code.OTHERS)
        return
    curve = np.linspace(0, np.pi / 2, 10)
    line = np.stack([arm * (1 - np.cos(curve)), height + 0.9 * np.sin(curve)], 1)
    frame.fill(ribbons(line[None], np.array([0.06])), METAL * 0.7, Code.OTHERS)
    end = line[-1]
    frame.fill(ellipse(end[0] + 0.2 * np.sign(arm), end[1] - 0.03, 0.36, 0.1), METAL * 0.9, Code.OTHERS)
    frame.fill(ellipse(end[0] + 0.22 * np.sign(arm), end[1] - 0.09, 0.26, 0.05), [240, 236, 220], Code.OTHERS)


def bench(rng: np.random.Generator, frame: Frame):
    """Draw a wooden bench."""
    wood = np.array([138, 96, 60]) * rng.uniform(0.8, 1.15)
    for x in (-0.75, 0.75):
        frame.fill(
            limbs(np.array([[x, 0], [x + 0.1, 0]]), np.array([[x, 0.45], [x + 0.02, 0.9]]), 0.05, 0.04),
            METAL * 0.6,
            Code.OTHERS,
        )
    low = np.array([0.4, 0.45, 0.55, 0.66, 0.77])
    slats = np.stack([box(-0.9, y, 0.9, y + 0.075) for y in low])
    frame.fill(slats, wood * np.array([0.7, 0.9, 1.0, 1.05, 1.1])[:, None], Code.OTHERS)


def sign(rng: np.random.Generator, frame: Frame):
    """Draw a round traffic sign on its post."""
    frame.fill(box(-0.03, 0, 0.03, 2.3), METAL * 1.5, Code.OTHERS)
    frame.fill(ellipse(0, 2.5, 0.3, 0.3, 40), rng.choice([[196, 36, 36], [36, 70, 160]]), Code.OTHERS)
    frame.fill(ellipse(0, 2.5, 0.22, 0.22, 40), [240, 240, 238], None)
    frame.fill(box(-0.13, 2.45, 0.13, 2.55), [40, 40, 44], None)


def fence(site: Site, start: np.ndarray, end: np.ndarray, height: float, wooden: bool):
    """Draw a wooden fence with boards, or an iron one with bars."""
    if not wooden:
        railing(site, start, end, height, 0.13, [52, 54, 58], Code.OTHERS)
        return
    wood = np.array([150, 122, 92])
    along = (end - start) / np.linalg.norm(end - start)
    count = int(np.linalg.norm(end - start) / 0.2)
    feet = start + np.linspace(0, 1, count)[:, None] * (end - start)
    outline = np.array([[-0.055, 0.05], [0.055, 0.05], [0.055, height - 0.1], [0, height], [-0.055, height - 0.1]])
    up = np.array([0, 1.0, 0])
    for rail in (0.3, height - 0.3):
        site.bars((start + rail * up)[None], (end + rail * up)[None], 0.08, wood * 0.75, Code.OTHERS)
    boards = feet[:, None] + outline[:, :1] * along + outline[:, 1:] * up
    shades = wood * (0.85 + 0.3 * ((np.arange(count) * 0.618) % 1))[:, None]
    site.fill(boards, shades, Code.OTHERS)


def pole_line(site: Site, feet: np.ndarray, height: float):
    """Draw poles at points `(count, 3)` with crossbars, and the wires that sag between them."""
    wood = np.array([96, 80, 64])
    tops = feet + [0, height, 0]
    site.bars(feet, tops, 0.26, wood, Code.OTHERS)
    bar = tops - [0, 0.5, 0]
    site.bars(bar - [1.1, 0, 0], bar + [1.1, 0, 0], 0.14, wood * 0.8, Code.OTHERS)
    sag = np.linspace(0, 1, 25)[:, None]
    for shift in (-1.0, -0.35, 0.35, 1.0):
        hooks = bar + [shift, 0.1, 0]
        site.bars(hooks, hooks + [0, 0.22, 0], 0.09, [190, 196, 200], Code.OTHERS)
        for first, last in zip(hooks[:-1], hooks[1:], strict=True):
            points = first + sag * (last - first) + [0, 0.2, 0] - 4 * sag * (1 - sag) * np.array([0, 0.9, 0])
            site.bars(points[:-1], points[1:], 0.022, [46, 46, 50], Code.OTHERS)
