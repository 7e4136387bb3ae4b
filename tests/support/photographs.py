"""Small photographs of all formats, modes, colour profiles, orientations and damages that people's files have."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.PngImagePlugin

from .replica import stored_as


WIDTH, HEIGHT = 40, 24
ORIENTATION = 0x0112
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>{}</rdf:RDF></x:xmpmeta>'


@dataclass(frozen=True)
class Photograph:
    """
    A photograph: the name of its file, how its stored pixels are written to one, the orientation that readers shall
    find, and the colours that they shall give, `None` where the format loses some. With an error, it is unreadable.
    """

    name: str
    write: Callable[[Path, np.ndarray], None]
    orientation: int = 1
    colours: Callable[[np.ndarray], np.ndarray] | None = lambda base: base
    error: str = ""

    def save(self, folder: Path):
        self.write(folder / self.name, stored_as(base_pixels(), self.orientation))


def base_pixels() -> np.ndarray:
    """Returns the upright photograph `(HEIGHT, WIDTH, 3)`: blocks of colours, each corner another."""
    blocks = np.random.default_rng(7).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def saved(**options) -> Callable[[Path, np.ndarray], None]:
    """Returns a writer of the pixels with Pillow's options."""
    return lambda path, pixels: PIL.Image.fromarray(pixels).save(path, **options)


def converted(change: Callable[[np.ndarray], PIL.Image.Image], **options) -> Callable[[Path, np.ndarray], None]:
    """Returns a writer of what a function makes of the pixels."""
    return lambda path, pixels: change(pixels).save(path, **options)


def changed(change: Callable[[bytes], bytes], **options) -> Callable[[Path, np.ndarray], None]:
    """Returns a writer of pixels that changes the bytes of the file."""

    def write(path: Path, pixels: np.ndarray):
        PIL.Image.fromarray(pixels).save(path, **options)
        path.write_bytes(change(path.read_bytes()))

    return write


def content(data: bytes) -> Callable[[Path, np.ndarray], None]:
    """Returns a writer of fixed bytes."""
    return lambda path, pixels: path.write_bytes(data)


def exif(*entries: bytes, order: str = "<", first: int = 8, following: int = 0, behind: bytes = b"") -> bytes:
    """Returns EXIF data with the entries of its first directory."""
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", first)
    count = struct.pack(f"{order}H", len(entries))
    return b"Exif\0\0" + start + count + b"".join(entries) + struct.pack(f"{order}I", following) + behind


def entry(tag: int, kind: int, count: int, value: bytes, order: str = "<") -> bytes:
    """Returns an entry of a directory, with its value or the offset of it in four bytes."""
    return struct.pack(f"{order}HHI", tag, kind, count) + value.ljust(4, b"\0")[:4]


def short(tag: int, value: int, order: str = "<") -> bytes:
    return entry(tag, 3, 1, struct.pack(f"{order}H", value), order)


def turned(*others: bytes, value: int = 6, **options) -> bytes:
    """Returns EXIF data with an orientation and other entries."""
    return exif(short(ORIENTATION, value, options.get("order", "<")), *others, **options)


def orientation_of_type(kind: int, value: bytes, count: int = 1, behind: bytes = b"") -> bytes:
    """Returns EXIF data whose orientation has a type, with its value in the entry or behind the directory."""
    place = struct.pack("<I", 8 + 2 + 12 + 4)
    return exif(entry(ORIENTATION, kind, count, place if behind else value), behind=behind)


def xmp_of(text: str) -> bytes:
    return XMP.format(text).encode()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def behind_pixels(kind: bytes, data: bytes) -> Callable[[bytes], bytes]:
    """Returns a function that adds a chunk to a PNG, behind its pixels."""
    return lambda png: png[:-12] + png_chunk(kind, data) + png[-12:]


def png_of_16_bits(colours: np.ndarray, transparent: tuple[int, ...] | None = None) -> bytes:
    """Returns a PNG of 16 bits per value, `(height, width)` or `(height, width, 3)`."""
    height, width = colours.shape[:2]
    rows = np.concatenate(
        [np.zeros((height, 1), np.uint8), colours.astype(">u2").view(np.uint8).reshape(height, -1)], 1
    )
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if colours.ndim == 3 else 0, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows.tobytes())), png_chunk(b"IEND", b"")]
    if transparent is not None:
        chunks.insert(1, png_chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def srgb_profile() -> bytes:
    return PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """Returns the profile of a space that is sRGB with red and green in each other's place."""
    profile = srgb_profile()
    return profile.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")


def bright_grey_profile() -> bytes:
    """Returns the profile of a grey with a gamma of 1.5."""
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(value * 65536) for value in (0.9642, 1, 0.8249)))
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"L\0" + bytes(82),
        b"cprt": b"text\0\0\0\0x\0\0\0",
        b"wtpt": white,
        b"kTRC": b"curv\0\0\0\0" + struct.pack(">IHH", 1, 384, 0),
    }
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I", start + len(body)) + b"lcms" + struct.pack(">I", 0x02400000) + b"mntrGRAYXYZ "
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + white[8:]
    return head.ljust(128, b"\0") + table + body


def red_and_green_swapped(base: np.ndarray) -> np.ndarray:
    return base[..., [1, 0, 2]]


def luma(base: np.ndarray) -> np.ndarray:
    """Returns the greys of ITU-R 601-2, which Pillow converts to."""
    grey = (base @ np.array([0.299, 0.587, 0.114])).round()
    return np.repeat(grey[..., None], 3, axis=2)


def red(base: np.ndarray) -> np.ndarray:
    return np.repeat(base[..., :1], 3, axis=2)


def brightened(base: np.ndarray) -> np.ndarray:
    """Returns the sRGB values (IEC 61966-2-1) of greys with a gamma of 1.5."""
    light = (red(base) / 255) ** 1.5
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255


def alpha_of(base: np.ndarray) -> np.ndarray:
    return base[..., 2]


def on_white(base: np.ndarray) -> np.ndarray:
    alpha = alpha_of(base)[..., None] / 255
    return base * alpha + 255 * (1 - alpha)


def with_alpha(pixels: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.dstack([pixels, alpha_of(pixels)]))


def grey_image(pixels: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.ascontiguousarray(pixels[..., 0]))


def with_palette(pixels: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(pixels).quantize(64)


def sixteen_bits(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., 0].astype(np.uint16) * 257


def inverted_cmyk(pixels: np.ndarray) -> PIL.Image.Image:
    cyan_to_black = np.dstack([255 - pixels, np.zeros_like(pixels[..., 0])])
    return PIL.Image.merge(
        "CMYK", [PIL.Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(cyan_to_black, -1, 0)]
    )


def with_black_page(**options) -> Callable[[Path, np.ndarray], None]:
    """Returns a writer of a file with the photograph and a black one behind it."""

    def write(path: Path, pixels: np.ndarray):
        more = [PIL.Image.fromarray(np.zeros_like(pixels))]
        PIL.Image.fromarray(pixels).save(path, save_all=True, append_images=more, **options)

    return write


def png_text(key: str, text: str) -> PIL.PngImagePlugin.PngInfo:
    info = PIL.PngImagePlugin.PngInfo()
    info.add_itxt(key, text)
    return info


def damaged_in_avif(data: bytes) -> bytes:
    """Breaks the type of the first tag in an AVIF file's EXIF data."""
    place = data.index(b"II*\0") + 10
    return data[:place] + struct.pack("<HHI", 0x8769, 2, 2**32 - 1) + data[place + 8 :]


def mistyped(tag: int, kind: int, count: int, value: bytes = b"\xff\xff\xff\x7f") -> bytes:
    return turned(entry(tag, kind, count, value))


JPEG = {"format": "JPEG", "quality": 95, "subsampling": 0}
DESCRIPTION = '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" {}'
ATTRIBUTE = DESCRIPTION.format('tiff:Orientation="6"/>')
ELEMENT = DESCRIPTION.format("><tiff:Orientation> 6 </tiff:Orientation></rdf:Description>")
QUOTED = DESCRIPTION.format("tiff:Orientation = '6'/>")
RENAMED = '<rdf:Description xmlns:t="http://ns.adobe.com/tiff/1.0/" t:Orientation="6"/>'

FORMATS = [
    Photograph("baseline.jpg", saved(**JPEG), colours=None),
    Photograph("progressive.JPEG", saved(progressive=True, **JPEG), colours=None),
    Photograph("a.jpe", saved(**JPEG), colours=None),
    Photograph("b.jfif", saved(**JPEG), colours=None),
    Photograph("two_views.mpo", with_black_page(quality=95), colours=None),
    Photograph("plain.png", saved()),
    Photograph("plain.tif", saved()),
    Photograph("packed.tiff", saved(compression="tiff_lzw")),
    Photograph("plain.webp", saved(lossless=True)),
    Photograph("plain.bmp", saved()),
    Photograph("plain.gif", saved()),
    Photograph("plain.avif", saved(quality=95), colours=None),
    Photograph("plain.jp2", saved(irreversible=False)),
    Photograph("animated.gif", with_black_page()),
    Photograph("animated.webp", with_black_page(lossless=True)),
    Photograph("animated.png", with_black_page()),
    Photograph("pages.tif", with_black_page()),
]
MODES = [
    Photograph(
        "bilevel.png",
        converted(lambda p: PIL.Image.fromarray(p[..., 0] > 127)),
        colours=lambda b: (red(b) > 127) * 255,
    ),
    Photograph("grey.png", converted(grey_image), colours=red),
    Photograph(
        "grey_key.png",
        converted(lambda p: grey_image(p // 64 * 64), transparency=0),
        colours=lambda b: np.where(red(b) < 64, 255, red(b) // 64 * 64),
    ),
    Photograph("palette.png", converted(with_palette)),
    Photograph(
        "rgb_key.png",
        converted(lambda p: PIL.Image.fromarray(p // 128 * 255), transparency=(0, 0, 0)),
        colours=lambda b: np.where((b // 128).any(-1, keepdims=True), b // 128 * 255, 255),
    ),
    Photograph("alpha.png", converted(with_alpha), colours=on_white),
    Photograph("alpha.tif", converted(with_alpha), colours=on_white),
    Photograph("alpha.webp", converted(with_alpha, lossless=True, exact=True), colours=on_white),
    Photograph(
        "grey_alpha.png",
        converted(
            lambda p: PIL.Image.merge("LA", [grey_image(p), PIL.Image.fromarray(np.ascontiguousarray(alpha_of(p)))])
        ),
        colours=lambda b: on_white(np.dstack([b[..., 0], b[..., 0], b[..., 2]]))[..., [0, 0, 0]],
    ),
    Photograph("grey16.png", converted(lambda p: PIL.Image.fromarray(sixteen_bits(p))), colours=red),
    Photograph(
        "grey16_key.png",
        lambda path, p: path.write_bytes(png_of_16_bits(sixteen_bits(p), (int(sixteen_bits(p)[0, 0]),))),
        colours=lambda b: np.where(red(b) == b[0, 0, 0], 255, red(b)),
    ),
    Photograph("rgb16.png", lambda path, p: path.write_bytes(png_of_16_bits(p.astype(np.uint16) * 257))),
    Photograph(
        "grey16_be.tif",
        converted(
            lambda p: PIL.Image.frombytes("I;16B", (p.shape[1], p.shape[0]), sixteen_bits(p).astype(">u2").tobytes())
        ),
        colours=red,
    ),
    Photograph("grey32.tif", converted(lambda p: PIL.Image.fromarray(sixteen_bits(p).astype(np.int32))), colours=red),
    Photograph("float.tif", converted(lambda p: PIL.Image.fromarray(p[..., 0].astype(np.float32) / 255)), colours=red),
    Photograph("cmyk.tif", converted(inverted_cmyk)),
    Photograph("cmyk.jpg", converted(inverted_cmyk, **JPEG), colours=None),
    Photograph(
        "lab.tif",
        converted(
            lambda p: PIL.ImageCms.profileToProfile(
                PIL.Image.fromarray(p),
                PIL.ImageCms.createProfile("sRGB"),
                PIL.ImageCms.createProfile("LAB"),
                outputMode="LAB",
            )
        ),
        colours=None,
    ),
]
PROFILES = [
    Photograph("swapped.png", saved(icc_profile=swapped_profile()), colours=red_and_green_swapped),
    Photograph("swapped.jpg", saved(icc_profile=swapped_profile(), **JPEG), colours=None),
    Photograph("swapped.tif", saved(icc_profile=swapped_profile()), colours=red_and_green_swapped),
    Photograph("swapped.webp", saved(icc_profile=swapped_profile(), lossless=True), colours=red_and_green_swapped),
    Photograph(
        "swapped_palette.png", converted(with_palette, icc_profile=swapped_profile()), colours=red_and_green_swapped
    ),
    Photograph(
        "swapped_alpha.png",
        converted(with_alpha, icc_profile=swapped_profile()),
        colours=lambda b: red_and_green_swapped(on_white(b)),
    ),
    Photograph(
        "swapped_turned.png", saved(icc_profile=swapped_profile(), exif=turned()[6:]), 6, red_and_green_swapped
    ),
    Photograph("srgb.png", saved(icc_profile=srgb_profile())),
    Photograph("bright_grey.png", converted(grey_image, icc_profile=bright_grey_profile()), colours=brightened),
    Photograph(
        "bright_grey16.png",
        converted(lambda p: PIL.Image.fromarray(sixteen_bits(p)), icc_profile=bright_grey_profile()),
        colours=brightened,
    ),
    Photograph("grey_on_rgb.png", saved(icc_profile=bright_grey_profile())),
    Photograph("rgb_on_grey.png", converted(grey_image, icc_profile=swapped_profile()), colours=red),
    Photograph("profile_cut.png", saved(icc_profile=swapped_profile()[:200])),
    Photograph("profile_noise.png", saved(icc_profile=bytes(range(256)))),
    Photograph("profile_empty_tags.png", saved(icc_profile=swapped_profile()[:128] + bytes(60))),
]
ORIENTATIONS = [
    *(
        Photograph(f"exif_{value}.webp", saved(exif=turned(value=value), lossless=True), value)
        for value in range(1, 9)
    ),
    Photograph("big_endian.png", saved(exif=turned(order=">")), 6),
    Photograph("long.png", saved(exif=orientation_of_type(4, b"\6")), 6),
    Photograph("byte.png", saved(exif=orientation_of_type(1, b"\6")), 6),
    Photograph("undefined.webp", saved(exif=orientation_of_type(7, b"\6"), lossless=True), 6),
    Photograph("signed.png", saved(exif=orientation_of_type(8, b"\6")), 6),
    Photograph("ascii.png", saved(exif=orientation_of_type(2, b"6\0", 2)), 6),
    Photograph("rational.png", saved(exif=orientation_of_type(5, b"", behind=struct.pack("<II", 12, 2))), 6),
    Photograph("double.webp", saved(exif=orientation_of_type(12, b"", behind=struct.pack("<d", 8)), lossless=True), 8),
    Photograph("zero.png", saved(exif=turned(value=0))),
    Photograph("nine.png", saved(exif=turned(value=9))),
    Photograph("xmp.jpg", saved(xmp=xmp_of(ATTRIBUTE), **JPEG), 6, None),
    Photograph("xmp_element.webp", saved(xmp=xmp_of(ELEMENT), lossless=True), 6),
    Photograph("xmp_quoted.webp", saved(xmp=xmp_of(QUOTED), lossless=True), 6),
    Photograph("xmp_renamed.webp", saved(xmp=xmp_of(RENAMED), lossless=True), 6),
    Photograph("xmp_utf16.webp", saved(xmp=XMP.format(ATTRIBUTE).encode("utf-16"), lossless=True), 6),
    Photograph("xmp.png", saved(pnginfo=png_text("XML:com.adobe.xmp", XMP.format(ATTRIBUTE))), 6),
    Photograph("xmp.avif", saved(xmp=xmp_of(ATTRIBUTE), quality=95), 6, None),
    Photograph("exif_over_xmp.webp", saved(exif=turned(value=3), xmp=xmp_of(QUOTED), lossless=True), 3),
    Photograph("exif_behind.png", changed(behind_pixels(b"eXIf", turned()[6:]), format="PNG"), 6),
    Photograph(
        "xmp_behind.png",
        changed(behind_pixels(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp_of(QUOTED)), format="PNG"),
        6,
    ),
    *(Photograph(f"tags_{value}.tif", saved(tiffinfo={ORIENTATION: value}), value) for value in (3, 6)),
    Photograph("tags_lzw.tif", saved(tiffinfo={ORIENTATION: 8}, compression="tiff_lzw"), 8),
    Photograph("xmp.tif", saved(tiffinfo={700: xmp_of(QUOTED)}), 6),
    Photograph("irot.avif", saved(exif=turned(), quality=95), 6, None),
]
DAMAGES = [
    Photograph("resolution_text.jpg", saved(exif=mistyped(282, 2, 3, b"72\0"), **JPEG), 6, None),
    Photograph("resolution_text.webp", saved(exif=mistyped(282, 2, 3, b"72\0"), lossless=True), 6),
    Photograph("huge_count.webp", saved(exif=mistyped(0x010F, 2, 2**32 - 1), lossless=True), 6),
    Photograph("far_offset.webp", saved(exif=mistyped(282, 5, 1), lossless=True), 6),
    Photograph("unknown_type.webp", saved(exif=mistyped(0x010F, 99, 1), lossless=True), 6),
    Photograph("directory_text.webp", saved(exif=mistyped(0x8769, 2, 4, b"abc\0"), lossless=True), 6),
    Photograph("directory_far.jpg", saved(exif=mistyped(0x8769, 4, 1), **JPEG), 6, None),
    Photograph("directory_float.webp", saved(exif=mistyped(0x8825, 11, 1), lossless=True), 6),
    Photograph(
        "cyclic.jpg", saved(exif=turned(entry(0x8769, 4, 1, struct.pack("<I", 8)), following=8), **JPEG), 6, None
    ),
    Photograph(
        "many_entries.webp", saved(exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + short(ORIENTATION, 6), lossless=True), 6
    ),
    Photograph("cut.webp", saved(exif=turned()[:20], lossless=True)),
    Photograph("other_order.webp", saved(exif=b"Exif\0\0MM\0*\x08\0\0\0" + turned()[14:], lossless=True)),
    Photograph("no_order.webp", saved(exif=b"Exif\0\0XX*\0" + turned()[10:], lossless=True)),
    Photograph("noise.png", saved(exif=b"Exif\0\0" + bytes(range(99)))),
    Photograph("zero_rational.webp", saved(exif=orientation_of_type(5, b"", behind=bytes(8)), lossless=True)),
    Photograph("orientation_array.webp", saved(exif=orientation_of_type(3, b"\6\0\1\0", 2), lossless=True)),
    Photograph(
        "damaged.avif",
        changed(damaged_in_avif, format="AVIF", quality=95, exif=exif(short(0x0128, 2), short(0x0213, 1))),
        colours=None,
    ),
    Photograph("profile_directory.tif", saved(tiffinfo={0x8769: 2**31})),
]
UNREADABLE = [
    Photograph(
        "cut.jpg",
        changed(lambda data: data[: (data.rindex(b"\xff\xda") + len(data)) // 2], **JPEG),
        error="is damaged or truncated",
    ),
    Photograph("empty.jpg", content(b""), error="is not an image file"),
    Photograph("text.png", content(b"not a picture"), error="is not an image file"),
    Photograph("new.heic", content(b"\0\0\0\x18ftypheic" + bytes(99)), error="HEIC"),
]
READABLE = [*FORMATS, *MODES, *PROFILES, *ORIENTATIONS, *DAMAGES]
