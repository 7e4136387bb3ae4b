"""Test refined mattes, cut-outs and bokeh."""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
import torch
from scipy import ndimage, signal

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.editing import bokeh, cut_out, firm_matte, foreground_and_background, refine_matte
from transformers_massformer.editing.lens_blur import blur, disc, to_linear, to_srgb
from transformers_massformer.editing.matting import edge_band, matting_library
from transformers_massformer.scenes import render_scene


try:
    matting_library()
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)

FOREGROUND = np.array([0.9, 0.1, 0.15])
SIZE = (160, 200)


def soft_disc(radius=40.0, hairs=12) -> np.ndarray:
    """Draw the alpha of a disc with thin lines around it, averaged over 16 x 16 samples per pixel."""
    scale = 16
    picture = PIL.Image.new("L", (SIZE[1] * scale, SIZE[0] * scale))
    draw = PIL.ImageDraw.Draw(picture)
    x, y = SIZE[1] * scale // 2, SIZE[0] * scale // 2
    reach = int(radius * scale)
    draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=255)
    for angle in np.linspace(0, 2 * np.pi, hairs, endpoint=False):
        end = (x + 1.5 * reach * np.cos(angle), y + 1.5 * reach * np.sin(angle))
        draw.line((x, y, *end), fill=255, width=scale)
    return np.asarray(picture.resize(SIZE[::-1], PIL.Image.Resampling.BOX)).astype(np.float32) / 255


def scene() -> tuple[PIL.Image.Image, np.ndarray, np.ndarray]:
    """Draw a red object on a striped background with hardly any red; return photo, alpha and background."""
    alpha = soft_disc()
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    stripes = 0.5 + 0.3 * np.sin(columns / 1.2)
    background = np.stack([np.full(SIZE, 0.1), stripes, 0.4 + 0.4 * rows / SIZE[0]], axis=2)
    mixed = alpha[:, :, None] * FOREGROUND + (1 - alpha[:, :, None]) * background
    return PIL.Image.fromarray((mixed * 255).round().astype(np.uint8)), alpha, background


def test_the_foreground_does_not_bleed_into_the_background():
    photo, alpha, background = scene()
    blurred = np.asarray(bokeh(photo, alpha, 0.03)).astype(float) / 255
    outside = alpha == 0
    # The background's red is constant, so blurring only the background keeps it.
    assert np.abs(blurred[outside, 0] - 0.1).max() < 3 / 255
    # Blurring the complete photo bleeds.
    kernel = disc(0.03 * float(np.hypot(*SIZE)))
    plain = to_srgb(blur(to_linear(np.asarray(photo)[:, :, 0].astype(np.float32) / 255), kernel))
    assert np.abs(plain[outside] - 0.1).max() > 0.2
    # The background is out of focus: the stripes are gone, but their mean stays.
    inner = outside & (np.hypot(*np.mgrid[-80:80, -100:100]) < 75)
    assert blurred[inner, 1].std() < 0.3 * background[inner, 1].std()
    assert abs((blurred[inner, 1] ** 2.2).mean() - (background[inner, 1] ** 2.2).mean()) < 0.02
    # Pixels in focus keep the photo's values.
    assert np.array_equal(np.asarray(bokeh(photo, alpha, 0.03))[alpha == 1], np.asarray(photo)[alpha == 1])


def drawn_leaves() -> tuple[np.ndarray, np.ndarray]:
    """Return the true alpha of a drawn scene's vegetation and another scene's image, from 0 to 1, as background."""
    alpha = render_scene(77, 4, (320, 240)).alpha[MASS13K_LABELS.index("vegetation")] / np.float32(255)
    return alpha, render_scene(77, 3, (320, 240)).image / np.float32(255)


def composed(colour, alpha, background) -> PIL.Image.Image:
    """Compose a constant colour over a background."""
    mixed = alpha[:, :, None] * np.float32(colour) + (1 - alpha[:, :, None]) * background
    return PIL.Image.fromarray((mixed * 255).round().astype(np.uint8))


def test_the_background_does_not_depend_on_the_colour_of_leaves_in_front():
    alpha, background = drawn_leaves()
    outside, soft = alpha == 0, (alpha > 0) & (alpha < 1)
    assert outside.mean() > 0.3
    assert soft.mean() > 0.02
    colours = ((0.95, 0.05, 0.9), (0.02, 0.02, 0.02), (1, 1, 1))
    found = [np.asarray(bokeh(composed(colour, alpha, background), alpha, 0.02)) / 255 for colour in colours]
    # Neither a glow nor a dark fringe: the background is the same behind magenta, black and white leaves.
    assert max(np.abs(each - found[0])[outside].max() for each in found) < 2.5 / 255
    plain = [
        to_srgb(blur(to_linear(np.asarray(composed(colour, alpha, background))[:, :, 0] / np.float32(255)), disc(8.0)))
        for colour in colours
    ]
    assert np.abs(plain[1] - plain[2])[outside].max() > 0.5
    # The edges equal the true colours mixed by the true alpha, in front of the blurred true background.
    kernel = disc(0.02 * float(np.hypot(*alpha.shape)))
    weight = (1 - ndimage.maximum_filter(alpha, 5)).astype(np.float32)
    spread = np.maximum(blur(weight, kernel), 1e-3)
    near = soft & (spread > 0.05)
    for colour, each in zip(colours, found, strict=True):
        for channel in range(3):
            behind = blur(to_linear(background[:, :, channel]) * weight, kernel) / spread
            expected = to_srgb(alpha * to_linear(np.float32(colour[channel])) + (1 - alpha) * behind)
            assert np.abs(each[:, :, channel] - expected)[near].mean() < 0.02


def test_bokeh_without_foreground_or_background():
    photo, alpha, _ = scene()
    assert np.array_equal(np.asarray(bokeh(photo, np.ones_like(alpha))), np.asarray(photo))
    blurred = np.asarray(bokeh(photo, np.zeros_like(alpha), 0.03)).astype(float)
    stripes = np.asarray(photo).astype(float)[10:20, 20:180, 1]
    assert blurred[10:20, 20:180, 1].std() < 0.3 * stripes.std()


@pytest.mark.parametrize("radius", [0.4, 1.0, 5.5])
def test_blur_is_a_convolution_with_a_disc(radius, monkeypatch):
    monkeypatch.setattr("transformers_massformer.editing.lens_blur.BAND_ROWS", 16)
    kernel = disc(radius)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert np.array_equal(kernel, kernel.T)
    area = (kernel > 0.5 * kernel.max()).sum()
    assert abs(area - np.pi * radius**2) < 2 * np.pi * radius + 2
    values = np.random.default_rng(0).random((50, 41)).astype(np.float32)
    expected = signal.convolve2d(values, kernel, mode="same")
    np.testing.assert_allclose(blur(values, kernel), expected, atol=1e-5)


def test_linear_light_and_srgb():
    values = np.linspace(0, 1, 256, dtype=np.float32)
    np.testing.assert_allclose(to_srgb(to_linear(values)), values, atol=1e-5)
    assert to_linear(np.float32(0.5)) == pytest.approx(0.2140, abs=1e-4)


def test_a_cut_out_has_the_colours_of_the_foreground():
    photo, alpha, _ = scene()
    cut = np.asarray(cut_out(photo, PIL.Image.fromarray((alpha * 255).round().astype(np.uint8))))
    assert cut.shape == (*SIZE, 4)
    assert np.array_equal(cut[:, :, 3], (alpha * 255).round())
    shown = alpha > 0.1
    assert np.abs(cut[shown, :3] / 255 - FOREGROUND).max(axis=1).mean() < 0.06
    # In the photo, the background shows through.
    soft = shown & (alpha < 0.9)
    assert np.abs(np.asarray(photo)[soft] / 255 - FOREGROUND).max(axis=1).mean() > 0.15
    foreground, background = foreground_and_background(photo, alpha)
    mixed = alpha[:, :, None] * foreground + (1 - alpha[:, :, None]) * background
    assert np.abs(mixed - np.asarray(photo) / 255).mean() < 0.02


def test_refinement_improves_a_matte(monkeypatch):
    photo, alpha, _ = scene()
    hard = PIL.Image.fromarray(((alpha > 0.5) * 255).astype(np.uint8))
    whole = np.asarray(refine_matte(photo, hard)) / 255
    given = np.asarray(hard) / 255
    assert ((whole - alpha) ** 2).mean() < 0.5 * ((given - alpha) ** 2).mean()
    # Away from edges nothing changes.
    far = ~edge_band(given, 2)
    assert np.array_equal(whole[far], given[far])
    # Tiles give nearly the same result, and tiles without an edge are skipped.
    monkeypatch.setattr("transformers_massformer.editing.matting.TILE", 96)
    monkeypatch.setattr("transformers_massformer.editing.matting.OVERLAP", 32)
    tiled = np.asarray(refine_matte(photo, hard)) / 255
    assert np.abs(tiled - whole).mean() < 0.002
    empty = PIL.Image.new("L", hard.size)
    assert np.array_equal(np.asarray(refine_matte(photo, empty)), np.asarray(empty))


def test_a_firm_matte_is_certain_where_the_model_nearly_is():
    matte = np.array([[0, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 1]], np.float32)
    np.testing.assert_allclose(firm_matte(matte), [[0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]], atol=1e-6)
    picture = PIL.Image.fromarray((matte * 255).round().astype(np.uint8))
    np.testing.assert_allclose(firm_matte(picture), firm_matte(matte), atol=0.003)


def test_refinement_of_an_uncertain_matte_gives_certain_values():
    photo, alpha, _ = scene()
    blurred = ndimage.gaussian_filter(alpha, 1.5)
    unsure = 0.05 + 0.9 * blurred
    refined = np.asarray(refine_matte(photo, unsure)) / 255
    assert np.abs(refined - alpha).mean() < 0.25 * np.abs(unsure - alpha).mean()
    assert ((refined - alpha) ** 2).mean() < 0.5 * ((blurred - alpha) ** 2).mean()
    # Deep inside, nothing shows through, and far outside there is nothing.
    assert (refined[ndimage.minimum_filter(alpha, 21) == 1] == 1).all()
    assert (refined[ndimage.maximum_filter(alpha, 21) == 0] == 0).all()


@pytest.mark.parametrize("inside", [True, False])
def test_a_constant_tile_beside_an_edge_stays_unchanged(monkeypatch, inside):
    """The band reaches into a tile that is completely background or completely foreground."""
    monkeypatch.setattr("transformers_massformer.editing.matting.TILE", 64)
    monkeypatch.setattr("transformers_massformer.editing.matting.OVERLAP", 0)
    matte = np.full((64, 128), float(inside), np.float32)
    matte[:, 64:] = not inside
    photo = PIL.Image.fromarray(np.where(matte[:, :, None] > 0, [[[200, 40, 40]]], [[[30, 60, 150]]]).astype(np.uint8))
    assert edge_band(matte, 2)[:, 62:66].all()
    assert np.array_equal(np.asarray(refine_matte(photo, matte)), (matte * 255).astype(np.uint8))


@pytest.mark.parametrize("edit", [bokeh, cut_out, refine_matte])
def test_invalid_arguments_raise(edit):
    photo, alpha, _ = scene()
    with pytest.raises(ValueError, match="has size 159 x 200, the photo 160 x 200"):
        edit(photo, alpha[:-1])
    with pytest.raises(ValueError, match="strength"):
        bokeh(photo, alpha, 0.5)
    with pytest.raises(ValueError, match="band must be at least 1 pixel, got 0"):
        refine_matte(photo, alpha, 0)


def test_torch_keeps_its_number_of_threads():
    before = torch.get_num_threads()
    cut_out(PIL.Image.new("RGB", (40, 30)), np.linspace(0, 1, 1200).reshape(30, 40))
    assert torch.get_num_threads() == before
