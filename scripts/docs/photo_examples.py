"""Draw a contact sheet of photographs, each beside its overlay, for the card of a checkpoint."""

from pathlib import Path
from typing import Annotated

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
import typer

from transformers_massformer import open_image
from transformers_massformer.editing import overlay_image, with_legend
from transformers_massformer.inference.segmenter import Segmenter


CELL, GAP, PAIRS_PER_ROW = (480, 320), 4, 2
OPACITY, JPEG_QUALITY = 0.5, 85


def pair(photo: PIL.Image.Image, label_map: np.ndarray, num_labels: int) -> PIL.Image.Image:
    """Draw a photo and its overlay side by side, reduced into cells."""
    width, height = CELL
    picture = PIL.Image.new("RGB", (2 * width + GAP, height), "white")
    for index, each in enumerate((photo, overlay_image(photo, label_map, num_labels, OPACITY))):
        picture.paste(PIL.ImageOps.pad(each.convert("RGB"), CELL, color="white"), (index * (width + GAP), 0))
    return picture


def sheet(pairs: list[PIL.Image.Image]) -> PIL.Image.Image:
    """Arrange pairs in rows."""
    width, height = pairs[0].width + 3 * GAP, pairs[0].height + GAP
    rows = -(-len(pairs) // PAIRS_PER_ROW)
    picture = PIL.Image.new("RGB", (PAIRS_PER_ROW * width - 3 * GAP, rows * height - GAP), "white")
    for index, each in enumerate(pairs):
        row, column = divmod(index, PAIRS_PER_ROW)
        picture.paste(each, (column * width, row * height))
    return picture


def main(
    photos: Annotated[list[Path], typer.Argument(help="Photographs, in the order of the sheet.", exists=True)],
    model: Annotated[str, typer.Option(help="Folder of the model.")] = "hub/massformer-photo",
    output: Annotated[Path, typer.Option(help="Picture to write.")] = Path("examples.jpg"),
):
    segmenter = Segmenter(model, "cpu", torch.float32)
    pairs, label_maps = [], []
    for path in photos:
        photo = open_image(path)
        label_map = segmenter(photo).label_map
        pairs.append(pair(photo, label_map, len(segmenter.labels)))
        label_maps.append(label_map.ravel())
    # The legend's shares are those of all photographs together.
    picture = with_legend(sheet(pairs), np.concatenate(label_maps), segmenter.labels)
    picture.save(output, quality=JPEG_QUALITY, optimize=True)


if __name__ == "__main__":
    typer.run(main)
