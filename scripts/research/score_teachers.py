"""
Score the teachers of `pseudo_label_photos.py`, and their vote, on labelled photographs: pixel accuracy, mean IoU over
the classes that a set labels, and IoU of people, over the labelled pixels of whole photographs at their own size.

Runs in the environment of `pseudo_label_photos.py`. A set is a folder with images/SPLIT and annotations/SPLIT.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from pseudo_label_photos import (
    CLASSES,
    HUMAN,
    IGNORE,
    SUFFIXES,
    VOTERS,
    Segmenter,
    SkyNet,
    read_picture,
    resize,
    sharpen_sky,
    vote,
    winner,
)


# Row of the vote, which has photographs and their mirror images, and the sky net at the sky's edge.
VOTE = "their vote"


def pairs(data: Path, split: str) -> Iterator[tuple[Path, Path]]:
    """Yield the photographs of a split and their label maps."""
    for photo in sorted((data / "images" / split).iterdir()):
        if photo.suffix.lower() in SUFFIXES:
            yield photo, data / "annotations" / split / f"{photo.stem}.png"


def count(labels: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Count the labelled pixels of each class (row) that were found to be each class (column)."""
    known = labels != IGNORE
    numbers = labels[known].astype(np.int64) * CLASSES + found[known]
    return np.bincount(numbers, minlength=CLASSES * CLASSES).reshape(CLASSES, CLASSES)


def scores(counts: np.ndarray) -> tuple[float, float, float]:
    """Return pixel accuracy, mean IoU over the labelled classes and IoU of people, in percent (NaN if unlabelled)."""
    right, labelled = np.diag(counts), counts.sum(1)
    with np.errstate(invalid="ignore"):
        ious = np.where(labelled > 0, right / (labelled + counts.sum(0) - right), np.nan)
    accuracy = right.sum() / counts.sum()
    return 100 * accuracy, 100 * float(np.nanmean(ious)), 100 * float(ious[HUMAN])


def main(
    data: Annotated[list[Path], typer.Argument(help="Folders of labelled photographs.", exists=True, file_okay=False)],
    teachers: Annotated[Path, typer.Option(help="Folder of the teachers' files.", exists=True, file_okay=False)],
    split: Annotated[str, typer.Option(help="Split to score.")] = "val",
    threads: Annotated[int, typer.Option(help="Threads.", min=1)] = 1,
):
    """Print a table of scores."""
    cv2.setNumThreads(threads)
    voters, sky_net = [Segmenter(teachers / name, threads) for name in VOTERS], SkyNet(teachers, threads)
    typer.echo("| set | teacher | pixel accuracy | mIoU | human |\n|---|---|---:|---:|---:|")
    for folder in data:
        counts = {name: np.zeros((CLASSES, CLASSES), np.int64) for name in (*VOTERS, VOTE)}
        for path, label_path in pairs(folder, split):
            photo = read_picture(path, cv2.IMREAD_COLOR)[..., ::-1].copy()
            labels = read_picture(label_path, cv2.IMREAD_UNCHANGED)
            alone = [resize(voter(photo), photo.shape[1::-1]) for voter in voters]
            together = sharpen_sky(np.mean(vote(photo, voters), 0), sky_net(photo))[0]
            for name, votes in zip(counts, (*alone, together), strict=True):
                counts[name] += count(labels, winner(votes))
        for name, total in counts.items():
            shown = " | ".join("-" if np.isnan(value) else f"{value:.1f}" for value in scores(total))
            typer.echo(f"| {folder.name} | {name.removesuffix('.tflite')} | {shown} |")


if __name__ == "__main__":
    typer.run(main)
