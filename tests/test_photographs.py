"""Photographs as people have them: every reader gives the same pixels, and no file ends a run."""

import datasets
import numpy as np
import PIL.Image
import pytest
from support.commands import run
from support.photographs import HEIGHT, READABLE, UNREADABLE, WIDTH, base_pixels

from transformers_massformer import MaSSFormerImageProcessor
from transformers_massformer.data.headers import read_header, rewritten_photo
from transformers_massformer.data.mass13k import load_mass13k
from transformers_massformer.data.samples import EvaluationSet
from transformers_massformer.data.training_set import TrainingSet
from transformers_massformer.data.transforms import TrainingTransform, read_region
from transformers_massformer.demo.uploads import read_upload
from transformers_massformer.images import open_image, read_photo


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
def test_unreadable_photographs_are_named(tmp_path, photograph):
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
    paths = write_all(tmp_path / "photos", [*READABLE, *UNREADABLE])
    (tmp_path / "photos" / "notes.txt").write_text("")
    (tmp_path / "photos" / "._000_baseline.jpg").write_bytes(b"\0\5\26\7")
    arguments = (tmp_path / "photos", "--model", peers("massformer"), "--device", "cpu", "--output", tmp_path / "o")
    result = run("segment", *arguments, code=1)
    assert "2 passed over: 1 hidden (._000_baseline.jpg), 1 not photographs (notes.txt)" in result.output
    assert f"{len(READABLE)} segmented, {len(UNREADABLE)} failed" in result.output
    assert "Traceback" not in result.output
    for path in paths[: len(READABLE)]:
        with PIL.Image.open(tmp_path / "o" / f"{path.stem}.png") as label_map:
            assert label_map.size == (WIDTH, HEIGHT)
    for path in paths[len(READABLE) :]:
        assert path.name in result.output
