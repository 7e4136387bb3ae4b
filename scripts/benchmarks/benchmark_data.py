"""
Measure the time to make training samples, beside the plain order (resize the complete photo, then crop) in torchvision
and, as in the release, in OpenCV: on one core, with the same random numbers, in turns. Writes a document.

The photographs and label maps are synthetic and temporary. For Linux.
"""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch
import torchvision
import typer
from benchmark_record import command, machine, now, versions, write_whole
from benchmark_report import render_template, table
from rich.progress import track
from torchvision.transforms.v2 import InterpolationMode, functional

from transformers_massformer.cli.console import error_console as console
from transformers_massformer.cli.options import parse_size
from transformers_massformer.data.label_images import write_label_image
from transformers_massformer.data.reading import read_label
from transformers_massformer.data.transforms import (
    IMAGE_MEAN,
    IMAGE_STD,
    MAX_CLASS_SHARE,
    MAX_REDRAWS,
    Distortion,
    TrainingTransform,
    draw_distortion,
    resized_size,
)
from transformers_massformer.images import read_photo


PACKAGES = ("numpy", "opencv-python-headless", "pillow", "torch", "torchvision", "transformers-massformer")
NUM_SHAPES = 60
JPEG_QUALITY = 92
Sample = dict[str, torch.Tensor]


def make_pair(folder: Path, index: int, size: tuple[int, int]) -> tuple[Path, Path]:
    """Write a photo of smooth colours, shapes and noise, and its label map; the size is width, height."""
    rng = np.random.default_rng(index)
    label = PIL.Image.new("L", size)
    draw = PIL.ImageDraw.Draw(label)
    for _ in range(NUM_SHAPES):
        x, y = (float(rng.uniform(0, side)) for side in size)
        radius = float(rng.uniform(0.02, 0.2)) * max(size)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=int(rng.integers(7)))
    coarse = PIL.Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    coarse = coarse.resize(size, PIL.Image.Resampling.BICUBIC)
    colours = rng.integers(-60, 60, (7, 3))
    pixels = np.asarray(coarse) + colours[np.asarray(label)] + rng.normal(0, 4, (size[1], size[0], 1))
    photo, label_map = folder / f"{index}.jpg", folder / f"{index}.png"
    PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(photo, quality=JPEG_QUALITY)
    write_label_image(np.asarray(label), label_map, palette=False)
    return photo, label_map


def crop_by_rule(
    size: tuple[int, int], transform: TrainingTransform, rng: np.random.Generator, count: Callable[[slice, slice], Any]
) -> tuple[slice, slice]:
    """Draw a window of a resized picture; `count` returns the classes in a window and their pixel counts."""

    def draw() -> tuple[slice, slice]:
        starts = [int(rng.integers(max(side - transform.crop_size, 0) + 1)) for side in size]
        rows, columns = (slice(start, start + transform.crop_size) for start in starts)
        return rows, columns

    window = draw()
    for _ in range(MAX_REDRAWS):
        labels, counts = count(*window)
        counts = counts[labels != transform.ignore_index]
        if len(counts) > 1 and counts.max() / counts.sum() < MAX_CLASS_SHARE:
            break
        window = draw()
    return window


def padded(pixels: torch.Tensor, labels: torch.Tensor, transform: TrainingTransform) -> Sample:
    """Pad a sample that is smaller than the crop."""
    missing = [0, transform.crop_size - pixels.shape[-1], 0, transform.crop_size - pixels.shape[-2]]
    if any(missing):
        pixels = functional.pad(pixels, missing)
        labels = functional.pad(labels[None], missing, fill=transform.ignore_index)[0]
    return {"pixel_values": pixels, "labels": labels}


def distort_in_opencv(image: np.ndarray, distortion: Distortion) -> np.ndarray:
    """Distort the colours by the release's steps, in integers."""

    def convert(values: np.ndarray, alpha: float = 1.0, beta: float = 0.0) -> np.ndarray:
        return np.clip(values.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)

    if distortion.brightness:
        image = convert(image, beta=distortion.brightness)
    if distortion.contrast != 1 and distortion.contrast_first:
        image = convert(image, alpha=distortion.contrast)
    if distortion.saturation != 1:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = convert(hsv[..., 1], alpha=distortion.saturation)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if distortion.hue:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + int(distortion.hue / 2)) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if distortion.contrast != 1 and not distortion.contrast_first:
        image = convert(image, alpha=distortion.contrast)
    return image


def opencv_sample(
    transform: TrainingTransform, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
) -> Sample:
    """Make a sample in the plain order, as the release does."""
    size = resized_size(label.shape, transform.short_sides[int(rng.integers(len(transform.short_sides)))])
    mirrored = rng.random() < 0.5
    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    label = cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST)
    window = crop_by_rule(size, transform, rng, lambda *window: np.unique(label[window], return_counts=True))
    pixels, labels = image[window], label[window]
    if mirrored:
        pixels, labels = cv2.flip(pixels, 1), cv2.flip(labels, 1)
    pixels = distort_in_opencv(pixels, draw_distortion(rng)).astype(np.float32)
    cv2.subtract(pixels, np.array([*IMAGE_MEAN, 0]), pixels)
    cv2.multiply(pixels, np.array([*(1 / deviation for deviation in IMAGE_STD), 0]), pixels)
    planes = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    return padded(planes, torch.from_numpy(labels.astype(np.int64)), transform)


def distort_in_torchvision(image: torch.Tensor, distortion: Distortion) -> torch.Tensor:
    """Distort the colours by torchvision's functions, most of which differ from the release's of the same name."""
    if distortion.brightness:
        image = functional.adjust_brightness(image, 1 + distortion.brightness / 128)
    if distortion.contrast != 1 and distortion.contrast_first:
        image = functional.adjust_contrast(image, distortion.contrast)
    if distortion.saturation != 1:
        image = functional.adjust_saturation(image, distortion.saturation)
    if distortion.hue:
        image = functional.adjust_hue(image, distortion.hue / 360)
    if distortion.contrast != 1 and not distortion.contrast_first:
        image = functional.adjust_contrast(image, distortion.contrast)
    return image


def torchvision_sample(
    transform: TrainingTransform, image: torch.Tensor, label: torch.Tensor, rng: np.random.Generator
) -> Sample:
    """Make a sample in the plain order with torchvision's functions."""
    height, width = label.shape
    size = resized_size((height, width), transform.short_sides[int(rng.integers(len(transform.short_sides)))])
    mirrored = rng.random() < 0.5
    image = functional.resize(image, list(size), antialias=False)
    label = functional.resize(label[None], list(size), interpolation=InterpolationMode.NEAREST)[0]
    window = crop_by_rule(size, transform, rng, lambda *window: torch.unique(label[window], return_counts=True))
    pixels, labels = image[:, *window], label[window]
    if mirrored:
        pixels, labels = functional.horizontal_flip(pixels), functional.horizontal_flip(labels)
    pixels = distort_in_torchvision(pixels, draw_distortion(rng))
    mean, deviation = ([value / 255 for value in values] for values in (IMAGE_MEAN, IMAGE_STD))
    pixels = functional.normalize(functional.to_dtype(pixels, torch.float32, scale=True), mean, deviation)
    return padded(pixels.contiguous(), labels.long(), transform)


def decode_in_pillow(photo: Path, label: Path) -> tuple[PIL.Image.Image, torch.Tensor]:
    """Decode photo and label map as the package does."""
    return read_photo(photo, str(photo))[0], read_label(label, str(label))[0]


def decode_in_opencv(photo: Path, label: Path) -> tuple[np.ndarray, np.ndarray]:
    """Decode photo and label map with OpenCV."""
    image = cv2.imread(str(photo), cv2.IMREAD_COLOR_RGB)
    return np.asarray(image), np.asarray(cv2.imread(str(label), cv2.IMREAD_UNCHANGED))


def decode_in_torchvision(photo: Path, label: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode photo and label map with torchvision."""
    with warnings.catch_warnings():
        # Its decoders will move to another package.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torchvision.io.decode_image(str(photo)), torchvision.io.decode_image(str(label))[0]


@dataclass
class Contestant:
    """Implementation of the sample pipeline, and the seconds of its samples."""

    title: str
    decode: Callable[[Path, Path], tuple[Any, Any]]
    make: Callable[[TrainingTransform, Any, Any, np.random.Generator], Sample]
    decode_seconds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def measure(self, pair: tuple[Path, Path], transform: TrainingTransform, rng: np.random.Generator):
        """Make one sample and store its times."""
        # Processor time of this thread, the only one, excludes other load on the machine.
        start = time.thread_time()
        image, label = self.decode(*pair)
        decoded = time.thread_time()
        self.make(transform, image, label, rng)
        self.decode_seconds.append(decoded - start)
        self.seconds.append(time.thread_time() - decoded)

    @property
    def samples_per_second(self) -> float:
        """Compute the rate over all samples, decoding included."""
        return len(self.seconds) / (sum(self.seconds) + sum(self.decode_seconds))


def contestants() -> list[Contestant]:
    """List the implementations: the window only, then the plain orders."""
    return [
        Contestant("window only (`TrainingTransform`)", decode_in_pillow, TrainingTransform.__call__),
        Contestant("plain order, torchvision", decode_in_torchvision, torchvision_sample),
        Contestant("plain order, OpenCV (release)", decode_in_opencv, opencv_sample),
    ]


def measure_all(entries: list[Contestant], pairs: list[tuple[Path, Path]], transform: TrainingTransform, rounds: int):
    """Make a sample of every pair in each round with every contestant, with the same random numbers."""
    for seed in track(range(-1, rounds), description="measuring", console=console):
        for index, pair in enumerate(pairs):
            for entry in entries:
                entry.measure(pair, transform, np.random.default_rng((seed + 1, index)))
        if seed < 0:
            # The first round is the warm-up.
            for entry in entries:
                entry.seconds.clear()
                entry.decode_seconds.clear()


def result_table(entries: list[Contestant]) -> str:
    """Format times and rates, relative to the first contestant's."""
    first, rows = entries[0], []
    first_median = statistics.median(first.seconds)
    for entry in entries:
        decode, after = statistics.median(entry.decode_seconds), statistics.median(entry.seconds)
        ratios = [f"{after / first_median:.1f}", f"{first.samples_per_second / entry.samples_per_second:.2f}"]
        faster, more = ratios if entry is not first else ["", ""]
        times = [f"{decode * 1e3:.1f} ms", f"{after * 1e3:.1f} ms"]
        rows.append([entry.title, *times, faster, f"{entry.samples_per_second:.1f}", more])
    header = ["", "decoding", "after decoding", "the first is times faster", "samples/s per core", "the first, times"]
    return table(header, rows)


def main(
    images: Annotated[int, typer.Option(help="Number of photographs.", min=1)] = 8,
    size: Annotated[str, typer.Option(help="Size of the photographs, WIDTHxHEIGHT.")] = "4096x3072",
    crop_size: Annotated[int, typer.Option(help="Height and width of the samples.", min=1)] = 1024,
    rounds: Annotated[int, typer.Option(help="Random draws of each photograph.", min=1)] = 10,
    output: Annotated[Path, typer.Option(help="Document to write.")] = Path("docs/benchmarks_data.md"),
):
    width, height = parse_size(size)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    entries = contestants()
    with tempfile.TemporaryDirectory() as folder:
        indices = track(range(images), description="making photographs", console=console)
        pairs = [make_pair(Path(folder), index, (width, height)) for index in indices]
        measure_all(entries, pairs, TrainingTransform(crop_size=crop_size), rounds)
    document = render_template(
        "benchmarks_data.md.jinja",
        machine=machine("cpu"),
        versions=", ".join(f"{name} {version}" for name, version in versions(PACKAGES).items()),
        date=now(),
        images=images,
        size=f"{width} x {height}",
        rounds=rounds,
        crop_size=crop_size,
        command=command(__file__),
        table=result_table(entries),
    )
    write_whole(output, document)
    console.print(result_table(entries), markup=False)


if __name__ == "__main__":
    typer.run(main)
