import io
import struct
import warnings

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from support.replica import ORIENTATION, stored_as

from transformers_massformer import open_image
from transformers_massformer.data.headers import read_header
from transformers_massformer.data.mass13k import load_mass13k
from transformers_massformer.data.samples import EvaluationSet
from transformers_massformer.data.training_set import TrainingSet
from transformers_massformer.data.transforms import TrainingTransform, read_region
from transformers_massformer.demo.uploads import read_upload
from transformers_massformer.images import read_photo
from transformers_massformer.models.photo_headers import stored_orientation


HEIGHT, WIDTH = 24, 40
# Grey values of a palette, most of them transparent to some degree.
PALETTE = np.random.default_rng(5).integers(0, 256, (256, 4), dtype=np.uint8)


def bands(*values):
    return [PIL.Image.fromarray(np.ascontiguousarray(band)) for band in values]


def with_palette(values):
    image = PIL.Image.fromarray(np.ascontiguousarray(values))
    image.putpalette(PALETTE[:, :3].tobytes())
    return image


def on_white(colours, alpha):
    return (colours * (alpha / 255.0)[..., None] + 255 - alpha[..., None]).round()


def grey(values):
    return np.repeat(values[..., None], 3, axis=2)


def sixteen_bits(base):
    return base[..., 0].astype(np.uint16) * 256 + base[..., 1]


def fractions(base):
    return (base[..., 0] / np.float32(200) - np.float32(0.1)).astype(np.float32)


KEY = (255, 0, 0)
# By name: an image made of random values `(height, width, 4)`, how it is saved, and its colours by an independent
# formula.
MODES = {
    "1": (lambda b: PIL.Image.fromarray(b[..., 0] > 127), {}, lambda b: grey((b[..., 0] > 127) * 255)),
    "L": (lambda b: bands(b[..., 0])[0], {}, lambda b: grey(b[..., 0])),
    "LA": (
        lambda b: PIL.Image.merge("LA", bands(b[..., 0], b[..., 3])),
        {},
        lambda b: on_white(grey(b[..., 0]), b[..., 3]),
    ),
    "P": (lambda b: with_palette(b[..., 0]), {}, lambda b: PALETTE[b[..., 0], :3]),
    "P, transparent": (
        lambda b: with_palette(b[..., 0]),
        {"transparency": PALETTE[:, 3].tobytes()},
        lambda b: on_white(PALETTE[b[..., 0], :3], PALETTE[b[..., 0], 3]),
    ),
    "RGB": (lambda b: PIL.Image.merge("RGB", bands(b[..., 0], b[..., 1], b[..., 2])), {}, lambda b: b[..., :3]),
    "RGB, transparent": (
        lambda b: PIL.Image.merge(
            "RGB", bands(np.where(b[..., 0] > 99, 255, 0).astype(np.uint8), b[..., 1] * 0, b[..., 1] * 0)
        ),
        {"transparency": KEY},
        lambda b: np.where((b[..., 0] > 99)[..., None], 255, 0).repeat(3, axis=2),
    ),
    "RGBA": (
        lambda b: PIL.Image.merge("RGBA", bands(*np.moveaxis(b, -1, 0))),
        {},
        lambda b: on_white(b[..., :3], b[..., 3]),
    ),
    "CMYK": (
        lambda b: PIL.Image.merge("CMYK", bands(*np.moveaxis(b, -1, 0))),
        {"format": "TIFF"},
        lambda b: (255.0 - b[..., :3]) * (255 - b[..., 3:]) / 255,
    ),
    "I;16": (lambda b: PIL.Image.fromarray(sixteen_bits(b)), {}, lambda b: grey(sixteen_bits(b) / 257.0)),
    "I": (
        lambda b: PIL.Image.fromarray(sixteen_bits(b).astype(np.int32)),
        {"format": "TIFF"},
        lambda b: grey(sixteen_bits(b) / 257.0),
    ),
    "F": (
        lambda b: PIL.Image.fromarray(fractions(b)),
        {"format": "TIFF"},
        lambda b: grey((fractions(b) * 255).clip(0, 255)),
    ),
}


def write_photo(path, mode, orientation=1):
    """Writes random values in a mode, stored so that the orientation tag turns them upright; returns their colours."""
    base = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    make, options, colours = MODES[mode]
    if orientation > 1:
        options = options | {"exif": PIL.Image.Exif()}
        options["exif"][ORIENTATION] = orientation
    make(stored_as(base, orientation)).save(path, **{"format": "PNG"} | options)
    return colours(base)


class Identity(TrainingTransform):
    """The training transform without its random changes: the complete photograph as the sample."""

    def __call__(self, image, label, rng, name="the label map"):
        image, label = self.check(image, label, name)
        return {"pixels": read_region(image, slice(0, label.shape[0]), slice(0, label.shape[1])), "labels": label}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", MODES)
def test_every_reader_gives_the_same_pixels(tmp_path, mode, orientation):
    path, label = tmp_path / "photo.png", tmp_path / "label.png"
    expected = write_photo(path, mode, orientation)
    PIL.Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(label)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = open_image(path)
    assert opened.mode == "RGB"
    pixels = np.asarray(opened)
    # Compositing may be rounded differently.
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected.astype(float)).max() <= 1

    decoded = datasets.Image().decode_example({"path": None, "bytes": path.read_bytes()})
    stored = PIL.Image.open(io.BytesIO(path.read_bytes()))
    for source in (path, str(path), decoded, stored, opened):
        photo, _ = read_photo(source, "photo")
        assert photo.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(photo), pixels)
        items = [{"image": source, "label": label}]
        np.testing.assert_array_equal(np.asarray(EvaluationSet(items)[0]["image"]), pixels)
        np.testing.assert_array_equal(TrainingSet(items, Identity())[0]["pixels"], pixels)
    np.testing.assert_array_equal(np.asarray(read_upload(path, "photo.png", 1)), pixels)
    # Transforms also take an upright image that no reader has converted.
    np.testing.assert_array_equal(read_region(decoded, slice(2, 9), slice(3, 20)), pixels[2:9, 3:20])


@pytest.mark.parametrize("mode", [mode for mode in MODES if not MODES[mode][1].get("format")])
def test_data_sets_of_images_give_the_same_samples_as_files(tmp_path, mode, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    paths = [tmp_path / "data" / kind / "train" / "a.png" for kind in ("images", "annotations")]
    for path in paths:
        path.parent.mkdir(parents=True)
    write_photo(paths[0], mode, 6)
    labels = np.random.default_rng(0).integers(0, 7, (HEIGHT, WIDTH), dtype=np.uint8)
    PIL.Image.fromarray(labels).save(paths[1])
    transform = TrainingTransform(crop_size=16, short_sides=(20,))
    by_file = TrainingSet([dict(zip(("image", "label"), paths, strict=True))], transform)[0]
    by_image = TrainingSet(load_mass13k(tmp_path / "data", "train"), transform)[0]
    for name, values in by_file.items():
        torch.testing.assert_close(by_image[name], values, rtol=0, atol=0)


def test_images_of_a_mode_that_files_do_not_have():
    values = np.random.default_rng(3).integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)
    photo, _ = read_photo(PIL.Image.merge("YCbCr", bands(*values)), "photo")
    # The conversion of JPEG files (JFIF).
    y, cb, cr = values - np.array([0.0, 128, 128])[:, None, None]
    expected = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=2).clip(0, 255)
    assert np.abs(np.asarray(photo) - expected).max() <= 2


def test_values_beyond_8_bits_are_scaled(tmp_path):
    PIL.Image.fromarray(np.array([[0, 256, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "grey16.png")
    assert np.asarray(open_image(tmp_path / "grey16.png"))[0, :, 0].tolist() == [0, 1, 128, 255]
    PIL.Image.fromarray(np.array([[0, 0.5, 1, 7, np.nan]], dtype=np.float32)).save(tmp_path / "float.tiff")
    assert np.asarray(open_image(tmp_path / "float.tiff"))[0, :, 1].tolist() == [0, 128, 255, 255, 0]


def test_a_photograph_is_turned_only_once(tmp_path):
    expected = write_photo(tmp_path / "photo.png", "RGB", 6)
    photo, orientation = read_photo(tmp_path / "photo.png", "photo")
    again, none = read_photo(photo, "photo")
    assert (orientation, none) == (6, 1)
    np.testing.assert_array_equal(np.asarray(again), expected)


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize(("metadata", "expected"), [("exif", 6), ("xmp", 6), ("out of range", 0), ("none", 0)])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_headers_and_photographs_have_the_same_orientation(tmp_path, suffix, metadata, expected):
    path, exif, options = tmp_path / f"photo.{suffix}", PIL.Image.Exif(), {}
    exif[ORIENTATION] = 9 if metadata == "out of range" else 6
    if metadata == "xmp" and suffix == "png":
        options["pnginfo"] = PIL.PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP)
    elif metadata == "xmp":
        options["xmp"] = XMP.encode()
    elif metadata != "none":
        options["exif"] = exif
    PIL.Image.new("RGB", (WIDTH, HEIGHT)).save(path, **options)
    with PIL.Image.open(path) as image:
        assert stored_orientation(image) == expected
    assert read_header(path).orientation == expected
    assert read_photo(path, "photo")[1] == (expected or 1)
    assert read_header(path).upright_size == open_image(path).size


def bad_exif():
    """EXIF data that cannot be written again: the orientation, and a resolution that is text."""
    entries = [struct.pack("<HHIHH", ORIENTATION, 3, 1, 6, 0), struct.pack("<HHI4s", 282, 2, 3, b"72\0\0")]
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + b"".join(entries) + struct.pack("<I", 0)


def test_other_tags_are_not_looked_at(tmp_path):
    PIL.Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "photo.jpg", exif=bad_exif())
    assert open_image(tmp_path / "photo.jpg").size == (HEIGHT, WIDTH)


def write_bad_files(folder):
    """Returns an error and the words of its message for each file."""
    buffer = io.BytesIO()
    PIL.Image.effect_noise((64, 64), 50).save(buffer, "JPEG")
    (folder / "cut.jpg").write_bytes(buffer.getvalue()[:900])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not a picture")
    (folder / "folder.jpg").mkdir()
    PIL.Image.new("RGB", (100, 100)).save(folder / "large.png")
    return {
        "cut.jpg": (ValueError, "is damaged or truncated"),
        "empty.jpg": (ValueError, "is not an image file"),
        "text.jpg": (ValueError, "is not an image file"),
        "folder.jpg": (ValueError, "is a folder"),
        "large.png": (ValueError, "is too large to be decoded safely.*--max-megapixels"),
        "none.jpg": (FileNotFoundError, "There is no image file at"),
    }


def test_every_reader_raises_the_same_errors(tmp_path, monkeypatch):
    PIL.Image.new("L", (8, 8)).save(tmp_path / "label.png")
    bad_files = write_bad_files(tmp_path)
    # Pillow warns above this limit, and refuses above its double.
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 4999)
    for name, (error, message) in bad_files.items():
        path = tmp_path / name
        items = [{"image": path, "label": tmp_path / "label.png"}]
        with pytest.raises(error, match=message) as expected:
            open_image(path)
        assert str(path) in str(expected.value)
        for samples in (EvaluationSet(items), TrainingSet(items, TrainingTransform())):
            with pytest.raises(error) as raised:
                samples[0]
            assert str(raised.value) == str(expected.value)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 5001)
    assert open_image(tmp_path / "large.png").size == (100, 100)
