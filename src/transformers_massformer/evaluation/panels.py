"""Pictures of what went wrong: photograph, truth, prediction and boundary errors beside each other."""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch
import torch.nn.functional as F

from ..data.label_images import label_map_image
from ..editing.overlay import overlay_image
from ..metrics.counts import boundary_band


# Longer side of each of the four pictures, and the gap between them.
SIDE, GAP, TITLE_HEIGHT = 960, 12, 28
AGREED, MISSED, INVENTED = (90, 200, 90), (235, 60, 60), (70, 130, 255)
TITLES = ("photograph", "truth", "prediction", "boundaries: found green, missed red, invented blue")


def thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the pictures."""
    factor = min(1.0, SIDE / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def any_within(mask: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """A mask in a smaller size; a pixel is set if any of those in it is, so that thin lines stay."""
    return F.adaptive_max_pool2d(mask[None].float(), size)[0].bool().numpy()


def boundary_error_image(
    photo: PIL.Image.Image,
    label: torch.Tensor,
    prediction: torch.Tensor,
    size: tuple[int, int],
    ignore_index: int | None,
) -> PIL.Image.Image:
    """The boundaries of truth and prediction, in three colours on the darkened photograph."""
    valid = torch.ones_like(label, dtype=torch.bool) if ignore_index is None else label != ignore_index
    true, predicted = boundary_band(label, 1) & valid, boundary_band(prediction, 1) & valid
    # Within a pixel of each other they agree.
    near_true, near_predicted = (
        F.max_pool2d(mask[None].float(), 3, stride=1, padding=1)[0].bool() for mask in (true, predicted)
    )
    pixels = np.asarray(photo.convert("L").resize(size).convert("RGB")) // 3
    rows_and_columns = (size[1], size[0])
    for mask, colour in (
        (true & near_predicted, AGREED),
        (predicted & ~near_true, INVENTED),
        (true & ~near_predicted, MISSED),
    ):
        pixels = np.where(any_within(mask, rows_and_columns)[..., None], np.array(colour, np.uint8), pixels)
    return PIL.Image.fromarray(pixels.astype(np.uint8))


def error_panel(
    photo: PIL.Image.Image,
    label: torch.Tensor,
    prediction: torch.Tensor,
    num_labels: int,
    ignore_index: int | None = 255,
) -> PIL.Image.Image:
    """
    Photograph, truth, prediction and boundary errors in one picture.

    Args:
        photo (`PIL.Image.Image`): The photograph.
        label (`torch.Tensor` of shape `(height, width)`): True classes, or `ignore_index`.
        prediction (`torch.Tensor` of shape `(height, width)`): Predicted classes.
        num_labels (`int`): Number of classes, fewer than 256.
        ignore_index (`int`, *optional*, defaults to 255): Label of no class, drawn black.
    """
    size = thumbnail_size(photo.width, photo.height)
    shown = photo.convert("RGB")
    label_map = np.where(label.numpy() < num_labels, label.numpy(), 0).astype(np.uint8)
    truth = overlay_image(shown, label_map, num_labels, opacity=0.6)
    if ignore_index is not None:
        truth.paste((0, 0, 0), mask=PIL.Image.fromarray(label.numpy() == ignore_index))
    predicted = label_map_image(prediction.numpy(), num_labels)
    pictures = [
        shown.resize(size, PIL.Image.Resampling.BOX),
        truth.resize(size, PIL.Image.Resampling.BOX),
        PIL.Image.blend(shown, predicted.convert("RGB"), 0.6).resize(size, PIL.Image.Resampling.BOX),
        boundary_error_image(photo, label.long(), prediction.long(), size, ignore_index),
    ]
    panel = PIL.Image.new("RGB", (2 * size[0] + GAP, 2 * (size[1] + TITLE_HEIGHT) + GAP), "white")
    draw = PIL.ImageDraw.Draw(panel)
    for index, (picture, title) in enumerate(zip(pictures, TITLES, strict=True)):
        left = (index % 2) * (size[0] + GAP)
        top = (index // 2) * (size[1] + TITLE_HEIGHT + GAP)
        draw.text((left + 4, top + 4), title, fill="black", font_size=18)
        panel.paste(picture, (left, top + TITLE_HEIGHT))
    return panel
