"""
The whole way on one real photograph, on a CPU in minutes: fine-tunes a tiny MaSSFormer on crops of it, saves the
model, opens it as a pipeline, segments the photograph at its own size, and compares the result with the labels.

The photograph is `china.jpg` of scikit-learn. Its labels follow a rule on its colours, smoothed with a Gaussian of
4 pixels: brighter than 140 on average is "sky", redder than green by more than 6 is "building", the rest is
"vegetation". A model that has seen a single photograph knows that photograph only.
"""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import PIL.Image
import torch
import typer
from rich.console import Console
from rich.progress import track
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_image
from transformers import pipeline
from transformers.utils import logging

from transformers_massformer import (
    MASS13K_LABELS,
    MaSSFormerConfig,
    MaSSFormerForSemanticSegmentation,
    MaSSFormerImageProcessor,
)
from transformers_massformer.editing import label_map_image, overlay_image


CROP_SIZE, BATCH_SIZE, LEARNING_RATE = 320, 2, 2e-3
console = Console(highlight=False)


def colour_labels(photo: np.ndarray) -> np.ndarray:
    """The rule above: (height, width, 3) uint8 to (height, width) class indices."""
    smooth = gaussian_filter(photo.astype(np.float32), (4, 4, 0))
    sky, building, vegetation = (MASS13K_LABELS.index(name) for name in ("sky", "building", "vegetation"))
    dark = np.where(smooth[..., 0] - smooth[..., 1] > 6, building, vegetation)
    return np.where(smooth.mean(axis=-1) > 140, sky, dark).astype(np.uint8)


def tiny_massformer() -> MaSSFormerForSemanticSegmentation:
    """All of MaSSFormer's modules, at a width that a CPU trains in a minute."""
    backbone = {
        "model_type": "resnet",
        "layer_type": "basic",
        "embedding_size": 24,
        "hidden_sizes": [24, 48, 64, 96],
        "depths": [1, 1, 1, 1],
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
    return MaSSFormerForSemanticSegmentation(
        MaSSFormerConfig(
            backbone_config=backbone,
            pixel_decoder_hidden_size=32,
            cross_semantic_num_attention_heads=4,
            cross_semantic_intermediate_size=64,
            num_queries=20,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
        )
    )


def random_crops(photo: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[list, list]:
    """A batch of crops, half of them mirrored."""
    images, maps = [], []
    for _ in range(BATCH_SIZE):
        y, x = (rng.integers(0, side - CROP_SIZE + 1) for side in labels.shape)
        window = np.s_[y : y + CROP_SIZE, x : x + CROP_SIZE]
        step = rng.choice([-1, 1])
        images.append(np.ascontiguousarray(photo[window][:, ::step]))
        maps.append(np.ascontiguousarray(labels[window][:, ::step]))
    return images, maps


def fine_tune(
    model: MaSSFormerForSemanticSegmentation,
    processor: MaSSFormerImageProcessor,
    photo: np.ndarray,
    labels: np.ndarray,
    steps: int,
    seed: int = 0,
) -> list[float]:
    """Trains on random crops of one photograph and returns the loss of every step."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    model.train()
    losses = []
    for _ in track(range(steps), description="fine-tuning", console=console, transient=True):
        images, maps = random_crops(photo, labels, rng)
        inputs = processor(images, segmentation_maps=maps, return_tensors="pt")
        loss = model(**inputs, output_auxiliary_logits=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def main(
    output: Annotated[Path, typer.Option(help="Folder for the model and the pictures.")] = Path("demo"),
    steps: Annotated[int, typer.Option(help="Training steps.", min=1)] = 200,
):
    logging.disable_progress_bar()
    photo = load_sample_image("china.jpg")
    labels = colour_labels(photo)
    shares = {MASS13K_LABELS[label]: (labels == label).mean() for label in np.unique(labels)}
    console.print("labels: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))

    start = time.perf_counter()
    torch.manual_seed(0)
    model, processor = tiny_massformer(), MaSSFormerImageProcessor()
    losses = fine_tune(model, processor, photo, labels, steps)
    console.print(f"loss {losses[0]:.1f} -> {losses[-1]:.1f} in {steps} steps, {time.perf_counter() - start:.0f} s")
    model.save_pretrained(output / "model")
    processor.save_pretrained(output / "model")

    start = time.perf_counter()
    image = PIL.Image.fromarray(photo)
    masks = pipeline("image-segmentation", model=str(output / "model"))(image)
    label_map = np.zeros(labels.shape, dtype=np.uint8)
    for mask in masks:
        label_map[np.asarray(mask["mask"]) > 0] = MASS13K_LABELS.index(mask["label"])
    label_map_image(label_map, len(MASS13K_LABELS)).save(output / "china.png")
    overlay_image(image, label_map, len(MASS13K_LABELS)).save(output / "china_overlay.png")
    console.print(f"segmented at {image.width} x {image.height} in {time.perf_counter() - start:.1f} s")
    console.print(
        f"pixel accuracy {(label_map == labels).mean():.2%} (always saying the commonest class: "
        f"{max(shares.values()):.2%})"
    )
    console.print(f"label map, overlay and model: {output}", markup=False)


if __name__ == "__main__":
    typer.run(main)
