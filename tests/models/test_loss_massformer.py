import itertools

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.golden import DATA, golden_labels, uniform
from support.tiny import block_labels, random_predictions, tiny_config, tiny_model
from torch.nn.utils.rnn import pad_sequence

from transformers_massformer.models import loss_massformer
from transformers_massformer.models.loss_massformer import (
    MaSSFormerLoss,
    boundary_weights,
    dice_loss,
    pairwise_dice_cost,
    pairwise_mask_cost,
    sample_points,
    select_points,
    semantic_edges,
    semantic_targets,
    weighted_mask_loss,
)


@pytest.fixture(scope="module")
def golden():
    return np.load(DATA / "golden_loss_metric.npz")


@pytest.fixture(scope="module")
def golden_targets():
    labels = torch.from_numpy(golden_labels(64, 96, 101, 12)).long()[None]
    classes, masks = semantic_targets(labels, 7)
    return labels, classes[0], masks[0]


class FixedRandom:
    """Replacement for `torch.rand` that returns given draws and checks the requested shapes."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def __call__(self, *shape, **kwargs):
        draw = self.draws.pop(0)
        assert tuple(draw.shape) == shape
        return draw


def golden_draw(seed, *shape):
    return torch.from_numpy((uniform(seed, int(np.prod(shape))) + 1) / 2).reshape(shape)


def test_edge_map_is_the_release_s(golden, golden_targets):
    labels = golden_targets[0]
    assert np.array_equal(labels[0].numpy(), golden["label_map"])
    assert np.array_equal(semantic_edges(labels, 2)[0].numpy(), golden["edge_map"])


def test_weight_maps_are_the_release_s(golden, golden_targets):
    _, classes, masks = golden_targets
    assert classes.tolist() == golden["classes"].tolist()
    np.testing.assert_allclose(boundary_weights(masks, 5).numpy(), golden["weight_maps"], atol=1e-6)


def test_points_and_mask_losses_are_the_release_s(golden, golden_targets, monkeypatch):
    _, _, masks = golden_targets
    # float64 like the golden values: points are ordered by scores, some of which nearly tie.
    logits, masks = torch.from_numpy(4 * uniform(104, 7 * 32 * 48)).reshape(7, 32, 48), masks.double()
    monkeypatch.setattr(torch, "rand", FixedRandom(golden_draw(105, 7, 768, 2), golden_draw(106, 7, 64, 2)))
    weights = boundary_weights(masks, 5)
    points = select_points(logits, weights, 256, 3, 0.75)
    np.testing.assert_allclose(points.numpy(), golden["point_coords"], atol=1e-6)
    point_weights = sample_points(weights[:, None], points)[:, 0]
    point_targets = sample_points(masks[:, None], points)[:, 0]
    np.testing.assert_allclose(point_weights.numpy(), golden["point_weights"], atol=1e-5)
    np.testing.assert_allclose(point_targets.numpy(), golden["point_targets"], atol=1e-5)

    point_logits = sample_points(logits[:, None], points)[:, 0]
    mask_loss = 5 * weighted_mask_loss(point_logits, point_targets, 1 + 5 * point_weights) / 7
    assert mask_loss.item() == pytest.approx(float(golden["loss_mask"]), rel=1e-5)
    assert (5 * dice_loss(point_logits, point_targets) / 7).item() == pytest.approx(
        float(golden["loss_dice"]), rel=1e-5
    )


def test_edge_loss_is_against_the_real_edges(golden, golden_targets):
    labels = golden_targets[0]
    edge_logits = torch.from_numpy(3 * uniform(107, 32 * 48)).float().reshape(1, 1, 32, 48)
    criterion = MaSSFormerLoss(tiny_config())
    assert 10 * criterion.edge_loss(edge_logits, labels).item() == pytest.approx(
        float(golden["edge_loss_bce"]), rel=1e-5
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**16))
def test_edges_against_a_loop_and_opencv(height, width, edge_width, seed):
    labels = np.random.default_rng(seed).choice([0, 1, 2, 255], (height, width))
    expected = np.zeros((height, width), np.uint8)
    for y, x in itertools.product(range(height), range(width)):
        for dy, dx in ((-1, 0), (0, 1), (1, 1), (1, -1)):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                a, b = labels[y, x], labels[y + dy, x + dx]
                expected[y, x] |= a != b and a != 255 and b != 255
    expected = cv2.dilate(expected, np.ones((edge_width, edge_width), np.uint8))
    assert np.array_equal(semantic_edges(torch.from_numpy(labels)[None], edge_width)[0].numpy(), expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 5]), st.integers(0, 2**16))
def test_boundary_weights_against_a_loop(height, width, kernel_size, seed):
    mask = np.random.default_rng(seed).integers(0, 2, (height, width)).astype(np.float32)
    padded = np.pad(mask, kernel_size // 2)
    expected = [
        [abs(padded[y : y + kernel_size, x : x + kernel_size].mean() - mask[y, x]) for x in range(width)]
        for y in range(height)
    ]
    weights = boundary_weights(torch.from_numpy(mask)[None], kernel_size)[0]
    np.testing.assert_allclose(weights.numpy(), np.array(expected), atol=1e-6)
    assert weights.max() < 1


def test_pairwise_costs_against_one_by_one():
    logits, targets = torch.randn(4, 50), torch.rand(3, 50)
    for q, m in itertools.product(range(4), range(3)):
        pair = logits[q : q + 1], targets[m : m + 1]
        expected = F.binary_cross_entropy_with_logits(*pair)
        torch.testing.assert_close(pairwise_mask_cost(logits, targets)[q, m], expected)
        torch.testing.assert_close(pairwise_dice_cost(logits, targets)[q, m], dice_loss(*pair))


def bordered(maps, points):
    """Sample (N, H, W) maps at points, repeating their border outside."""
    grid = 2 * points[:, None] - 1
    return F.grid_sample(maps[:, None], grid, padding_mode="border", align_corners=False)[:, 0, 0]


def naive_loss(criterion, class_logits, mask_embeddings, mask_features, edge_logits, labels):
    """Compute the loss with dense masks, image by image, drawing random numbers in the same order."""
    config = criterion.config
    classes, masks = semantic_targets(labels, criterion.num_labels)
    ignored = (labels == 255).float()
    total = 0
    for step, (step_logits, embeddings) in enumerate(zip(class_logits, mask_embeddings, strict=True)):
        features = mask_features
        if step < len(class_logits) - 1:
            features = F.avg_pool2d(mask_features, 2)
        dense = torch.einsum("bqc,bchw->bqhw", embeddings, features)
        matches, all_points = [], torch.rand(len(labels), config.train_num_points, 2)
        for i in range(len(labels)):
            points = all_points[i : i + 1]
            predicted = sample_points(dense[i][:, None], points.expand(len(dense[i]), -1, -1))[:, 0]
            target = sample_points(masks[i][:, None], points.expand(len(masks[i]), -1, -1))[:, 0]
            valid = 1 - bordered(ignored[i][None], points)
            target = target * valid
            entropy = (
                F.softplus(-predicted)[:, None] * target + F.softplus(predicted)[:, None] * (valid - target)
            ).sum(-1)
            probability = (predicted.sigmoid() * valid)[:, None]
            overlap = 2 * (probability * target).sum(-1) + 1
            cost = 5 * entropy / valid.sum() + 5 - 5 * overlap / (probability.sum(-1) + target.sum(-1) + 1)
            cost = cost - 2 * step_logits[i].softmax(-1)[:, classes[i]]
            best = min(
                itertools.permutations(range(len(embeddings[i])), len(classes[i])),
                key=lambda queries, cost=cost: sum(cost[q, m].item() for m, q in enumerate(queries)),
            )
            matches.append(sorted((q, m) for m, q in enumerate(best)))
        logits = torch.stack([dense[i, q] for i, pairs in enumerate(matches) for q, _ in pairs])
        targets = torch.stack([masks[i][m] for i, pairs in enumerate(matches) for _, m in pairs])
        weights = boundary_weights(targets, 5)
        target_ignored = torch.stack([ignored[i] for i, pairs in enumerate(matches) for _ in pairs])
        points = select_points(logits, weights, config.train_num_points, 3, 0.75, target_ignored)
        sampled = [sample_points(x[:, None], points)[:, 0] for x in (logits, targets, weights)]
        valid = 1 - bordered(target_ignored, points)
        sampled[1] = (sampled[1] / valid.clamp(min=1e-6)).clamp(max=1)
        present = [classes[i][m].item() for i, pairs in enumerate(matches) for _, m in pairs]
        emphasis = torch.tensor([[-1.5] if each in config.pseudo_label_classes else [5.0] for each in present])
        emphasized = (1 + emphasis * sampled[2]).clamp(min=0)
        entropies = F.binary_cross_entropy_with_logits(*sampled[:2], reduction="none") * emphasized * valid
        total = total + 5 * (entropies.sum(1) / valid.sum(1)).sum() / len(targets)
        total = total + 5 * dice_loss(*sampled[:2], valid) / len(targets)
        queries = torch.full(step_logits.shape[:2], criterion.num_labels)
        for i, pairs in enumerate(matches):
            for q, m in pairs:
                queries[i, q] = classes[i][m]
        weight = torch.ones(criterion.num_labels + 1)
        weight[-1] = 0.1
        total = total + 2 * F.cross_entropy(step_logits.flatten(0, 1), queries.flatten(), weight)
    resized = F.interpolate(edge_logits, labels.shape[-2:], mode="bilinear")[:, 0]
    return total + 10 * F.binary_cross_entropy_with_logits(resized, semantic_edges(labels, 2))


@pytest.mark.parametrize("pseudo_classes", [[], [0, 2]], ids=str)
def test_loss_equals_the_dense_computation(pseudo_classes):
    fields = {"num_queries": 6, "num_labels": 3, "num_hidden_layers": 2, "lambda_2": 1.5}
    config = tiny_config(**fields, pseudo_label_classes=pseudo_classes)
    criterion = MaSSFormerLoss(config)
    predictions = random_predictions(config, 2, 32, 64)
    labels = block_labels(2, 32, 64, num_labels=3)
    torch.manual_seed(1)
    losses = criterion(*predictions, labels)
    torch.manual_seed(1)
    torch.testing.assert_close(losses["loss"], naive_loss(criterion, *predictions, labels), rtol=1e-4, atol=1e-4)


def test_ignored_pixels_have_no_influence_on_the_masks():
    """Whatever the masks predict in the ignored half, their losses stay the same."""
    config = tiny_config(use_auxiliary_loss=False, edge_weight=0.0)
    class_logits, embeddings, features, edges = random_predictions(config, 2, 32, 32)
    labels = block_labels(2, 32, 32)
    labels[:, :, 16:] = 255
    changed = features.clone()
    # The column next to the labelled half is read by interpolation.
    changed[..., 9:] = 7 * torch.randn_like(changed[..., 9:])
    criterion, losses = MaSSFormerLoss(config), []
    # Every candidate is a point, so that the choice does not depend on the prediction.
    config.importance_sample_ratio = 0.0
    for each in (features, changed):
        torch.manual_seed(0)
        losses.append(criterion(class_logits, embeddings, each, edges, labels))
    for name in ("loss_mask", "loss_dice", "loss_cross_entropy"):
        torch.testing.assert_close(losses[0][name], losses[1][name])
    torch.manual_seed(0)
    moved = criterion(class_logits, embeddings, features.flip(3), edges, labels)
    assert moved["loss_mask"] != losses[0]["loss_mask"]


def test_points_are_chosen_among_labelled_pixels_first():
    ignored = torch.zeros(1, 16, 16)
    ignored[..., 4:] = 1
    points = select_points(torch.zeros(1, 8, 8), torch.zeros(1, 16, 16), 64, 8.0, 1.0, ignored)
    assert (points[..., 0] < 0.3).all()


def test_coarse_edges_suppress_all_classes_and_spare_the_edge_head():
    config = tiny_config(lambda_2=0.5)
    criterion = MaSSFormerLoss(config)
    classes = torch.tensor([0, 3, 5])
    assert criterion.edge_emphases(classes, torch.tensor(True)).tolist() == [-0.5] * 3
    assert criterion.edge_emphases(classes, torch.tensor(False)).tolist() == [5.0] * 3
    labels = block_labels(3, 32, 32)
    edges = torch.randn(3, 1, 16, 16)
    found = criterion.edge_loss(edges, labels, torch.tensor([True, False, True]))
    resized = F.interpolate(edges[1:2], (32, 32), mode="bilinear")[0, 0]
    kept = labels[1] != 255
    expected = F.binary_cross_entropy_with_logits(resized[kept], semantic_edges(labels[1:2], 2)[0][kept])
    torch.testing.assert_close(found, expected)
    assert criterion.edge_loss(edges, labels, torch.ones(3, dtype=torch.bool)) == 0


def test_unlabelled_classes_count_as_no_object():
    config = tiny_config(num_labels=4)
    criterion = MaSSFormerLoss(config)
    logits, labelled = torch.randn(1, config.num_queries, 5), torch.tensor([[True, True, False, True]])
    matches, classes = [(torch.tensor([2]), torch.tensor([0]))], [torch.tensor([1])]
    found = criterion.class_loss(logits, matches, classes, labelled)
    log_probabilities = logits[0].double().log_softmax(-1)
    total, weight = -log_probabilities[2, 1], 1.0
    for query in set(range(config.num_queries)) - {2}:
        total = total - 0.1 * (log_probabilities[query, 2].exp() + log_probabilities[query, 4].exp()).log()
        weight += 0.1
    torch.testing.assert_close(found.double(), total / weight, rtol=1e-5, atol=1e-5)
    everything = criterion.class_loss(logits, matches, classes, torch.ones(1, 4, dtype=torch.bool))
    torch.testing.assert_close(everything, criterion.class_loss(logits, matches, classes))


def test_pixel_loss_is_the_mean_cross_entropy_of_every_map():
    config = tiny_config(pixel_loss_weight=2.0, edge_weight=0.0)
    labels = block_labels(2, 32, 32)
    maps = [torch.randn(2, 7, side, side) for side in (1, 2, 4, 16)]
    found = MaSSFormerLoss(config)(*random_predictions(config, 2, 32, 32), labels, pixel_logits=maps)["loss_pixel"]
    resized = [F.interpolate(x, (16, 16), mode="bilinear") for x in maps]
    expected = 2 * sum(F.cross_entropy(x, labels[:, ::2, ::2], ignore_index=255) for x in resized)
    torch.testing.assert_close(found, expected)


def test_piloted_queries_are_compared_with_the_classes_of_their_image_in_order():
    config = tiny_config()
    labels = torch.full((2, 32, 64), 3)
    labels[0, :, 20:], labels[1] = 5, 6
    masks = torch.stack([labels == index for index in range(16)], dim=1).float()
    class_logits, embeddings, _, edges = random_predictions(config, 2, 32, 64)
    # Padding is not read at all.
    ideal = torch.full((2, 2, 16), torch.nan)
    ideal[0, 0], ideal[0, 1], ideal[1, 0] = 30 * torch.eye(16)[[3, 5, 6]]
    features = 2 * F.avg_pool2d(masks, 2) - 1

    def losses(queries):
        found = MaSSFormerLoss(config)(
            class_logits,
            embeddings,
            features,
            edges,
            labels,
            piloted_class_logits=[queries[..., :8]] * 5,
            piloted_mask_embeddings=[queries] * 5,
        )
        return [value for name, value in found.items() if "piloted" in name]

    swapped = ideal.clone()
    swapped[0] = ideal[0].flip(0)
    pairs = list(zip(losses(ideal), losses(swapped), strict=True))
    assert len(pairs) == 15
    # Points between classes are never ideal.
    assert all(4 * right < wrong for right, wrong in pairs), pairs


def test_with_fixed_matching_every_class_has_its_query():
    config = tiny_config(num_queries=7, matching="fixed")
    criterion, predictions = MaSSFormerLoss(config), random_predictions(config, 2, 32, 64)
    labels = torch.zeros(2, 32, 64, dtype=torch.int64)
    labels[:, :, 20:], labels[1, 3:9] = 5, 2
    classes, masks = semantic_targets(labels, 7)
    _, (queries, matched) = criterion.match(
        predictions[0][0], predictions[1][0], predictions[2], classes, pad_sequence(masks, batch_first=True)
    )
    assert queries.tolist() == [0, 2, 5]
    assert classes[1][matched].tolist() == [0, 2, 5]
    # The queries then have the classes of the image, and the rest "no object".
    targets = torch.full((2, 7), 7)
    for image, present in enumerate(classes):
        targets[image, present] = present
    weight = torch.ones(8)
    weight[-1] = 0.1
    expected = 2 * F.cross_entropy(predictions[0][-1].flatten(0, 1), targets.flatten(), weight)
    assert criterion(*predictions, labels)["loss_cross_entropy"].item() == pytest.approx(expected.item(), rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 3), unique=True),
    st.floats(0, 10),
    st.one_of(st.floats(0, 1), st.floats(1, 5)),
    st.integers(0, 2**16),
)
def test_new_classes_are_weighted_as_in_a_literal_loop(pseudo_classes, lambda_1, lambda_2, seed):
    """Compute Eq. 7 point by point without matching: one prediction per mask, in their order."""
    config = tiny_config(num_labels=4, lambda_1=lambda_1, lambda_2=lambda_2, pseudo_label_classes=pseudo_classes)
    criterion = MaSSFormerLoss(config)
    torch.manual_seed(seed)
    classes, masks = semantic_targets(block_labels(1, 16, 16, num_labels=4), 4)
    weights = [boundary_weights(masks[0], 5)]
    embeddings, features = torch.randn(1, len(masks[0]), 16), torch.randn(1, 16, 8, 8)
    matches = [(torch.arange(len(masks[0])), torch.arange(len(masks[0])))]
    emphases = [criterion.edge_emphases(classes[0])]
    torch.manual_seed(seed)
    found, _ = criterion.mask_losses(
        embeddings, features, matches, masks, weights, emphases, torch.tensor(float(len(masks[0])))
    )
    torch.manual_seed(seed)
    logits = torch.einsum("qc,chw->qhw", embeddings[0], features[0])
    points = select_points(logits, weights[0], config.train_num_points, 3, 0.75)
    expected = 0.0
    for mask, each in enumerate(classes[0].tolist()):
        for point in range(config.train_num_points):
            where = points[mask, point][None, None]
            logit, target, edge = (
                sample_points(maps[mask][None, None], where).item() for maps in (logits, masks[0], weights[0])
            )
            weight = max(0.0, 1 - lambda_2 * edge) if each in pseudo_classes else 1 + lambda_1 * edge
            assert weight >= 0
            entropy = max(logit, 0) - logit * target + np.log1p(np.exp(-abs(logit)))
            expected += weight * entropy / config.train_num_points / len(masks[0])
    assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_without_new_classes_the_weights_are_those_of_section_4_2_to_the_bit(monkeypatch):
    criterion = MaSSFormerLoss(tiny_config(lambda_2=3.0))
    classes, masks = semantic_targets(block_labels(1, 32, 32), 7)
    weights, matches = [boundary_weights(masks[0], 5)], [(torch.arange(len(masks[0])),) * 2]
    points, seen = torch.rand(len(masks[0]), 64, 2), []
    monkeypatch.setattr(loss_massformer, "select_points", lambda *arguments: points)
    monkeypatch.setattr(loss_massformer, "weighted_mask_loss", lambda *arguments: seen.append(arguments[2]) or 0)
    emphases = [criterion.edge_emphases(classes[0])]
    embeddings, features = torch.randn(1, len(masks[0]), 16), torch.randn(1, 16, 16, 16)
    criterion.mask_losses(embeddings, features, matches, masks, weights, emphases, torch.ones(()))
    assert torch.equal(seen[0], 1 + 5 * sample_points(weights[0][:, None], points)[:, 0])


def test_terms_are_named_weighted_and_summed():
    config = tiny_config(class_weight=0.0, mask_weight=0.0, dice_weight=0.0)
    predictions = random_predictions(config, 2, 32, 32)
    labels = block_labels(2, 32, 32)
    losses = MaSSFormerLoss(config)(*predictions, labels)
    assert set(losses) == {"loss", "loss_edge"} | {
        f"loss_{term}{suffix}"
        for term in ("cross_entropy", "mask", "dice")
        for suffix in ("", *(f"_{i}" for i in range(config.num_hidden_layers)))
    }
    assert losses["loss"] == losses["loss_edge"]
    assert losses["loss"] > 0
    without = MaSSFormerLoss(tiny_config(edge_weight=0.0, use_auxiliary_loss=False))(*predictions, labels)
    assert set(without) == {"loss", "loss_cross_entropy", "loss_mask", "loss_dice", "loss_edge"}
    assert without["loss_edge"] == 0


LABELS = {
    "one class": lambda: torch.full((2, 32, 32), 3),
    "only ignored": lambda: torch.full((2, 32, 32), 255),
    "one image ignored": lambda: torch.stack([torch.full((32, 32), 255), torch.full((32, 32), 1)]),
    "blocks": lambda: block_labels(2, 32, 32),
}


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("labels", LABELS)
def test_loss_and_gradients_are_finite(labels, scale):
    config = tiny_config()
    class_logits, embeddings, features, edges = random_predictions(config, 2, 32, 32, scale)
    leaves = [*class_logits, *embeddings, features, edges]
    for leaf in leaves:
        leaf.requires_grad_()
    loss = MaSSFormerLoss(config)(class_logits, embeddings, features, edges, LABELS[labels]())["loss"]
    loss.backward()
    assert loss.isfinite()
    # Data-parallel training waits for every parameter's gradient, so none may be missing.
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


EXTREMES = {
    "plain": (lambda image: image, lambda labels: labels),
    "huge": (lambda image: image * 1e4, lambda labels: labels),
    "black": (torch.zeros_like, torch.zeros_like),
    "ignored": (lambda image: image, lambda labels: torch.full_like(labels, 255)),
}


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_and_gradients_stay_finite_in_half_precision(dtype, autocast, extreme):
    image, labels = torch.randn(2, 3, 64, 64), block_labels(2, 64, 64)
    change_image, change_labels = EXTREMES[extreme]
    model = tiny_model().train().to(torch.float32 if autocast else dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        outputs = model(change_image(image), labels=change_labels(labels))
    outputs.loss.backward()
    assert outputs.loss.dtype == torch.float32
    assert outputs.loss.isfinite()
    assert all(value.isfinite() for value in outputs.loss_dict.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name


def test_diverged_predictions_are_matched_last():
    config = tiny_config()
    class_logits, embeddings, features, edges = random_predictions(config, 1, 32, 32)
    embeddings[-1][0, 4] = float("nan")
    classes, masks = semantic_targets(torch.arange(32 * 32).reshape(1, 32, 32) % 7, 7)
    ((queries, _),) = MaSSFormerLoss(config).match(class_logits[-1], embeddings[-1], features, classes, masks[0][None])
    assert len(queries) == 7
    assert 4 not in queries


def test_bad_labels_are_refused_with_their_values():
    model = tiny_model()
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    labels[0, 3, 4:6] = torch.tensor([7, 200])
    with pytest.raises(ValueError, match=r"\[7, 200\].*labels must be 0 to 6, or 255"):
        model(torch.randn(1, 3, 64, 64), labels=labels)
    with pytest.raises(ValueError, match=r"shape \(1, 64, 64\).*got torch.int64 of shape \(1, 32, 32\)"):
        model(torch.randn(1, 3, 64, 64), labels=labels[:, ::2, ::2])
    with pytest.raises(ValueError, match="must be integers"):
        model(torch.randn(1, 3, 64, 64), labels=labels.float())
