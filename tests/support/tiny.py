"""Small models and inputs for tests."""

import torch
from transformers import PreTrainedModel

from transformers_massformer import (
    MaSSFormerConfig,
    MaSSFormerForSemanticSegmentation,
    PerPixelBaselineConfig,
    PerPixelBaselineForSemanticSegmentation,
    SeMaskConfig,
    SeMaskForSemanticSegmentation,
)


STAGES = ["stage1", "stage2", "stage3", "stage4"]
TINY_RESNET = {
    "model_type": "resnet",
    "layer_type": "basic",
    "embedding_size": 8,
    "hidden_sizes": [8, 12, 16, 20],
    "depths": [1, 1, 1, 1],
    "out_features": STAGES,
}
TINY_SWIN = {
    "model_type": "swin",
    "embed_dim": 8,
    "depths": [1, 1, 2, 1],
    "num_heads": [1, 2, 2, 2],
    "window_size": 4,
    "out_features": STAGES,
}
TINY_SEMASK = {**TINY_SWIN, "model_type": "semask_swin"}
TINY_TIMM = {"model_type": "timm_backbone", "backbone": "test_resnet", "out_indices": [1, 2, 3, 4]}
TINY_FIELDS = {
    "backbone_config": TINY_RESNET,
    "pixel_decoder_hidden_size": 16,
    "cross_semantic_num_attention_heads": 2,
    "cross_semantic_intermediate_size": 24,
    "window_size": 4,
    "num_queries": 9,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "train_num_points": 64,
}


def tiny_config(**overrides) -> MaSSFormerConfig:
    return MaSSFormerConfig(**{**TINY_FIELDS, **overrides})


def settled(model: PreTrainedModel) -> PreTrainedModel:
    """Give a model in eval mode offsets, batch statistics and semantic layers that influence its outputs."""
    for name, parameter in model.named_parameters():
        if ".offset." in name:
            torch.nn.init.normal_(parameter, std=0.3)
        if "semantic_layer." in name and parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.5)
        if name.endswith("gamma"):
            torch.nn.init.uniform_(parameter, 0.4, 0.8)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(buffer, std=0.2)
        if name.endswith("running_var"):
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return model.eval()


def tiny_model(**overrides) -> MaSSFormerForSemanticSegmentation:
    return settled(MaSSFormerForSemanticSegmentation(tiny_config(**overrides)))


def tiny_baseline(use_transformer_decoder: bool, **overrides) -> PerPixelBaselineForSemanticSegmentation:
    fields = {**tiny_config().to_dict(), "num_queries": None, **overrides}
    fields.pop("model_type")
    config = PerPixelBaselineConfig(**fields, use_transformer_decoder=use_transformer_decoder)
    return settled(PerPixelBaselineForSemanticSegmentation(config))


def tiny_semask(backbone: dict | None = None, **overrides) -> SeMaskForSemanticSegmentation:
    fields = {"backbone_config": {**TINY_SEMASK, **(backbone or {})}, "hidden_size": 16}
    return settled(SeMaskForSemanticSegmentation(SeMaskConfig(**{**fields, **overrides})))


def enable_checkpointing(model: PreTrainedModel):
    """Recompute activations instead of keeping them; transformers 5.20 only knows the older name."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()


def block_labels(batch_size: int, height: int, width: int, num_labels: int = 7, block: int = 8) -> torch.Tensor:
    """Return label maps of square blocks, some of them ignored."""
    values = torch.randint(0, num_labels + 1, (batch_size, -(-height // block), -(-width // block)))
    values[values == num_labels] = 255
    return values.repeat_interleave(block, 1).repeat_interleave(block, 2)[:, :height, :width].contiguous()


def random_predictions(
    config: MaSSFormerConfig, batch_size: int, height: int, width: int, scale: float = 1.0
) -> tuple:
    """Draw what the loss takes for images of a size: class logits and mask embeddings, mask features, edge logits."""
    steps = config.num_hidden_layers + 1
    return (
        [scale * torch.randn(batch_size, config.num_queries, config.num_labels + 1) for _ in range(steps)],
        [scale * torch.randn(batch_size, config.num_queries, config.hidden_size) for _ in range(steps)],
        torch.randn(batch_size, config.hidden_size, height // 2, width // 2).abs(),
        scale * torch.randn(batch_size, 1, height // 2, width // 2),
    )


class RepeatablePoints:
    """Replacement for `torch.rand` that gives every mask the same points in every process."""

    def __call__(self, num_masks, num_points, *rest, **kwargs):
        points = torch.quasirandom.SobolEngine(2).draw(num_points)
        return points.expand(num_masks, *points.shape)
