import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from scipy import ndimage
from support.golden import DATA, golden_labels, hash24

from transformers_massformer.metrics import (
    Counts,
    CountSettings,
    class_scores,
    count_image,
    count_images,
    score,
    segment_scores,
)
from transformers_massformer.metrics.counts import band_width


NUM_LABELS = 4
KINDS = [field.name for field in dataclasses.fields(Counts)]


def eroded(mask: np.ndarray, width: int) -> np.ndarray:
    """Erode `width` times with a 3 x 3 square and a border of zeros, one neighbour at a time."""
    for _ in range(width):
        padded = np.pad(mask, 1)
        mask = np.logical_and.reduce(
            [padded[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(3) for x in range(3)]
        )
    return mask


def matched(own: np.ndarray, other: np.ndarray, tolerance: float, distance: str) -> int:
    """Count the pixels of one mask within the tolerance of the other, with a distance transform."""
    if not own.any() or not other.any():
        return 0
    if distance == "euclidean":
        distances = ndimage.distance_transform_edt(~other)
    else:
        distances = ndimage.distance_transform_cdt(~other, metric="chessboard")
    return int((distances[own] <= tolerance + 1e-9).sum())


def oracle(prediction: np.ndarray, label: np.ndarray, chosen: CountSettings) -> dict[str, list[int]]:
    """Compute the counts class by class, mask by mask."""
    valid = np.ones(label.shape, bool) if chosen.ignore_index is None else label != chosen.ignore_index
    width = max(1, round(chosen.boundary_ratio * math.sqrt(label.shape[0] ** 2 + label.shape[1] ** 2)))
    counts: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for index in range(NUM_LABELS):
        predicted, true = prediction == index, (label == index) & valid
        predicted_band, true_band = predicted & ~eroded(predicted, width), true & ~eroded(true, width)
        if not chosen.release_compatible:
            predicted_band &= valid
        predicted_line, true_line = predicted & ~eroded(predicted, 1) & valid, true & ~eroded(true, 1)
        counts["intersection"].append(sum(bool(a and b) for a, b in zip(predicted.flat, true.flat, strict=True)))
        counts["prediction_area"].append(int((predicted & valid).sum()))
        counts["label_area"].append(int(true.sum()))
        counts["boundary_intersection"].append(int((predicted_band & true_band).sum()))
        counts["prediction_band"].append(int(predicted_band.sum()))
        counts["label_band"].append(int(true_band.sum()))
        reach = (chosen.bf1_tolerance, chosen.bf1_distance)
        counts["matched_prediction_boundary"].append(matched(predicted_line, true_line, *reach))
        counts["prediction_boundary"].append(int(predicted_line.sum()))
        counts["matched_label_boundary"].append(matched(true_line, predicted_line, *reach))
        counts["label_boundary"].append(int(true_line.sum()))
    return counts


def as_dict(counts: Counts) -> dict[str, list[int]]:
    return {kind: getattr(counts, kind).tolist() for kind in KINDS}


@st.composite
def pairs_of_label_maps(draw):
    """Draw blocks, so that there are interiors, or noise, or a constant map, which may be ignored."""
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    block = draw(st.sampled_from([1, 1, 3, 5, 30]))
    small = (-(-height // block), -(-width // block))

    def expand(values: np.ndarray) -> np.ndarray:
        return np.kron(values, np.ones((block, block), values.dtype))[:height, :width]

    label = expand(draw(stnp.arrays(np.uint8, small, elements=st.sampled_from([0, 1, 2, 3, 255]))))
    prediction = expand(draw(stnp.arrays(np.uint8, small, elements=st.integers(0, NUM_LABELS - 1))))
    if draw(st.booleans()):
        # A good prediction: the truth, slightly shifted.
        moved = np.roll(label, (draw(st.integers(0, 2)), draw(st.integers(0, 2))), (0, 1))
        prediction = np.where(moved == 255, prediction, moved)
    return prediction, label


@given(
    pairs_of_label_maps(),
    st.sampled_from([0.001, 0.1, 0.3]),
    st.sampled_from([0, 1, 1.5, 2, 3.7]),
    st.sampled_from(["euclidean", "chebyshev"]),
    st.booleans(),
    st.sampled_from([np.uint8, np.int64]),
)
@settings(max_examples=300, deadline=None)
def test_counts_equal_those_of_erosions_and_distance_transforms(pair, ratio, tolerance, distance, release, dtype):
    chosen = CountSettings(255, ratio, tolerance, distance, release)
    prediction, label = (torch.from_numpy(x.astype(dtype)) for x in pair)
    counts = count_image(prediction, label, NUM_LABELS, chosen)
    assert as_dict(counts) == oracle(*pair, chosen)
    recall = counts.matched_label_boundary <= counts.label_boundary
    precision = counts.matched_prediction_boundary <= counts.prediction_boundary
    assert recall.all()
    assert precision.all()


@pytest.mark.parametrize("ignore_index", [None, -100, 1, 1000])
def test_any_label_can_be_ignored(ignore_index):
    generator = np.random.default_rng(0)
    label, prediction = (generator.integers(0, NUM_LABELS, (20, 30)).repeat(3, 0) for _ in range(2))
    if ignore_index is not None:
        label[10:30, 5:20] = ignore_index
    chosen = CountSettings(ignore_index=ignore_index)
    counts = count_image(torch.from_numpy(prediction), torch.from_numpy(label), NUM_LABELS, chosen)
    assert as_dict(counts) == oracle(prediction, label, chosen)


def test_many_classes_do_not_fit_into_bytes():
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 300, (40, 50), generator=generator).repeat_interleave(4, 0)
    nothing_ignored = CountSettings(ignore_index=None)
    many = count_image(label.roll(1, 0), label, 300, nothing_ignored)
    few = count_image(label.roll(1, 0) % 5, label % 5, 5, nothing_ignored)
    assert many.label_area.sum() == few.label_area.sum() == label.numel()
    assert many.label_area[299] == (label == 299).sum()
    shifted = (label + 7) % 300
    assert torch.equal(
        count_image(shifted.roll(1, 0), shifted, 300, nothing_ignored).label_band, many.label_band.roll(7)
    )


def perturbed(label: np.ndarray, seed: int, block: int) -> np.ndarray:
    height, width = label.shape
    rows, columns = -(-height // block), -(-width // block)
    values = np.kron(hash24(seed, rows * columns).reshape(rows, columns), np.ones((block, block), np.int64))
    values = values[:height, :width]
    base = np.where(label == 255, 0, label).astype(np.int64)
    return np.where(values % 4 == 0, values // 4 % 7, base).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "size", "seed", "block", "small_block"),
    [("small", (64, 96), 101, 12, 6), ("large", (1500, 2100), 102, 150, 30)],
)
def test_areas_equal_those_of_the_release(name, size, seed, block, small_block):
    label = golden_labels(*size, seed, block)
    prediction = perturbed(label, 103, small_block)
    with np.load(DATA / "golden_loss_metric.npz") as golden:
        assert [int(label.astype(int).sum()), int(prediction.astype(int).sum())] == golden[
            f"metric_{name}_pixels"
        ].tolist()
        expected = golden[f"metric_{name}"]
    counts = count_image(
        torch.from_numpy(prediction), torch.from_numpy(label), 7, CountSettings(release_compatible=True)
    )
    areas = (counts.intersection, counts.union, counts.prediction_area, counts.label_area)
    actual = torch.stack([*areas, counts.boundary_intersection, counts.boundary_union])
    assert np.array_equal(actual.numpy(), expected)


def test_band_width_is_a_thousandth_of_the_diagonal():
    assert [band_width(*size, 0.001) for size in [(1, 1), (64, 96), (1500, 2100), (3072, 4096)]] == [1, 1, 3, 5]


@given(pairs_of_label_maps())
@settings(max_examples=30, deadline=None)
def test_a_perfect_prediction_scores_one(pair):
    # Next to ignored pixels, a perfect prediction cannot know its boundary.
    label = torch.from_numpy(np.where(pair[1] == 255, 0, pair[1]))
    scores = class_scores(count_image(label, label, NUM_LABELS))
    present = label.flatten().bincount(minlength=NUM_LABELS) > 0
    for values in (scores.iou, scores.boundary_iou, scores.bf1, scores.accuracy):
        assert (values[present] == 1).all()
        assert values[~present].isnan().all()


def test_a_shift_by_one_pixel_mostly_affects_boundaries():
    label = torch.from_numpy(golden_labels(300, 400, 3, 50) % 4)
    counts = count_image(label.roll(1, 1), label, NUM_LABELS)
    assert as_dict(counts) == oracle(label.roll(1, 1).numpy(), label.numpy(), CountSettings())
    scores = class_scores(counts)
    assert (scores.boundary_iou < 0.6).all()
    assert (scores.iou > 0.9).all()
    # Within the tolerance of 2 pixels, except at the former image border.
    assert (scores.bf1 > 0.95).all()


def test_images_of_a_batch_are_counted_one_by_one():
    generator = torch.Generator().manual_seed(1)
    label, prediction = (torch.randint(0, 4, (3, 12, 17), generator=generator) for _ in range(2))
    counts = count_images(prediction, label, NUM_LABELS)
    assert counts.intersection.shape == (3, NUM_LABELS)
    for index in range(3):
        assert torch.equal(
            counts.to_tensor()[index], count_image(prediction[index], label[index], NUM_LABELS).to_tensor()
        )
    assert torch.equal(counts.sum().to_tensor(), counts.to_tensor().sum(0))
    assert torch.equal(Counts.from_tensor(counts.to_tensor()).union, counts.union)


def test_scores_of_a_data_set_come_from_summed_counts():
    generator = torch.Generator().manual_seed(2)
    label, prediction = (torch.randint(0, 3, (4, 12, 17), generator=generator) for _ in range(2))
    result = score(count_images(prediction, label, 5), CountSettings())
    overlap, either = (
        (getattr(torch, f"logical_{word}")(prediction == 1, label == 1)).sum() for word in ("and", "or")
    )
    assert result["per_category_iou"][1] == pytest.approx((overlap / either).item())
    assert math.isnan(result["per_category_bf1"][4])
    assert result["absent_categories"] == [3, 4]
    assert result["mean_iou"] == pytest.approx(np.mean(result["per_category_iou"][:3]))
    assert result["overall_accuracy"] == pytest.approx((prediction == label).double().mean().item())
    by_image = [score(count_images(prediction[i : i + 1], label[i : i + 1], 5))["mean_bf1"] for i in range(4)]
    assert result["image_mean_bf1"] == pytest.approx(np.mean(by_image))
    assert result["num_images"] == 4
    assert result["settings"]["bf1_tolerance"] == 2
    json.dumps(result)


def test_a_class_that_is_only_predicted_scores_zero():
    label = torch.zeros(9, 9, dtype=torch.uint8)
    prediction = label.clone()
    prediction[3:6, 3:6] = 1
    scores = class_scores(count_image(prediction, label, 3))
    assert scores.bf1[1] == scores.iou[1] == scores.boundary_iou[1] == 0
    assert scores.accuracy[1].isnan()
    assert scores.bf1[2].isnan()


@pytest.mark.parametrize(
    ("prediction", "label", "words"),
    [
        (torch.zeros(3, 4, dtype=torch.long), torch.zeros(4, 3, dtype=torch.long), "4 x 3 .* 3 x 4"),
        (torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.long), "label map: integers .* float32"),
        (torch.zeros(0, 4, dtype=torch.long), torch.zeros(0, 4, dtype=torch.long), r"\(0, 4\)"),
        (torch.full((3, 4), 9), torch.zeros(3, 4, dtype=torch.long), "prediction has values .*: 9. Map"),
        (torch.zeros(3, 4, dtype=torch.long), torch.full((3, 4), -1), "label has values .*: -1. Set"),
    ],
)
def test_invalid_label_maps_raise(prediction, label, words):
    with pytest.raises(ValueError, match=words):
        count_image(prediction, label, NUM_LABELS)


def test_different_numbers_of_predictions_and_labels_raise():
    with pytest.raises(ValueError, match="got 1 and 2"):
        count_images([torch.zeros(2, 2, dtype=torch.long)], torch.zeros(2, 2, 2, dtype=torch.long), 3)


@pytest.mark.parametrize(
    "wrong", [{"boundary_ratio": 0}, {"bf1_tolerance": -1}, {"bf1_tolerance": math.nan}, {"bf1_distance": "manhattan"}]
)
def test_invalid_settings_raise(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CountSettings(**wrong)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_panoptic_quality_of_classes_as_segments(seed, num_images):
    rng = np.random.default_rng(seed)
    total, num_found, num_wrong = np.zeros(3), np.zeros(3), np.zeros(3)
    counts = []
    for _ in range(num_images):
        label = rng.choice([0, 1, 2, 255], size=(6, 7), p=[0.5, 0.3, 0.1, 0.1])
        prediction = np.where(rng.random((6, 7)) < 0.7, label, rng.integers(0, 3, (6, 7)))
        prediction[prediction == 255] = 0
        counts.append(count_image(torch.from_numpy(prediction), torch.from_numpy(label), 3))
        for index in range(3):
            found, true = (prediction == index) & (label != 255), label == index
            union = (found | true).sum()
            if union and (found & true).sum() / union > 0.5:
                total[index] += (found & true).sum() / union
                num_found[index] += 1
            else:
                num_wrong[index] += int(found.any()) + int(true.any())
    scores = segment_scores(Counts.stack(counts))
    with np.errstate(invalid="ignore"):
        quality = total / (num_found + num_wrong / 2)
        np.testing.assert_allclose(scores.pq_st, quality)
        np.testing.assert_allclose(scores.sq_st, total / num_found)
        np.testing.assert_allclose(scores.rq_st, num_found / (num_found + num_wrong / 2))
    result = score(Counts.stack(counts))
    np.testing.assert_allclose(result["per_category_pq_st"], quality)
    np.testing.assert_allclose(result["mean_pq_st"], np.nanmean(quality))


def test_predictions_may_contain_unlabelled_pixels_if_allowed():
    label = torch.zeros(4, 6, dtype=torch.int64)
    prediction = label.clone()
    prediction[:, 3:] = 255
    with pytest.raises(ValueError, match="none of the 2 classes: 255"):
        count_image(prediction, label, 2)
    counts = count_image(prediction, label, 2, allow_unlabelled=True)
    assert counts.intersection.tolist() == [12, 0]
    assert counts.prediction_area.tolist() == [12, 0]
    assert counts.label_area.tolist() == [24, 0]
    assert class_scores(counts).iou[0] == 0.5
    # Unlabelled pixels have no boundary, in particular none of class 1.
    assert counts.prediction_boundary.tolist()[1] == 0
