"""Alphas against an independent rendering, seeds, and the files that the command writes."""

import itertools
import signal
import sys

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import run, run_until

from transformers_massformer.data.layout import LABELS
from transformers_massformer.data.mass13k import load_mass13k
from transformers_massformer.data.statistics import image_statistics
from transformers_massformer.scenes import furniture, load_scenes, nature, people, render_scene, structures
from transformers_massformer.scenes.camera import Camera, Frame, Light, Site
from transformers_massformer.scenes.drawing import Code, Drawing, box
from transformers_massformer.scenes.layout import compose
from transformers_massformer.scenes.noise import Grain
from transformers_massformer.scenes.rasterize import class_alphas, covers, paint, shrink, to_alphas


SAMPLES = 16
FEET = np.array([[-3.0, 0, 6], [2, 0, 12], [3, 0, 50]])


def inside(polygon, x, y):
    """Tests edge by edge whether points `(rows, columns)` of a grid have a winding number other than 0."""
    winding = np.zeros((len(y), len(x)), int)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        rows = np.flatnonzero((y0 <= y) != (y1 <= y))
        crossing = x0 + (y[rows] - y0) * (x1 - x0) / (y1 - y0) if len(rows) else np.zeros(0)
        winding[rows] += np.where(crossing[:, None] > x, 1 if y1 > y0 else -1, 0)
    return winding != 0


def supersampled(drawing, height, left, top, side):
    """Returns code shares `(8, side, side)` of a crop, with 255 in total, from 16 x 16 points per pixel."""
    grid = (np.arange(side * SAMPLES) + 0.5) / SAMPLES
    x, y = left + grid, top + grid
    codes = np.full((len(y), len(x)), -1)
    for polygons, code in drawing.outlines():
        for polygon in polygons * height:
            (low_x, low_y), (high_x, high_y) = polygon.min(0), polygon.max(0)
            columns, rows = slice(*np.searchsorted(x, [low_x, high_x])), slice(*np.searchsorted(y, [low_y, high_y]))
            if columns.start < columns.stop and rows.start < rows.stop:
                codes[rows, columns][inside(polygon, x[columns], y[rows])] = code
    blocks = codes.reshape(side, SAMPLES, side, SAMPLES)
    return np.stack([(blocks == code).mean((1, 3)) for code in range(8)]) * 255


def check_crop(drawing, width, height, left, top, side):
    alpha, bicycle = class_alphas(drawing, width, height)
    expected = supersampled(drawing, height, left, top, side)
    expected_bicycle, expected = expected[Code.BICYCLE], expected[:7] + expected[7:] * np.eye(7)[0][:, None, None]
    crop = (slice(top, top + side), slice(left, left + side))
    assert np.abs(expected.sum(0) - 255).max() < 1e-6
    for found, truth in ((alpha[(slice(None), *crop)], expected), (bicycle[crop], expected_bicycle)):
        error = np.abs(found.astype(float) - np.round(truth))
        assert error.mean() <= 2
        assert error.max() <= 16
    return expected


@pytest.fixture
def site():
    """A camera that sees only sky and ground, at 96 x 96 pixels."""
    camera = Camera(aspect=1.0, horizon=0.5, focal=1.2, height=1.6)
    colors = (np.array(color, np.float32) for color in ([80, 120, 190], [200, 210, 220], [255, 240, 220]))
    site = Site(Drawing(), camera, Light(1.0, *colors, 300.0), Grain(np.random.default_rng(0)), 1 / 96)
    drawing = site.drawing
    drawing.fill(box(-1, -1, 2, 2), [120, 160, 220], Code.SKY)
    drawing.fill(box(-1, 0.5, 2, 2), [150, 140, 120], Code.GROUND)
    return site


ELEMENTS = {
    "tree": (40.0, lambda rng, frame, site: nature.broadleaf(rng, frame, 24.0, np.array([90.0, 130, 60]), 0.8)),
    "spruce": (40.0, lambda rng, frame, site: nature.conifer(rng, frame, 24.0, np.array([90.0, 130, 60]))),
    "person": (2.6, lambda rng, frame, site: people.person(rng, frame)),
    "bicycle": (2.6, lambda rng, frame, site: furniture.bicycle(rng, frame)),
    "lamp": (6.0, lambda rng, frame, site: furniture.lamp(frame, 3.5, 1.2)),
    "crane": (70.0, lambda rng, frame, site: structures.crane(rng, site, -8.0, 70.0)),
    "house": (20.0, lambda rng, frame, site: structures.house(rng, site, 1.0, 9.0, 20.0, 10.0, 7.0)),
    "fence": (4.0, lambda rng, frame, site: furniture.fence(site, FEET[0], FEET[1], 1.2, False)),
    "wires": (9.0, lambda rng, frame, site: furniture.pole_line(site, FEET, 4.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", ELEMENTS)
def test_alphas_of_elements_are_those_of_a_supersampled_rendering(site, name):
    depth, draw = ELEMENTS[name]
    draw(np.random.default_rng(3), Frame.at(site, 0.0, depth), site)
    expected = check_crop(site.drawing, 96, 96, 8, 8, 80)
    mixed = ((expected > 0) & (expected < 255)).any(0).mean()
    assert mixed > 0.01


@pytest.mark.parametrize("name", ["tree", "person", "bicycle", "fence"])
def test_colours_are_where_the_alphas_are(site, name):
    depth, draw = ELEMENTS[name]
    draw(np.random.default_rng(3), Frame.at(site, 0.0, depth), site)
    rng = np.random.default_rng(0)
    palette = np.concatenate([rng.integers(0, 256, (7, 3)), np.zeros((1, 3), int)])
    palette[Code.BICYCLE] = palette[Code.OTHERS]
    flat = Drawing()
    for polygons, code in site.drawing.outlines():
        flat.fill(polygons, palette[code], code)
    alpha, _ = class_alphas(site.drawing, 96, 96)
    composite = np.einsum("khw,kc->hwc", alpha / 255, palette[:7])
    # Painting shape by shape is inexact where many shapes share a pixel, so only the mean is checked.
    assert np.abs(paint(flat, 96, 96) - composite).mean() < 1
    assert np.abs(paint(flat, 96, 96)[2:] - composite[:-2]).mean() > 1


def test_crop_of_a_complete_scene_is_that_of_a_supersampled_rendering():
    drawing = compose(np.random.default_rng(5), 4 / 3, 1 / 240)
    alpha, _ = class_alphas(drawing, 320, 240)
    mixed = (alpha.max(0) < 255).reshape(10, 24, 320)[:, :, :312].reshape(10, 24, 13, 24).mean((1, 3))
    row, column = np.unravel_index(mixed.argmax(), mixed.shape)
    expected = check_crop(drawing, 320, 240, 24 * int(column), 24 * int(row), 24)
    assert ((expected > 0) & (expected < 255)).any(0).mean() > 0.2


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), corners=st.integers(3, 9))
def test_a_covering_polygon_contains_all_points(seed, corners):
    rng = np.random.default_rng(seed)
    polygon = rng.uniform(-40, 40, (corners, 2))
    low = rng.uniform(-30, 20, 2)
    high = low + rng.uniform(1, 8, 2)
    x, y = (np.linspace(start, end, 23) for start, end in zip(low, high, strict=True))
    points = inside(polygon, x, y)
    assert points.all() or not covers(polygon, low, high)
    assert covers(np.array([low - 1, [high[0] + 1, low[1] - 1], high + 1, [low[0] - 1, high[1] + 1]]), low, high)


def test_shrinking_moves_the_edges_of_either_orientation_inwards():
    square = np.array([[0.0, 0], [10, 0], [10, 4], [0, 4]])
    expected = np.array([[1.0, 1], [9, 1], [9, 3], [1, 3]])
    np.testing.assert_allclose(shrink(np.stack([square, square[::-1]]), 1.0), np.stack([expected, expected[::-1]]))


@given(data=st.data(), codes=st.integers(1, 8))
def test_alphas_sum_to_255_and_are_the_counts_within_a_level(data, codes):
    cuts = data.draw(st.lists(st.integers(0, 256), min_size=codes - 1, max_size=codes - 1))
    counts = np.diff([0, *sorted(cuts), 256]).reshape(codes, 1, 1)
    alphas = to_alphas(counts).astype(int)
    assert alphas.sum() == 255
    assert np.abs(alphas - counts * 255 / 256).max() <= 1


@pytest.mark.parametrize("size", [(320, 240), (97, 131), (16, 16), (65, 64)])
def test_scene_of_any_size(size):
    scene = render_scene(0, 3, size)
    width, height = size
    assert scene.image.shape == (height, width, 3)
    assert scene.alpha.shape == (7, height, width)
    assert scene.image.dtype == scene.label.dtype == scene.alpha.dtype == np.uint8
    assert (scene.alpha.sum(0, dtype=int) == 255).all()
    best = np.take_along_axis(scene.alpha, scene.label[None].astype(int), 0)[0]
    assert (best == scene.alpha.max(0)).all()
    assert (scene.objects["bicycle"] <= scene.alpha[Code.OTHERS]).all()


@pytest.fixture(scope="module")
def six_scenes():
    return [render_scene(0, index, (128, 96)) for index in range(6)]


def test_scenes_depend_on_seed_and_index_alone(six_scenes):
    first, again = six_scenes[4], render_scene(0, 4, (128, 96))
    for one, two in ((first.image, again.image), (first.alpha, again.alpha), (first.label, again.label)):
        np.testing.assert_array_equal(one, two)
    assert (first.label != six_scenes[5].label).mean() > 0.1
    assert (first.label != render_scene(1, 4, (128, 96)).label).mean() > 0.1


def test_layout_is_the_same_at_every_size():
    small, large = (render_scene(0, 7, size).label for size in ((160, 120), (480, 360)))
    assert (small == large[1::3, 1::3]).mean() > 0.9


def test_every_class_and_bicycles_occur(six_scenes):
    for code in range(7):
        assert sum((scene.label == code).any() for scene in six_scenes) >= 4
    with_bicycles = [scene.objects["bicycle"].max() > 127 for scene in six_scenes]
    assert 1 <= sum(with_bicycles) < 6


@pytest.mark.parametrize(("arguments", "message"), [
    ((0, 0, (8, 64)), "8x64"), ((0, 0, (64, 16385)), "64x16385"), ((-1, 0), "Seed -1"), ((0, -2), "index -2"),
])  # fmt: skip
def test_impossible_scenes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        render_scene(*arguments)


def test_data_set(tmp_path):
    loaded = load_scenes(2, (64, 48), seed=5, with_alpha=True, cache_dir=tmp_path)
    scene = render_scene(5, 1, (64, 48))
    assert loaded.column_names == ["image", "label", "image_id", "alpha", "bicycle"]
    assert loaded["image_id"][:] == ["scene_0005_000000", "scene_0005_000001"]
    np.testing.assert_array_equal(loaded[1]["label"], scene.label)
    np.testing.assert_array_equal(np.stack(loaded[1]["alpha"]), scene.alpha)
    np.testing.assert_array_equal(loaded[1]["bicycle"], scene.objects["bicycle"])
    assert np.abs(np.asarray(loaded[1]["image"], int) - scene.image).mean() < 4
    streamed = list(load_scenes(2, (64, 48), seed=5, streaming=True))
    assert list(streamed[1]) == ["image", "label", "image_id"]
    np.testing.assert_array_equal(streamed[1]["image"], loaded[1]["image"])


@pytest.mark.parametrize(("arguments", "message"), [
    ({"n": 0}, "0 scenes"), ({"n": 1, "seed": -1}, "seed -1"), ({"n": 1, "size": (4096, 1)}, "4096x1"),
    ({"n": 1, "streaming": True, "num_proc": 2}, "num_proc"),
])  # fmt: skip
def test_impossible_data_sets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_scenes(**arguments)


def write_scenes(output, *arguments, code=0):
    return run("scenes", "--output", output, "--size", "96x64", *arguments, code=code)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_command_writes_the_same_bytes_with_one_and_two_processes(tmp_path):
    for name, processes in (("one", "1"), ("two", "2")):
        write_scenes(tmp_path / name, "--count", "2", "--processes", processes, "--alpha", "--split", "validation")
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "two")
    names = [f"scene_0000_00000{index}" for index in range(2)]
    expected = {f"images/val/{name}.jpg" for name in names} | {f"annotations/val/{name}.png" for name in names}
    expected |= {f"alphas/val/{name}/{label}.png" for name, label in itertools.product(names, (*LABELS, "bicycle"))}
    assert set(one) == expected
    with PIL.Image.open(tmp_path / "one" / "annotations" / "val" / "scene_0000_000001.png") as label:
        assert label.mode == "L"
        np.testing.assert_array_equal(label, render_scene(0, 1, (96, 64)).label)


def test_files_of_the_command_load_as_mass13k(tmp_path):
    for split, seed in (("train", "1"), ("val", "2")):
        write_scenes(tmp_path / "data", "--count", "1", "--processes", "1", "--split", split, "--seed", seed)
    loaded = load_mass13k(tmp_path / "data", cache_dir=tmp_path / "cache")
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 1, "validation": 1}
    np.testing.assert_array_equal(loaded["validation"][0]["label"], render_scene(2, 0, (96, 64)).label)


def test_command_resumes(tmp_path):
    arguments = ("--count", "2", "--processes", "1")
    write_scenes(tmp_path, *arguments)
    before = contents(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    missing = tmp_path / "annotations" / "train" / "scene_0000_000001.png"
    missing.unlink()
    result = write_scenes(tmp_path, *arguments)
    assert "1 of 2 scenes are finished already" in result.output
    assert contents(tmp_path) == before
    written = {path for path, then in times.items() if path.stat().st_mtime_ns != then}
    assert written == {missing, tmp_path / "images" / "train" / "scene_0000_000001.jpg"}
    assert "2 of 2" in write_scenes(tmp_path, *arguments).output


@pytest.mark.parametrize(("arguments", "message"), [
    (["--count", "0"], "--count 0"),
    (["--processes", "0"], "--processes 0"),
    (["--seed", "-3"], "--seed -3"),
    (["--split", "dev"], "Unknown split dev"),
    (["--size", "12x"], "'12x' is not a size"),
    (["--size", "64x20000"], "'64x20000' is not a size"),
    (["--size", "ten"], "'ten' is not a size"),
])  # fmt: skip
def test_command_names_wrong_arguments(tmp_path, arguments, message):
    assert message in write_scenes(tmp_path, *arguments, code=1).output
    assert not list(tmp_path.iterdir())


def test_command_refuses_other_sizes_and_the_same_scene_in_two_splits(tmp_path):
    write_scenes(tmp_path / "data", "--count", "1", "--processes", "1")
    other_size = write_scenes(tmp_path / "data", "--count", "1", "--size", "64x48", code=1)
    other_split = write_scenes(tmp_path / "data", "--count", "1", "--split", "test", code=1)
    assert "is 96x64, not 64x48" in other_size.output
    assert "Choose another --seed" in other_split.output


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_interrupted_command_leaves_whole_files(tmp_path, processes):
    command = ("scenes", "--output", tmp_path, "--count", "500", "--size", "96x64", "--processes", processes)
    code, printed = run_until(lambda: any(tmp_path.glob("annotations/train/*.png")), signal.SIGINT, *command)
    assert code == 130, printed
    assert "interrupted" in printed
    assert "Traceback" not in printed
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".partial")]
    for path in tmp_path.rglob("*.*"):
        with PIL.Image.open(path) as image:
            assert image.size == (96, 64)
            image.load()


@pytest.mark.slow
def test_full_size_scenes_are_as_complex_as_photographs():
    statistics = [image_statistics(render_scene(0, index).label) for index in range(4)]
    assert np.mean([value.mipq for value in statistics]) >= 100
    assert np.nanmean([value.ipq[Code.VEGETATION] for value in statistics]) >= 100
