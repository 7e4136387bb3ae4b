# Copyright 2026 The transformers-massformer authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The MaSSFormer loss (paper, section 4.2 and Eq. 6)"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from .configuration_massformer import MaSSFormerConfig
from .semantic_prior import semantic_prior_loss


def semantic_edges(labels: torch.Tensor, edge_width: int, ignore_index: int = 255) -> torch.Tensor:
    """
    Find the edges between classes: pixels whose class differs from the pixel above, right, below right or below left,
    widened down and to the right (release). Pairs with an ignored pixel do not count.

    Args:
        labels (`torch.Tensor` of shape `(batch_size, height, width)`): Class of each pixel.
        edge_width (`int`): Side of the square with which the edges are dilated, in pixels.
        ignore_index (`int`, *optional*, defaults to 255): Label of pixels without a class.

    Returns:
        `torch.Tensor` of shape `(batch_size, height, width)`: float32, 1 on edges and 0 elsewhere.
    """
    height, width = labels.shape[-2:]
    padded = F.pad(labels, (1, 1, 1, 1), value=ignore_index)
    edges = torch.zeros_like(labels, dtype=torch.bool)
    for down, right in ((-1, 0), (0, 1), (1, 1), (1, -1)):
        neighbour = padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]
        edges |= (labels != neighbour) & (labels != ignore_index) & (neighbour != ignore_index)
    before, after = edge_width // 2, (edge_width - 1) // 2
    edges = F.pad(edges.float()[:, None], (before, after, before, after))
    return F.max_pool2d(edges, edge_width, stride=1)[:, 0]


def boundary_weights(masks: torch.Tensor, kernel_size: int) -> torch.Tensor:
    """
    Compute `W = |G - avg(G, k)|` (section 4.2; absolute value and zeros outside the image as in the release).

    Args:
        masks (`torch.Tensor` of shape `(num_masks, height, width)`): Binary masks.
        kernel_size (`int`): Side k of the averaging window, odd.

    Returns:
        `torch.Tensor` of shape `(num_masks, height, width)`: values in [0, 1), largest next to the mask's boundary.
    """
    average = F.avg_pool2d(masks[:, None], kernel_size, stride=1, padding=kernel_size // 2)[:, 0]
    return (average - masks).abs()


def sample_points(maps: torch.Tensor, points: torch.Tensor, padding_mode: str = "zeros") -> torch.Tensor:
    """
    Sample maps bilinearly.

    Args:
        maps (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Maps to sample.
        points (`torch.Tensor` of shape `(batch_size, num_points, 2)`): x and y in [0, 1].
        padding_mode (`str`): Values outside the maps, see `torch.nn.functional.grid_sample`.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_channels, num_points)`.
    """
    return F.grid_sample(maps, 2 * points[:, None] - 1, padding_mode=padding_mode, align_corners=False)[:, :, 0]


def validity_at(ignored: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return 1 at the (batch, points, 2) points where a (batch, H, W) map is 0, and 0 where it is 1."""
    return 1 - sample_points(ignored[:, None], points, padding_mode="border")[:, 0]


def select_points(
    mask_logits: torch.Tensor,
    weights: torch.Tensor,
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
    ignored: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Select the points at which masks are compared: the most uncertain of `oversample_ratio * num_points` uniform
    candidates, and uniform points for the rest. The uncertainty is `-|logit| * (1 - W)`, so that W draws points
    towards boundaries (release).

    Args:
        mask_logits (`torch.Tensor` of shape `(num_masks, height, width)`): Predicted masks.
        weights (`torch.Tensor` of shape `(num_masks, label_height, label_width)`): `boundary_weights` of the targets.
        num_points (`int`): Points per mask.
        oversample_ratio (`float`): Candidates per point.
        importance_sample_ratio (`float`): Share of the points chosen among the candidates.
        ignored (`torch.Tensor` of shape `(num_masks, label_height, label_width)`, *optional*):
            1 at pixels without a class, which are chosen last.

    Returns:
        `torch.Tensor` of shape `(num_masks, num_points, 2)`: x and y in [0, 1].
    """
    num_masks, device = mask_logits.shape[0], mask_logits.device
    candidates = torch.rand(num_masks, int(num_points * oversample_ratio), 2, device=device)
    certainty = sample_points(mask_logits[:, None], candidates)[:, 0].abs()
    certainty = certainty * sample_points(1 - weights[:, None], candidates)[:, 0]
    if ignored is not None:
        certainty = certainty.masked_fill(validity_at(ignored, candidates) < 0.5, torch.inf)
    num_important = int(importance_sample_ratio * num_points)
    chosen = certainty.topk(num_important, dim=1, largest=False).indices
    important = candidates.gather(1, chosen[:, :, None].expand(-1, -1, 2))
    uniform = torch.rand(num_masks, num_points - num_important, 2, device=device)
    return torch.cat((important, uniform), dim=1)


def weighted_mask_loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Compute the cross-entropy of (masks, points) logits, weighted per point: mean over points, sum over masks."""
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (losses * weights).mean(dim=1).sum()


def dice_loss(logits: torch.Tensor, targets: torch.Tensor, validity: torch.Tensor | None = None) -> torch.Tensor:
    """
    Compute the Dice loss of (masks, points) logits, smoothed by 1 above and below (release): sum over masks. Points
    count as much as they are valid (0 to 1).
    """
    probabilities = logits.sigmoid()
    if validity is not None:
        probabilities, targets = probabilities * validity, targets * validity
    overlap = (probabilities * targets).sum(dim=1)
    return (1 - (2 * overlap + 1) / (probabilities.sum(dim=1) + targets.sum(dim=1) + 1)).sum()


def pairwise_mask_cost(
    logits: torch.Tensor, targets: torch.Tensor, validity: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Compute the mean cross-entropy of every (..., queries, points) prediction with every (..., masks, points) target,
    over the valid points of a (..., 1, points) validity.
    """
    if validity is None:
        validity = torch.ones_like(targets[..., :1, :])
    targets = targets * validity
    costs = F.softplus(-logits) @ targets.mT + F.softplus(logits) @ (validity - targets).mT
    return costs / validity.sum(dim=-1, keepdim=True).clamp(min=1)


def pairwise_dice_cost(
    logits: torch.Tensor, targets: torch.Tensor, validity: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Compute the Dice loss of every (..., queries, points) prediction with every (..., masks, points) target, over the
    valid points of a (..., 1, points) validity.
    """
    probabilities = logits.sigmoid()
    if validity is not None:
        probabilities, targets = probabilities * validity, targets * validity
    overlap = probabilities @ targets.mT
    areas = probabilities.sum(dim=-1)[..., :, None] + targets.sum(dim=-1)[..., None, :]
    return 1 - (2 * overlap + 1) / (areas + 1)


def mean_over_processes(value: torch.Tensor) -> torch.Tensor:
    """Average a scalar over all training processes, so that as normalizer it gives the loss of the complete batch."""
    if dist.is_available() and dist.is_initialized():
        value = value.clone()
        dist.all_reduce(value)
        value = value / dist.get_world_size()
    return value


def semantic_targets(
    labels: torch.Tensor, num_labels: int, ignore_index: int = 255
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """
    Build a binary mask for each class present in each label map.

    Args:
        labels (`torch.Tensor` of shape `(batch_size, height, width)`): Class of each pixel.
        num_labels (`int`): Number of classes.
        ignore_index (`int`, *optional*, defaults to 255): Label of pixels without a class.

    Returns:
        `tuple`: for each image its classes, an int64 `torch.Tensor` of shape `(num_masks,)`, and its masks, a float32
        `torch.Tensor` of shape `(num_masks, height, width)`.

    Raises:
        ValueError: If a label is neither a class nor `ignore_index`.
    """
    classes, masks = [], []
    for label_map in labels:
        present = label_map.unique()
        present = present[present != ignore_index]
        invalid = present[(present < 0) | (present >= num_labels)]
        if invalid.numel():
            raise ValueError(
                f"`labels` contains values outside the classes: {invalid.tolist()}. The model has {num_labels} "
                f"classes, so labels must be 0 to {num_labels - 1}, or {ignore_index} for ignored pixels."
            )
        classes.append(present.long())
        masks.append((label_map == present[:, None, None]).float())
    return classes, masks


class MaSSFormerLoss(nn.Module):
    """
    Loss of MaSSFormer (Eq. 6): matches queries to the classes of each image and sums, for every step of the decoder,
    the classification loss and the edge-emphasized cross-entropy (edge-suppressed for classes with pseudo-labels,
    Eq. 7) and Dice loss of the masks at sampled points; the edge loss is added once. Computed in float32.

    Masks are never computed for all queries: the matcher samples the features at its points only, and the points of
    the losses are chosen on the masks of matched queries.
    """

    def __init__(self, config: MaSSFormerConfig):
        super().__init__()
        self.config = config
        self.num_labels = len(config.id2label or ())

    @torch.no_grad()
    def match(
        self,
        class_logits: torch.Tensor,
        mask_embeddings: torch.Tensor,
        mask_features: torch.Tensor,
        classes: list[torch.Tensor],
        masks: torch.Tensor,
        ignored: torch.Tensor | None = None,
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """
        Match the queries of each image to its masks, which are padded to one number per image: the assignment with the
        lowest cost, or with fixed matching the query whose index is the class. Returns the indices of the queries and
        of their masks.
        """
        # CODEPATH: training choice; no checkpoint depends on it.
        if self.config.matching == "fixed":
            return [(present, torch.arange(len(present), device=present.device)) for present in classes]
        points = torch.rand(len(masks), self.config.train_num_points, 2, device=masks.device)
        logits = mask_embeddings @ sample_points(mask_features, points)
        targets, validity = sample_points(masks, points), None
        if ignored is not None:
            validity = validity_at(ignored, points)[:, None]
        # The same for every query.
        present = pad_sequence(classes, batch_first=True)[:, None].expand(-1, logits.shape[1], -1)
        cost = (
            self.config.class_weight * -class_logits.softmax(dim=-1).gather(2, present)
            + self.config.mask_weight * pairwise_mask_cost(logits, targets, validity)
            + self.config.dice_weight * pairwise_dice_cost(logits, targets, validity)
        )
        # Diverged predictions are matched last instead of stopping the training here.
        worst = torch.finfo(cost.dtype).max
        cost = torch.nan_to_num(cost, nan=worst, posinf=worst, neginf=worst)
        pairs = [linear_sum_assignment(each[:, : len(c)]) for each, c in zip(cost.cpu(), classes, strict=True)]
        device = masks.device
        return [(torch.as_tensor(q, device=device), torch.as_tensor(m, device=device)) for q, m in pairs]

    def edge_emphases(self, classes: torch.Tensor, has_coarse_edges: torch.Tensor | None = None) -> torch.Tensor:
        """
        Return the factor of W for the mask of each class: emphasis, or suppression for pseudo-labels (Eq. 7) and for
        all classes of an image with coarse edges.
        """
        factors = torch.full((self.num_labels,), float(self.config.lambda_1), device=classes.device)
        factors[list(self.config.pseudo_label_classes)] = -float(self.config.lambda_2)
        if has_coarse_edges is not None:
            factors = factors.masked_fill(has_coarse_edges, -float(self.config.lambda_2))
        return factors[classes]

    def class_loss(
        self,
        class_logits: torch.Tensor,
        matches: list[tuple[torch.Tensor, torch.Tensor]],
        classes: list[torch.Tensor],
        annotated_classes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Compute the cross-entropy of all queries. Unmatched ones are compared with "no object", or with the sum of its
        probability and those of the classes that the image's labels leave out.
        """
        targets = torch.full(class_logits.shape[:2], self.num_labels, dtype=torch.int64, device=class_logits.device)
        for image_targets, (queries, matched), image_classes in zip(targets, matches, classes, strict=True):
            image_targets[queries] = image_classes[matched]
        weights = class_logits.new_ones(self.num_labels + 1)
        weights[-1] = self.config.no_object_weight
        # CODEPATH: training choice; no checkpoint depends on it.
        if annotated_classes is not None:
            merged = torch.cat((~annotated_classes, annotated_classes.new_ones(len(targets), 1)), dim=1)[:, None]
            no_object = class_logits.masked_fill(~merged, -torch.inf).logsumexp(dim=-1, keepdim=True)
            others = torch.cat((class_logits[..., :-1].masked_fill(merged[..., :-1], -torch.inf), no_object), dim=-1)
            is_unmatched = (targets == self.num_labels)[..., None]
            class_logits = torch.where(is_unmatched, others, class_logits)
        losses = F.cross_entropy(class_logits.flatten(0, 1), targets.flatten(), weight=weights, reduction="sum")
        normalizer = mean_over_processes(weights[targets].sum())
        return losses / normalizer.clamp(min=torch.finfo(normalizer.dtype).tiny)

    def piloted_class_loss(self, class_logits: torch.Tensor, classes: list[torch.Tensor]) -> torch.Tensor:
        """Compute the cross-entropy of the piloted queries, one for each class of an image; padding is left out."""
        logits = torch.cat([x[: len(present)] for x, present in zip(class_logits, classes, strict=True)])
        each = torch.arange(len(logits), device=logits.device)
        return self.class_loss(logits[None], [(each, each)], [torch.cat(classes)])

    def mask_losses(
        self,
        mask_embeddings: torch.Tensor,
        mask_features: torch.Tensor,
        matches: list[tuple[torch.Tensor, torch.Tensor]],
        masks: list[torch.Tensor],
        weights: list[torch.Tensor],
        emphases: list[torch.Tensor],
        num_masks: torch.Tensor,
        ignored: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the edge-weighted cross-entropy and the Dice loss of the matched masks."""
        logits = torch.cat(
            [
                (embeddings[queries] @ features.flatten(1)).unflatten(1, features.shape[1:])
                for embeddings, features, (queries, _) in zip(mask_embeddings, mask_features, matches, strict=True)
            ]
        )
        if not logits.shape[0]:
            # Every parameter still needs a gradient, which data-parallel training waits for.
            nothing = 0 * (mask_embeddings.sum() + mask_features.sum())
            return nothing, nothing
        targets, target_weights, target_emphases = (
            torch.cat([image_values[matched] for image_values, (_, matched) in zip(values, matches, strict=True)])
            for values in (masks, weights, emphases)
        )
        if ignored is not None:
            counts = torch.tensor([len(queries) for queries, _ in matches], device=ignored.device)
            ignored = ignored.repeat_interleave(counts, dim=0)
        with torch.no_grad():
            points = select_points(
                logits,
                target_weights,
                self.config.train_num_points,
                self.config.oversample_ratio,
                self.config.importance_sample_ratio,
                ignored,
            )
            point_targets = sample_points(targets[:, None], points)[:, 0]
            edges = sample_points(target_weights[:, None], points)[:, 0]
            point_weights = (1 + target_emphases[:, None] * edges).clamp(min=0)
            validity = None
            if ignored is not None:
                validity = validity_at(ignored, points)
                # Between a class and ignored pixels, the class decides.
                point_targets = (point_targets / validity.clamp(min=1e-6)).clamp(max=1)
                point_weights = point_weights * validity / validity.mean(dim=1, keepdim=True).clamp(min=1e-6)
        point_logits = sample_points(logits[:, None], points)[:, 0]
        mask_loss = weighted_mask_loss(point_logits, point_targets, point_weights)
        return mask_loss / num_masks, dice_loss(point_logits, point_targets, validity) / num_masks

    def edge_loss(
        self, edge_logits: torch.Tensor, labels: torch.Tensor, coarse_edges: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Compute the cross-entropy of the edges with the edge map of the labels, at their size. Pixels without a class
        count as no edge (release), unless `coarse_edges` is given: then they and the images with coarse edges are left
        out.
        """
        logits = F.interpolate(edge_logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        edges = semantic_edges(labels, self.config.edge_width, self.config.ignore_index)
        if coarse_edges is None:
            return F.binary_cross_entropy_with_logits(logits, edges)
        is_counted = ((labels != self.config.ignore_index) & ~coarse_edges[:, None, None]).float()
        losses = F.binary_cross_entropy_with_logits(logits, edges, weight=is_counted, reduction="sum")
        return losses / mean_over_processes(is_counted.sum()).clamp(min=1)

    def pixel_loss(self, pixel_logits: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """
        Sum the cross-entropies of several maps of logits per pixel over the pixels with a class, every second one in
        each direction.
        """
        labels = labels[:, ::2, ::2]
        losses = [
            F.cross_entropy(
                F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False),
                labels,
                ignore_index=self.config.ignore_index,
                reduction="sum",
            )
            for logits in pixel_logits
        ]
        num_pixels = mean_over_processes((labels != self.config.ignore_index).sum().float())
        return torch.stack(losses).sum() / num_pixels.clamp(min=1)

    # Nothing to compile: the number of masks varies with the classes of a batch, and matching runs on the CPU.
    @torch.compiler.disable
    def forward(
        self,
        class_queries_logits: Sequence[torch.Tensor],
        mask_embeddings: Sequence[torch.Tensor],
        mask_features: torch.Tensor,
        edge_logits: torch.Tensor,
        labels: torch.Tensor,
        semantic_maps: Sequence[torch.Tensor] | None = None,
        pixel_logits: Sequence[torch.Tensor] = (),
        coarse_edges: torch.Tensor | None = None,
        annotated_classes: torch.Tensor | None = None,
        piloted_class_logits: Sequence[torch.Tensor] = (),
        piloted_mask_embeddings: Sequence[torch.Tensor] = (),
    ) -> dict[str, torch.Tensor]:
        """
        Compute the loss of a batch.

        Args:
            class_queries_logits (sequence of `torch.Tensor` of shape `(batch_size, num_queries, num_labels + 1)`):
                Class logits of each step; the last is the final one.
            mask_embeddings (sequence of `torch.Tensor` of shape `(batch_size, num_queries, hidden_size)`):
                Mask embeddings of each step.
            mask_features (`torch.Tensor` of shape `(batch_size, hidden_size, height / 2, width / 2)`):
                Features of the final masks; masks of earlier steps are computed at half this resolution (release).
            edge_logits (`torch.Tensor` of shape `(batch_size, 1, height / 2, width / 2)`): Edge logits.
            labels (`torch.Tensor` of shape `(batch_size, height, width)`): Class of each pixel.
            semantic_maps (sequence of `torch.Tensor`, *optional*):
                The semantic maps of a SeMask backbone, of shape `(batch_size, num_labels, height / s, width / s)`.
            pixel_logits (sequence of `torch.Tensor`, *optional*):
                Auxiliary class logits per pixel, of shape `(batch_size, num_labels, height / s, width / s)`.
            coarse_edges (`torch.Tensor` of shape `(batch_size,)`, *optional*):
                Booleans: images with unreliable edges, which are suppressed.
            annotated_classes (`torch.Tensor` of shape `(batch_size, num_labels)`, *optional*):
                Booleans: classes labelled wherever they occur in an image. Default: all.
            piloted_class_logits (sequence of `torch.Tensor`, *optional*):
                Class logits of the piloted queries, one for each class of an image in ascending order, then padding.
            piloted_mask_embeddings (sequence of `torch.Tensor`, *optional*):
                Their mask embeddings.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, the sum of the other entries, which are weighted already:
            `loss_cross_entropy`, `loss_mask`, `loss_dice` of the final step, the same with suffix `_0`, `_1` ... for
            earlier steps, `loss_edge`, `loss_pixel` with pixel logits, and `loss_semantic` with semantic maps. Piloted
            queries add `loss_cross_entropy_piloted`, `loss_mask_piloted`, `loss_dice_piloted`, and the same with `_0`,
            `_1` ...

        Raises:
            ValueError: If `labels` does not have the image's size or contains values outside the classes.
        """
        batch_size, _, height, width = mask_features.shape
        self.check_labels(labels, batch_size, 2 * height, 2 * width)
        with torch.autocast(device_type=labels.device.type, enabled=False):
            labels = labels.long()
            classes, masks = semantic_targets(labels, self.num_labels, self.config.ignore_index)
            weights = [boundary_weights(image_masks, self.config.edge_emphasis_kernel_size) for image_masks in masks]
            coarse = [None] * len(classes) if coarse_edges is None else coarse_edges
            emphases = [self.edge_emphases(c, is_coarse) for c, is_coarse in zip(classes, coarse, strict=True)]
            padded_masks = pad_sequence(masks, batch_first=True)
            is_ignored = labels == self.config.ignore_index
            ignored = is_ignored.float() if is_ignored.any() else None
            num_masks = torch.full((), float(sum(len(c) for c in classes)), device=labels.device)
            num_masks = mean_over_processes(num_masks).clamp(min=1)

            features = mask_features.float()
            coarse_features = F.interpolate(features, size=(height // 2, width // 2), mode="bilinear")
            final_step = len(class_queries_logits) - 1
            losses = {}

            def add_losses(
                suffix: str,
                class_loss: torch.Tensor,
                embeddings: torch.Tensor,
                step_features: torch.Tensor,
                matches: list[tuple[torch.Tensor, torch.Tensor]],
            ):
                mask_loss, mask_dice_loss = self.mask_losses(
                    embeddings, step_features, matches, masks, weights, emphases, num_masks, ignored
                )
                losses[f"loss_cross_entropy{suffix}"] = self.config.class_weight * class_loss
                losses[f"loss_mask{suffix}"] = self.config.mask_weight * mask_loss
                losses[f"loss_dice{suffix}"] = self.config.dice_weight * mask_dice_loss

            for step, (class_logits, embeddings) in enumerate(zip(class_queries_logits, mask_embeddings, strict=True)):
                # CODEPATH: training choice; no checkpoint depends on it.
                if step < final_step and not self.config.use_auxiliary_loss:
                    continue
                suffix = "" if step == final_step else f"_{step}"
                step_features = features if step == final_step else coarse_features
                class_logits, embeddings = class_logits.float(), embeddings.float()
                matches = self.match(class_logits, embeddings, step_features, classes, padded_masks, ignored)
                class_loss = self.class_loss(class_logits, matches, classes, annotated_classes)
                add_losses(suffix, class_loss, embeddings, step_features, matches)
                if piloted_class_logits:
                    class_loss = self.piloted_class_loss(piloted_class_logits[step].float(), classes)
                    embeddings = piloted_mask_embeddings[step].float()
                    indices = [torch.arange(len(c), device=labels.device) for c in classes]
                    known = [(each, each) for each in indices]
                    add_losses(f"_piloted{suffix}", class_loss, embeddings, step_features, known)
            losses["loss_edge"] = self.config.edge_weight * self.edge_loss(edge_logits.float(), labels, coarse_edges)
            if pixel_logits:
                losses["loss_pixel"] = self.config.pixel_loss_weight * self.pixel_loss(pixel_logits, labels)
            if semantic_maps is not None:
                semantic_loss = semantic_prior_loss(semantic_maps, labels, self.config.ignore_index)
                losses["loss_semantic"] = self.config.semantic_loss_weight * semantic_loss
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def check_labels(self, labels: torch.Tensor, batch_size: int, height: int, width: int):
        expected = (batch_size, height, width)
        if labels.is_floating_point() or tuple(labels.shape) != expected:
            raise ValueError(
                f"`labels` must be integers of shape {expected}, one class index per pixel of `pixel_values`, got "
                f"{labels.dtype} of shape {tuple(labels.shape)}. Pass masks as `segmentation_maps` to the image "
                "processor together with the images, so that both are resized and padded in the same way."
            )


__all__ = ["MaSSFormerLoss", "boundary_weights", "select_points", "semantic_edges", "semantic_targets"]
