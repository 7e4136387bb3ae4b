"""Let people review objects: contact sheets to look at and a list of objects to accept or reject."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from ..data.annotations import decode_mask
from ..utils.tables import read_table, write_table
from .instances import Instance


COLUMNS = ("split", "image_id", "instance", "class", "score", "mask_score", "area", "reason", "decision")
ACCEPT, REJECT = "accept", "reject"
# Side of a cell's picture and height of a line of text below it, in pixels; cells in a row of a sheet.
CELL_SIZE, TEXT_HEIGHT, CELLS_PER_ROW = 384, 18, 4
# Colours that are rare in photos.
ACCEPTED_COLOUR, REJECTED_COLOUR = (255, 0, 170), (230, 40, 0)
# Side of the square that a cell shows, relative to the longer side of the object's box.
SURROUNDINGS = 2.0


class Decision(NamedTuple):
    """Whether an object is accepted, and the class that the review list names, if any."""

    accepted: bool
    class_name: str


@dataclass(frozen=True)
class Reviewable:
    """An object with the facts that reviewers need."""

    split: str
    image_id: str
    number: int
    class_name: str
    instance: Instance

    @property
    def key(self) -> tuple[str, str, int]:
        return self.split, self.image_id, self.number

    def row(self) -> dict[str, object]:
        """Return the object's row in the review list."""
        instance = self.instance
        values = (
            *self.key,
            self.class_name,
            instance.score,
            instance.mask_score,
            f"{instance.share:.6f}",
            instance.reason,
            ACCEPT if instance.accepted else REJECT,
        )
        return dict(zip(COLUMNS, values, strict=True))


def write_review_list(reviewables: Iterable[Reviewable], path: Path):
    """Write the review list: a row per object, with the decision to edit in the last column."""
    write_table(path, COLUMNS, (each.row() for each in reviewables))


def read_review_list(path: Path) -> dict[tuple[str, str, int], Decision]:
    """
    Read the decisions of a review list.

    Args:
        path (`Path`): The list. Objects without a row keep their decision.

    Returns:
        `dict[tuple, Decision]`: Decisions by split, name of the photo and number of the object.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a column is missing or a decision is invalid.
    """
    decisions = {}
    for line, row in read_table(path, ("split", "image_id", "instance", "decision"), "review list"):
        decision, number = row["decision"].strip().lower(), row["instance"].strip()
        if decision not in (ACCEPT, REJECT) or not number.isdecimal():
            raise ValueError(
                f"{path}, line {line}: the decision on object {row['instance']!r} is {row['decision']!r}; it must be "
                f"{ACCEPT} or {REJECT}."
            )
        key = row["split"].strip(), row["image_id"], int(number)
        found = Decision(decision == ACCEPT, (row.get("class") or "").strip())
        if decisions.setdefault(key, found).accepted != found.accepted:
            raise ValueError(f"{path}, line {line}: object {number} of {key[1]} is both accepted and rejected.")
    return decisions


def decide(
    instances: Sequence[Instance], decisions: Mapping[tuple[str, str, int], Decision], split: str, image_id: str
) -> list[Instance]:
    """Apply review decisions to the objects of a photo."""
    decided = []
    for number, instance in enumerate(instances):
        decision = decisions.get((split, image_id, number))
        accepted = instance.accepted if decision is None else decision.accepted
        if accepted != instance.accepted:
            instance = instance.decided(accepted, "" if accepted else "review")
        decided.append(instance)
    return decided


def window_around(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a square around a box, clipped to an image of `(width, height)`."""
    side = max(box[2] - box[0], box[3] - box[1], 32) * SURROUNDINGS
    centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    left, top = (max(int(middle - side / 2), 0) for middle in centre)
    right, bottom = (min(int(np.ceil(middle + side / 2)), length) for middle, length in zip(centre, size, strict=True))
    return left, top, right, bottom


def tinted(
    picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int] = ACCEPTED_COLOUR, opacity: float = 0.5
) -> np.ndarray:
    """Tint the masked pixels of a picture of shape `(height, width, 3)`."""
    tint = picture * (1 - opacity) + np.array(colour) * opacity
    return np.where(mask[..., None], tint, picture).astype(np.uint8)


def draw_cell(photo: PIL.Image.Image, reviewable: Reviewable) -> PIL.Image.Image:
    """Draw a cell of a contact sheet: a crop around the object with its mask and box, and two lines of text."""
    instance = reviewable.instance
    window = window_around(instance.box, photo.size)
    left, top, right, bottom = window
    crop = photo.crop(window).convert("RGB")
    mask = PIL.Image.fromarray(decode_mask(instance.mask)[top:bottom, left:right])
    scale = CELL_SIZE / max(crop.size)
    shown = max(1, round(crop.width * scale)), max(1, round(crop.height * scale))
    crop, mask = crop.resize(shown), mask.resize(shown, PIL.Image.Resampling.NEAREST)
    colour = ACCEPTED_COLOUR if instance.accepted else REJECTED_COLOUR
    picture = PIL.Image.fromarray(tinted(np.asarray(crop), np.asarray(mask), colour))
    draw = PIL.ImageDraw.Draw(picture)
    corners = [(value - (left, top)[index % 2]) * scale for index, value in enumerate(instance.box)]
    draw.rectangle(corners, outline=colour, width=2)
    cell = PIL.Image.new("RGB", (CELL_SIZE, CELL_SIZE + 2 * TEXT_HEIGHT), "white")
    cell.paste(picture, ((CELL_SIZE - shown[0]) // 2, (CELL_SIZE - shown[1]) // 2))
    draw, font = PIL.ImageDraw.Draw(cell), PIL.ImageFont.load_default(12)
    draw.text((4, CELL_SIZE + 2), f"{reviewable.image_id} #{reviewable.number}", "black", font)
    verdict = f"{reviewable.class_name} {instance.score:.2f}  mask {instance.mask_score:.2f}"
    rejected = "" if instance.accepted else f"  REJECTED: {instance.reason}"
    draw.text((4, CELL_SIZE + TEXT_HEIGHT), verdict + rejected, "black" if instance.accepted else "red", font)
    return cell


def contact_sheet(cells: Sequence[PIL.Image.Image]) -> PIL.Image.Image:
    """Arrange cells in rows."""
    columns = min(len(cells), CELLS_PER_ROW)
    rows = -(-len(cells) // CELLS_PER_ROW)
    width, height = cells[0].size
    sheet = PIL.Image.new("RGB", (columns * width, rows * height), "white")
    for index, cell in enumerate(cells):
        sheet.paste(cell, (index % CELLS_PER_ROW * width, index // CELLS_PER_ROW * height))
    return sheet
