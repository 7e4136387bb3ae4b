"""
Make cut-outs of known alpha for `photo_sharpness.py`: RGBA pictures named CLASS_NAME.png.

`people` cuts people out of a folder in MaSS13K's layout with tight person masks; `tree` keys dark foliage against a
bright sky. Look at the results and delete bad ones. Needs this package with [editing] and opencv-python-headless;
`tree` also ncnn and the sky net of `pseudo_label_photos.py`.
"""

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import PIL.Image
import typer
from pseudo_label_photos import HUMAN, SkyNet, read_picture, resize

from transformers_massformer.data.layout import find_splits
from transformers_massformer.editing import cut_out
from transformers_massformer.images import read_photo
from transformers_massformer.training.session import read_pairs


# A mask's smoothing in its own pixels, its threshold (above 0.5: a little inside) and the steepness of its edge.
SMOOTH, INSIDE, STEEPNESS = 0.8, 0.6, 2.5
# Parts smaller than this share of the largest one are dropped.
LEAST_PART = 0.01
# Height at which the sky's colour is spread behind the foliage, and the blur that does so as a share of it.
SKY_SIDE, SKY_BLUR = 128, 0.15
# Least share of pixels in which the key and the sky net agree.
AGREEMENT = 0.8
Output = Annotated[Path, typer.Option(help="Folder for the cut-outs.")]
app = typer.Typer(help=__doc__)


def enlarged_alpha(mask: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge a mask and give it a smooth edge of two to three pixels."""
    height, width = mask.shape
    large = cv2.resize(mask.astype(np.float32), (scale * width, scale * height), interpolation=cv2.INTER_CUBIC)
    soft = cv2.GaussianBlur(large, (0, 0), SMOOTH * scale)
    return ((soft - INSIDE) * STEEPNESS + 0.5).clip(0, 1)


def large_parts(alpha: np.ndarray) -> np.ndarray:
    """Set the alpha of small detached parts to 0."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats((alpha > 0).astype(np.uint8))
    areas, parts = np.array(stats[:, cv2.CC_STAT_AREA]), np.asarray(parts, int)
    areas[0] = 0
    return np.where((areas >= LEAST_PART * areas.max())[parts], alpha, 0)


def darkness_key(pixels: np.ndarray, sky: np.ndarray, clear: float, opaque: float) -> np.ndarray:
    """
    Compute the alpha of foliage from how much darker than the sky behind it a pixel is, in the channel that tells
    most; the sky's colour is spread from `sky`, the pixels that the sky net calls sky.
    """
    values = pixels.astype(np.float32)
    # The brighter half of it: the net's sky contains twigs.
    brightness = values.sum(-1)
    weight = (sky & (brightness >= np.median(brightness[sky]))).astype(np.float32)
    # The sky changes slowly: a small picture of it will do.
    height, width = sky.shape
    small = max(1, SKY_SIDE * width // height), SKY_SIDE
    spread, known = (
        cv2.GaussianBlur(resize(each, small), (0, 0), SKY_BLUR * SKY_SIDE)
        for each in (values * weight[..., None], weight)
    )
    behind = resize(spread / np.maximum(known, 1e-6)[..., None], (width, height))
    darker = 1 - (values / np.maximum(behind, 1)).min(-1)
    return ((darker - clear) / (opaque - clear)).clip(0, 1)


def write_cutout(photo: PIL.Image.Image, alpha: np.ndarray, path: Path):
    """Write the part of a photograph with alpha, without traces of the old background."""
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_out(photo, alpha.astype(np.float32)).crop(box).save(path)
    typer.echo(f"{path}: {box[2] - box[0]} x {box[3] - box[1]}")


@app.command()
def people(
    data: Annotated[Path, typer.Option(help="Folder in MaSS13K's layout; label 1 is a person.", exists=True)],
    output: Output,
    name: Annotated[list[str], typer.Option(help="Photograph to cut out, without suffix. Repeatable.")],
    split: Annotated[str, typer.Option(help="Split.")] = "val",
    scale: Annotated[int, typer.Option(help="Enlargement.", min=1)] = 3,
):
    """Cut out the people of photographs."""
    pairs = {pair.image_id: pair for pair in read_pairs(find_splits(data), split)}
    if unknown := [stem for stem in name if stem not in pairs]:
        raise typer.BadParameter(f"The split {split} of {data} has no photograph {', '.join(unknown)}.")
    for stem in name:
        photo = read_photo(pairs[stem].image, stem)[0]
        labels = read_picture(pairs[stem].label, cv2.IMREAD_UNCHANGED)
        size = scale * photo.width, scale * photo.height
        alpha = large_parts(enlarged_alpha(labels == HUMAN, scale))
        write_cutout(photo.resize(size, PIL.Image.Resampling.LANCZOS), alpha, output / f"human_{stem}.png")


@app.command()
def tree(
    photo: Annotated[Path, typer.Option(help="Photograph of a dark plant against a bright sky.", exists=True)],
    box: Annotated[tuple[int, int, int, int], typer.Option(help="Rectangle of plant and sky: left top right bottom.")],
    teachers: Annotated[Path, typer.Option(help="Folder of the sky net.", exists=True, file_okay=False)],
    output: Output,
    clear: Annotated[float, typer.Option(help="How much darker than the sky a cloud may be.")] = 0.3,
    opaque: Annotated[float, typer.Option(help="How much darker than the sky the plant is at least.")] = 0.6,
):
    """Cut a plant out of the sky."""
    complete = read_photo(photo, photo.name)[0]
    left, top, right, bottom = box
    sky = SkyNet(teachers, 1)(np.asarray(complete))[top:bottom, left:right] > 0.5
    part = complete.crop(box)
    alpha = darkness_key(np.asarray(part), sky, clear, opaque)
    agreement = ((alpha < 0.5) == sky).mean()
    if agreement < AGREEMENT:
        raise typer.BadParameter(
            f"The key and the sky net agree on {agreement:.0%} of {box}. Choose another rectangle."
        )
    write_cutout(part, large_parts(alpha), output / f"vegetation_{photo.stem}.png")


if __name__ == "__main__":
    app()
