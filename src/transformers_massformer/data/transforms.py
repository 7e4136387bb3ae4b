"""
Make training samples as the release does: a random window of a randomly resized photograph, mirrored, distorted in
colour and normalised. Only the window is resized, never the complete photograph.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from scipy import ndimage
from torchvision import tv_tensors

from ..models.photo_headers import quiet_pillow
from ..models.srgb import to_rgb
from .mask_values import check_ids


# Short sides that photographs are resized to at random (release).
SHORT_SIDES = tuple(int(307.2 * step) for step in range(5, 21))
# Upper limit of the longer side of a resized photograph (release).
MAX_LONG_SIDE = 8192
# Red, green and blue of ImageNet, in 0 to 255 (release).
IMAGE_MEAN = (123.675, 116.28, 103.53)
IMAGE_STD = (58.395, 57.12, 57.375)
# A window is redrawn, at most this often, until no class has a larger share of it (release).
MAX_REDRAWS = 10
MAX_CLASS_SHARE = 0.75
# Share of the windows that are placed on a class of the focus.
FOCUS_SHARE = 0.5
# Ranges of the photometric distortion (release), in steps of 0 to 255 and, the hue, of two degrees.
BRIGHTNESS_DELTA = 32
CONTRAST_RANGE = (0.5, 1.5)
SATURATION_RANGE = (0.5, 1.5)
HUE_DELTA = 18
# Rows processed together: few enough for the CPU's cache, enough to keep the number of calls small.
BAND_ROWS = 128


@dataclass(frozen=True)
class Window:
    """A rectangle of a resized picture: sizes before and after resizing, in pixels, and whether it is mirrored."""

    source_size: tuple[int, int]
    resized_size: tuple[int, int]
    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False


@dataclass(frozen=True)
class Distortion:
    """
    A change of colours, the identity by default.

    Args:
        brightness (`float`): Offset of every value (0 to 255).
        contrast (`float`): Factor of every value.
        contrast_first (`bool`): Whether contrast is applied before saturation and hue, or after them.
        saturation (`float`): Factor of the saturation in HSV.
        hue (`float`): Rotation of the hue in HSV, in degrees, at most 60 in either direction.

    Raises:
        ValueError: If the hue is rotated further.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    contrast_first: bool = True
    saturation: float = 1.0
    hue: float = 0.0

    def __post_init__(self):
        if abs(self.hue) > 60:
            raise ValueError(f"hue is {self.hue}; it must lie between -60 and 60 degrees.")


def resized_size(size: tuple[int, int], short_side: float, max_long_side: int = MAX_LONG_SIDE) -> tuple[int, int]:
    """
    Return the size of a picture resized to a short side with its aspect ratio kept (release: `ResizeShortestEdge`).

    Args:
        size (`tuple[int, int]`): Height and width.
        short_side (`float`): Target for the shorter of the two.
        max_long_side (`int`): Limit of the longer, for which the shorter may stay below its target.

    Returns:
        `tuple[int, int]`: Height and width, rounded to whole pixels.
    """
    scale = min(short_side / min(size), max_long_side / max(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def nearest_indices(source: int, resized: int, start: int, length: int) -> np.ndarray:
    """Return the source pixels of the resized pixels from `start` on (OpenCV's INTER_NEAREST, as in the release)."""
    # Rounded as in OpenCV; source / resized would differ where the product is almost an integer.
    step = 1 / (resized / source)
    return np.minimum(np.floor(np.arange(start, start + length) * step).astype(np.int64), source - 1)


def bilinear_indices(source: int, resized: int, start: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return the two source pixels around each resized pixel from `start` on, and the weight of the second one
    (half-pixel centres, borders repeated, no antialiasing: OpenCV's INTER_LINEAR, as in the release).
    """
    position = (np.arange(start, start + length) + 0.5) * (source / resized) - 0.5
    position = position.clip(0, source - 1)
    lower = np.floor(position).astype(np.int64)
    return lower, np.minimum(lower + 1, source - 1), (position - lower).astype(np.float32)


def resize_label(label: torch.Tensor, window: Window) -> torch.Tensor:
    """
    Resize a window of a label map by nearest neighbours.

    Args:
        label (`torch.Tensor` of shape `(source_height, source_width)`): uint8 class indices.
        window (`Window`): The window.

    Returns:
        `torch.Tensor` of shape `(height, width)`: uint8.
    """
    rows = nearest_indices(window.source_size[0], window.resized_size[0], window.top, window.height)
    columns = nearest_indices(window.source_size[1], window.resized_size[1], window.left, window.width)
    if window.mirrored:
        columns = columns[::-1]
    first = columns.min()
    band = label.numpy()[:, first : columns.max() + 1]
    if window.resized_size[0] >= window.source_size[0]:
        # Fewer source rows than window rows: take columns first, then repeat rows.
        band = band[rows[0] : rows[-1] + 1].take(columns - first, axis=1)
        return torch.from_numpy(band[rows - rows[0]])
    return torch.from_numpy(band[rows].take(columns - first, axis=1))


def read_region(image: torch.Tensor | PIL.Image.Image, rows: slice, columns: slice) -> np.ndarray:
    """Read a rectangle of a picture as 8-bit RGB, `(height, width, 3)` in uint8."""
    if isinstance(image, torch.Tensor):
        return image[:, rows, columns].permute(1, 2, 0).numpy()
    with quiet_pillow():
        return np.asarray(to_rgb(image).crop((columns.start, rows.start, columns.stop, rows.stop)))


@dataclass(frozen=True)
class Interpolation:
    """One side of a window: the range of the source that it needs, and the two elements around each of its pixels."""

    first: int
    stop: int
    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray


def plan_interpolation(source: int, resized: int, start: int, length: int) -> Interpolation:
    """Plan the interpolation of `length` pixels of one side from `start` on."""
    lower, upper, weight = bilinear_indices(source, resized, start, length)
    first = int(lower[0])
    return Interpolation(first, int(upper[-1]) + 1, lower - first, upper - first, weight)


def column_indices(columns: np.ndarray) -> torch.Tensor:
    """Return the places of columns in a row of RGB pixels: all reds, then all greens, then all blues."""
    return torch.from_numpy((columns * 3 + np.arange(3)[:, None]).reshape(-1).astype(np.int32))


def resize_bands(image: torch.Tensor | PIL.Image.Image, window: Window) -> Iterator[tuple[slice, torch.Tensor]]:
    """
    Resize a window of a picture bilinearly, in bands of rows.

    Yields:
        `tuple[slice, torch.Tensor]`: The band's rows in the window, and its values of shape `(3, rows, width)`,
        floating-point in 0 to 255.
    """
    y = plan_interpolation(window.source_size[0], window.resized_size[0], window.top, window.height)
    x = plan_interpolation(window.source_size[1], window.resized_size[1], window.left, window.width)
    order = slice(None, None, -1 if window.mirrored else 1)
    left, right = column_indices(x.lower[order]), column_indices(x.upper[order])
    column_weight = torch.from_numpy(np.tile(x.weight[order], 3))

    def resize_columns(band: torch.Tensor) -> torch.Tensor:
        return torch.lerp(band.index_select(1, left), band.index_select(1, right), column_weight)

    for start in range(0, window.height, BAND_ROWS):
        rows = slice(start, min(start + BAND_ROWS, window.height))
        first, stop = int(y.lower[start]), int(y.upper[rows.stop - 1]) + 1
        neighbours = torch.from_numpy(np.stack([y.lower[rows], y.upper[rows]], axis=1) - first)
        weights = torch.from_numpy(np.stack([1 - y.weight[rows], y.weight[rows]], axis=1))
        region = read_region(image, slice(y.first + first, y.first + stop), slice(x.first, x.stop))
        band = torch.from_numpy(region.reshape(stop - first, -1).astype(np.float32))
        # The direction that leaves less work comes first.
        enlarged = window.resized_size[0] >= window.source_size[0]
        band = resize_columns(band) if enlarged else band
        # A weighted sum of rows, which is what an embedding bag computes.
        band = torch.nn.functional.embedding_bag(neighbours, band, per_sample_weights=weights, mode="sum")
        band = band if enlarged else resize_columns(band)
        yield rows, band.unflatten(1, (3, -1)).transpose(0, 1)


def change_contrast(image: torch.Tensor, contrast: float):
    if contrast != 1:
        image.mul_(contrast).clamp_(0, 255)


def change_colours(image: torch.Tensor, saturation: float, hue: float):
    """Change saturation and hue in HSV in place, keeping the value (the largest channel)."""
    if saturation == 1 and hue == 0:
        return
    red, green, blue = image
    larger, smaller = torch.maximum(green, blue), torch.minimum(green, blue)
    value = torch.maximum(red, larger)
    chroma = value - torch.minimum(red, smaller)
    # Greys have no hue; with a chroma of zero they keep their colour.
    per_chroma = chroma.clamp_min(torch.finfo(chroma.dtype).tiny).reciprocal_()
    # The saturation, chroma / value, is at most 1.
    chroma = torch.minimum(chroma.mul_(saturation), value)
    if hue == 0:
        image.sub_(value).mul_(per_chroma.mul_(chroma)).add_(value)
        return
    # In sixths of the circle, from red at 0: towards green at 2 to cyan at 3, towards blue at -2 to cyan at -3.
    distance = torch.maximum(smaller, red).add_(larger).sub_(red, alpha=2).mul_(per_chroma).add_(1)
    angle = distance.copysign_(green - blue).add_(hue / 60)
    lowest = value.sub_(chroma)
    for channel, centre in ((red, 0), (green, 2), (blue, -2)):
        # Full within a sixth of the circle around the channel's own hue, none from two sixths on.
        share = (angle - centre).abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
        torch.addcmul(lowest, share, chroma, out=channel)


def distort(image: torch.Tensor, distortion: Distortion) -> torch.Tensor:
    """
    Change the colours of a picture in place: brightness, contrast (if it comes first), saturation, hue, contrast (if
    it comes last). Values are clipped to 0 to 255 after each step (release: `PhotoMetricDistortion`, which also
    truncates them to integers; here they stay fractional).

    Args:
        image (`torch.Tensor` of shape `(3, height, width)`): Red, green and blue in 0 to 255, floating-point.
        distortion (`Distortion`): The changes.

    Returns:
        `torch.Tensor`: `image`.
    """
    if distortion.brightness:
        image.add_(distortion.brightness).clamp_(0, 255)
    if distortion.contrast_first:
        change_contrast(image, distortion.contrast)
    change_colours(image, distortion.saturation, distortion.hue)
    if not distortion.contrast_first:
        change_contrast(image, distortion.contrast)
    return image


def normalize(image: torch.Tensor, out: torch.Tensor):
    """Normalize values in 0 to 255 by mean and standard deviation, and write them to `out`."""
    for channel, mean, deviation, normalized in zip(image, IMAGE_MEAN, IMAGE_STD, out, strict=True):
        torch.mul(channel, 1 / deviation, out=normalized).sub_(mean / deviation)


def draw_distortion(rng: np.random.Generator) -> Distortion:
    """
    Draw a random photometric distortion: each part with probability 1/2, contrast first or last (release).

    Args:
        rng (`np.random.Generator`): Source of the random numbers.
    """

    def sometimes(low: float, high: float, otherwise: float) -> float:
        value, chosen = rng.uniform(low, high), rng.random() < 0.5
        return value if chosen else otherwise

    return Distortion(
        brightness=sometimes(-BRIGHTNESS_DELTA, BRIGHTNESS_DELTA, 0.0),
        contrast=sometimes(*CONTRAST_RANGE, 1.0),
        contrast_first=bool(rng.random() < 0.5),
        saturation=sometimes(*SATURATION_RANGE, 1.0),
        # Integer steps of OpenCV's hue, excluding the last one, as in the release.
        hue=2.0 * math.floor(sometimes(-HUE_DELTA, HUE_DELTA, 0)),
    )


def is_varied(labels: torch.Tensor, ignore_index: int) -> bool:
    """Return whether there are several classes, none with too large a share of the labelled pixels."""
    counts = torch.bincount(labels.flatten(), minlength=256)
    counts[ignore_index] = 0
    return bool((counts > 0).sum() > 1 and counts.max() / counts.sum() < MAX_CLASS_SHARE)


def ignore_band(label: torch.Tensor, width: int, ignore_index: int) -> torch.Tensor:
    """
    Ignore the pixels near edges between classes: those with a pixel of another class at most `width` rows and columns
    away. Pixels without a class do not make edges.

    Args:
        label (`torch.Tensor` of shape `(height, width)`): uint8 class indices.
        width (`int`): Width of the band on either side of an edge, in pixels.
        ignore_index (`int`): Label of pixels without a class.
    """
    values, side = label.numpy(), 2 * width + 1
    is_ignored = values == ignore_index
    highest = ndimage.maximum_filter(np.where(is_ignored, 0, values).astype(np.uint8), side, mode="nearest")
    lowest = ndimage.minimum_filter(np.where(is_ignored, 255, values).astype(np.uint8), side, mode="nearest")
    return torch.from_numpy(np.where(highest > lowest, ignore_index, values).astype(np.uint8))


@dataclass(frozen=True)
class TrainingTransform:
    """
    Training transform of the release: random resize, random window in which no class fills three quarters (if one is
    found), random mirroring, photometric distortion, normalisation. A window larger than the resized picture is padded
    on the right and at the bottom, with zeros and `ignore_index`.

    Args:
        crop_size (`int`): Height and width of the sample; 1024 in the paper, 2048 with new classes.
        num_labels (`int`): Number of classes.
        ignore_index (`int`): Label of pixels without a class.
        short_sides (`Sequence[int]`): Short sides to resize to, one of which is drawn at random.
        max_long_side (`int`): Upper limit of the longer side of a resized picture.
        scales (`tuple[float, float]`, *optional*):
            Factors of the picture's own size between which it is resized, log-uniform; replaces `short_sides`.
        ignored_band (`int`): Pixels of the label map at most this far from an edge between classes are ignored.
        focus (`Sequence[int]`):
            Indices of rare classes: every second window, on average, contains a pixel of one of them, if there is one.

    Raises:
        ValueError: If a number is out of its range.
    """

    crop_size: int = 1024
    num_labels: int = 7
    ignore_index: int = 255
    short_sides: Sequence[int] = SHORT_SIDES
    max_long_side: int = MAX_LONG_SIDE
    scales: tuple[float, float] | None = None
    ignored_band: int = 0
    focus: Sequence[int] = ()

    def __post_init__(self):
        if self.crop_size < 1:
            raise ValueError(f"crop_size is {self.crop_size}; it must be at least 1.")
        if not 1 <= self.num_labels <= 256 or not 0 <= self.ignore_index <= 255:
            raise ValueError(
                f"Label maps have 8 bits: num_labels, {self.num_labels}, must be 1 to 256 and ignore_index, "
                f"{self.ignore_index}, 0 to 255."
            )
        if not self.short_sides or min(self.short_sides) < 1 or self.max_long_side < 1:
            raise ValueError(
                f"short_sides, {list(self.short_sides)}, and max_long_side, {self.max_long_side}, must be at least 1, "
                "and short_sides must not be empty."
            )
        if self.ignored_band < 0 or (self.scales is not None and not 0 < self.scales[0] <= self.scales[1]):
            raise ValueError(
                f"ignored_band, {self.ignored_band}, must be 0 or more, and scales, {self.scales}, two positive "
                "numbers, the smaller one first."
            )
        if unknown := [index for index in self.focus if not 0 <= index < self.num_labels]:
            raise ValueError(
                f"focus has {unknown}: with {self.num_labels} classes, labels are 0 to {self.num_labels - 1}."
            )

    def __call__(
        self,
        image: tv_tensors.Image | torch.Tensor | PIL.Image.Image,
        label: tv_tensors.Mask | torch.Tensor,
        rng: np.random.Generator,
        name: str = "the label map",
    ) -> dict[str, torch.Tensor]:
        """
        Make a training sample.

        Args:
            image (`torch.Tensor` of shape `(3, height, width)`, or `PIL.Image.Image`):
                The upright photograph, uint8, or an image of any mode, which is converted as by [`open_image`].
            label (`torch.Tensor` of shape `(height, width)` or `(1, height, width)`): Its class indices, uint8.
            rng (`np.random.Generator`): Source of all random numbers.
            name (`str`): Name of the label map in errors.

        Returns:
            `dict[str, torch.Tensor]`: `pixel_values` of shape `(3, crop_size, crop_size)`, float32, and `labels` of
            shape `(crop_size, crop_size)`, int64.

        Raises:
            ValueError: If the sizes differ, the types are wrong, or there are unknown labels.
        """
        image, label = self.check(image, label, name)
        if self.ignored_band:
            label = ignore_band(label, self.ignored_band, self.ignore_index)
        window, labels = self.draw_window(label, rng)
        return {
            "pixel_values": self.normalized(image, window, draw_distortion(rng)),
            "labels": self.padded(labels),
        }

    def check(
        self, image: torch.Tensor | PIL.Image.Image, label: torch.Tensor, name: str
    ) -> tuple[torch.Tensor | PIL.Image.Image, torch.Tensor]:
        """Check the arguments of `__call__` and return them as plain tensors (or the PIL image, in RGB)."""
        if isinstance(image, torch.Tensor):
            # Wrapping every step's result as a tv_tensor would only cost time.
            image = image.as_subclass(torch.Tensor)
            if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
                raise ValueError(f"The image is {image.dtype} of shape {tuple(image.shape)}, not uint8 of (3, H, W).")
        else:
            image = to_rgb(image, name)
        label = label.as_subclass(torch.Tensor)
        if label.dtype != torch.uint8 or label.ndim not in (2, 3) or label.numel() != math.prod(label.shape[-2:]):
            raise ValueError(f"{name} is {label.dtype} of shape {tuple(label.shape)}, not uint8 of (H, W).")
        label = label.reshape(label.shape[-2:])
        size = (image.height, image.width) if isinstance(image, PIL.Image.Image) else tuple(image.shape[1:])
        if tuple(label.shape) != size:
            raise ValueError(
                f"{name} is {label.shape[1]} x {label.shape[0]}, the image {size[1]} x {size[0]} (width x height): "
                "they must have the same size."
            )
        check_ids(label.numpy(), self.num_labels, name, self.ignore_index)
        return image, label

    def draw_short_side(self, size: tuple[int, int], rng: np.random.Generator) -> float:
        """Draw the short side to resize a picture to."""
        if self.scales is None:
            return self.short_sides[int(rng.integers(len(self.short_sides)))]
        return min(size) * math.exp(rng.uniform(math.log(self.scales[0]), math.log(self.scales[1])))

    def draw_window(self, label: torch.Tensor, rng: np.random.Generator) -> tuple[Window, torch.Tensor]:
        """Draw a window of the resized picture and its labels; the last one drawn if none is varied (release)."""
        source_size = (label.shape[0], label.shape[1])
        height, width = resized_size(source_size, self.draw_short_side(source_size, rng), self.max_long_side)
        mirrored = bool(rng.random() < 0.5)
        tops, lefts = self.places(label, (height, width), rng)

        def draw() -> tuple[Window, torch.Tensor]:
            top, left = (first + int(rng.integers(count)) for first, count in (tops, lefts))
            inside = min(height, self.crop_size), min(width, self.crop_size)
            window = Window(source_size, (height, width), top, left, *inside, mirrored)
            return window, resize_label(label, window)

        window, labels = draw()
        for _ in range(MAX_REDRAWS):
            if is_varied(labels, self.ignore_index):
                break
            window, labels = draw()
        return window, labels

    def places(self, label: torch.Tensor, resized: tuple[int, int], rng: np.random.Generator) -> list[tuple[int, int]]:
        """Return first place and count of the rows and columns where a window may begin: anywhere, or at the focus."""
        ranges = [(0, max(side - self.crop_size, 0) + 1) for side in resized]
        if not self.focus or rng.random() >= FOCUS_SHARE:
            return ranges
        pixels = np.flatnonzero(np.isin(label.numpy(), self.focus))
        if not pixels.size:
            return ranges
        pixel = np.unravel_index(rng.choice(pixels), label.shape)
        around = []
        for place, side, size, (_, count) in zip(pixel, resized, label.shape, ranges, strict=True):
            # Where the middle of the pixel lies in the resized picture.
            centre = int((place + 0.5) * side / size)
            first = min(max(0, centre - self.crop_size + 1), count - 1)
            around.append((first, min(centre + 1, count) - first))
        return around

    def normalized(
        self, image: torch.Tensor | PIL.Image.Image, window: Window, distortion: Distortion
    ) -> torch.Tensor:
        """Return the window's pixel values, padded to `(3, crop_size, crop_size)`."""
        pixel_values = torch.empty(3, self.crop_size, self.crop_size)
        pixel_values[:, window.height :] = 0
        pixel_values[:, :, window.width :] = 0
        # Autograd would cost time even though nothing here needs gradients.
        with torch.inference_mode():
            for rows, band in resize_bands(image, window):
                distort(band, distortion)
                normalize(band, out=pixel_values[:, rows, : window.width])
        return pixel_values

    def padded(self, labels: torch.Tensor) -> torch.Tensor:
        """Return labels as int64, padded to `(crop_size, crop_size)`."""
        height, width = labels.shape
        filled = torch.empty(self.crop_size, self.crop_size, dtype=torch.int64)
        filled[height:] = self.ignore_index
        filled[:, width:] = self.ignore_index
        filled[:height, :width] = labels
        return filled
