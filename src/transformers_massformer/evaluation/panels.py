"""Error panels: photo, ground truth, prediction and boundary errors side by side."""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch
import torch.nn.functional as F

from ..data.label_images import label_map_image
from ..editing.overlay import overlay_image
from ..metrics.counts import boundary_band


# In pixels: longer side of each of the four pictures, gap between them, and height of their titles.
SIDE, GAP, TITLE_HEIGHT = 960, 12, 28
AGREED, MISSED, INVENTED = (90, 200, 90), (235, 60, 60), (70, 130, 255)
TITLES = ("photo", "ground truth", "prediction", "boundaries: found green, missed red, invented blue")


def thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """Return width and height of each picture."""
    factor = min(1.0, SIDE / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def any_within(mask: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Shrink a mask; a pixel is set if any pixel within it is, which keeps thin lines."""
    return F.adaptive_max_pool2d(mask[None].float(), size)[0].bool().numpy()


def boundary_error_image(
    photo: PIL.Image.Image,
    label: torch.Tensor,
    prediction: torch.Tensor,
    size: tuple[int, int],
    ignore_index: int | None,
) -> PIL.Image.Image:
    """Draw the boundaries of ground truth and prediction in three colours on the darkened photo."""
    valid = torch.ones_like(label, dtype=torch.bool) if ignore_index is None else label != ignore_index
    true, predicted = boundary_band(label, 1) & valid, boundary_band(prediction, 1) & valid
    # Boundaries within one pixel of each other agree.
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
    Draw photo, ground truth, prediction and boundary errors in one picture.

    Args:
        photo (`PIL.Image.Image`): The photo.
        label (`torch.Tensor` of shape `(height, width)`): True classes, or `ignore_index`.
        prediction (`torch.Tensor` of shape `(height, width)`): Predicted classes.
        num_labels (`int`): Number of classes, at most 255.
        ignore_index (`int`, *optional*, defaults to 255): Label of ignored pixels, drawn black.
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
