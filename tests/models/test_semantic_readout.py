import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import run_python
from support.resizing import resized_densely

from transformers_massformer.models import semantic_readout
from transformers_massformer.models.semantic_readout import (
    bilinear_plan,
    read_general_map,
    read_semantic_map,
)


def dense_scores(class_logits, mask_logits, target_size, valid_size):
    """Compute every query at the target size in float64 by the formula of the docstring."""
    input_size = [2 * side for side in mask_logits.shape[1:]]
    resized = resized_densely(mask_logits, input_size, valid_size, target_size)
    return torch.einsum("qc,qhw->chw", class_logits.double().softmax(-1)[:, :-1], resized.sigmoid())


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.integers(1, 400),
    st.integers(0, 2**16),
)
def test_bands_equal_the_dense_computation(size, target_size, valid_share, band_values, seed):
    generator = torch.Generator().manual_seed(seed)
    class_logits, mask_logits = torch.randn(5, 4, generator=generator), torch.randn(5, *size, generator=generator)
    valid_size = tuple(1 + round(share * (2 * n - 1)) for share, n in zip(valid_share, size, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic_readout, "BAND_VALUES", band_values)
        label_map, scores = read_semantic_map(class_logits, mask_logits, target_size, valid_size, return_scores=True)
        alone, none = read_semantic_map(class_logits, mask_logits, target_size, valid_size)
    assert none is None
    assert torch.equal(alone, label_map)
    assert label_map.dtype == torch.int64
    expected = dense_scores(class_logits, mask_logits, target_size, valid_size)
    torch.testing.assert_close(scores.double(), expected, rtol=0, atol=1e-5)
    # Maps are equal where the best two classes differ by more than rounding.
    best = expected.topk(2, dim=0).values
    clear = best[0] - best[1] > 1e-5
    assert torch.equal(label_map[clear], expected.argmax(0)[clear])


@pytest.mark.parametrize(("target", "valid", "size"), [(64, 64, 32), (100, 64, 32), (31, 62, 32), (7, 64, 32)])
def test_plan_is_that_of_interpolate(target, valid, size):
    values = torch.randn(size)
    lower, upper, weight = bilinear_plan(target, valid, size)
    actual = torch.lerp(values[lower], values[upper], weight)
    expected = F.interpolate(values[None, None, : -(-valid // 2)], size=target, mode="linear", align_corners=False)
    torch.testing.assert_close(actual, expected[0, 0], rtol=1e-4, atol=1e-4)


def test_half_precision_logits_are_read_in_float32():
    class_logits, mask_logits = torch.randn(9, 8).bfloat16(), torch.randn(9, 16, 16).bfloat16()
    _, scores = read_semantic_map(class_logits, mask_logits, (32, 32), (32, 32), return_scores=True)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(
        scores.double(), dense_scores(class_logits, mask_logits, (32, 32), (32, 32)), rtol=0, atol=1e-5
    )


def test_a_whole_photo_needs_little_memory_and_equals_the_dense_computation():
    """Check 100 queries at 4096 x 3072 in a separate process: peak above the inputs, one strip against all at once."""
    code = """
import resource, torch
from transformers_massformer.models.semantic_readout import read_semantic_map, semantic_scores
torch.manual_seed(0)
class_logits, mask_logits = torch.randn(100, 8), torch.empty(100, 1536, 2048)
for query in mask_logits: query.normal_(std=3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
label_map, _ = read_semantic_map(class_logits, mask_logits, (3072, 4096), (3072, 4096))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
strip = torch.nn.functional.interpolate(mask_logits[None, :, 600:680], scale_factor=2, mode="bilinear")[:, :, 16:-16]
scores = semantic_scores(class_logits[None], strip)[0]
best = scores.topk(2, dim=0).values
clear = best[0] - best[1] > 1e-5
assert torch.equal(label_map[1216:1344][clear], scores.argmax(0)[clear]), "label maps differ"
assert clear.float().mean() > 0.99
"""
    assert int(run_python("-c", code).stdout) < 600


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 12), st.tuples(st.integers(3, 20), st.integers(3, 20)), st.floats(0, 0.6)
)
def test_general_inference_gives_each_pixel_to_its_best_query(seed, num_queries, size, threshold):
    generator = torch.Generator().manual_seed(seed)
    class_logits = 2 * torch.randn(num_queries, 5, generator=generator)
    mask_logits = 3 * torch.randn(num_queries, size[0], size[1], generator=generator)
    target = (2 * size[0], 2 * size[1])
    label_map = read_general_map(class_logits, mask_logits, target, target, 2, threshold, ignore_index=99)
    probabilities = class_logits.double().softmax(-1)
    best = torch.full(target, -1.0, dtype=torch.float64)
    expected = torch.full(target, 99)
    resized = F.interpolate(mask_logits[None].double(), size=target, mode="bilinear")[0].sigmoid()
    runner_up = best.clone()
    for query in range(num_queries):
        confidence, found = probabilities[query].max(0)
        # The last class is "no object".
        if found == 4 or confidence <= threshold:
            continue
        product = confidence * resized[query]
        better = product > best
        runner_up = torch.where(better, best, runner_up.maximum(product))
        expected[better] = found
        best = best.maximum(product)
    clear = (best - runner_up > 1e-6) | (best < 0)
    assert torch.equal(label_map[clear], expected[clear])


def test_general_inference_leaves_an_image_without_objects_empty():
    class_logits = torch.tensor([[0.0, 0.0, 9.0], [0.2, 0.0, 0.1]])
    label_map = read_general_map(class_logits, torch.ones(2, 4, 4), (8, 8), (8, 8), threshold=0.5)
    assert (label_map == 255).all()
    assert (read_general_map(class_logits, torch.ones(2, 4, 4), (8, 8), (8, 8), threshold=0.3) == 0).all()
