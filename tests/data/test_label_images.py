"""Label maps as pictures: written with 8 bits, read by value from every bit depth, mode and format."""

import itertools
import struct
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from support.replica import write_replica

from transformers_massformer.data.annotations import write_label_map
from transformers_massformer.data.formats import AnnotationFormat
from transformers_massformer.data.label_images import (
    class_palette,
    count_ids,
    label_map_image,
    read_label_image,
    write_label_image,
)
from transformers_massformer.data.layout import find_splits
from transformers_massformer.data.mass13k import load_mass13k


def png(values: np.ndarray, depth: int, palette: bool = False, interlaced: bool = False, chunks: bytes = b"") -> bytes:
    """Encode a PNG of 1 to 16 bits per pixel by the format's specification, independently of any library."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def packed(part: np.ndarray) -> bytes:
        if not part.size:
            return b""
        if depth == 16:
            rows = [row.astype(">u2").tobytes() for row in part]
        else:
            bits = (part[..., None] >> np.arange(depth - 1, -1, -1)) & 1
            rows = [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in bits]
        return b"".join(b"\0" + row for row in rows)

    height, width = values.shape
    passes = [values]
    if interlaced:
        starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
        passes = [values[top::down, left::right] for top, left, down, right in starts]
    header = struct.pack(">IIBBBBB", width, height, depth, 3 if palette else 0, 0, 0, int(interlaced))
    colours = chunk(b"PLTE", np.random.default_rng(0).permutation(3 * 2**depth).astype(np.uint8).tobytes())
    data = chunk(b"IDAT", zlib.compress(b"".join(map(packed, passes))))
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + (colours if palette else b"") + chunks + data + chunk(b"IEND", b"")


def read(path) -> np.ndarray:
    values, _ = read_label_image(path, str(path))
    assert values.dtype == np.uint8
    return values


depths = st.sampled_from([1, 2, 4, 8, 16])
shapes = st.tuples(st.integers(1, 19), st.integers(1, 19))


@settings(max_examples=150, deadline=None)
@given(depths, shapes, st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_png_of_every_bit_depth_is_read_by_value(tmp_path_factory, depth, shape, palette, interlaced, seed):
    values = np.random.default_rng(seed).integers(0, min(2**depth, 256), shape)
    path = tmp_path_factory.mktemp("depth") / "a.png"
    path.write_bytes(png(values, depth, palette and depth <= 8, interlaced))
    assert np.array_equal(read(path), values)


label_maps = st_numpy.arrays(np.uint8, shapes, elements=st.integers(0, 255), fill=st.integers(0, 6))


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
@settings(max_examples=100, deadline=None)
@given(label_maps, st.booleans())
def test_written_with_8_bits_and_read_equally_by_other_libraries(tmp_path_factory, label_map, palette):
    path = tmp_path_factory.mktemp("written") / "a.png"
    write_label_image(label_map, path, palette)
    assert path.read_bytes()[24:26] == bytes([8, 3 if palette else 0])
    assert np.array_equal(read(path), label_map)
    with PIL.Image.open(path) as image:
        assert np.array_equal(np.asarray(image), label_map)
    assert np.array_equal(torchvision.io.decode_image(str(path))[0].numpy(), label_map)
    if not palette:
        assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), label_map)


def written_by_pillow(values, path, mode, **options):
    image = PIL.Image.fromarray(values)
    if mode == "P":
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    elif mode == "1":
        image = PIL.Image.fromarray(values > 0)
    elif mode == "RGBA":
        image = PIL.Image.fromarray(np.dstack([values] * 3 + [np.full_like(values, 255)]))
    elif mode == "RGB":
        image = PIL.Image.fromarray(np.dstack([values] * 3))
    elif mode == "LA":
        image = PIL.Image.merge("LA", [image, PIL.Image.new("L", image.size, 255)])
    elif mode == "I;16":
        image = PIL.Image.fromarray(values.astype(np.uint16))
    elif mode == "I":
        image = PIL.Image.fromarray(values.astype(np.int32))
    elif mode == "F":
        image = PIL.Image.fromarray(values.astype(np.float32))
    image.save(path, **options)


WAYS = [
    *((f"a.{suffix}", mode, {}) for suffix in ("png", "tif", "bmp") for mode in ("L", "P", "1", "RGB")),
    *((f"a.{suffix}", mode, {}) for suffix in ("png", "tif") for mode in ("RGBA", "LA", "I;16")),
    *(("a.png", "P", {"bits": bits}) for bits in (1, 2, 4)),
    ("a.png", "P", {"transparency": 1}),
    ("a.png", "L", {"transparency": 0}),
    ("a.png", "P", {"transparency": bytes([0, 128, 255])}),
    ("a.tif", "I", {}),
    ("a.tif", "F", {}),
    ("a.tif", "P", {"compression": "tiff_lzw"}),
    ("a.gif", "L", {}),
    ("a.gif", "P", {}),
]


@pytest.mark.parametrize(("name", "mode", "options"), WAYS, ids=str)
def test_every_mode_and_format_is_read_by_value(tmp_path, name, mode, options):
    values = np.random.default_rng(1).integers(0, 2 if mode == "1" else 2 ** min(options.get("bits", 2), 2), (11, 13))
    values = values.astype(np.uint8)
    written_by_pillow(values, tmp_path / name, mode, **options)
    assert np.array_equal(read(tmp_path / name), values)
    with PIL.Image.open(tmp_path / name) as image:
        assert np.array_equal(read(image), values)


# BMP has no greys of 16 bits.
@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("grey of 16 bits", "png"),
        ("grey of 16 bits", "tif"),
        *itertools.product(["grey", "three channels", "two levels"], ["png", "tif", "bmp"]),
    ],
)
def test_what_opencv_writes_is_read_by_value(tmp_path, suffix, kind):
    values = np.random.default_rng(2).integers(0, 2 if kind == "two levels" else 7, (9, 21)).astype(np.uint8)
    stored, options = values, []
    if kind == "grey of 16 bits":
        stored = values.astype(np.uint16)
    elif kind == "three channels":
        stored = np.dstack([values] * 3)
    elif kind == "two levels" and suffix == "png":
        # OpenCV stores every value but 0 as 1.
        options = [cv2.IMWRITE_PNG_BILEVEL, 1]
    assert cv2.imwrite(str(tmp_path / f"a.{suffix}"), stored, options)
    assert np.array_equal(read(tmp_path / f"a.{suffix}"), values)


def refused(tmp_path, name, image, text, **options):
    image.save(tmp_path / name, **options)
    with pytest.raises(ValueError, match=text) as caught:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOURS = np.dstack([GREY, GREY, GREY + 1])
HALF_TRANSPARENT = np.dstack([GREY, GREY, GREY, np.repeat([0, 255], 24).reshape(6, 8).astype(np.uint8)])


@pytest.mark.parametrize(
    ("name", "image", "options", "text"),
    [
        ("a.jpg", PIL.Image.fromarray(GREY), {}, "is a JPEG file, a format that changes pixel values"),
        ("a.png", PIL.Image.fromarray(GREY), {"format": "JPEG"}, "is a JPEG file, a format that changes"),
        ("a.webp", PIL.Image.fromarray(COLOURS), {}, "is a WEBP file, a format that changes"),
        ("a.png", PIL.Image.fromarray(COLOURS), {}, r"has mode RGB with colours, not class ids.*labelmap\.txt"),
        ("a.png", PIL.Image.fromarray(HALF_TRANSPARENT), {}, "has 24 transparent pixels, whose class is unclear"),
        ("a.tif", PIL.Image.fromarray(COLOURS).convert("CMYK"), {}, "has mode CMYK, which does not hold class ids"),
        (
            "a.png",
            PIL.Image.fromarray(GREY.astype(np.uint16) * 257),
            {},
            "has the values 257, 514, .*8 bits",
        ),
        ("a.tif", PIL.Image.fromarray(GREY / np.float32(4)), {}, r"has the values 0.25, 0.5, 0.75, 1.25,"),
        ("a.tif", PIL.Image.fromarray(-GREY.astype(np.int32)), {}, "has the values -47, -46"),
        ("a.tif", PIL.Image.fromarray(GREY), {"tiffinfo": {262: 0}}, "stores inverted greys"),
        (
            "a.tif",
            PIL.Image.fromarray(GREY),
            {"save_all": True, "append_images": [PIL.Image.fromarray(GREY)]},
            "has 2 pictures",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_holds_no_class_ids_is_refused_by_name(tmp_path, name, image, options, text):
    refused(tmp_path, name, image, text, **options)


def test_colours_of_16_bits_are_refused(tmp_path):
    # Pillow would keep the high bytes, so that all class ids were 0.
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([GREY.astype(np.uint16)] * 3))
    with pytest.raises(ValueError, match="several channels of 16 bits"):
        read(tmp_path / "a.png")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"a\.png is not an image file"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("used", [[5], [0, 5], [1, 6, 255], [2, 3, 4, 5]])
def test_palettes_that_an_optimizer_renumbered_are_refused(tmp_path, used):
    label_map = np.array(used, np.uint8).repeat(4).reshape(-1, 4)
    image = label_map_image(label_map, 7)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), label_map)
    # As optipng and oxipng leave it: the colours used, numbered anew.
    order = sorted(used, reverse=True)
    optimized = image.remap_palette([*order, *(index for index in range(256) if index not in order)])
    refused(tmp_path, "b.png", optimized, "has the colours of this package's label maps at other indices")
    # In other programs' palettes, colours say nothing about indices.
    optimized.putpalette(np.roll(class_palette(256), 3, axis=0)[::-1].tobytes())
    optimized.save(tmp_path / "c.png")
    assert read(tmp_path / "c.png").max() < len(used)


def test_palette_colours_differ():
    palette = class_palette(256)
    assert palette.dtype == np.uint8
    assert len(np.unique(palette[:150], axis=0)) == 150
    with pytest.raises(ValueError, match="256 colours, but there are 257"):
        class_palette(257)
    with pytest.raises(ValueError, match="256 colours, but there are 257"):
        label_map_image(np.zeros((1, 1), np.uint8), 257)


def test_label_map_image_keeps_the_indices():
    label_map = np.arange(12).reshape(3, 4) % 7
    image = label_map_image(label_map, 7)
    assert np.array_equal(np.asarray(image), label_map)
    assert np.array_equal(np.asarray(image.convert("RGB")), class_palette(7)[label_map])


def test_formats_of_label_maps_choose_the_palette(tmp_path):
    write_label_map(GREY, tmp_path / "a.png", [], "a.jpg", AnnotationFormat.png_grey)
    with PIL.Image.open(tmp_path / "a.png") as image:
        assert (image.mode, np.asarray(image).tolist()) == ("L", GREY.tolist())


def test_a_data_set_takes_every_lossless_format_and_names_a_lossy_one(tmp_path):
    expected = write_replica(tmp_path)
    folder = tmp_path / "annotations" / "train"
    PIL.Image.fromarray(expected["plain"]).save(folder / "plain.tif")
    (folder / "plain.png").unlink()
    split = find_splits(tmp_path)["train"]
    assert not split.faults
    assert np.array_equal(read(split.pairs[0].label), expected["plain"])
    PIL.Image.fromarray(expected["plain"]).save(folder / "plain.jpg")
    (folder / "plain.tif").unlink()
    (fault,) = find_splits(tmp_path)["train"].faults
    assert "plain.jpg is a JPEG file, a format that changes pixel values" in str(fault)


@pytest.mark.parametrize("case", ["grey of 2 bits", "three channels", "TIFF", "palette of 2 bits", "grey of 1 bit"])
def test_a_column_of_images_has_the_same_values_or_is_refused(tmp_path, monkeypatch, case):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write_replica(tmp_path / "data")
    path = tmp_path / "data" / "annotations" / "train" / "plain.png"
    values = np.random.default_rng(0).integers(0, 2 if "1 bit" in case else 4, (36, 48))
    if case == "three channels":
        PIL.Image.fromarray(np.dstack([values.astype(np.uint8)] * 3)).save(path)
    elif case == "TIFF":
        path.unlink()
        PIL.Image.fromarray(values.astype(np.uint8)).save(path.with_suffix(".tif"))
    else:
        path.write_bytes(png(values, 1 if "1 bit" in case else 2, palette="palette" in case))
    if case in ("palette of 2 bits", "grey of 1 bit"):
        rows = {row["image_id"]: row["label"] for row in load_mass13k(tmp_path / "data", "train")}
        assert np.array_equal(np.asarray(rows["plain"]), values)
    else:
        with pytest.raises(ValueError, match="1 label maps are not PNG files of 8 bits per pixel"):
            load_mass13k(tmp_path / "data", "train")


@pytest.mark.parametrize("ids", [[0, 256], [-1, 0]])
@pytest.mark.parametrize("palette", [True, False])
def test_ids_that_8_bits_cannot_hold_are_refused(tmp_path, ids, palette):
    with pytest.raises(ValueError, match="ids from 0 to 255"):
        write_label_image(np.array([ids]), tmp_path / "a.png", palette)
    with pytest.raises(ValueError, match="ids from 0 to 255"):
        count_ids(np.array([ids]))
    assert not list(tmp_path.iterdir())


def test_ids_of_any_integer_type_are_counted():
    assert np.flatnonzero(count_ids(np.array([[3, 255, 3]], np.int64))).tolist() == [3, 255]
