"""
Draw the pictures of docs/editing.md: mattes, cut-outs and bokeh with the demo checkpoint, on scenes with exact alpha.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import PIL.Image
import torch
import typer

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.cli.console import console
from transformers_massformer.editing import bokeh, cut_out, firm_matte, refine_matte
from transformers_massformer.inference.segmenter import Segmenter
from transformers_massformer.scenes import Scene, render_scene


# Scenes of a seed that the checkpoint has not seen: index, class, and windows as left, top and side in pixels.
SEED = 77
BRANCHES = (3, "vegetation", [(440, 120, 420), (900, 60, 420)])
HAIR = (4, "human", [(2680, 2180, 420)])
BOKEH = (4, "human", (2300, 2000, 1072))
SIZE = (4096, 3072)
CELL, GAP = 420, 8
# Colour behind cut-outs.
BACKDROP = (225, 60, 165)
# Pixels around a window, so that its mattes and blur equal those of the complete photo.
MARGIN = 256
BOKEH_STRENGTH = 0.012


class Example:
    """Scene with the demo checkpoint's mattes."""

    def __init__(self, segmenter: Segmenter, index: int):
        self.scene: Scene = render_scene(SEED, index, SIZE)
        self.photo = PIL.Image.fromarray(self.scene.image)
        mattes = segmenter(self.photo).mattes
        if mattes is None:
            raise ValueError("The segmenter makes no mattes. Create it with mattes=True.")
        self.mattes = mattes

    def around(self, label: str, left: int, top: int, side: int) -> tuple[PIL.Image.Image, np.ndarray, np.ndarray]:
        """Crop photo, matte and exact alpha of a class to a window with a margin."""
        x, y = max(left - MARGIN, 0), max(top - MARGIN, 0)
        right, bottom = min(left + side + MARGIN, SIZE[0]), min(top + side + MARGIN, SIZE[1])
        index, place = MASS13K_LABELS.index(label), (slice(y, bottom), slice(x, right))
        return self.photo.crop((x, y, right, bottom)), self.mattes[index][place], self.scene.alpha[index][place]


def on_backdrop(cut: PIL.Image.Image) -> PIL.Image.Image:
    """Place a cut-out on a colour that scenes do not contain."""
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", cut.size, (*BACKDROP, 255)), cut).convert("RGB")


def shown(picture: PIL.Image.Image | np.ndarray, left: int, top: int, side: int) -> PIL.Image.Image:
    """Crop the window out of a picture with a margin, at the size of a cell."""
    if isinstance(picture, np.ndarray):
        picture = PIL.Image.fromarray(picture)
    x, y = min(left, MARGIN), min(top, MARGIN)
    return picture.crop((x, y, x + side, y + side)).convert("RGB").resize((CELL, CELL), PIL.Image.Resampling.LANCZOS)


def sheet(rows: list[list[PIL.Image.Image]]) -> PIL.Image.Image:
    """Arrange cells in rows and columns on white."""
    width, height = len(rows[0]) * (CELL + GAP) - GAP, len(rows) * (CELL + GAP) - GAP
    picture = PIL.Image.new("RGB", (width, height), "white")
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            picture.paste(cell, (column * (CELL + GAP), row * (CELL + GAP)))
    return picture


def matte_row(example: Example, label: str, window: tuple[int, int, int]) -> list[PIL.Image.Image]:
    """Draw photo, matte, refined matte, exact alpha, and the cut-out on a backdrop."""
    photo, matte, alpha = example.around(label, *window)
    refined = refine_matte(photo, matte)
    cells = (photo, matte, refined, alpha, on_backdrop(cut_out(photo, refined)))
    return [shown(cell, *window) for cell in cells]


def bokeh_row(example: Example, label: str, window: tuple[int, int, int]) -> list[PIL.Image.Image]:
    """Draw the photo, and its bokeh with the checkpoint's matte, the refined matte and the exact alpha."""
    photo, matte, alpha = example.around(label, *window)
    mattes = (firm_matte(matte), refine_matte(photo, matte), alpha)
    # The strength is relative to the diagonal of the complete photo.
    strength = BOKEH_STRENGTH * np.hypot(*SIZE) / np.hypot(*photo.size)
    return [shown(photo, *window), *(shown(bokeh(photo, each, strength), *window) for each in mattes)]


def main(
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("docs/images"),
    model: Annotated[str, typer.Option(help="Folder of the model.")] = "hub/massformer-demo",
):
    segmenter = Segmenter(model, "cpu", torch.float32, mattes=True)
    output.mkdir(parents=True, exist_ok=True)
    examples = {index: Example(segmenter, index) for index in sorted({BRANCHES[0], HAIR[0], BOKEH[0]})}
    rows = [
        matte_row(examples[index], label, window) for index, label, places in (BRANCHES, HAIR) for window in places
    ]
    pictures = {"mattes": sheet(rows), "bokeh": sheet([bokeh_row(examples[BOKEH[0]], *BOKEH[1:])])}
    for name, picture in pictures.items():
        picture.save(output / f"{name}.jpg", quality=90)
        console.print(f"{output / name}.jpg", markup=False)


if __name__ == "__main__":
    typer.run(main)
