import pytest
import torch

from transformers_massformer.evaluation.comparison import bootstrap_scores, bootstrap_weights, compare, mean_scores
from transformers_massformer.metrics import Counts, count_images


def counts_of(seed, num_images=6, quality=0.5):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(16).repeat_interleave(4)[:, None].expand(64, 64).remainder(3)
    predictions = []
    for _ in range(num_images):
        noise = torch.rand(64, 64, generator=generator) > quality
        predictions.append(torch.where(noise, torch.randint(0, 3, (64, 64), generator=generator), labels))
    return count_images(predictions, [labels] * num_images, 3)


def result_of(counts):
    images = {f"image {index}": each for index, each in enumerate(counts.to_tensor().tolist())}
    data = {name: [f"photo {name}", f"label map {name}"] for name in images}
    return {"split": "test", "labels": ["a", "b", "c"], "counting": {}, "scores": {}, "images": images, "data": data}


def test_differences_and_their_intervals():
    worse, better = counts_of(0, quality=0.5), counts_of(1, quality=0.6)
    first, second = compare({"worse": result_of(worse), "better": result_of(better)}, samples=300)
    for index, name in enumerate(("iou", "boundary_iou", "bf1")):
        assert first[name]["value"] == pytest.approx(mean_scores(worse.sum())[index].item())
        assert second[name]["difference"] == pytest.approx(second[name]["value"] - first[name]["value"])
        low, high = second[name]["difference_interval"]
        assert 0 < low < second[name]["difference"] < high
    # The reference sums the images of each sample one by one.
    weights = bootstrap_weights(6, 300, 0)
    assert (weights.sum(1) == 6).all()
    values = []
    for row in weights[:20].long().tolist():
        drawn = [index for index, times in enumerate(row) for _ in range(times)]
        values.append(mean_scores(Counts.from_tensor(worse.to_tensor()[drawn]).sum()))
    torch.testing.assert_close(bootstrap_scores(worse, weights[:20]), torch.stack(values))


def test_results_that_cannot_be_compared():
    counts = counts_of(0)
    fewer = result_of(Counts.from_tensor(counts.to_tensor()[:4]))
    with pytest.raises(ValueError, match="2 are in only one of them, such as image 4, image 5"):
        compare({"a": result_of(counts), "b": fewer})
    for what, value in (("counting", {"bf1_tolerance": 1}), ("split", "validation")):
        with pytest.raises(ValueError, match=f"differ in {what}"):
            compare({"a": result_of(counts), "b": {**result_of(counts), what: value}})
    for position, what in enumerate(("photographs", "label maps")):
        other = result_of(counts)
        other["data"]["image 3"][position] = "another"
        with pytest.raises(ValueError, match=f"made from different {what}: 1, such as image 3"):
            compare({"a": result_of(counts), "b": other})


def test_results_must_give_ids_the_same_names():
    counts = counts_of(0)
    compare({"one": result_of(counts), "other": {**result_of(counts), "labels": ["A", "b", " c"]}}, samples=20)
    for labels in (["b", "a", "c"], ["a", "b", "d"], ["a", "b"], ["a", "b", "c", "d"]):
        with pytest.raises(ValueError, match="differ in the names of the data's classes: 0 .*; and 0 a, 1 b, 2 c"):
            compare({"one": result_of(counts), "other": {**result_of(counts), "labels": labels}})
