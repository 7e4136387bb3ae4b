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
"""SeMask model configurations: the Swin backbone with semantic layers, and the segmentation model on it"""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig, SwinConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.utils import auto_docstring

from .configuration_massformer import MASS13K_LABELS, SegmentationLabelsMixin


SEMANTIC_ATTENTIONS = ("window", "global")
STAGES = ["stage1", "stage2", "stage3", "stage4"]


@auto_docstring(checkpoint="semask-fpn-swin-t")
@strict
class SeMaskSwinConfig(SwinConfig):
    r"""
    depths (`list(int)`, *optional*, defaults to `[2, 2, 6, 2]`):
        Swin blocks of each stage.
    num_heads (`list(int)`, *optional*, defaults to `[3, 6, 12, 24]`):
        Attention heads of the Swin blocks of each stage.
    window_size (`int`, *optional*, defaults to 7):
        Side of the Swin blocks' windows, in tokens, on smaller maps too (release).
    drop_path_rate (`float`, *optional*, defaults to 0.3):
        Rate of stochastic depth, increasing linearly over the Swin blocks, for attention and MLP (release).
    encoder_stride (`int`, *optional*, defaults to 32):
        Field of Swin for masked image modeling; not used by this backbone.
    num_semantic_labels (`int`, *optional*, defaults to 7):
        Number of classes of the semantic maps; the semantic layers learn one channel for each.
    semantic_depths (`list[int]`, *optional*, defaults to `[1, 1, 1, 1]`):
        SeMask attention blocks after the Swin blocks of each stage (the paper's N_S). Must be at least 1.
    semantic_attention (`list[str]`, *optional*, defaults to `["window", "window", "window", "window"]`):
        Range of the SeMask attention in each stage: the tokens of a window (`"window"`) or of the complete image
        (`"global"`). The release's models for more than 19 classes with an embedding of 96 or 192 have
        `["window", "window", "global", "global"]`, which their checkpoints do not record.
    semantic_window_size (`int`, *optional*):
        Side of these windows, in tokens. Defaults to `window_size` (release).
    semantic_dropout_prob (`float`, *optional*, defaults to 0.1):
        Dropout of the output of SeMask attention (release).

    Example:

    ```python
    >>> from transformers_massformer import SeMaskSwinBackbone, SeMaskSwinConfig

    >>> configuration = SeMaskSwinConfig(out_features=["stage1", "stage2", "stage3", "stage4"])
    >>> backbone = SeMaskSwinBackbone(configuration)
    >>> backbone.channels
    [96, 192, 384, 768]

    ```"""

    model_type = "semask_swin"

    drop_path_rate: float | int = 0.3
    num_semantic_labels: int = len(MASS13K_LABELS)
    semantic_depths: list[int] | tuple[int, ...] = (1, 1, 1, 1)
    semantic_attention: list[str] | tuple[str, ...] = ("window", "window", "window", "window")
    semantic_window_size: int | None = None
    semantic_dropout_prob: float | int = 0.1

    def __post_init__(self, **kwargs):
        if self.semantic_window_size is None:
            self.semantic_window_size = self.window_size
        self.semantic_depths, self.semantic_attention = list(self.semantic_depths), list(self.semantic_attention)
        # The type in the configuration of a Swin checkpoint would replace this class's, by which weights are renamed.
        kwargs.pop("model_type", None)
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Part of `@strict`-powered validation: rejects combinations that cannot be built."""
        super().validate_architecture()
        for name in ("semantic_depths", "semantic_attention", "num_heads"):
            if len(getattr(self, name)) != len(self.depths):
                raise ValueError(
                    f"`{name}` must have an entry for each of the {len(self.depths)} stages in `depths`, got "
                    f"{getattr(self, name)}."
                )
        if min(self.semantic_depths) < 1:
            raise ValueError(
                f"`semantic_depths` must be at least 1 in every stage, got {self.semantic_depths}: a stage without "
                "SeMask attention has no semantic map."
            )
        unknown = sorted(set(self.semantic_attention) - set(SEMANTIC_ATTENTIONS))
        if unknown:
            raise ValueError(f"`semantic_attention` contains {unknown}; choose from {list(SEMANTIC_ATTENTIONS)}.")
        for name in ("num_semantic_labels", "semantic_window_size", "window_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")


@auto_docstring(checkpoint="semask-fpn-swin-t")
@strict
class SeMaskConfig(SegmentationLabelsMixin, PreTrainedConfig):
    r"""
    backbone_config (`dict` or `PreTrainedConfig`, *optional*, defaults to SeMask-Swin-T):
        The configuration of the encoder: a [`SeMaskSwinConfig`], or any backbone with four feature maps at strides 4,
        8, 16 and 32 for a plain Semantic-FPN. In a `dict` of SeMask-Swin, `out_features` defaults to all stages and
        `num_semantic_labels` to `num_labels`. When a checkpoint is loaded with other labels, `num_semantic_labels`
        follows if it was `num_labels`.
    hidden_size (`int`, *optional*, defaults to 256):
        Width of the Semantic-FPN head (release).
    hidden_dropout_prob (`float`, *optional*, defaults to 0.1):
        Dropout of channels before the classifier (release).
    batch_norm_eps (`float`, *optional*, defaults to 1e-05):
        Epsilon of the head's batch normalizations.
    batch_norm_momentum (`float`, *optional*, defaults to 0.1):
        Momentum of their running statistics.
    semantic_loss_weight (`float`, *optional*, defaults to 0.4):
        Weight alpha of the cross-entropy of the semantic maps (paper, Eq. 5; release). 0 disables it.
    hard_pixels_per_image (`int`, *optional*):
        Number of pixels per image of the batch, those with the highest loss, that count in the cross-entropy of the
        logits. Defaults to all. The release's SeMask-L for ADE20K and its models for COCO-Stuff use 100,000.
    ignore_index (`int`, *optional*, defaults to 255):
        Label of pixels that belong to no class.

    Example:

    ```python
    >>> from transformers_massformer import SeMaskConfig, SeMaskForSemanticSegmentation

    >>> configuration = SeMaskConfig()  # SeMask-T FPN with the seven classes of MaSS13K
    >>> model = SeMaskForSemanticSegmentation(configuration)
    >>> configuration.backbone_config.num_semantic_labels
    7

    ```"""

    model_type = "semask"
    # `Trainer` keeps all other outputs of an evaluation in memory.
    keys_to_ignore_at_inference = ["semantic_logits", "semantic_maps", "hidden_states", "attentions", "loss_dict"]
    sub_configs_defaults = {
        "backbone_config": SubConfigSpec(
            config_class=AutoConfig, model_type="semask_swin", init_kwargs={"out_features": STAGES}
        ),
    }

    backbone_config: dict | PreTrainedConfig | None = None
    hidden_size: int = 256
    hidden_dropout_prob: float | int = 0.1
    batch_norm_eps: float | int = 1e-5
    batch_norm_momentum: float | int = 0.1
    semantic_loss_weight: float | int = 0.4
    hard_pixels_per_image: int | None = None
    ignore_index: int = 255

    def __post_init__(self, **kwargs):
        fields = {"model_type": SeMaskSwinConfig.model_type} if self.backbone_config is None else self.backbone_config
        is_semantic = isinstance(fields, dict) and fields.get("model_type") == SeMaskSwinConfig.model_type
        if is_semantic and fields.get("out_features") is None and fields.get("out_indices") is None:
            fields = {**fields, "out_features": STAGES}
        self.backbone_config = fields
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Part of `@strict`-powered validation: rejects combinations that cannot be built or trained."""
        super().validate_architecture()
        out_features = getattr(self.backbone_config, "out_features", None) or ()
        if len(out_features) != len(STAGES):
            raise ValueError(
                "`backbone_config` must return four feature maps, at strides 4, 8, 16 and 32, but it returns "
                f"{list(out_features)}. Set its `out_features`, for example to {STAGES}."
            )
        if self.hidden_size < 1:
            raise ValueError(f"`hidden_size` must be at least 1, got {self.hidden_size}.")
        if self.semantic_loss_weight < 0:
            raise ValueError(f"`semantic_loss_weight` must not be negative, got {self.semantic_loss_weight}.")
        if self.hard_pixels_per_image is not None and self.hard_pixels_per_image < 1:
            raise ValueError(f"`hard_pixels_per_image` must be at least 1, got {self.hard_pixels_per_image}.")
        self._validate_ignore_index()


# Models find their backbone by its type, even if this file is loaded as remote code.
AutoConfig.register(SeMaskSwinConfig.model_type, SeMaskSwinConfig, exist_ok=True)

__all__ = ["STAGES", "SeMaskConfig", "SeMaskSwinConfig"]
