import colorsys
import os
import re
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from transformers_massformer.data import transforms
from transformers_massformer.data.reading import lay_on_photo, turned_upright
from transformers_massformer.data.training_set import TrainingSet
from transformers_massformer.data.transforms import (
    Distortion,
    TrainingTransform,
    Window,
    distort,
    draw_distortion,
    resize_bands,
    resize_label,
    resized_size,
)
from transformers_massformer.images import open_image


MEAN = np.array([123.675, 116.28, 103.53])
STD = np.array([58.395, 57.12, 57.375])
SMALL = TrainingTransform(crop_size=48, short_sides=(40, 60, 90, 130))


def random_picture(height, width, seed=0):
    """Returns a picture smooth in parts and with noise, `(3, height, width)`."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), (width, height))
    return torch.from_numpy(np.where(rng.random((height, width, 1)) < 0.2, 255 - coarse, coarse)).permute(2, 0, 1)


def random_label(height, width, num_labels=7, seed=0, block=8):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, num_labels, (-(-height // block), -(-width // block)), dtype=np.uint8)
    return torch.from_numpy(coarse.repeat(block, 0).repeat(block, 1)[:height, :width].copy())


def save_pair(folder, name, height, width, seed=0, label_seed=None, **options):
    photo, label = folder / f"{name}.jpg", folder / f"{name}.png"
    PIL.Image.fromarray(random_picture(height, width, seed).permute(1, 2, 0).numpy()).save(photo, **options)
    label_values = random_label(height, width, seed=seed if label_seed is None else label_seed)
    PIL.Image.fromarray(label_values.numpy()).save(label)
    return {"image": str(photo), "label": str(label)}


def with_orientation(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif, "quality": 98, "subsampling": 0}


def window_pixels(image, window):
    """Joins all bands, `(3, height, width)`."""
    pixels = torch.empty(3, window.height, window.width)
    for rows, band in resize_bands(image, window):
        pixels[:, rows] = band
    return pixels


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    return [save_pair(folder, f"photo{i}", 100 + 7 * i, 130 - 9 * i, seed=i) for i in range(5)]


# Sizes


def test_short_sides_are_the_releases():
    assert transforms.SHORT_SIDES[0] == 1536
    assert transforms.SHORT_SIDES[5:7] == (3072, 3379)
    assert transforms.SHORT_SIDES[-1] == 6144
    assert len(transforms.SHORT_SIDES) == 16


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((3072, 4096), 1536, (1536, 2048)),
        ((4096, 3072), 1843, (2457, 1843)),
        ((3072, 4096), 6144, (6144, 8192)),
        # The long side would be 12288 and 18432.
        ((2000, 4000), 6144, (4096, 8192)),
        ((6000, 2000), 6144, (8192, 2731)),
        ((1, 20000), 1536, (1, 8192)),
    ],
)
def test_resized_size(size, short_side, expected):
    assert resized_size(size, short_side) == expected


# Resizing windows only


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("short_side", [1, 37, 50, 99, 100, 101, 141, 200, 333])
@pytest.mark.parametrize("kind", ["tensor", "planes", "PIL"])
def test_window_equals_whole_resized_then_cropped(short_side, kind, mirrored):
    image, label = random_picture(100, 133), random_label(100, 133, block=3)
    height, width = resized_size((100, 133), short_side)
    whole = functional.resize(image.float(), [height, width], antialias=False)
    whole_label = cv2.resize(label.numpy(), (width, height), interpolation=cv2.INTER_NEAREST)
    rounded = cv2.resize(image.permute(1, 2, 0).numpy(), (width, height), interpolation=cv2.INTER_LINEAR)
    source = {
        "tensor": image,
        "planes": image.contiguous(),
        "PIL": PIL.Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()),
    }[kind]
    for top, left in {(0, 0), (height // 3, width // 2), (height - height // 2 - 1, 0)}:
        bottom, right = min(top + 70, height), min(left + 60, width)
        window = Window((100, 133), (height, width), top, left, bottom - top, right - left, mirrored)
        flip = (-1,) if mirrored else ()
        pixels = window_pixels(source, window)
        torch.testing.assert_close(pixels, whole[:, top:bottom, left:right].flip(flip), atol=2e-3, rtol=0)
        # The release's pixels, which OpenCV computes in integers.
        by_opencv = torch.from_numpy(rounded[top:bottom, left:right]).permute(2, 0, 1).flip(flip)
        assert (pixels - by_opencv).abs().max() < 1.01
        labels = torch.from_numpy(whole_label[top:bottom, left:right].copy()).flip(flip)
        assert torch.equal(resize_label(label, window), labels)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_window_of_any_size(data):
    source = data.draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    size = data.draw(st.tuples(st.integers(1, 150), st.integers(1, 150)))
    height, width = (data.draw(st.integers(1, side)) for side in size)
    top, left = data.draw(st.integers(0, size[0] - height)), data.draw(st.integers(0, size[1] - width))
    image, label = random_picture(*source), random_label(*source, block=2)
    window = Window(source, size, top, left, height, width)
    rows, columns = slice(top, top + height), slice(left, left + width)
    whole = functional.resize(image.float(), list(size), antialias=False)
    torch.testing.assert_close(window_pixels(image, window), whole[:, rows, columns], atol=2e-3, rtol=0)
    whole_label = cv2.resize(label.numpy(), size[::-1], interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(resize_label(label, window).numpy(), whole_label[rows, columns])


def test_labels_are_opencvs_at_every_short_side():
    label = np.arange(3072 * 2, dtype=np.uint32).reshape(3072, 2) // 2 % 251
    label = torch.from_numpy(label.astype(np.uint8))
    for short_side in transforms.SHORT_SIDES:
        by_opencv = cv2.resize(label.numpy(), (2, short_side), interpolation=cv2.INTER_NEAREST)
        window = Window((3072, 2), (short_side, 2), 0, 0, short_side, 2)
        np.testing.assert_array_equal(resize_label(label, window).numpy(), by_opencv)


# The rule of the release's RandomCrop, literally


def crops_by_rule(label, crop_size, boxes):
    """Returns the first box in which no class fills 75 %, or the eleventh, of the resized label map."""
    boxes = iter(boxes)
    top, left = next(boxes)
    for _ in range(10):
        labels, counts = np.unique(label[top : top + crop_size, left : left + crop_size], return_counts=True)
        counts = counts[labels != 255]
        if len(counts) > 1 and np.max(counts) / np.sum(counts) < 0.75:
            break
        top, left = next(boxes)
    return top, left


class RecordedRandom:
    """Generator with only the methods that drawing windows needs; records the random integers."""

    def __init__(self, seed):
        self.rng, self.integers_drawn = np.random.default_rng(seed), []

    def integers(self, high):
        self.integers_drawn.append((high, int(self.rng.integers(high))))
        return self.integers_drawn[-1][1]

    def random(self):
        return self.rng.random()


@pytest.mark.parametrize("seed", range(60))
def test_rule_of_the_largest_class(seed):
    label = torch.full((90, 120), 255 if seed % 3 == 0 else 2, dtype=torch.uint8)
    # From hopeless to rich: the other classes that some windows contain.
    amount = (3, 20, 45)[seed % 2 + seed % 5 // 4]
    label[10 : 10 + amount, 30 : 30 + 2 * amount] = 4
    label[15 : 15 + amount // 2, 20:60] = 6
    rng = RecordedRandom(seed)
    window, labels = SMALL.draw_window(label, rng)
    short_side = SMALL.short_sides[rng.integers_drawn[0][1]]
    height, width = resized_size((90, 120), short_side)
    offsets = rng.integers_drawn[1:]
    assert {high for high, _ in offsets[::2]} == {max(height - 48, 0) + 1}
    assert {high for high, _ in offsets[1::2]} == {max(width - 48, 0) + 1}
    boxes = [(top, left) for (_, top), (_, left) in zip(offsets[::2], offsets[1::2], strict=True)]
    resized = cv2.resize(label.numpy(), (width, height), interpolation=cv2.INTER_NEAREST)
    assert (window.top, window.left) == crops_by_rule(resized, 48, boxes) == boxes[-1]
    expected = resized[window.top : window.top + 48, window.left : window.left + 48]
    np.testing.assert_array_equal(labels.numpy(), expected[:, ::-1] if window.mirrored else expected)


def test_hopeless_window_is_the_eleventh_drawn():
    rng = RecordedRandom(0)
    SMALL.draw_window(torch.zeros(200, 200, dtype=torch.uint8), rng)
    assert len(rng.integers_drawn) == 1 + 2 * 11


def test_windows_are_spread_evenly():
    label = random_label(64, 64, block=1)
    transform = TrainingTransform(crop_size=60, short_sides=(64, 61))
    rng = np.random.default_rng(0)
    windows = [transform.draw_window(label, rng)[0] for _ in range(2000)]
    assert abs(np.mean([window.mirrored for window in windows]) - 0.5) < 0.04
    large = [window for window in windows if window.resized_size == (64, 64)]
    assert abs(len(large) / 2000 - 0.5) < 0.04
    for side in ("top", "left"):
        counts = np.bincount([getattr(window, side) for window in large], minlength=5)
        assert len(counts) == 5
        assert abs(counts / len(large) - 0.2).max() < 0.05
    assert {(window.top, window.left) for window in windows if window.resized_size == (61, 61)} == {
        (0, 0), (0, 1), (1, 0), (1, 1),
    }  # fmt: skip


# Photometric distortion


def distorted_pixel(pixel, distortion):
    """Distorts one pixel with the standard library."""
    pixel = [min(max(value + distortion.brightness, 0), 255) for value in pixel]
    if distortion.contrast_first:
        pixel = [min(value * distortion.contrast, 255) for value in pixel]
    hue, saturation, value = colorsys.rgb_to_hsv(*(value / 255 for value in pixel))
    hue, saturation = (hue + distortion.hue / 360) % 1, min(saturation * distortion.saturation, 1)
    pixel = [value * 255 for value in colorsys.hsv_to_rgb(hue, saturation, value)]
    if not distortion.contrast_first:
        pixel = [min(value * distortion.contrast, 255) for value in pixel]
    return pixel


def distorted_by_opencv(image, distortion):
    """Applies the release's steps to `(height, width, 3)` in uint8, in its order and in integers."""

    def convert(values, alpha=1.0, beta=0.0):
        return np.clip(values.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)

    image = convert(image, beta=distortion.brightness)
    if distortion.contrast_first:
        image = convert(image, alpha=distortion.contrast)
    if distortion.saturation != 1:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = convert(hsv[..., 1], alpha=distortion.saturation)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if distortion.hue != 0:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + int(distortion.hue / 2)) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return image if distortion.contrast_first else convert(image, alpha=distortion.contrast)


DISTORTIONS = [
    Distortion(),
    Distortion(brightness=31.5),
    Distortion(brightness=-20),
    Distortion(contrast=1.4),
    Distortion(contrast=0.6, contrast_first=False),
    Distortion(saturation=1.45),
    Distortion(saturation=0.5),
    Distortion(hue=34),
    Distortion(hue=-36),
    Distortion(-30, 1.5, True, 1.5, 34),
    Distortion(25, 1.3, False, 0.7, -22),
]
COLOURS = [[0, 0, 0], [255, 255, 255], [90, 90, 90], [255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 200, 10], [7, 7, 8]]


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_distortion_equals_colorsys(distortion):
    pixels = np.concatenate([COLOURS, np.random.default_rng(0).integers(0, 256, (400, 3))])
    image = torch.from_numpy(pixels.T[:, None].astype(np.float32))
    expected = np.array([distorted_pixel(pixel, distortion) for pixel in pixels.tolist()])
    assert distort(image, distortion) is image
    np.testing.assert_allclose(image[:, 0].T.numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_distortion_is_near_the_releases(distortion):
    image = random_picture(60, 80)
    by_opencv = distorted_by_opencv(image.permute(1, 2, 0).contiguous().numpy(), distortion)
    difference = distort(image.float(), distortion).permute(1, 2, 0).numpy() - by_opencv
    # Its hue has steps of 2 degrees and its saturation is an integer, both truncated after each step.
    assert np.abs(difference).mean() < 3
    assert np.quantile(np.abs(difference), 0.99) < 12


@settings(deadline=None, max_examples=80)
@given(
    st.tuples(*[st.integers(0, 255)] * 3),
    st.floats(-32, 32),
    st.floats(0.5, 1.5),
    st.booleans(),
    st.floats(0.5, 1.5),
    st.integers(-18, 17),
)
def test_distortion_of_any_colour(pixel, brightness, contrast, first, saturation, hue):
    distortion = Distortion(brightness, contrast, first, saturation, 2.0 * hue)
    image = distort(torch.tensor(pixel, dtype=torch.float64)[:, None, None], distortion)
    np.testing.assert_allclose(image.flatten().numpy(), distorted_pixel(pixel, distortion), atol=1e-6)


def test_distortions_are_drawn_as_the_release_draws_them():
    rng = np.random.default_rng(0)
    drawn = [draw_distortion(rng) for _ in range(4000)]
    for name, neutral, low, high in (
        ("brightness", 0, -32, 32),
        ("contrast", 1, 0.5, 1.5),
        ("saturation", 1, 0.5, 1.5),
        ("hue", 0, -36, 34),
    ):
        values = np.array([getattr(distortion, name) for distortion in drawn])
        changed = values[values != neutral]
        # A hue of zero is also drawn.
        assert abs(len(changed) / 4000 - 0.5 * (35 / 36 if name == "hue" else 1)) < 0.03
        assert low <= changed.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < changed.max() <= high
        assert abs(changed.mean() - (low + high) / 2) < 0.03 * (high - low)
    assert abs(np.mean([distortion.contrast_first for distortion in drawn]) - 0.5) < 0.03
    assert {distortion.hue for distortion in drawn} == {2.0 * step for step in range(-18, 18)}


# Complete samples


def whole_sample(image, label, window, distortion, crop_size):
    """Makes a sample in the plain order: resize everything, crop, mirror, distort, normalise, pad."""
    height, width = window.resized_size
    rows = slice(window.top, window.top + window.height)
    columns = slice(window.left, window.left + window.width)
    pixels = functional.resize(image.float(), [height, width], antialias=False)[:, rows, columns]
    labels = torch.from_numpy(
        cv2.resize(label.numpy(), (width, height), interpolation=cv2.INTER_NEAREST)[rows, columns]
    )
    if window.mirrored:
        pixels, labels = pixels.flip(-1), labels.flip(-1)
    normalized = (distort(pixels.clone(), distortion).numpy() - MEAN[:, None, None]) / STD[:, None, None]
    filled, filled_labels = np.zeros((3, crop_size, crop_size)), np.full((crop_size, crop_size), 255)
    filled[:, : window.height, : window.width] = normalized
    filled_labels[: window.height, : window.width] = labels
    return filled, filled_labels


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("size", [(100, 133), (133, 60)])
def test_sample_equals_plain_order(size, seed):
    image, label = random_picture(*size), random_label(*size)
    label[:9] = 255
    sample = SMALL(tv_tensors.Image(image), tv_tensors.Mask(label), np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    window, _ = SMALL.draw_window(label, rng)
    pixels, labels = whole_sample(image, label, window, draw_distortion(rng), 48)
    assert type(sample["pixel_values"]) is type(sample["labels"]) is torch.Tensor
    assert (sample["pixel_values"].dtype, sample["labels"].dtype) == (torch.float32, torch.int64)
    np.testing.assert_allclose(sample["pixel_values"].numpy(), pixels, atol=1e-3)
    np.testing.assert_array_equal(sample["labels"].numpy(), labels)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (30, 20)])
def test_tiny_photographs_are_filled_up(size):
    transform = TrainingTransform(crop_size=64, short_sides=(16,), max_long_side=40)
    height, width = resized_size(size, 16, 40)
    sample = transform(random_picture(*size), random_label(*size), np.random.default_rng(0))
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[:height, :width] = True
    assert (sample["pixel_values"][:, ~inside] == 0).all()
    assert torch.equal(sample["labels"] != 255, inside)
    assert sample["pixel_values"].shape == (3, 64, 64)


def test_default_sample_of_a_4k_photograph():
    image, label = random_picture(1536, 2048), random_label(1536, 2048, block=64)
    sample = TrainingTransform()(image, label[None], np.random.default_rng(0))
    assert sample["pixel_values"].shape == (3, 1024, 1024)
    assert sample["pixel_values"].isfinite().all()
    # Autograd may keep it for the backward pass.
    assert not sample["pixel_values"].is_inference()
    assert len(sample["labels"].unique()) > 1


@pytest.mark.parametrize(
    "options", [{"crop_size": 0}, {"num_labels": 0}, {"num_labels": 257}, {"ignore_index": -1}, {"short_sides": ()}]
)
def test_numbers_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        TrainingTransform(**options)


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (torch.zeros(3, 9, 9), torch.zeros(9, 9, dtype=torch.uint8), "torch.float32"),
        (torch.zeros(9, 9, dtype=torch.uint8), torch.zeros(9, 9, dtype=torch.uint8), r"\(9, 9\)"),
        (torch.zeros(3, 9, 9, dtype=torch.uint8), torch.zeros(9, 9, dtype=torch.int64), "torch.int64"),
        (torch.zeros(3, 9, 9, dtype=torch.uint8), torch.zeros(2, 9, 9, dtype=torch.uint8), r"\(2, 9, 9\)"),
        (torch.zeros(3, 9, 8, dtype=torch.uint8), torch.zeros(8, 9, dtype=torch.uint8), "9 x 8, the image 8 x 9"),
    ],
)
def test_unfit_tensors(image, label, message):
    with pytest.raises(ValueError, match=message):
        SMALL(image, label, np.random.default_rng(0))


def test_unknown_labels_are_listed():
    label = random_label(90, 120)
    label[:5] = 255
    SMALL(random_picture(90, 120), label, np.random.default_rng(0))
    label[80, 100], label[3, 3] = 9, 200
    with pytest.raises(ValueError, match=re.escape("the label map has the unknown labels [9, 200]: with 7 classes")):
        SMALL(random_picture(90, 120), label, np.random.default_rng(0))


def test_hue_out_of_range():
    with pytest.raises(ValueError, match="hue is 61"):
        Distortion(hue=61)


# Files


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_tensors_is_pillows(orientation):
    image = PIL.Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    stored = torch.from_numpy(np.array(image))
    image.getexif()[0x0112] = orientation
    upright = np.array(PIL.ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(turned_upright(stored, orientation).numpy(), upright)


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
@pytest.mark.parametrize("lies_as", ["stored", "upright", "tagged"])
def test_label_map_lies_on_its_photograph(tmp_path, orientation, lies_as):
    pair = save_pair(tmp_path, "photo", 90, 120, **with_orientation(orientation))
    stored = random_label(90, 120)
    upright = turned_upright(stored, orientation)
    if lies_as == "upright":
        PIL.Image.fromarray(upright.contiguous().numpy()).save(pair["label"])
    elif lies_as == "tagged":
        PIL.Image.fromarray(stored.numpy()).save(pair["label"], exif=with_orientation(orientation)["exif"])
    samples = TrainingSet([pair], TrainingTransform(crop_size=150, short_sides=(min(upright.shape),)))
    labels = samples[0]["labels"]
    found = labels[: upright.shape[0], : upright.shape[1]].to(torch.uint8)
    # A label map of the upright size stays as it is stored.
    expected = stored if lies_as == "stored" and orientation == 3 else upright
    assert any(torch.equal(found, candidate) for candidate in (expected, expected.flip(-1)))


def test_label_map_of_another_size_names_both_files(tmp_path):
    pair = save_pair(tmp_path, "photo", 90, 120, **with_orientation(6))
    PIL.Image.fromarray(random_label(90, 119).numpy()).save(pair["label"])
    with pytest.raises(ValueError, match=r"photo.png is 119 x 90 for a photograph of 90 x 120 .*photo.jpg"):
        TrainingSet([pair], SMALL)[0]
    with pytest.raises(ValueError, match=r"b is 5 x 9 for a photograph of 9 x 5"):
        # Its own tag turns it away.
        lay_on_photo(torch.zeros(5, 9, dtype=torch.uint8), 6, (5, 9), 1, ("a", "b"))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_of_other_modes(tmp_path, mode):
    path = tmp_path / "photo.jpg"
    PIL.Image.fromarray(random_picture(40, 60).permute(1, 2, 0).contiguous().numpy()).convert(mode).save(path)
    pixels = window_pixels(open_image(path), Window((40, 60), (40, 60), 0, 0, 40, 60))
    with PIL.Image.open(path) as by_pillow:
        np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), np.array(by_pillow.convert("RGB")))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (Path.unlink, FileNotFoundError, "There is no image file at"),
        (lambda path: os.truncate(path, path.stat().st_size // 2), ValueError, "is damaged or truncated"),
        (lambda path: path.write_text("no image"), ValueError, "is not an image file"),
    ],
)
def test_unreadable_label_maps_are_named(tmp_path, damage, error, message):
    pair = save_pair(tmp_path, "photo", 90, 120)
    path = tmp_path / "photo.png"
    damage(path)
    with pytest.raises(error, match=message) as raised:
        TrainingSet([pair], SMALL)[0]
    assert str(path) in str(raised.value)


def test_unknown_labels_name_the_file_or_the_sample(tmp_path):
    pair = save_pair(tmp_path, "photo", 90, 120)
    label = random_label(90, 120)
    label[0, 0] = 77
    PIL.Image.fromarray(label.numpy()).save(pair["label"])
    with pytest.raises(ValueError, match=r"photo.png has the unknown labels \[77\]"):
        TrainingSet([pair], SMALL)[0]
    decoded = {"image": pair["image"], "label": PIL.Image.fromarray(label.numpy())}
    with pytest.raises(ValueError, match=r"The label map of sample 1 has the unknown labels \[77\]"):
        TrainingSet([decoded] * 2, SMALL)[-1]
    PIL.Image.new("RGB", (120, 90), "red").save(pair["label"])
    with pytest.raises(ValueError, match=r"photo.png"):
        TrainingSet([pair], SMALL)[0]


# Samples as a function of seed, epoch and index


# Python 3.12 and later warn when a process with threads forks its workers.
FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def equal(first, second):
    return all(torch.equal(first[key], second[key]) for key in ("pixel_values", "labels"))


def loaded(loader, samples, epochs):
    """Returns all samples per epoch, in the order of the loader."""
    found = []
    for epoch in epochs:
        samples.set_epoch(epoch)
        batches = list(loader)
        found.append({key: torch.cat([batch[key] for batch in batches]) for key in ("pixel_values", "labels")})
    return found


def test_samples_do_not_depend_on_order_or_other_random_numbers(pairs):
    samples = TrainingSet(pairs, SMALL, seed=3)
    first = [samples[index] for index in range(5)]
    torch.manual_seed(9)
    assert all(equal(samples[index], first[index]) for index in (4, 2, 2, 0, 3, 1))
    assert equal(samples[-1], first[4])
    with pytest.raises(IndexError):
        samples[5]


def test_seed_epoch_and_index_make_samples_differ(pairs):
    samples = TrainingSet([pairs[0]] * 3, SMALL, seed=3)
    found = [samples[0], samples[1], TrainingSet(pairs, SMALL, seed=4)[0]]
    samples.set_epoch(1)
    found.append(samples[0])
    assert samples.epoch == 1
    for index, sample in enumerate(found):
        assert not any(equal(sample, other) for other in found[:index])
    samples.set_epoch(0)
    assert equal(samples[0], found[0])


@FORKS
@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 1},
        {"num_workers": 2},
        {"num_workers": 2, "persistent_workers": True},
        pytest.param(
            {"num_workers": 2, "persistent_workers": True, "multiprocessing_context": "spawn"}, marks=pytest.mark.slow
        ),
    ],
)
def test_workers_make_the_same_samples(pairs, options):
    samples = TrainingSet(pairs, SMALL, seed=5)
    alone = loaded(DataLoader(samples, batch_size=2), samples, (0, 1))
    together = loaded(DataLoader(samples, batch_size=2, **options), samples, (0, 1))
    assert all(equal(expected, found) for expected, found in zip(alone, together, strict=True))
    assert not equal(*alone)


def test_threads_make_the_same_samples(tmp_path):
    samples = TrainingSet([save_pair(tmp_path, "photo", 200, 300)] * 8, TrainingTransform(301, short_sides=(150, 400)))
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append([samples[index] for index in range(8)])
    finally:
        torch.set_num_threads(threads)
    for alone, *others in zip(*found, strict=True):
        assert all(equal(alone, other) for other in others)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range(pairs, seed):
    with pytest.raises(ValueError, match="seed"):
        TrainingSet(pairs, SMALL, seed=seed)
