"""
Draws docs/images/readme.jpg: the scene of `make demo`, which the demo checkpoint has never seen, under its label map,
and the part of it with the longest boundary of vegetation at its own pixels, beside the exact label map. The part is
chosen by the exact label map, not by the model's.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import typer
from demo import CHECKPOINT, SEED
from scipy import ndimage

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.cli.options import parse_size
from transformers_massformer.editing import label_map_image, overlay_image, with_legend
from transformers_massformer.inference.segmenter import Segmenter
from transformers_massformer.scenes import render_scene


# Of the picture, in pixels: its height without the legend, the width of each part, the gap between them, the letters.
HEIGHT, PART_WIDTH, GAP, TITLE_SIZE = 600, 390, 8, 30
OPACITY, JPEG_QUALITY = 0.5, 85


def busiest_part(label_map: np.ndarray, label: int, width: int, height: int) -> tuple[int, int]:
    """Left and top of the window with the longest boundary of a class, to a quarter of its size."""
    inside = label_map == label
    boundary = inside & ~ndimage.binary_erosion(inside, border_value=1)
    sums = np.pad(boundary.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    windows = windows[:: height // 4, :: width // 4]
    row, column = np.unravel_index(windows.argmax(), windows.shape)
    return int(column) * (width // 4), int(row) * (height // 4)


def titled(picture: PIL.Image.Image, title: str) -> PIL.Image.Image:
    """With a title in a dark corner."""
    draw = PIL.ImageDraw.Draw(picture)
    font = PIL.ImageFont.load_default(TITLE_SIZE)
    draw.rectangle((0, 0, font.getlength(title) + TITLE_SIZE, 3 * TITLE_SIZE // 2), fill="black")
    draw.text((TITLE_SIZE // 2, 3 * TITLE_SIZE // 4), title, fill="white", font=font, anchor="lm")
    return picture


def compose(
    photo: PIL.Image.Image, label_map: np.ndarray, truth: np.ndarray, part: tuple[int, int]
) -> PIL.Image.Image:
    """The overview with the part's frame, and the part three times: photograph, model, exact."""
    num_labels = len(MASS13K_LABELS)
    box = (*part, part[0] + PART_WIDTH, part[1] + HEIGHT)
    overview = overlay_image(photo, label_map, num_labels, OPACITY)
    PIL.ImageDraw.Draw(overview).rectangle(box, outline="white", width=16)
    overview = overview.resize((photo.width * HEIGHT // photo.height, HEIGHT), PIL.Image.Resampling.LANCZOS)
    panels = [titled(overview, f"{photo.width} x {photo.height} pixels")]
    panels.append(titled(photo.crop(box), "photograph"))
    for title, values in (("label map", label_map), ("exact", truth)):
        panels.append(titled(label_map_image(values, num_labels).convert("RGB").crop(box), title))
    width = sum(panel.width for panel in panels) + GAP * (len(panels) - 1)
    picture, x = PIL.Image.new("RGB", (width, HEIGHT), "white"), 0
    for panel in panels:
        picture.paste(panel, (x, 0))
        x += panel.width + GAP
    return with_legend(picture, label_map, MASS13K_LABELS)


def main(
    output: Annotated[Path, typer.Option(help="The picture.")] = Path("docs/images/readme.jpg"),
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the scene in pixels.")] = "4096x3072",
    seed: Annotated[int, typer.Option(help="Another seed draws another scene.")] = SEED,
    checkpoint: Annotated[Path, typer.Option(help="Folder of the model.")] = CHECKPOINT,
):
    scene = render_scene(seed, 0, parse_size(size))
    photo = PIL.Image.fromarray(scene.image)
    label_map = Segmenter(str(checkpoint), "cpu")(photo).label_map
    part = busiest_part(scene.label, MASS13K_LABELS.index("vegetation"), PART_WIDTH, HEIGHT)
    compose(photo, label_map, scene.label, part).save(output, quality=JPEG_QUALITY)


if __name__ == "__main__":
    typer.run(main)
