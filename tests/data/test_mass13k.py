import os
import shutil
import subprocess
import venv
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from datasets import IterableDataset, load_dataset
from support.replica import write_pair, write_replica

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.data.layout import LABELS, find_splits
from transformers_massformer.data.mass13k import MaSS13K, load_mass13k
from transformers_massformer.data.parquet import write_parquet


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(folder))
    return folder


def check_examples(examples, expected):
    """Checks that label maps are exact and photographs show the same blocks, up to JPEG's rounding."""
    seen = {}
    for example in examples:
        label = np.array(example["label"])
        np.testing.assert_array_equal(label, expected[example["image_id"]])
        assert example["image"].mode == "RGB"
        assert example["image"].size == example["label"].size
        colours = np.stack([label * 30 % 251, label * 70 % 241, label * 110 % 239], axis=2).astype(float)
        assert np.median(np.abs(np.array(example["image"]) - colours)) < 12
        seen[example["image_id"]] = np.array(example["image"])
    return seen


def test_labels_are_those_of_the_model():
    assert tuple(MASS13K_LABELS) == LABELS


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "msem"])
@pytest.mark.parametrize("folder", ["images_pad", "images", "images_copy"])
def test_loads_the_release_upright(tmp_path, nested, folder):
    data = tmp_path / "MaSS13K"
    expected = write_replica(data / "msem" if nested else data, folder=folder)
    data_set = load_mass13k(data)
    assert {name: len(split) for name, split in data_set.items()} == {"train": 3, "validation": 1, "test": 1}
    for split in data_set.values():
        check_examples(split, expected)
    # Files stay where they are.
    assert data_set["test"].with_format("arrow")[0]["image"][0]["path"].as_py().startswith(str(data.resolve()))


def test_4k_is_the_same_through_every_way(tmp_path):
    data = tmp_path / "MaSS13K"
    expected = write_replica(data, (4096, 3072))
    loaded = check_examples(load_mass13k(data, "train"), expected)
    streamed = load_mass13k(data, "train", streaming=True)
    assert isinstance(streamed, IterableDataset)
    list(write_parquet(find_splits(data), tmp_path / "parquet", 2))
    from_parquet = load_dataset(str(tmp_path / "parquet"), split="train")
    parquet_stream = load_dataset(str(tmp_path / "parquet"), split="train", streaming=True)
    for other in (streamed, from_parquet, parquet_stream):
        found = check_examples(other, expected)
        assert found.keys() == loaded.keys()
        assert all(np.array_equal(found[name], loaded[name]) for name in loaded)


def test_several_processes_list_the_same(tmp_path):
    expected = write_replica(tmp_path / "data")
    one = load_mass13k(tmp_path / "data", "train", cache_dir=tmp_path / "one")
    two = load_mass13k(tmp_path / "data", "train", num_proc=2, cache_dir=tmp_path / "two")
    assert sorted(one["image_id"]) == sorted(two["image_id"])
    check_examples(two, expected)


def test_splits_by_either_name_and_in_part(tmp_path):
    write_replica(tmp_path / "data")
    assert (
        load_mass13k(tmp_path / "data", "val")["image_id"] == load_mass13k(tmp_path / "data", "validation")["image_id"]
    )
    assert len(load_mass13k(tmp_path / "data", "train[:2]+val[:1]")) == 3
    assert len(load_mass13k(tmp_path / "data", "all")) == 5
    tidy = tmp_path / "tidy"
    write_pair(tidy, "validation", "a", folder="images")
    assert len(load_mass13k(tidy, "val")) == 1
    with pytest.raises(ValueError, match="Unknown split test; the data has validation"):
        load_mass13k(tidy, "test")


def test_the_first_folder_that_fits_the_label_maps_is_taken(tmp_path):
    for folder in ("images_pad", "images", "images_copy"):
        write_pair(tmp_path, "train", "a", (48, 36), folder=folder)
    assert find_splits(tmp_path)["train"].image_folder == tmp_path / "images_pad" / "train"
    write_pair(tmp_path, "train", "a", (64, 64), folder="images_pad")
    write_pair(tmp_path, "train", "a", (48, 36), folder="images")
    assert find_splits(tmp_path)["train"].image_folder == tmp_path / "images" / "train"
    (tmp_path / "images" / "train" / "a.jpg").unlink()
    assert find_splits(tmp_path)["train"].image_folder == tmp_path / "images_copy" / "train"


def test_a_changed_file_is_not_taken_from_the_cache(tmp_path):
    write_pair(tmp_path, "train", "a", seed=1)
    load_mass13k(tmp_path, "train")
    expected = {
        "a": write_pair(tmp_path, "train", "a", (60, 40), 6, True, seed=2),
        "b": write_pair(tmp_path, "train", "b"),
    }
    check_examples(load_mass13k(tmp_path, "train"), expected)


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder .*nowhere does not exist.*xiechenxi99"):
        load_mass13k(tmp_path / "nowhere")
    (tmp_path / "photos").mkdir()
    with pytest.raises(FileNotFoundError, match="no folder `annotations`; it contains photos"):
        load_mass13k(tmp_path)
    (tmp_path / "annotations" / "train").mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match="train in .* is incomplete: images_pad or images or images_copy/train is missing"
    ):
        load_mass13k(tmp_path)
    (tmp_path / "annotations" / "train").rmdir()
    (tmp_path / "images" / "test").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="test in .* is incomplete: annotations/test is missing"):
        load_mass13k(tmp_path)
    (tmp_path / "images" / "test").rmdir()
    with pytest.raises(FileNotFoundError, match="none of the splits"):
        load_mass13k(tmp_path)


IMAGE, LABEL = "images_pad/train/plain.jpg", "annotations/train/plain.png"
# By fault: the file that is changed, its change, the file that the error names, and more words of the error.
FAULTS = {
    "image without a label": (LABEL, Path.unlink, IMAGE, ""),
    "label without an image": (IMAGE, Path.unlink, LABEL, ""),
    "label of another size": (LABEL, PIL.Image.new("L", (40, 36)).save, LABEL, "40 x 36 for a photograph of 48 x 36"),
    "several images of one name": (
        IMAGE,
        lambda path: shutil.copy(path, path.with_suffix(".png")),
        IMAGE,
        "plain.jpg, plain.png",
    ),
    "unreadable file": (IMAGE, lambda path: os.truncate(path, 20), IMAGE, "damaged"),
    "not a photograph of a known format": (IMAGE, lambda path: os.truncate(path, 0), IMAGE, "empty"),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_counted_and_named(tmp_path, fault, streaming):
    write_replica(tmp_path)
    file, damage, named, words = FAULTS[fault]
    damage(tmp_path / file)
    with pytest.raises(ValueError, match=r"Split train .* has faults\. 1 x ") as error:
        load_mass13k(tmp_path, "train", streaming=streaming)
    assert all(text in str(error.value) for text in (fault, str(tmp_path / named), words))


def test_many_faults_are_shortened(tmp_path):
    for index in range(8):
        write_pair(tmp_path, "train", f"p{index}")
        (tmp_path / "annotations" / "train" / f"p{index}.png").unlink()
    with pytest.raises(ValueError, match=r"8 x image without a label: .*p4\.jpg, \.\.\.; 1 x no image with a label"):
        load_mass13k(tmp_path, "train")


def test_without_a_folder_the_builder_says_what_to_do():
    with pytest.raises(ValueError, match="pass `data_dir`"):
        MaSS13K().download_and_prepare()


SCRIPT_CODE = """
import sys, numpy, datasets
assert datasets.__version__.startswith("3."), datasets.__version__
splits = datasets.load_dataset(sys.argv[1], data_dir=sys.argv[2], trust_remote_code=True)
stream = datasets.load_dataset(sys.argv[1], data_dir=sys.argv[2], trust_remote_code=True, streaming=True)
arrays = {}
for found in (splits, stream):
    assert set(found) == {"train", "validation", "test"}
    for split in found.values():
        for example in split:
            for column in ("image", "label"):
                array = numpy.array(example[column])
                assert numpy.array_equal(arrays.setdefault(f"{example['image_id']}.{column}", array), array)
numpy.savez(sys.argv[3], **arrays)
"""


@pytest.mark.slow
def test_the_loading_script_under_datasets_3(built_hub, tmp_path):
    data = tmp_path / "MaSS13K"
    expected = write_replica(data, (4096, 3072))
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "datasets==3.6.0", "pillow", "numpy"], check=True)
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    arguments = [built_hub / "mass13k", data, tmp_path / "found.npz"]
    subprocess.run([python, "-c", SCRIPT_CODE, *arguments], check=True, env=environment, cwd=tmp_path)
    found = np.load(tmp_path / "found.npz")
    for split in load_mass13k(data).values():
        for example in split:
            name = example["image_id"]
            np.testing.assert_array_equal(found[f"{name}.label"], expected[name])
            np.testing.assert_array_equal(found[f"{name}.image"], np.array(example["image"]))
