import numpy as np
import pyarrow.parquet
import pytest
from datasets import load_dataset
from support.commands import run_python
from support.replica import write_pair, write_replica

from transformers_massformer.data import parquet
from transformers_massformer.data.layout import find_splits
from transformers_massformer.data.parquet import write_parquet


def files(folder):
    return {path.name: path.read_bytes() for path in (folder / "data").iterdir()}


def write_many(root, count=7):
    return {f"p{index}": write_pair(root, "train", f"p{index}", seed=index) for index in range(count)}


def test_files_hold_the_images_themselves(tmp_path):
    expected = write_replica(tmp_path / "source")
    list(write_parquet(find_splits(tmp_path / "source"), tmp_path / "out", images_per_file=2))
    assert sorted(files(tmp_path / "out")) == [
        "test-00000-of-00001.parquet",
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
        "validation-00000-of-00001.parquet",
    ]
    # The bytes are those of the file; a label map stored like its turned photograph gets a tag.
    table = pyarrow.parquet.read_table(tmp_path / "out" / "data" / "train-00000-of-00002.parquet").to_pylist()
    assert table[0]["image"]["bytes"] == (tmp_path / "source" / "images_pad" / "train" / "plain.jpg").read_bytes()
    (tmp_path / "source").rename(tmp_path / "gone")
    for streaming in (False, True):
        splits = load_dataset(str(tmp_path / "out"), streaming=streaming, cache_dir=str(tmp_path / "cache"))
        assert set(splits) == {"train", "validation", "test"}
        for split in splits.values():
            for example in split:
                np.testing.assert_array_equal(np.array(example["label"]), expected[example["image_id"]])
                assert example["image"].size == example["label"].size


def test_an_interrupted_preparation_is_resumed(tmp_path, monkeypatch):
    write_many(tmp_path / "source")
    splits = find_splits(tmp_path / "source")
    assert [new for _, new in write_parquet(splits, tmp_path / "whole", images_per_file=2)] == [True] * 4
    real, calls = parquet.embedded_example, []

    def interrupted(pair):
        calls.append(pair)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(pair)

    monkeypatch.setattr(parquet, "embedded_example", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(write_parquet(splits, tmp_path / "out", images_per_file=2))
    assert sorted(files(tmp_path / "out")) == ["train-00000-of-00004.parquet"]
    monkeypatch.setattr(parquet, "embedded_example", real)
    news = [new for _, new in write_parquet(splits, tmp_path / "out", images_per_file=2)]
    assert news == [False, True, True, True]
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_other_files_are_not_mixed_in(tmp_path):
    write_many(tmp_path / "source", 3)
    list(write_parquet(find_splits(tmp_path / "source"), tmp_path / "out", images_per_file=2))
    with pytest.raises(ValueError, match="made from other data or with another number"):
        list(write_parquet(find_splits(tmp_path / "source"), tmp_path / "out", images_per_file=3))
    write_many(tmp_path / "source", 4)
    with pytest.raises(ValueError, match="made from other data or with another number"):
        list(write_parquet(find_splits(tmp_path / "source"), tmp_path / "out", images_per_file=2))
    (tmp_path / "out" / ".preparation.json").unlink()
    with pytest.raises(ValueError, match="of unknown origin"):
        list(write_parquet(find_splits(tmp_path / "source"), tmp_path / "out", images_per_file=2))


def test_the_script(tmp_path):
    write_many(tmp_path / "source", 3)
    command = ("scripts/prepare_mass13k.py", tmp_path / "source", "--output", tmp_path / "out")
    result = run_python(*command)
    assert "3 images in 1 files" in result.stderr
    assert "1 of them new" in result.stderr
    assert "0 of them new" in run_python(*command).stderr
    (tmp_path / "source" / "annotations" / "train" / "p1.png").unlink()
    broken = run_python(*command, code=1)
    assert "1 x image without a label" in broken.stderr
    assert "Traceback" not in broken.stderr
