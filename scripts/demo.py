"""
Run the complete workflow in a minute or two: draw a scene that the demo checkpoint has never seen, segment it at its
own size through a pipeline, score the label map against the exact one, and write label maps, overlay and mattes.
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
from transformers_massformer.editing import class_mattes, label_map_image, overlay_image
from transformers_massformer.inference.memory import PeakMemory
from transformers_massformer.metrics import count_images, score
from transformers_massformer.metrics.tables import score_rows
from transformers_massformer.scenes import render_scene
from transformers_massformer.scenes.photograph import encode_jpeg
from transformers_massformer.utils.text import format_bytes


CHECKPOINT = Path(__file__).parent.parent / "hub" / "massformer-demo"
# No scene of this seed was used to train or score the checkpoint.
SEED, JPEG_QUALITY = 2026, 95


def draw_scene(output: Path, size: tuple[int, int], seed: int) -> np.ndarray:
    """Write a scene as a JPEG and return its exact label map."""
    scene = render_scene(seed, 0, size)
    (output / "scene.jpg").write_bytes(encode_jpeg(scene.image, JPEG_QUALITY))
    return scene.label


def segment(segmenter: ImageSegmentationPipeline, photo: PIL.Image.Image) -> tuple[np.ndarray, Any]:
    """Segment a photo with a pipeline and return the label map of its masks, and the model's outputs."""
    outputs = segmenter.forward(segmenter.preprocess(photo))
    label_map = np.zeros((photo.height, photo.width), dtype=np.uint8)
    for mask in segmenter.postprocess(outputs):
        label_map[np.asarray(mask["mask"]) > 0] = MASS13K_LABELS.index(mask["label"])
    return label_map, outputs


@torch.inference_mode()
def write_mattes(segmenter: ImageSegmentationPipeline, outputs: Any, size: tuple[int, int], folder: Path):
    """Write a soft mask of each class."""
    folder.mkdir(exist_ok=True)
    processor: Any = segmenter.image_processor
    (found,) = processor.post_process_semantic_segmentation(
        outputs, target_sizes=[size], return_segmentation_scores=True
    )
    for label, matte in zip(MASS13K_LABELS, class_mattes(found["segmentation_scores"]), strict=True):
        matte.save(folder / f"{label}.png", compress_level=1)


def main(
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo"),
    size: Annotated[str, typer.Option(help="Size of the scene in pixels, WIDTHxHEIGHT.")] = "4096x3072",
    seed: Annotated[int, typer.Option(help="Seed of the scene.")] = SEED,
    checkpoint: Annotated[Path, typer.Option(help="Folder of the model.")] = CHECKPOINT,
):
    logging.disable_progress_bar()
    num_labels = len(MASS13K_LABELS)
    output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    truth = draw_scene(output, parse_size(size), seed)
    console.print(f"drew a scene of {size} pixels in {time.perf_counter() - start:.1f} s")

    photo = open_image(output / "scene.jpg")
    segmenter: Any = pipeline("image-segmentation", model=str(checkpoint))
    start = time.perf_counter()
    with PeakMemory(segmenter.device) as memory:
        label_map, outputs = segment(segmenter, photo)
    took = f"{time.perf_counter() - start:.1f} s on {segmenter.device}, peak memory {format_bytes(memory.bytes)}"
    console.print(f"segmented by {checkpoint.name} in {took}")
    counts = count_images([torch.from_numpy(label_map)], [torch.from_numpy(truth)], num_labels)
    print_table(score_rows(MASS13K_LABELS, score(counts)))

    label_map_image(label_map, num_labels).save(output / "label_map.png")
    label_map_image(truth, num_labels).save(output / "truth.png")
    overlay_image(photo, label_map, num_labels).save(output / "overlay.jpg", quality=92)
    write_mattes(segmenter, outputs, truth.shape, output / "mattes")
    console.print(f"scene, label maps, overlay and mattes are in {output}", markup=False)


if __name__ == "__main__":
    typer.run(main)
