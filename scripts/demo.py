"""
The whole way in a minute or two: draws a scene that the demo checkpoint has never seen, segments it at its own size
through a pipeline, compares the label map with the exact one, and writes label map, overlay and mattes.
"""

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import PIL.Image
import torch
import typer
from rich.console import Console
from transformers import pipeline
from transformers.utils import logging

from transformers_massformer import MASS13K_LABELS, open_image
from transformers_massformer.cli.console import print_table
from transformers_massformer.cli.options import parse_size
from transformers_massformer.editing import class_mattes, label_map_image, overlay_image
from transformers_massformer.evaluation.report import score_rows
from transformers_massformer.inference.memory import PeakMemory
from transformers_massformer.metrics import count_images, score
from transformers_massformer.scenes import render_scene
from transformers_massformer.scenes.photograph import encode_jpeg


CHECKPOINT = Path(__file__).parent.parent / "hub" / "massformer-demo"
# Not the seed of any scene that the checkpoint was trained or scored on.
SEED, JPEG_QUALITY = 2026, 95
console = Console(highlight=False, soft_wrap=True)


def draw_scene(output: Path, size: tuple[int, int], seed: int) -> torch.Tensor:
    """Writes a scene as a JPEG and returns its exact label map."""
    scene = render_scene(seed, 0, size)
    (output / "scene.jpg").write_bytes(encode_jpeg(scene.image, JPEG_QUALITY))
    return torch.from_numpy(scene.label)


def segment(photo: PIL.Image.Image, checkpoint: Path) -> tuple[np.ndarray, Any, str]:
    """The label map that the pipeline's masks make, the model's outputs, and what it took."""
    segmenter = pipeline("image-segmentation", model=str(checkpoint))
    start = time.perf_counter()
    with PeakMemory(segmenter.device) as memory:
        outputs = segmenter.forward(segmenter.preprocess(photo))
        masks = segmenter.postprocess(outputs)
    seconds = time.perf_counter() - start
    label_map = np.zeros((photo.height, photo.width), dtype=np.uint8)
    for mask in masks:
        label_map[np.asarray(mask["mask"]) > 0] = MASS13K_LABELS.index(mask["label"])
    took = f"{seconds:.1f} s on {segmenter.device}"
    return (
        label_map,
        (segmenter.image_processor, outputs),
        took + (f", peak memory {memory.bytes / 2**30:.2f} GiB" if memory.bytes else ""),
    )


def write_mattes(processor: Any, outputs: Any, size: tuple[int, int], labels: list[str], folder: Path):
    """A soft mask of each class."""
    folder.mkdir(exist_ok=True)
    (found,) = processor.post_process_semantic_segmentation(
        outputs, target_sizes=[size], return_segmentation_scores=True
    )
    for label, matte in zip(labels, class_mattes(found["segmentation_scores"]), strict=True):
        matte.save(folder / f"{label}.png", compress_level=1)


def main(
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo"),
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the scene in pixels.")] = "4096x3072",
    seed: Annotated[int, typer.Option(help="Another seed draws another scene.")] = SEED,
    checkpoint: Annotated[Path, typer.Option(help="Folder of the model.")] = CHECKPOINT,
):
    logging.disable_progress_bar()
    labels = list(MASS13K_LABELS)
    output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    truth = draw_scene(output, parse_size(size), seed)
    console.print(f"a scene of {size} pixels drawn in {time.perf_counter() - start:.1f} s")

    photo = open_image(output / "scene.jpg")
    label_map, (processor, outputs), took = segment(photo, checkpoint)
    console.print(f"segmented by {checkpoint.name} in {took}")
    scores = score(count_images([torch.from_numpy(label_map)], [truth], len(labels)))
    print_table(score_rows(labels, scores))

    label_map_image(label_map, len(labels)).save(output / "label_map.png")
    label_map_image(truth.numpy(), len(labels)).save(output / "truth.png")
    overlay_image(photo, label_map, len(labels)).save(output / "overlay.jpg", quality=92)
    with torch.inference_mode():
        write_mattes(processor, outputs, (photo.height, photo.width), labels, output / "mattes")
    console.print(f"scene, label map, overlay and mattes: {output}", markup=False)


if __name__ == "__main__":
    typer.run(main)
