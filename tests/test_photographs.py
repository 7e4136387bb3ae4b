"""Photographs as people have them: every reader gives the same pixels, and no file ends a run."""

import io
import sys
from types import SimpleNamespace

import datasets
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import run
from support.photographs import HEIGHT, READABLE, UNREADABLE, WIDTH, base_pixels

from transformers_massformer import MaSSFormerImageProcessor
from transformers_massformer.data.headers import read_header, rewritten_photo
from transformers_massformer.data.mass13k import load_mass13k
from transformers_massformer.data.reading import read_label
from transformers_massformer.data.samples import EvaluationSet
from transformers_massformer.data.training_set import TrainingSet
from transformers_massformer.data.transforms import TrainingTransform, read_region
from transformers_massformer.demo.uploads import read_upload
from transformers_massformer.images import accept_photos, open_image, opened, read_photo
from transformers_massformer.models.photo_headers import (
    open_lazily,
    orientation_in_exif,
    orientation_in_xmp,
    stored_orientation,
)


# Of Pillow, about damaged metadata; and of files with several pictures that `datasets` leaves open.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in ("Corrupt EXIF data", "Truncated File Read", "unclosed file", "Exception ignored in. <_io.FileIO")
]


class Identity(TrainingTransform):
    """The training transform without its random changes: the complete photograph as the sample."""

    def __call__(self, image, label, rng, name="the label map"):
        image, label = self.check(image, label, name)
        return {"pixels": read_region(image, slice(0, label.shape[0]), slice(0, label.shape[1]))}


@pytest.mark.parametrize("photograph", READABLE, ids=lambda each: each.name)
def test_every_reader_gives_the_same_pixels(tmp_path, photograph):
    photograph.save(tmp_path)
    path, label = tmp_path / photograph.name, tmp_path / "label map.png"
    PIL.Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(label)
    photo, orientation = read_photo(path, "photo")
    pixels = np.asarray(photo)
    assert (orientation, photo.mode, pixels.shape) == (photograph.orientation, "RGB", (HEIGHT, WIDTH, 3))
    assert (type(photo), photo.info) == (PIL.Image.Image, {})
    if photograph.colours is not None:
        # Transforms and alpha may be rounded otherwise.
        assert np.abs(pixels - photograph.colours(base_pixels()).astype(float)).max() <= 2

    header = read_header(path)
    assert (header.upright_size, header.orientation or 1) == (photo.size, orientation)
    rewritten = rewritten_photo(path)
    source = {"path": str(path) if rewritten is None else None, "bytes": rewritten}
    decoded = datasets.Image().decode_example(source)
    for each in (path, str(path), decoded, photo):
        items = [{"image": each, "label": label}]
        np.testing.assert_array_equal(np.asarray(EvaluationSet(items)[0]["image"]), pixels)
        np.testing.assert_array_equal(TrainingSet(items, Identity())[0]["pixels"], pixels)
    np.testing.assert_array_equal(np.asarray(read_upload(path, photograph.name, 1)), pixels)
    processor = MaSSFormerImageProcessor(do_rescale=False, do_normalize=False, do_pad=False)
    for each in (str(path), decoded, photo):
        values = processor(images=each, return_tensors="np")["pixel_values"][0]
        np.testing.assert_array_equal(values, np.moveaxis(pixels, -1, 0))


@pytest.mark.parametrize("photograph", UNREADABLE, ids=lambda each: each.name)
def test_unreadable_photographs_are_named(tmp_path, monkeypatch, photograph):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    photograph.save(tmp_path)
    with pytest.raises(ValueError, match=rf"{photograph.name}.*{photograph.error}"):
        open_image(tmp_path / photograph.name)
    with pytest.raises(ValueError, match=photograph.name):
        read_upload(tmp_path / photograph.name, photograph.name, 1)


def write_all(folder, photographs):
    """Writes photographs under unique names without suffix; returns their paths."""
    folder.mkdir(parents=True)
    paths = []
    for index, photograph in enumerate(photographs):
        photograph.save(folder)
        paths.append((folder / photograph.name).rename(folder / f"{index:03d}_{photograph.name}"))
    return paths


def test_data_sets_give_the_pixels_of_the_files(tmp_path):
    paths = write_all(tmp_path / "data" / "images" / "train", READABLE)
    (tmp_path / "data" / "annotations" / "train").mkdir(parents=True)
    for path in paths:
        labels = PIL.Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8))
        labels.save(tmp_path / "data" / "annotations" / "train" / f"{path.stem}.png")
    found = EvaluationSet(load_mass13k(tmp_path / "data", "train", cache_dir=tmp_path / "cache"))
    assert len(found) == len(paths)
    for path, item in zip(paths, found, strict=True):
        np.testing.assert_array_equal(np.asarray(item["image"]), np.asarray(open_image(path)), err_msg=path.name)


def test_no_photograph_ends_a_run(tmp_path, peers):
    # A part of them takes seconds; all of them have been decoded above.
    readable = [*READABLE[::6], *READABLE[-4:]]
    paths = write_all(tmp_path / "photos", [*readable, *UNREADABLE])
    (tmp_path / "photos" / "notes.txt").write_text("")
    (tmp_path / "photos" / "._000_baseline.jpg").write_bytes(b"\0\5\26\7")
    arguments = (tmp_path / "photos", "--model", peers("massformer"), "--device", "cpu", "--output", tmp_path / "o")
    result = run("segment", *arguments, code=1)
    assert "2 passed over: 1 hidden (._000_baseline.jpg), 1 not photographs (notes.txt)" in result.output
    assert f"{len(readable)} segmented, {len(UNREADABLE)} failed" in result.output
    assert "Traceback" not in result.output
    for path in paths[: len(readable)]:
        with PIL.Image.open(tmp_path / "o" / f"{path.stem}.png") as label_map:
            assert label_map.size == (WIDTH, HEIGHT)
    for path in paths[len(readable) :]:
        assert path.name in result.output


def test_a_cut_off_photograph_is_read_if_allowed(tmp_path, monkeypatch, caplog):
    (cut,) = (each for each in UNREADABLE if each.name == "cut.jpg")
    cut.save(tmp_path)
    monkeypatch.setenv("MASSFORMER_ALLOW_TRUNCATED", "")
    with pytest.raises(ValueError, match=r"cut\.jpg is damaged or truncated.*--allow-truncated"):
        open_image(tmp_path / "cut.jpg")
    accept_photos(allow_truncated=True)
    pixels = np.asarray(open_image(tmp_path / "cut.jpg")).astype(float)
    assert "cut.jpg is cut off" in caplog.text
    # The first block is there, the last one is grey.
    assert np.abs(pixels[:6, :6] - base_pixels()[:6, :6]).max() < 20
    assert pixels[-1, -1].tolist() == [128, 128, 128]
    # A label map is never read in part.
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 7, (64, 64), dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-600])
    with pytest.raises(ValueError, match=r"a\.png is damaged or truncated"):
        read_label(tmp_path / "a.png", "a.png")


def test_the_largest_size_is_an_option(tmp_path, monkeypatch):
    PIL.Image.new("L", (100, 60)).save(tmp_path / "a.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 2000)
    monkeypatch.setenv("MASSFORMER_MAX_MEGAPIXELS", "")
    for read in (open_image, read_header):
        with pytest.raises(ValueError, match=r"a\.png.*exceeds limit of 4000 pixels.*"):
            read(tmp_path / "a.png")
    with pytest.raises(ValueError, match="--max-megapixels"):
        open_image(tmp_path / "a.png")
    accept_photos(max_megapixels=0.006)
    assert open_image(tmp_path / "a.png").size == read_header(tmp_path / "a.png").upright_size == (100, 60)
    accept_photos(max_megapixels=0.005)
    with pytest.raises(ValueError, match="limit of 5000 pixels"):
        open_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match="above 0 megapixels, got 0"):
        accept_photos(max_megapixels=0)


def test_heif_files_are_read_where_pillow_heif_is_installed(tmp_path, monkeypatch):
    """With a plugin that reads PNG data behind a HEIF file's first box, turned upright as pillow-heif does."""
    data, buffer = b"\0\0\0\x18ftypheic" + bytes(12), io.BytesIO()
    PIL.Image.fromarray(base_pixels()).save(buffer, "PNG")
    (tmp_path / "a.HEIC").write_bytes(data + buffer.getvalue())

    def factory(file, name):
        image = PIL.Image.open(io.BytesIO(file.read()[24:]))
        image.format = "HEIF"
        return image

    def register():
        PIL.Image.register_open("HEIF", factory, lambda start: start[4:8] == b"ftyp")

    monkeypatch.setattr(PIL.Image, "OPEN", PIL.Image.OPEN.copy())
    monkeypatch.setattr(PIL.Image, "ID", PIL.Image.ID.copy())
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register))
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "a.HEIC")), base_pixels())
    assert read_header(tmp_path / "a.HEIC").upright_size == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(np.asarray(read_upload(tmp_path / "a.HEIC", "a.HEIC", 1)), base_pixels())
    # `datasets` knows no such plugin.
    rewritten = PIL.Image.open(io.BytesIO(rewritten_photo(tmp_path / "a.HEIC")))
    np.testing.assert_array_equal(np.asarray(rewritten), base_pixels())


def test_without_image_cms_profiles_are_ignored(tmp_path, monkeypatch, caplog):
    (swapped,) = (each for each in READABLE if each.name == "swapped.png")
    swapped.save(tmp_path)

    def missing(*arguments):
        raise ImportError("The _imagingcms C module is not installed")

    monkeypatch.setattr("transformers_massformer.models.srgb.transform_to_srgb", missing)
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "swapped.png")), base_pixels())
    assert "built without ImageCms" in caplog.text


def test_the_processor_warns_of_images_that_are_not_upright(tmp_path, caplog):
    (turned,) = (each for each in READABLE if each.name == "exif_6.webp")
    turned.save(tmp_path)
    processor = MaSSFormerImageProcessor()
    with PIL.Image.open(tmp_path / turned.name) as image:
        # In the coordinates of the image that was passed.
        assert processor(images=image, return_tensors="pt")["pixel_values"].shape[-2:] == (64, 32)
    assert "processed as its pixels are stored" in caplog.text


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_no_exif_data_raises(data, start):
    exif = b"Exif\0\0" + start + data
    assert orientation_in_exif(exif) in range(9)
    assert orientation_in_xmp(data) in range(9)
    buffer = io.BytesIO()
    PIL.Image.new("L", (3, 2)).save(buffer, "JPEG", exif=exif)
    with opened(buffer_file(buffer), "photo") as image:
        assert stored_orientation(image) == orientation_in_exif(exif)
        image.load()


def buffer_file(buffer):
    """Returns the image in a buffer, opened as files are."""
    buffer.seek(0)
    return open_lazily(buffer)
