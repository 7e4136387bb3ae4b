"""Sharpness of masks on photographs with pasted cut-outs."""

import numpy as np
import PIL.Image
import pytest
import torch
import typer
from scipy import ndimage


pytest.importorskip("cv2")
from photo_sharpness import (
    MOST_BACKGROUND,
    Found,
    Place,
    boundary_counts,
    class_of,
    find_place,
    in_turn,
    measure_paste,
    near_edge,
    paste,
    plan,
    report,
    sky_edge,
)

from transformers_massformer.metrics import class_scores, count_image


HUMAN, SKY = 1, 5
WINDOW = np.s_[10:110, 10:150]


@pytest.fixture
def alpha() -> np.ndarray:
    """A disc with a soft edge."""
    rows, columns = np.mgrid[:120, :160]
    return (40.5 - np.hypot(rows - 60, columns - 80)).clip(0, 1).astype(np.float32)


def found(score: np.ndarray) -> Found:
    return Found(np.where(score >= 0.5, HUMAN, 0).astype(np.uint8), lambda label: score)


def test_a_perfect_prediction_has_no_error_and_a_blurred_one_has(alpha):
    perfect = measure_paste(found(alpha), alpha, HUMAN, WINDOW)
    assert perfect["inter"] == perfect["union"] == (alpha >= 0.5).sum()
    assert perfect["band"] == perfect["bands"] > 0
    assert perfect["sad"] == perfect["edges"] == 0
    blurred = measure_paste(found(ndimage.gaussian_filter(alpha, 20)), alpha, HUMAN, WINDOW)
    assert blurred["sad"] > blurred["edges"] > 0
    assert blurred["band"] < 0.5 * blurred["bands"]
    half = measure_paste(found(alpha / 2), alpha, HUMAN, WINDOW)
    assert half["sad"] == pytest.approx(alpha.sum() / 2e3)


def test_boundary_iou_is_the_package_s(alpha):
    truth, other = alpha >= 0.5, ndimage.shift(alpha, (1, 2)) >= 0.5
    band, bands = boundary_counts(other, truth, np.ones_like(truth))
    maps = (torch.from_numpy(mask.astype(np.uint8)) for mask in (other, truth))
    counts = count_image(*maps, num_labels=2)
    assert band / bands == pytest.approx(class_scores(counts).boundary_iou[1].item())


def test_compositing_is_exact():
    rng = np.random.default_rng(0)
    photo = rng.integers(256, size=(20, 30, 3), dtype=np.uint8)
    cutout = rng.integers(256, size=(5, 8, 4), dtype=np.uint8)
    composite, alpha = paste(photo, Place(cutout, left=4, top=3, window=WINDOW))
    for row in range(20):
        for column in range(30):
            inside = 3 <= row < 8 and 4 <= column < 12
            *colour, opacity = cutout[row - 3, column - 4].tolist() if inside else (0, 0, 0, 0)
            assert alpha[row, column] == pytest.approx(opacity / 255)
            mixed = [
                (opacity * a + (255 - opacity) * b) / 255
                for a, b in zip(colour, photo[row, column].tolist(), strict=True)
            ]
            assert np.abs(composite[row, column] - mixed).max() <= 0.5 + 1e-4


def test_windows_with_the_class_in_the_background_are_refused():
    cutout = np.full((50, 30, 4), 255, np.uint8)
    votes = np.zeros((60, 100, 8), np.float32)
    votes[:, 50:, HUMAN] = 0.9
    for seed in range(20):
        place = find_place(votes, (120, 200), cutout, HUMAN, np.random.default_rng(seed))
        if place is not None:
            rows, columns = place.window
            seen = votes[rows.start // 2 : rows.stop // 2, columns.start // 2 : columns.stop // 2, HUMAN] > 0
            assert seen.mean() <= MOST_BACKGROUND
            assert place.left + place.cutout.shape[1] <= 100
            assert 48 <= len(place.cutout) <= 96
    assert place is not None
    votes[..., HUMAN] = 0.9
    assert find_place(votes, (120, 200), cutout, HUMAN, np.random.default_rng(0)) is None
    assert find_place(votes, (120, 200), cutout, SKY, np.random.default_rng(0)) is not None


def test_photographs_are_used_evenly_and_names_tell_the_class(tmp_path):
    paths = [tmp_path / name for name in ("human_a.png", "vegetation_b.png")]
    for path in paths:
        PIL.Image.new("RGBA", (10, 20)).save(path)
    assert in_turn([tmp_path / "human_0.png", *paths]) == [tmp_path / "human_0.png", paths[1], paths[0]]
    labels = {path: class_of(path) for path in paths}
    assert list(labels.values()) == [HUMAN, 3]
    photo, votes = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80, 8), np.uint8)
    planned = list(plan([photo] * 3, [votes] * 3, labels, 6, seed=1))
    assert [path for path, _, _ in planned] == paths * 3
    assert sorted(index for _, index, _ in planned) == [0, 0, 1, 1, 2, 2]
    with pytest.raises(typer.BadParameter, match="tree_c.png must be named"):
        class_of(tmp_path / "tree_c.png")


def test_sky_counts_only_where_both_edges_run():
    photo = np.zeros((200, 400, 3), np.uint8)
    photo[:100] = 255
    sky, votes = np.zeros((100, 200), np.float32), np.zeros((100, 200, 8), np.float32)
    sky[:50] = 1
    assert not sky_edge(photo, votes, sky)[1].any()
    # The teachers see the edge 6 pixels higher, and at the right 30 pixels higher.
    votes[:44, :150, SKY] = votes[:20, 150:, SKY] = 1
    truth, counted = sky_edge(photo, votes, sky)
    assert truth[:100].all()
    assert not truth[100:].any()
    assert counted[80:110, :270].all()
    assert not counted[:60, :260].any()
    assert not counted[:, 330:].any()
    assert boundary_counts(truth, truth, counted)[0] > 0


def test_edges_are_a_square_of_pixels():
    mask = np.zeros((9, 9), bool)
    mask[:, 4:] = True
    assert (near_edge(mask, 2).any(0) == [False, False, True, True, True, True, False, False, False]).all()


def test_the_report_averages_over_pastes_that_every_method_found():
    good = {"inter": 8, "union": 10, "band": 3, "bands": 4, "sad": 1.0, "edges": 0.5}
    lost = {**good, "inter": 1, "sad": 9.0}
    text = report({"human": {"model": [good, good], "vote": [good, lost]}}, {"model": [(1, 3), (1, 1)]})
    assert "| vote | 1 | 45.0 | 75.0 | 5.0 | 0.5 |" in text
    assert "### human: the 1 that every method found" in text
    assert "| model | 2 | 50.0 |" in text
