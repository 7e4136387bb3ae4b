"""
Measure how sharp a model's masks are on large photographs, beside the teachers of `pseudo_label_photos.py`.

Pastes: cut-outs of known alpha (RGBA, named CLASS_NAME.png, see `make_cutouts.py`) are pasted into the photographs
where the teachers see nothing of their class. Within a window around the cut-out, IoU and Boundary IoU compare the
pixels of the class with alpha >= 0.5; SAD is the sum of the absolute differences between the class's soft score and
alpha, in thousands of pixels. SAD at edges counts only the pixels near soft or jumping alpha.

Sky: Boundary IoU with the sky net's sky, which a guided filter brings to the photograph's size. Only pixels within
SKY_REACH pixels of the teachers' resolution of both the net's edge and the other teachers' edge are counted, in
photographs where the two skies overlap (see `sharpen_sky`). The vote here is the other teachers', without the net.

Needs this package and, in the same environment, what the teachers need.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, cast

import cv2
import numpy as np
import PIL.Image
import pseudo_label_photos as pseudo
import torch
import typer
from pseudo_label_photos import SKY, SKY_REACH, VOTE_SIDE, ask_teachers, guided_upsample, resize, vote

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.images import read_photo
from transformers_massformer.inference import segmenter
from transformers_massformer.inference.mattes import as_array
from transformers_massformer.metrics import CountSettings
from transformers_massformer.metrics.counts import band_width, boundary_band


# Height of a cut-out and margin of its window, as shares of the photograph's height; places tried in each photograph.
HEIGHTS, MARGIN, TRIES = (0.4, 0.8), 0.05, 30
# Pixels of the window whose vote for the cut-out's class exceeds SEEN may make up this share of it.
SEEN, MOST_BACKGROUND = 0.2, 0.005
# IoU from which a method has found the cut-out at all.
FOUND = 0.5
MODEL, VOTE, GUIDED, TEACHER = "model", "vote", "vote, guided filter", "best teacher"
PICTURE_SIDE, PICTURE_ZOOM = 240, 2


@dataclass
class Found:
    """Label map of a photograph, and a function that returns a class's soft score from 0 to 1."""

    labels: np.ndarray
    score: Callable[[int], np.ndarray]


@dataclass
class Place:
    """A cut-out resized for a photograph, its left upper corner, and the window around it."""

    cutout: np.ndarray
    left: int
    top: int
    window: tuple[slice, slice]


def from_votes(votes: np.ndarray, photo: np.ndarray, guided: bool = False) -> Found:
    """Bring shares of the classes and walls to a photograph's size."""
    shares = votes[..., : pseudo.CLASSES + 1].astype(np.float32)
    shares /= shares.sum(-1, keepdims=True)
    large = guided_upsample(photo, shares) if guided else resize(shares, photo.shape[1::-1])
    labels, total = pseudo.winner(large).astype(np.uint8), large.sum(-1) + 1e-6
    return Found(labels, lambda label: large[..., label] / total)


def from_model(segment: segmenter.Segmenter, photo: np.ndarray) -> Found:
    """Segment a photograph with the model."""
    found = segment(PIL.Image.fromarray(photo))
    mattes = cast(np.ndarray, found.mattes)
    return Found(found.label_map, lambda label: as_array(mattes[label]))


def all_ways(segment: segmenter.Segmenter, photo: np.ndarray, votes: np.ndarray, best: np.ndarray) -> dict[str, Found]:
    """Return what the model finds, and what the teachers' votes are in a photograph's size."""
    plain, guided = (from_votes(votes, photo, by_filter) for by_filter in (False, True))
    return {MODEL: from_model(segment, photo), VOTE: plain, GUIDED: guided, TEACHER: from_votes(best, photo)}


def read_large(path: Path, longest: int) -> np.ndarray:
    """Read a photograph, made smaller if it is longer."""
    image = read_photo(path, path.name)[0]
    image.thumbnail((longest, longest), PIL.Image.Resampling.LANCZOS)
    return np.asarray(image)


def small_size(photo: np.ndarray) -> tuple[int, int]:
    """Return the width and height in which the teachers vote."""
    height, width = photo.shape[:2]
    scale = min(1, VOTE_SIDE / max(height, width))
    return round(width * scale), round(height * scale)


def paste(photo: np.ndarray, place: Place) -> tuple[np.ndarray, np.ndarray]:
    """Return the composite and its alpha, both in the photograph's size."""
    height, width = place.cutout.shape[:2]
    inside = np.s_[place.top : place.top + height, place.left : place.left + width]
    alpha = np.zeros(photo.shape[:2], np.float32)
    alpha[inside] = place.cutout[..., 3] / np.float32(255)
    composite = photo.copy()
    share = alpha[inside][..., None]
    composite[inside] = np.rint(share * place.cutout[..., :3] + (1 - share) * photo[inside])
    return composite, alpha


def resize_cutout(cutout: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a cut-out; colours weigh as much as their alpha."""
    alpha = cutout[..., 3:].astype(np.float32) / 255
    large = resize(np.concatenate([cutout[..., :3] * alpha, alpha], -1), size)
    colours = large[..., :3] / np.maximum(large[..., 3:], 1e-3)
    return np.rint(np.concatenate([colours, 255 * large[..., 3:]], -1)).clip(0, 255).astype(np.uint8)


def find_place(votes: np.ndarray, size: tuple[int, int], cutout: np.ndarray, label: int, rng) -> Place | None:
    """Draw a size and a place for a cut-out whose window is free of its class, or none after some tries."""
    (height, width), (own_height, own_width) = size, cutout.shape[:2]
    for _ in range(TRIES):
        scale = min(rng.uniform(*HEIGHTS) * height / own_height, 0.95 * width / own_width)
        rows, columns = round(own_height * scale), round(own_width * scale)
        top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
        margin = round(MARGIN * height)
        edges = top - margin, top + rows + margin, left - margin, left + columns + margin
        upper, lower, start, end = np.clip(edges, 0, (height, height, width, width)).tolist()
        ratio = votes.shape[0] / height
        small = np.s_[int(upper * ratio) : int(lower * ratio) + 1, int(start * ratio) : int(end * ratio) + 1]
        if (votes[(*small, label)] > SEEN).mean() <= MOST_BACKGROUND:
            return Place(resize_cutout(cutout, (columns, rows)), left, top, np.s_[upper:lower, start:end])
    return None


def near_edge(mask: np.ndarray, reach: int) -> np.ndarray:
    """Return the pixels within `reach` of both the mask and the rest."""
    values, kernel = mask.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)
    return np.not_equal(cv2.dilate(values, kernel), cv2.erode(values, kernel))


def boundary_counts(found: np.ndarray, truth: np.ndarray, counted: np.ndarray) -> tuple[int, int]:
    """Count the intersection and union of two masks' boundary bands where `counted`; see the package's metrics."""
    width = band_width(*truth.shape, CountSettings().boundary_ratio)
    maps = [torch.from_numpy(mask.astype(np.uint8)) for mask in (found, truth)]
    own, other = (boundary_band(each, width).numpy() & (each.numpy() > 0) & counted for each in maps)
    return int((own & other).sum()), int((own | other).sum())


def measure_paste(found: Found, alpha: np.ndarray, label: int, window: tuple[slice, slice]) -> dict[str, float]:
    """Measure a class within a window: areas and bands for IoUs, and SADs in thousands of pixels."""
    counted = np.zeros(alpha.shape, bool)
    counted[window] = True
    mask, truth = found.labels == label, alpha >= 0.5
    edge = near_edge(truth, 2 * band_width(*alpha.shape, CountSettings().boundary_ratio))
    edge |= (alpha > 0) & (alpha < 1)
    difference = np.abs(found.score(label) - alpha)
    band, either = boundary_counts(mask, truth, counted)
    intersection, union = (mask & truth & counted).sum(), ((mask | truth) & counted).sum()
    sad, at_edges = difference[window].sum() / 1e3, difference[counted & edge].sum() / 1e3
    return {"inter": intersection, "union": union, "band": band, "bands": either, "sad": sad, "edges": at_edges}


def sky_edge(photo: np.ndarray, votes: np.ndarray, sky: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sky net's sky in a photograph's size, and where it counts; votes and `sky` are small."""
    _, near = pseudo.sharpen_sky(votes, sky)
    agreed = near & near_edge(votes[..., SKY] > 0.5, SKY_REACH)
    counted = cv2.resize(agreed.astype(np.uint8), photo.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    return guided_upsample(photo, sky[..., None])[..., 0] > 0.5, counted


def draw(composite: np.ndarray, alpha: np.ndarray, found: dict[str, Found], label: int) -> PIL.Image.Image:
    """Show the composite, its alpha and the soft scores where most soft edges are."""
    soft = ((alpha > 0) & (alpha < 1)).astype(np.float32)
    middle = np.unravel_index(cv2.blur(soft, (PICTURE_SIDE,) * 2).argmax(), soft.shape)
    top, left = np.clip(np.subtract(middle, PICTURE_SIDE // 2), 0, np.subtract(soft.shape, PICTURE_SIDE))
    part = np.s_[top : top + PICTURE_SIDE, left : left + PICTURE_SIDE]
    maps = [alpha[part], *(each.score(label)[part] for each in found.values())]
    panels = [composite[part], *(np.rint(255 * values).astype(np.uint8)[..., None].repeat(3, -1) for values in maps)]
    picture = PIL.Image.fromarray(np.hstack([np.pad(panel, ((0, 0), (0, 4), (0, 0))) for panel in panels]))
    size = PICTURE_ZOOM * picture.width, PICTURE_ZOOM * picture.height
    return picture.resize(size, PIL.Image.Resampling.NEAREST)


def class_of(path: Path) -> int:
    """Return the class that a cut-out's name starts with."""
    name = path.name.split("_")[0]
    if name not in MASS13K_LABELS:
        raise typer.BadParameter(f"{path} must be named CLASS_NAME.png; the classes are {', '.join(MASS13K_LABELS)}.")
    return MASS13K_LABELS.index(name)


def in_turn(paths: list[Path]) -> list[Path]:
    """Order cut-outs so that the classes take turns."""
    groups = defaultdict(list)
    for path in paths:
        groups[class_of(path)].append(path)
    return [path for group in zip_longest(*groups.values()) for path in group if path]


def plan(pictures: list[np.ndarray], seen: list, labels: dict[Path, int], pastes: int, seed: int) -> Iterator:
    """Yield cut-outs in turn, the least used photograph that has a place for each, and the place."""
    used, rng = np.zeros(len(seen), int), np.random.default_rng(seed)
    for path, label in (list(labels.items()) * pastes)[:pastes]:
        with PIL.Image.open(path) as picture:
            cutout = np.asarray(picture.convert("RGBA"))
        for index in np.lexsort((rng.random(len(used)), used)):
            place = find_place(seen[index], pictures[index].shape[:2], cutout, label, rng)
            if place is not None:
                used[index] += 1
                yield path, int(index), place
                break
        else:
            typer.echo(f"{path.name}: no photograph has a place without its class.")


def table(title: str, measured: dict[str, list[dict[str, float]]], where: list[bool]) -> str:
    """Write a table of what each method measured, averaged over the chosen pastes."""
    lines = [f"### {title}", "", "| | found | IoU | BIoU | SAD | SAD at edges |", "| --- |" + " ---: |" * 5]
    for method, each in measured.items():
        kept = [values for values, chosen in zip(each, where, strict=True) if chosen]
        total = {key: sum(values[key] for values in kept) for key in kept[0]}
        found = sum(values["inter"] >= FOUND * values["union"] for values in kept)
        scores = [100 * total["inter"] / total["union"], 100 * total["band"] / total["bands"]]
        scores += [total[key] / len(kept) for key in ("sad", "edges")]
        lines.append(f"| {method} | {found} | " + " | ".join(f"{score:.1f}" for score in scores) + " |")
    return "\n".join([*lines, ""])


def report(measured: dict[str, dict[str, list]], sky: dict[str, list[tuple[int, int]]]) -> str:
    """Write all tables: of each class, over all pastes and over those that every method found, and of the sky."""
    parts = []
    for name, methods in measured.items():
        found = [all(x["inter"] >= FOUND * x["union"] for x in each) for each in zip(*methods.values(), strict=True)]
        parts.append(table(f"{name}: all {len(found)} pastes", methods, [True] * len(found)))
        if any(found):
            parts.append(table(f"{name}: the {sum(found)} that every method found", methods, found))
    parts += ["### sky: edges", "", "| | photographs | BIoU |", "| --- | ---: | ---: |"]
    for method, counts in sky.items():
        band, bands = np.sum(counts, 0)
        parts.append(f"| {method} | {len(counts)} | {100 * band / bands:.1f} |")
    return "\n".join(parts) + "\n"


def main(
    photos: Annotated[Path, typer.Option(help="Folder of large photographs.", exists=True, file_okay=False)],
    cutouts: Annotated[Path, typer.Option(help="Folder of cut-outs.", exists=True, file_okay=False)],
    teachers: Annotated[Path, typer.Option(help="Folder of the teachers' files.", exists=True, file_okay=False)],
    output: Annotated[Path, typer.Option(help="Markdown file of tables, beside pictures of the pastes.")],
    model: Annotated[str, typer.Option(help="Folder of the model.")] = "hub/massformer-photo",
    pastes: Annotated[int, typer.Option(help="Number of pastes.", min=1)] = 20,
    longest: Annotated[int, typer.Option(help="Photographs are made this long at most.")] = 3840,
    seed: Annotated[int, typer.Option(help="Seed of the places.")] = 0,
    threads: Annotated[int, typer.Option(help="Threads.", min=1)] = 1,
):
    """Measure the sharpness of a model on large photographs."""
    cv2.setNumThreads(threads)
    torch.set_num_threads(threads)
    labels = {path: class_of(path) for path in in_turn(sorted(cutouts.glob("*.png")))}
    if not labels:
        raise typer.BadParameter(f"{cutouts} contains no PNG; make cut-outs with make_cutouts.py.")
    voters = [pseudo.Segmenter(teachers / name, threads) for name in pseudo.VOTERS]
    sky_net, segment = pseudo.SkyNet(teachers, threads), segmenter.Segmenter(model, mattes=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    paths = sorted(path for path in photos.iterdir() if path.suffix.lower() in pseudo.SUFFIXES)
    pictures = [read_large(path, longest) for path in paths]
    small = [resize(photo, small_size(photo)) for photo in pictures]
    single = [vote(photo, voters) for photo in small]
    seen = [np.mean(votes, 0) for votes in single]
    measured: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    sky: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, (path, index, place) in enumerate(plan(pictures, seen, labels, pastes, seed)):
        composite, alpha, label = *paste(pictures[index], place), labels[path]
        best = vote(resize(composite, small_size(composite)), voters[:1])[0]
        ways = all_ways(segment, composite, ask_teachers(composite, voters, sky_net), best)
        for method, found in ways.items():
            values = measure_paste(found, alpha, label, place.window)
            measured[MASS13K_LABELS[label]][method].append(values)
            iou, boundary = (100 * values[a] / max(1, values[b]) for a, b in (("inter", "union"), ("band", "bands")))
            typer.echo(f"{number} {path.stem}, {method}: IoU {iou:.1f}, BIoU {boundary:.1f}, SAD {values['sad']:.1f}")
        draw(composite, alpha, ways, label).save(output.with_name(f"paste_{number:02}.png"))
        output.write_text(report(measured, sky), encoding="utf-8")
    for index, path in enumerate(paths):
        truth, counted = sky_edge(pictures[index], seen[index], sky_net(small[index]))
        if not counted.any():
            continue
        for method, found in all_ways(segment, pictures[index], seen[index], single[index][0]).items():
            sky[method].append(boundary_counts(found.labels == SKY, truth, counted))
            typer.echo(f"{path.name}, sky, {method}: BIoU {100 * sky[method][-1][0] / sky[method][-1][1]:.1f}")
        output.write_text(report(measured, sky), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
