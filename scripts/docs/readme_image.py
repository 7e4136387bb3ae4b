"""
Draw docs/images/readme.jpg from the pictures of `make demo`: the scene under its label map, and beside it the window
with the longest vegetation boundary at full resolution: photo, label map and exact label map. The window is chosen by
the exact label map alone.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import typer
from scipy import ndimage

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.editing import label_map_image, overlay_image, with_legend


# In pixels: height of the picture without the legend, width of each window, gap between them, font size.
HEIGHT, PART_WIDTH, GAP, TITLE_SIZE = 600, 390, 8, 30
OPACITY, JPEG_QUALITY = 0.5, 85


def busiest_part(label_map: np.ndarray, label: int, width: int, height: int) -> tuple[int, int]:
    """Find left and top of the window with the longest boundary of a class, to a quarter of the window's size."""
    inside = label_map == label
    boundary = inside & ~ndimage.binary_erosion(inside, border_value=1)
    sums = np.pad(boundary.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    windows = windows[:: height // 4, :: width // 4]
    row, column = np.unravel_index(windows.argmax(), windows.shape)
    return int(column) * (width // 4), int(row) * (height // 4)


def titled(picture: PIL.Image.Image, title: str) -> PIL.Image.Image:
    """Draw a title into a dark corner of a picture."""
    draw = PIL.ImageDraw.Draw(picture)
    font = PIL.ImageFont.load_default(TITLE_SIZE)
    draw.rectangle((0, 0, font.getlength(title) + TITLE_SIZE, 3 * TITLE_SIZE // 2), fill="black")
    draw.text((TITLE_SIZE // 2, 3 * TITLE_SIZE // 4), title, fill="white", font=font, anchor="lm")
    return picture


def compose(photo: PIL.Image.Image, label_map: np.ndarray, truth: np.ndarray) -> PIL.Image.Image:
    """Compose the overview with the framed window, and the window's photo, label map and exact label map."""
    num_labels = len(MASS13K_LABELS)
    left, top = busiest_part(truth, MASS13K_LABELS.index("vegetation"), PART_WIDTH, HEIGHT)
    box = (left, top, left + PART_WIDTH, top + HEIGHT)
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
    demo: Annotated[Path, typer.Option(help="Folder that `make demo` wrote.")] = Path("demo"),
    output: Annotated[Path, typer.Option(help="Picture to write.")] = Path("docs/images/readme.jpg"),
):
    if not (demo / "truth.png").exists():
        raise typer.BadParameter(f"{demo} has no pictures. Run `make demo` first.")
    photo = PIL.Image.open(demo / "scene.jpg").convert("RGB")
    label_map, truth = (np.asarray(PIL.Image.open(demo / f"{name}.png")) for name in ("label_map", "truth"))
    compose(photo, label_map, truth).save(output, quality=JPEG_QUALITY)


if __name__ == "__main__":
    typer.run(main)
