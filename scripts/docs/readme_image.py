"""
Draw docs/images/readme.jpg from the photograph of `make demo`: the photograph and its overlay, and below each of them
a detail at full resolution.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import PIL.Image
import PIL.ImageDraw
import typer

from transformers_massformer import MASS13K_LABELS, open_image
from transformers_massformer.editing import overlay_image, with_legend


PHOTO = Path(__file__).parents[1] / "data" / "tree.jpg"
# In pixels: width of each panel, gap between them, height of the details.
WIDTH, GAP, DETAIL_HEIGHT = 800, 8, 450
# Left and top of the detail: thin splinters at the end of a branch, in front of the sky.
DETAIL = (780, 960)
OPACITY, JPEG_QUALITY = 0.5, 85


def column(picture: PIL.Image.Image, box: tuple[int, int, int, int]) -> PIL.Image.Image:
    """Draw a picture with the detail's frame, reduced, above its detail."""
    framed = picture.copy()
    PIL.ImageDraw.Draw(framed).rectangle(box, outline="white", width=12)
    overview = framed.resize((WIDTH, picture.height * WIDTH // picture.width), PIL.Image.Resampling.LANCZOS)
    panel = PIL.Image.new("RGB", (WIDTH, overview.height + GAP + DETAIL_HEIGHT), "white")
    panel.paste(overview, (0, 0))
    panel.paste(picture.crop(box), (0, overview.height + GAP))
    return panel


def compose(photo: PIL.Image.Image, label_map: np.ndarray) -> PIL.Image.Image:
    """Compose the columns of the photograph and of its overlay, above a legend."""
    left, top = DETAIL
    box = (left, top, left + WIDTH, top + DETAIL_HEIGHT)
    pictures = (photo, overlay_image(photo, label_map, len(MASS13K_LABELS), OPACITY))
    columns = [column(picture, box) for picture in pictures]
    picture = PIL.Image.new("RGB", (2 * WIDTH + GAP, columns[0].height), "white")
    for index, panel in enumerate(columns):
        picture.paste(panel, (index * (WIDTH + GAP), 0))
    return with_legend(picture, label_map, MASS13K_LABELS)


def main(
    demo: Annotated[Path, typer.Option(help="Folder that `make demo` wrote.")] = Path("demo"),
    output: Annotated[Path, typer.Option(help="Picture to write.")] = Path("docs/images/readme.jpg"),
):
    if not (demo / "photo_label_map.png").exists():
        raise typer.BadParameter(f"{demo} has no pictures. Run `make demo` first.")
    label_map = np.asarray(PIL.Image.open(demo / "photo_label_map.png"))
    compose(open_image(PHOTO), label_map).save(output, quality=JPEG_QUALITY)


if __name__ == "__main__":
    typer.run(main)
