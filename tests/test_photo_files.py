from pathlib import Path

import pytest
from support.commands import run_python

import transformers_massformer
from transformers_massformer.data.layout import files_by_stem
from transformers_massformer.models.photo_headers import PHOTO_SUFFIXES
from transformers_massformer.photo_files import find_photos
from transformers_massformer.utils.resuming import Results


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def touch(*names):
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(*arguments, output="out"):
    """Returns the photographs that arguments name, relative to the folders given, and what was passed over."""
    search = find_photos([str(argument) for argument in arguments], Path(output))
    return [relative.as_posix() for _, relative in search.photos], search.describe()


def test_photographs_that_an_argument_names():
    touch("photos/b.JPG", "photos/a.png", "photos/notes.txt", "photos/sub/c.webp", "photos/out/a.png")
    expected = ["a.png", "b.JPG", "sub/c.webp"], "1 passed over: 1 not photographs (notes.txt)"
    assert found("photos", output="photos/out") == expected
    assert found("photos/*.png") == (["a.png"], "")
    assert found("photos/**/*.webp") == (["sub/c.webp"], "")
    # A file that is named is a photograph, whatever its suffix.
    assert found("photos/notes.txt") == (["notes.txt"], "")
    ((photo, relative),) = find_photos(["photos/sub"], Path("out")).photos
    assert (str(photo), str(relative)) == ("photos/sub/c.webp", "c.webp")
    with pytest.raises(FileNotFoundError, match=r"\*\.tif names no photographs \(.*\.webp\)"):
        found("photos/*.tif")
    with pytest.raises(FileNotFoundError, match="no file or folder nowhere"):
        found("nowhere")
    with pytest.raises(ValueError, match="out holds the photographs; choose another folder"):
        found("photos/out", output="photos/out")


@pytest.mark.parametrize("suffix", PHOTO_SUFFIXES)
def test_suffixes_of_photographs(suffix):
    touch(f"photos/a{suffix}", f"photos/b{suffix.upper()}", f"photos/._a{suffix}")
    names = {"a": [Path(f"photos/a{suffix}")], "b": [Path(f"photos/b{suffix.upper()}")]}
    assert files_by_stem(Path("photos"), PHOTO_SUFFIXES) == names
    assert found("photos") == ([f"a{suffix}", f"b{suffix.upper()}"], f"1 passed over: 1 hidden (._a{suffix})")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("._a.jpg", "hidden (._a.jpg)"),
        (".DS_Store", "hidden (.DS_Store)"),
        (".thumbnails/a.jpg", "hidden (.thumbnails)"),
        (".AppleDouble/a.jpg", "hidden (.AppleDouble)"),
        ("sub/.thumbs/x/a.jpg", "hidden (.thumbs)"),
        ("@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", "in a folder of the system (@eaDir)"),
        ("__MACOSX/a.jpg", "in a folder of the system (__MACOSX)"),
        ("#recycle/a.jpg", "in a folder of the system (#recycle)"),
        ("Thumbs.db", "not photographs (Thumbs.db)"),
        ("a.jpg.xmp", "not photographs (a.jpg.xmp)"),
        ("raw.CR2", "not photographs (raw.CR2)"),
        ("maps/a_overlay.png", "results of an earlier run (a_overlay.png)"),
        ("maps/a_bokeh.png", "results of an earlier run (a_bokeh.png)"),
        ("maps/a_semantic_priors.png", "results of an earlier run (a_semantic_priors.png)"),
        ("maps/a_mattes/sky.png", "results of an earlier run (a_mattes)"),
        ("maps/a_cutouts/sky.png", "results of an earlier run (a_cutouts)"),
    ],
)
@pytest.mark.parametrize("pattern", ["photos", "photos/**/*"])
def test_what_is_passed_over_is_named(name, reason, pattern):
    touch("photos/maps/a.png", f"photos/{name}")
    if "*" in pattern and reason.startswith("hidden"):
        # The shell's rule, too.
        assert found(pattern) == (["maps/a.png"], "")
    elif "*" in pattern:
        assert found(pattern)[0] == ["maps/a.png"]
        assert reason.partition(" (")[0] in found(pattern)[1]
    else:
        assert found(pattern) == (["maps/a.png"], f"1 passed over: 1 {reason}")


def test_patterns_within_the_output():
    touch("photos/a.jpg", "photos/sub/b.jpg", "photos/old/a.png")
    assert found("photos/*.jpg", output="photos") == (["a.jpg"], "")
    assert found("photos/sub/*.jpg", output="photos") == (["b.jpg"], "")
    assert found("photos/**/*.[jp]*g", output="photos/old") == (["a.jpg", "sub/b.jpg"], "")
    Results(Path("photos")).write_record(Path("photos/old/a.png"), {}, "")
    note = "1 passed over: 1 results of an earlier run (a.png)"
    assert found("photos/**/*.[jp]*g", output="photos") == (["a.jpg", "sub/b.jpg"], note)


def test_recorded_results_are_passed_over():
    touch("photos/a.jpg", "photos/old/a.png", "photos/old/b_mattes/sky.png", "photos/old/own.png")
    for name in ("a.png", "b_mattes"):
        Results(Path("photos/old")).write_record(Path("photos/old", name), {}, "")
    note = "2 passed over: 2 results of an earlier run (b_mattes, a.png)"
    assert found("photos") == (["a.jpg", "old/own.png"], note)
    # Named explicitly, it is a photograph.
    assert found("photos/old/a.png") == (["a.png"], "")


def test_many_names_are_counted():
    touch("photos/a.jpg", *(f"photos/{index}.txt" for index in range(5)))
    assert found("photos")[1] == "5 passed over: 5 not photographs (0.txt, 1.txt, 2.txt, ...)"


def test_a_folder_of_no_photographs_says_what_it_holds():
    touch("photos/._a.jpg", "photos/b.txt")
    with pytest.raises(
        FileNotFoundError, match=r"2 passed over: 1 hidden \(\._a\.jpg\), 1 not photographs \(b\.txt\)"
    ):
        found("photos")


def test_links_are_followed_once():
    touch("album/a.jpg", "album/sub/b.jpg")
    Path("album/sub/loop").symlink_to("..", target_is_directory=True)
    Path("album/c.jpg").symlink_to("a.jpg")
    Path("album/gone.jpg").symlink_to("nowhere.jpg")
    Path("photos").mkdir()
    Path("photos/album").symlink_to("../album", target_is_directory=True)
    note = "1 passed over: 1 broken links (gone.jpg)"
    assert found("album") == (["a.jpg", "c.jpg", "sub/b.jpg"], note)
    assert found("photos") == (["album/a.jpg", "album/c.jpg", "album/sub/b.jpg"], note)


def test_a_photograph_that_is_named_twice_is_taken_once():
    touch("photos/sub/a.jpg")
    Path("link").symlink_to("photos", target_is_directory=True)
    arguments = (
        "photos",
        "photos/sub/a.jpg",
        "./photos/sub/../sub/a.jpg",
        Path("photos").resolve(),
        "link",
        "photos/*/*",
    )
    assert found(*arguments) == (["sub/a.jpg"], "")


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    touch("home/photos/a.jpg", "home/photos/[1].jpg")
    assert found("~/photos")[0] == ["[1].jpg", "a.jpg"]
    assert found("~/photos/a.*")[0] == ["a.jpg"]
    assert found("~/photos/[1].jpg")[0] == ["[1].jpg"]
    # A file may really be called so.
    touch("~/photos/b.jpg")
    assert found("~/photos")[0] == ["b.jpg"]


def test_finding_photographs_needs_neither_datasets_nor_torchvision():
    code = """
import importlib.util, sys, types
package = types.ModuleType("transformers_massformer")
package.__path__ = [sys.argv[1]]
sys.modules["transformers_massformer"] = package
import transformers_massformer.images, transformers_massformer.photo_files
print([name for name in ("datasets", "torch", "torchvision", "transformers") if name in sys.modules])
"""
    assert run_python("-c", code, transformers_massformer.__path__[0]).stdout.strip() == "[]"
