"""Small models and inputs for tests."""

import torch
from transformers import PreTrainedModel

from transformers_massformer import (
    MaSSFormerConfig,
    MaSSFormerForSemanticSegmentation,
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


def tiny_model(**overrides) -> MaSSFormerForSemanticSegmentation:
    """Random weights, but offsets, modulation and batch statistics that matter."""
    model = MaSSFormerForSemanticSegmentation(tiny_config(**overrides)).eval()
    for name, parameter in model.named_parameters():
        if ".offset." in name:
            torch.nn.init.normal_(parameter, std=0.3)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(buffer, std=0.2)
        if name.endswith("running_var"):
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return model


def tiny_semask(backbone: dict | None = None, **overrides) -> SeMaskForSemanticSegmentation:
    """Random weights, but semantic layers that matter."""
    fields = {"backbone_config": {**TINY_SEMASK, **(backbone or {})}, "hidden_size": 16}
    model = SeMaskForSemanticSegmentation(SeMaskConfig(**{**fields, **overrides})).eval()
    for name, parameter in model.named_parameters():
        if ".semantic_layer." in name and parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.5)
        if name.endswith("gamma"):
            torch.nn.init.uniform_(parameter, 0.4, 0.8)
    return model


def enable_checkpointing(model: PreTrainedModel):
    """Activations are computed again instead of kept; transformers 5.20 only knows the older name."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()


def block_labels(batch_size: int, height: int, width: int, num_labels: int = 7, block: int = 8) -> torch.Tensor:
    """Label maps of square blocks, some of them ignored."""
    values = torch.randint(0, num_labels + 1, (batch_size, -(-height // block), -(-width // block)))
    values[values == num_labels] = 255
    return values.repeat_interleave(block, 1).repeat_interleave(block, 2)[:, :height, :width].contiguous()


class RepeatablePoints:
    """In place of `torch.rand`: the same points for every mask, whichever process it is in."""

    def __call__(self, num_masks, num_points, *rest, **kwargs):
        points = torch.quasirandom.SobolEngine(2).draw(num_points)
        return points.expand(num_masks, *points.shape)
