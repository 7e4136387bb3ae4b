import io

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.replica import ORIENTATION, checkered_labels, stored_as

from transformers_massformer.data.headers import Header, is_ambiguous, label_orientation, read_header, turned_png
from transformers_massformer.data.label_headers import read_label_header


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(0, 8),
    st.sampled_from(["JPEG", "progressive", "PNG"]),
    st.sampled_from(["L", "RGB"]),
    st.booleans(),
)
def test_headers_are_those_of_decoded_images(tmp_path_factory, width, height, orientation, kind, mode, comment):
    image, options = PIL.Image.new(mode, (width, height)), {}
    if orientation:
        options["exif"] = PIL.Image.Exif()
        options["exif"][ORIENTATION] = orientation
        options["exif"][0x010E] = "a description that does not fit into four bytes"
    if comment and kind != "PNG":
        options["comment"] = b"before the frame" * 50
    path = tmp_path_factory.mktemp("headers") / "image"
    image.save(path, format="PNG" if kind == "PNG" else "JPEG", progressive=kind == "progressive", **options)
    header = read_header(path)
    assert header == Header(width, height, orientation)
    with PIL.Image.open(path) as opened:
        assert header.upright_size == PIL.ImageOps.exif_transpose(opened).size


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("exif", [None, 6])
def test_headers_are_read_without_decoding(tmp_path, monkeypatch, kind, exif):
    options = {"exif": PIL.Image.Exif()} if exif else {}
    if exif:
        options["exif"][ORIENTATION] = exif
    PIL.Image.new("L", (40, 30)).save(tmp_path / "image", format=kind, **options)
    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", lambda image: pytest.fail("the pixels were decoded"))
    assert read_header(tmp_path / "image") == Header(40, 30, exif or 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a photograph of a known format .*, or it is empty or damaged"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "has a header that cannot be read: Truncated File Read"),
        (b"\x89PNG\r\n\x1a\n", "is not a photograph of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a photograph of a known format"),
    ],
)
def test_files_without_a_header_are_named(tmp_path, content, message):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.jpg {message}"):
        read_header(tmp_path / "a.jpg")


def test_other_formats_and_missing_files_are_named(tmp_path, monkeypatch):
    PIL.Image.new("L", (8, 8)).save(tmp_path / "a.jpg", format="TGA")
    with pytest.raises(ValueError, match=r"a\.jpg is not a photograph of a known format"):
        read_header(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError, match=r"b\.jpg"):
        read_header(tmp_path / "b.jpg")
    PIL.Image.new("L", (100, 100)).save(tmp_path / "c.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 5001)
    # Pillow warns above this limit, and refuses above its double.
    assert read_header(tmp_path / "c.png") == Header(100, 100)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 4999)
    with pytest.raises(ValueError, match=r"c\.png is too large: .* exceeds limit.*--max-megapixels"):
        read_header(tmp_path / "c.png")
    with pytest.raises(ValueError, match=r"c\.png is too large: .* exceeds limit.*--max-megapixels"):
        read_label_header(tmp_path / "c.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tag_turns_a_label_map_upright(tmp_path, orientation):
    upright = checkered_labels(30, 20, 0)
    path = tmp_path / "a.png"
    PIL.Image.fromarray(stored_as(upright, orientation)).save(path)
    image = PIL.Image.open(io.BytesIO(turned_png(path, orientation)))
    np.testing.assert_array_equal(np.array(PIL.ImageOps.exif_transpose(image)), upright)


def test_orientation_of_a_label_map():
    photo = Header(40, 30, 6)
    assert label_orientation(photo, Header(40, 30)) == 6
    assert label_orientation(photo, Header(30, 40)) == 1
    assert label_orientation(photo, Header(40, 30, 6)) == 1
    assert label_orientation(Header(40, 30, 3), Header(40, 30)) == 1
    with pytest.raises(ValueError, match="31 x 40 for a photograph of 30 x 40"):
        label_orientation(photo, Header(31, 40))
    # A map with a tag is not turned by the photograph's.
    with pytest.raises(ValueError, match="40 x 30 for a photograph of 30 x 40"):
        label_orientation(photo, Header(40, 30, 3))


def test_ambiguous_orientation_of_a_label_map():
    assert is_ambiguous(Header(40, 30, 3), Header(40, 30))
    assert is_ambiguous(Header(30, 30, 6), Header(30, 30))
    assert not is_ambiguous(Header(40, 30, 6), Header(40, 30))
    assert not is_ambiguous(Header(40, 30, 3), Header(40, 30, 1))
