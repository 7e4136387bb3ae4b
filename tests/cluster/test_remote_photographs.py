"""Photographs in remote storage, for which file:// stands in, and in Parquet files."""

from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet
import pytest

from transformers_massformer.cluster.photographs import Fetcher, find_photographs
from transformers_massformer.photo_files import find_photos
from transformers_massformer.segmenting.jobs import Extras, plan_jobs


def picture(path: Path, value: int) -> bytes:
    """Write a photograph of one colour and return its file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (8, 6), (value, 0, 0)).save(path, format="PNG")
    return path.read_bytes()


@pytest.fixture
def files(tmp_path):
    """Return the content of files in a folder, by relative path."""
    names = ("a.png", "sub/b c#1.png", "sub/d%20e.jpg")
    return {name: picture(tmp_path / "photos" / name, index) for index, name in enumerate(names)}


def find(*arguments, column=None, output="out"):
    return find_photographs(
        [str(argument) for argument in arguments],
        column,
        lambda names: find_photos(names, Path(output)).photos,
    )


def contents(found, output=Path("/out")):
    """Return the bytes that each label map is made from, by its path in the output folder."""
    fetcher, read = Fetcher(found.column), {}
    for job in plan_jobs(found.photos, output, Extras(), found.remotes):
        with fetcher.fetched(job) as file:
            assert file.name == job.photo.name
            read[job.label_map.relative_to(output).as_posix()] = file.read_bytes()
        assert job.remote is None or not file.exists()
    return read


def write_parquet(path: Path, columns, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table(columns), path, **options)
    return path


def test_a_remote_folder_gives_what_a_local_one_does(tmp_path, files):
    picture(tmp_path / "photos" / ".hidden" / "x.png", 9)
    (tmp_path / "photos" / "notes.txt").write_text("no photograph")
    local, remote = find(tmp_path / "photos"), find(f"file://{tmp_path}/photos")
    expected = {Path(name).with_suffix(".png").as_posix(): content for name, content in files.items()}
    assert contents(local) == contents(remote) == expected
    assert not local.remotes
    assert {str(each) for each in remote.remotes.values()} == {f"file://{tmp_path}/photos/{name}" for name in files}
    # A single file, whatever its suffix.
    (tmp_path / "photos" / "raw").write_bytes(files["a.png"])
    assert contents(find(f"file://{tmp_path}/photos/raw")) == {"raw.png": files["a.png"]}
    # Named twice, taken once.
    assert len(find(f"file://{tmp_path}/photos", f"file://{tmp_path}/photos", tmp_path / "photos").photos) == 6


def test_what_is_not_there_is_named(tmp_path, files):
    with pytest.raises(FileNotFoundError, match="nothing at file:///.*none"):
        find(f"file://{tmp_path}/none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty names no photographs"):
        find(f"file://{tmp_path}/empty")
    with pytest.raises(ValueError, match="s4://bucket cannot be opened.*pyarrow reads file://"):
        find("s4://bucket")
    with pytest.raises(ValueError, match="--image-column has no effect"):
        find(tmp_path / "photos", column="image")


def test_a_changed_remote_photograph_has_another_origin(tmp_path, files):
    def origin():
        (job,) = plan_jobs(*arguments(find(f"file://{tmp_path}/photos/a.png")))
        return job.origin({"model": 1})

    def arguments(found):
        return found.photos, Path("/out"), Extras(), found.remotes

    before = origin()
    assert before.differences(origin().describe()) == []
    picture(tmp_path / "photos" / "a.png", 200)
    assert before.differences(origin().describe()) == ["photo"]


@pytest.mark.parametrize("kind", ["struct", "bytes"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_images_in_rows(tmp_path, kind, scheme):
    content = [picture(tmp_path / "x.png", value) for value in range(7)]
    names = ["0.png", "in/1.png", "/2.png", "../3.png", None, "5.png", "6.png"]
    if kind == "struct":
        columns = {"label": range(7), "image": [{"bytes": b, "path": p} for b, p in zip(content, names, strict=True)]}
    else:
        columns = {"file_name": names, "bytes": content}
    write_parquet(tmp_path / "data" / "train-0.parquet", columns, row_group_size=3)
    found = find(f"{scheme}{tmp_path}/data")
    labels = ["0.png", "in/1.png", "2.png", "3.png", "00000004.png", "5.png", "6.png"]
    assert contents(found) == {f"train-0/{name}": content[index] for index, name in enumerate(labels)}
    # In any order.
    found.photos = [found.photos[index] for index in (5, 4, 6, 0, 2, 1, 3)]
    assert contents(found) == {f"train-0/{name}": content[index] for index, name in enumerate(labels)}


def test_rows_without_an_image_are_named(tmp_path):
    table = write_parquet(tmp_path / "x.parquet", {"image": pa.array([b"", None], pa.binary())})
    found = find(table)
    for job in plan_jobs(found.photos, Path("/out"), Extras(), found.remotes):
        with (
            pytest.raises(ValueError, match=r"row [01] has no image in column image"),
            Fetcher(found.column).fetched(job),
        ):
            pass


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_paths_in_rows(tmp_path, files, scheme):
    paths = ["photos/a.png", str(tmp_path / "photos/sub/b c#1.png"), None, "photos/a.png"]
    paths += [f"file://{tmp_path}/photos/sub/d%2520e.jpg"]
    table = write_parquet(tmp_path / "list.parquet", {"photo": paths, "path": ["unused"] * 5})
    found = find(f"{scheme}{table}", column="photo")
    inside = str(tmp_path / "photos/sub").lstrip("/")
    assert contents(found) == {
        "photos/a.png": files["a.png"],
        f"{inside}/b c#1.png": files["sub/b c#1.png"],
        f"{inside}/d%20e.png": files["sub/d%20e.jpg"],
    }


def test_columns_that_hold_no_photographs_are_named(tmp_path):
    table = write_parquet(tmp_path / "x.parquet", {"photo": ["a.jpg"], "size": [3]})
    with pytest.raises(ValueError, match="has no column image, bytes, path, file_name, only photo, size"):
        find(table)
    with pytest.raises(ValueError, match="has no column picture, only"):
        find(table, column="picture")
    with pytest.raises(ValueError, match="column size holds int64, neither paths nor bytes"):
        find(table, column="size")
    (tmp_path / "y.parquet").write_text("no table")
    with pytest.raises(ValueError, match="y.parquet is not a Parquet file"):
        find(tmp_path / "y.parquet")
    write_parquet(tmp_path / "both" / "0.parquet", {"image": [b"1"]})
    write_parquet(tmp_path / "both" / "1.parquet", {"image": ["1"]})
    with pytest.raises(ValueError, match="differs in kind or name"):
        find(tmp_path / "both")


def test_two_rows_of_the_same_name_are_refused_for_files(tmp_path):
    content = picture(tmp_path / "x.png", 1)
    table = write_parquet(tmp_path / "x.parquet", {"image": [{"bytes": content, "path": "a.png"}] * 2})
    found = find(table)
    with pytest.raises(ValueError, match="would both be written to"):
        plan_jobs(found.photos, Path("/out"), Extras(), found.remotes)
    assert np.all([remote.row == row for row, remote in enumerate(found.remotes.values())])
