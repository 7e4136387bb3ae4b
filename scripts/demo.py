"""
Run the complete workflow in two or three minutes with the shipped checkpoint, at full size, through a pipeline.

First segment a photograph, and write its label map, overlay, mattes and a cut-out. Then draw a scene that the
checkpoint has never seen, segment it, and score the label map against the exact one.
"""

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import PIL.Image
import torch
import typer
from transformers import ImageSegmentationPipeline, pipeline
from transformers.utils import logging

from transformers_massformer import MASS13K_LABELS, open_image
from transformers_massformer.cli.console import console, print_table
from transformers_massformer.cli.options import parse_size
from transformers_massformer.data.label_images import write_label_image
from transformers_massformer.editing import class_mattes, cut_out, firm_matte, overlay_image
from transformers_massformer.inference.memory import PeakMemory
from transformers_massformer.metrics import count_images, score
from transformers_massformer.metrics.tables import score_rows
from transformers_massformer.scenes import render_scene
from transformers_massformer.scenes.photograph import encode_jpeg
from transformers_massformer.utils.png import write_png
from transformers_massformer.utils.text import format_bytes


CHECKPOINT = Path(__file__).parent.parent / "hub" / "massformer-photo"
PHOTO = Path(__file__).parent / "data" / "tree.jpg"
# No scene of this seed was used to train or score the checkpoint.
SEED, JPEG_QUALITY = 2026, 95
# Classes of which a photograph may be a picture; the largest is cut out.
SUBJECTS = ("human", "building", "vegetation")


def draw_scene(output: Path, size: tuple[int, int], seed: int) -> np.ndarray:
    """Write a scene as a JPEG and return its exact label map."""
    scene = render_scene(seed, 0, size)
    (output / "scene.jpg").write_bytes(encode_jpeg(scene.image, JPEG_QUALITY))
    return scene.label


def segment(segmenter: ImageSegmentationPipeline, photo: PIL.Image.Image) -> tuple[np.ndarray, Any]:
    """Segment a photo with a pipeline, print what it took, and return the label map and the model's outputs."""
    start = time.perf_counter()
    with PeakMemory(segmenter.device) as memory:
        outputs = segmenter.forward(segmenter.preprocess(photo))
        label_map = np.zeros((photo.height, photo.width), dtype=np.uint8)
        for mask in segmenter.postprocess(outputs):
            label_map[np.asarray(mask["mask"]) > 0] = MASS13K_LABELS.index(mask["label"])
    took = f"{time.perf_counter() - start:.1f} s on {segmenter.device}, peak memory {format_bytes(memory.bytes)}"
    console.print(f"segmented {photo.width} x {photo.height} pixels in {took}")
    return label_map, outputs


@torch.inference_mode()
def compute_mattes(segmenter: ImageSegmentationPipeline, outputs: Any, size: tuple[int, int]) -> list[PIL.Image.Image]:
    """Compute a soft mask of each class."""
    processor: Any = segmenter.image_processor
    (found,) = processor.post_process_semantic_segmentation(
        outputs, target_sizes=[size], return_segmentation_scores=True
    )
    return class_mattes(found["segmentation_scores"])


def write_results(
    segmenter: ImageSegmentationPipeline, photo: PIL.Image.Image, output: Path, prefix: str = ""
) -> tuple[np.ndarray, list[PIL.Image.Image]]:
    """Segment a photo, write its label map, overlay and mattes, and return the label map and the mattes."""
    label_map, outputs = segment(segmenter, photo)
    write_label_image(label_map, output / f"{prefix}label_map.png")
    overlay_image(photo, label_map, len(MASS13K_LABELS)).save(output / f"{prefix}overlay.jpg", quality=92)
    folder = output / f"{prefix}mattes"
    folder.mkdir(exist_ok=True)
    mattes = compute_mattes(segmenter, outputs, label_map.shape)
    for label, matte in zip(MASS13K_LABELS, mattes, strict=True):
        write_png(matte, folder / f"{label}.png")
    return label_map, mattes


def largest_subject(label_map: np.ndarray) -> str:
    """Return the subject that covers most pixels."""
    counts = np.bincount(label_map.ravel(), minlength=len(MASS13K_LABELS))
    return max(SUBJECTS, key=lambda name: counts[MASS13K_LABELS.index(name)])


def show_photo(segmenter: ImageSegmentationPipeline, path: Path, output: Path, subject: str | None):
    """Segment a photograph and write all pictures of it."""
    photo = open_image(path)
    label_map, mattes = write_results(segmenter, photo, output, "photo_")
    subject = subject or largest_subject(label_map)
    cut = cut_out(photo, firm_matte(mattes[MASS13K_LABELS.index(subject)]))
    write_png(cut, output / "photo_cutout.png")
    console.print(f"cut out {subject}")


def show_scene(segmenter: ImageSegmentationPipeline, size: tuple[int, int], seed: int, output: Path):
    """Draw and segment a scene, print its scores, and write all pictures of it."""
    start = time.perf_counter()
    truth = draw_scene(output, size, seed)
    console.print(f"drew a scene in {time.perf_counter() - start:.1f} s")
    write_label_image(truth, output / "truth.png")
    label_map, _ = write_results(segmenter, open_image(output / "scene.jpg"), output)
    counts = count_images([torch.from_numpy(label_map)], [torch.from_numpy(truth)], len(MASS13K_LABELS))
    print_table(score_rows(MASS13K_LABELS, score(counts)))


def main(
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo"),
    photo: Annotated[Path, typer.Option(help="Photograph to segment.", exists=True, dir_okay=False)] = PHOTO,
    subject: Annotated[
        str | None, typer.Option("--class", help="Class to cut out; by default the largest subject.")
    ] = None,
    size: Annotated[str, typer.Option(help="Size of the scene in pixels, WIDTHxHEIGHT.")] = "2048x1536",
    seed: Annotated[int, typer.Option(help="Seed of the scene.")] = SEED,
    checkpoint: Annotated[Path, typer.Option(help="Folder of the model.")] = CHECKPOINT,
):
    if subject is not None and subject not in MASS13K_LABELS:
        raise typer.BadParameter(f"There is no class {subject}, only {', '.join(MASS13K_LABELS)}.")
    logging.disable_progress_bar()
    output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    segmenter: Any = pipeline("image-segmentation", model=str(checkpoint))
    console.print(f"loaded {checkpoint.name}", markup=False)
    show_photo(segmenter, photo, output, subject)
    show_scene(segmenter, parse_size(size), seed, output)
    console.print(f"{time.perf_counter() - start:.0f} s in all; the pictures are in {output}", markup=False)


if __name__ == "__main__":
    typer.run(main)
