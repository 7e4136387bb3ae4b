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
"""MaSSFormer model configuration"""

from dataclasses import fields
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.utils import auto_docstring

from .arguments import UnknownArgumentError, close_names


# The class order of MaSS13K: "others" is a real class, not a background to be ignored.
MASS13K_LABELS = ("others", "human", "building", "vegetation", "ground", "sky", "water")
# Ways to match queries and classes in training.
MATCHINGS = ("bipartite", "fixed")
# Ways to initialize the pixel decoder of a new model.
INITIALIZATIONS = ("release", "identity")


def with_semantic_labels(backbone_config: Any, num_labels: int) -> Any:
    """Add `num_semantic_labels` to the dict of a SeMask-Swin backbone that lacks it; return others unchanged."""
    is_semantic = isinstance(backbone_config, dict) and backbone_config.get("model_type") == "semask_swin"
    if is_semantic and "num_semantic_labels" not in backbone_config:
        return {**backbone_config, "num_semantic_labels": num_labels}
    return backbone_config


class SegmentationLabelsMixin:
    """Default class names of MaSS13K, and fields that follow when the labels of a configuration are replaced."""

    def __post_init__(self, **kwargs):
        config: Any = self
        # Checkpoints may have fields of their own, which the library keeps, but not misspelled ones of this class.
        known = {field.name for field in fields(config)} | {"num_labels"}
        for name in kwargs.keys() - known:
            if not hasattr(config, name) and close_names(name, known):
                raise UnknownArgumentError(
                    f"{type(self).__name__} has no field {name}; did you mean {close_names(name, known)[0]}?"
                )
        if config.id2label is None and kwargs.get("num_labels") is None:
            config.id2label = dict(enumerate(MASS13K_LABELS))
            config.label2id = {label: index for index, label in config.id2label.items()}
        num_labels = len(config.id2label or ()) or kwargs["num_labels"]
        config.backbone_config = with_semantic_labels(config.backbone_config, num_labels)
        super().__post_init__(**kwargs)  # ty: ignore[missing-attribute]

    def __setattr__(self, key: str, value: Any):
        labels_before = self.__dict__.get("id2label")
        super().__setattr__(key, value)
        # Loading with other `num_labels` or `id2label` replaces the labels of a finished configuration.
        if key == "id2label" and labels_before and value and len(labels_before) != len(value):
            self._follow_labels(len(labels_before), len(value))

    def _follow_labels(self, num_labels_before: int, num_labels: int):
        """Update the fields that held the former number of labels because they have to match it."""
        backbone_config: Any = self.__dict__.get("backbone_config")
        if getattr(backbone_config, "num_semantic_labels", None) == num_labels_before:
            backbone_config.num_semantic_labels = num_labels

    def to_diff_dict(self) -> dict:
        config: Any = self
        # The library leaves out two unnamed labels, which are its own default but not the default here.
        difference = super().to_diff_dict()  # ty: ignore[missing-attribute]
        return difference | {"id2label": config.id2label, "label2id": config.label2id}

    def _validate_ignore_index(self):
        config: Any = self
        num_labels = config.num_labels or 0
        if 0 <= config.ignore_index < num_labels:
            raise ValueError(
                f"`ignore_index` ({config.ignore_index}) is also the index of a class; choose a value outside "
                f"[0, {num_labels - 1}], such as 255."
            )


@auto_docstring(checkpoint="massformer-r50")
@strict
class MaSSFormerConfig(SegmentationLabelsMixin, PreTrainedConfig):
    r"""
    backbone_config (`dict` or `PreTrainedConfig`, *optional*, defaults to a ResNet-50):
        The configuration of the pixel encoder: a `transformers` or timm backbone that returns four feature maps at
        strides 4, 8, 16 and 32, such as ResNet, Swin, ConvNeXt or
        `{"model_type": "timm_backbone", "backbone": "resnet50", "out_indices": [1, 2, 3, 4]}`. Plain vision
        transformers (ViT, DINOv2, DINOv3-ViT) have a single stride and are refused.
    pixel_decoder_hidden_size (`int`, *optional*, defaults to 128):
        Width of the pixel decoder (release: 128; 64 for MaSSFormer-Lite).
    squeeze_reduction (`int`, *optional*, defaults to 2):
        Factor by which squeeze-and-excitation blocks reduce `pixel_decoder_hidden_size` (release).
    window_size (`int`, *optional*, defaults to 16):
        Side of the attention windows of the cross-semantic transmission, in positions of the stride-16 map (release).
    cross_semantic_num_attention_heads (`int`, *optional*, defaults to 8):
        Attention heads of the cross-semantic transmission (release).
    cross_semantic_intermediate_size (`int`, *optional*, defaults to 1024):
        Feed-forward width of the cross-semantic transmission (release).
    deform_kernel_size (`int`, *optional*, defaults to 3):
        Kernel size of the deformable convolutions outside the receptive field broadening (release). Must be odd.
    receptive_field_kernel_sizes (`list[int]`, *optional*, defaults to `[1, 3, 5, 7]`):
        Kernel sizes of the parallel deformable convolutions of the receptive field broadening (paper, section 4.2).
        Must be odd; `pixel_decoder_hidden_size` is divided equally among them.
    spatial_attention_kernel_size (`int`, *optional*, defaults to 7):
        Kernel size of the spatial attention of the low-level structure extraction (release). Must be odd.
    edge_hidden_size (`int`, *optional*, defaults to 16):
        Width of the edge head (release).
    fusion_reduction (`int`, *optional*, defaults to 2):
        Factor by which the edge-guided fusion reduces `pixel_decoder_hidden_size` before its deformable convolution
        (release).
    deform_conv_engine (`str`, *optional*):
        Implementation of the deformable convolutions: `"torchvision"`, `"grid_sample"` (plain operators), `"banded"`
        (bands of rows) or `"triton"`, equal up to rounding. Defaults to bands on the CPU, Triton on CUDA
        if it is installed, and torchvision elsewhere and in exported programs. The environment variable
        `MASSFORMER_DEFORM_CONV_ENGINE` takes precedence.
    initialization (`str`, *optional*, defaults to `"release"`):
        How the learned upsampling and the deformable convolutions of a new model start: as in the release
        (`"release"`), or close to the identity (`"identity"`): bilinear interpolation of each channel, channels passed
        through the central tap, modulation near 1.
    detail_residual (`bool`, *optional*, defaults to `False`):
        Whether the edge-guided fusion also adds the details to its output, with the scale of its last normalization
        starting at 0. In the release's graph details only gate the body, by factors between 0.5 and 1.
    cross_semantic_residual (`bool`, *optional*, defaults to `False`):
        Whether paths of plain bilinear upsampling run beside the deformable convolutions and the learned upsampling of
        the cross-semantic transmission.
    receptive_field_residual (`bool`, *optional*, defaults to `False`):
        Whether plain paths run beside the deformable convolutions and the upsampling of the receptive field
        broadening.
    pooled_batch_norm (`bool`, *optional*, defaults to `True`):
        Whether maps pooled to one pixel, in squeeze-and-excitation and in the context of the cross-semantic
        transmission, are batch-normalized (release). With few crops per step, their statistics are mostly noise.
    context_size (`int`, *optional*):
        Outside training, images with a longer side are segmented a second time, reduced to this longest side (both
        rounded to multiples of 32, at least 64). A model trained on small crops does not recognise what fills
        thousands of pixels; the second pass shows it the complete image. The scores of both passes are joined, and the
        model returns one query per class, for images of any size. Must be a multiple of 32. By default images are
        segmented once, as in the release.
    context_weight (`float`, *optional*, defaults to 2.0):
        Exponent of the reduced pass's scores, by which those of the pass at full size are multiplied.
    context_reach (`int`, *optional*, defaults to 8):
        Positions of the reduced pass's masks by which its classes are widened, so that the pass at full size decides
        near the edges between classes.
    num_queries (`int`, *optional*, defaults to 100):
        Number of object queries. Must be at least `num_labels`; with `matching="fixed"` it equals `num_labels` and
        follows when a checkpoint is loaded with other labels.
    hidden_size (`int`, *optional*, defaults to 256):
        Width of the transformer decoder, its memories and the mask features. Must be a multiple of 4.
    num_hidden_layers (`int`, *optional*, defaults to 6):
        Layers of the transformer decoder (release; Mask2Former has 9).
    num_attention_heads (`int`, *optional*, defaults to 8):
        Attention heads of the transformer decoder.
    intermediate_size (`int`, *optional*, defaults to 2048):
        Feed-forward width of the transformer decoder.
    hidden_act (`str`, *optional*, defaults to `"gelu"`):
        Activation of the transformer decoder's feed-forward layers (release).
    batch_norm_eps (`float`, *optional*, defaults to 1e-05):
        Epsilon of the batch normalizations of the pixel decoder.
    batch_norm_momentum (`float`, *optional*, defaults to 0.1):
        Momentum of their running statistics.
    class_weight (`float`, *optional*, defaults to 2.0):
        Weight of the classification term in the loss and in the matching cost (release).
    mask_weight (`float`, *optional*, defaults to 5.0):
        Weight of the edge-emphasized cross-entropy of the masks in both (release).
    dice_weight (`float`, *optional*, defaults to 5.0):
        Weight of the Dice term in both (release).
    edge_weight (`float`, *optional*, defaults to 10.0):
        Weight of the edge detection term (release). 0 leaves the edge head untrained.
    semantic_loss_weight (`float`, *optional*, defaults to 0.4):
        Weight of the cross-entropy of the semantic maps of a backbone with semantic layers (SeMask, Eq. 5). No effect
        with other backbones.
    pixel_loss_weight (`float`, *optional*, defaults to 0.0):
        Weight of an auxiliary cross-entropy per pixel, the sum over the memories and the mask features, each with a
        linear classifier that inference does not use. 0 builds no classifiers, as in the release.
    no_object_weight (`float`, *optional*, defaults to 0.1):
        Weight of the "no object" class in the classification term.
    matching (`str`, *optional*, defaults to `"bipartite"`):
        How queries are matched to the classes of an image: with the lowest total cost (`"bipartite"`), or each class
        with the query of the same index (`"fixed"`; MaskFormer, section 3.2), which needs one query per label.
    mask_piloted (`bool`, *optional*, defaults to `False`):
        Whether training also decodes one query for each class of an image, made from an embedding of the class, which
        reads the memories within the class's true mask in every layer and needs no matching (MP-Former,
        arXiv:2303.07336). Other queries do not see them and inference does not use them; hidden states and attentions
        requested in training include them, last.
    lambda_1 (`float`, *optional*, defaults to 5.0):
        Edge emphasis: a point of the mask loss is weighted by `1 + lambda_1 * W` (section 4.2, Eq. 7; value: release).
    lambda_2 (`float`, *optional*, defaults to 1.0):
        Edge suppression: for masks of `pseudo_label_classes` the weight is `1 - lambda_2 * W` (Eq. 7; the paper gives
        no value). W is below 1, so weights are positive up to a value of 1; above, negative weights become 0.
    pseudo_label_classes (`list[int]`, *optional*, defaults to `()`):
        Classes with unreliable edges: those with pseudo-labels, and "others", from which they are cut out (Eq. 7: 0
        and 7).
    edge_emphasis_kernel_size (`int`, *optional*, defaults to 5):
        Side k of the averaging filter in `W = |G - avg(G, k)|` (section 4.2; value: release). Must be odd.
    edge_width (`int`, *optional*, defaults to 2):
        Width in pixels of the edges between classes that the edge head learns (release).
    train_num_points (`int`, *optional*, defaults to 12544):
        Points per mask at which masks are matched and compared.
    oversample_ratio (`float`, *optional*, defaults to 3.0):
        Candidates drawn per kept point in importance sampling. Must be at least 1.
    importance_sample_ratio (`float`, *optional*, defaults to 0.75):
        Share of the points chosen by importance, between 0 and 1; the rest is uniform.
    use_auxiliary_loss (`bool`, *optional*, defaults to `True`):
        Whether to also supervise the predictions before and between the decoder layers.
    ignore_index (`int`, *optional*, defaults to 255):
        Label of pixels that belong to no class.

    Example:

    ```python
    >>> from transformers_massformer import MaSSFormerConfig, MaSSFormerForSemanticSegmentation

    >>> configuration = MaSSFormerConfig()  # MaSSFormer-R50 with the seven classes of MaSS13K
    >>> configuration.num_labels
    7
    >>> model = MaSSFormerForSemanticSegmentation(configuration)
    >>> model.num_parameters()
    37578176

    ```"""

    model_type = "massformer"
    # `Trainer` keeps all other outputs of an evaluation in memory.
    keys_to_ignore_at_inference = [
        "edge_logits",
        "auxiliary_logits",
        "semantic_maps",
        "hidden_states",
        "attentions",
        "loss_dict",
    ]
    sub_configs_defaults = {
        "backbone_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="resnet",
            init_kwargs={"out_features": ["stage1", "stage2", "stage3", "stage4"]},
        ),
    }

    backbone_config: dict | PreTrainedConfig | None = None
    pixel_decoder_hidden_size: int = 128
    squeeze_reduction: int = 2
    window_size: int = 16
    cross_semantic_num_attention_heads: int = 8
    cross_semantic_intermediate_size: int = 1024
    deform_kernel_size: int = 3
    receptive_field_kernel_sizes: list[int] | tuple[int, ...] = (1, 3, 5, 7)
    spatial_attention_kernel_size: int = 7
    edge_hidden_size: int = 16
    fusion_reduction: int = 2
    deform_conv_engine: str | None = None
    initialization: str = "release"
    detail_residual: bool = False
    cross_semantic_residual: bool = False
    receptive_field_residual: bool = False
    pooled_batch_norm: bool = True
    context_size: int | None = None
    context_weight: float | int = 2.0
    context_reach: int = 8
    num_queries: int = 100
    hidden_size: int = 256
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    intermediate_size: int = 2048
    hidden_act: str = "gelu"
    batch_norm_eps: float | int = 1e-5
    batch_norm_momentum: float | int = 0.1
    class_weight: float | int = 2.0
    mask_weight: float | int = 5.0
    dice_weight: float | int = 5.0
    edge_weight: float | int = 10.0
    semantic_loss_weight: float | int = 0.4
    pixel_loss_weight: float | int = 0.0
    no_object_weight: float | int = 0.1
    matching: str = "bipartite"
    mask_piloted: bool = False
    lambda_1: float | int = 5.0
    lambda_2: float | int = 1.0
    pseudo_label_classes: list[int] | tuple[int, ...] = ()
    edge_emphasis_kernel_size: int = 5
    edge_width: int = 2
    train_num_points: int = 12544
    oversample_ratio: float | int = 3.0
    importance_sample_ratio: float | int = 0.75
    use_auxiliary_loss: bool = True
    ignore_index: int = 255

    def __post_init__(self, **kwargs):
        self.receptive_field_kernel_sizes = list(self.receptive_field_kernel_sizes)
        self.pseudo_label_classes = list(self.pseudo_label_classes)
        super().__post_init__(**kwargs)

    def _follow_labels(self, num_labels_before: int, num_labels: int):
        super()._follow_labels(num_labels_before, num_labels)
        if self._has_query_per_label() and self.num_queries == num_labels_before:
            self.num_queries = num_labels

    def _has_query_per_label(self) -> bool:
        return self.matching == "fixed"

    def validate_architecture(self):
        """Part of `@strict`-powered validation: rejects combinations that cannot be built or trained."""
        super().validate_architecture()
        self._validate_ranges()
        self._validate_widths()
        self._validate_backbone()

    def _validate_ranges(self):
        for name in (
            "pixel_decoder_hidden_size",
            "squeeze_reduction",
            "window_size",
            "cross_semantic_num_attention_heads",
            "cross_semantic_intermediate_size",
            "edge_hidden_size",
            "fusion_reduction",
            "num_queries",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "edge_width",
            "train_num_points",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        for name in (
            "class_weight",
            "mask_weight",
            "dice_weight",
            "edge_weight",
            "semantic_loss_weight",
            "pixel_loss_weight",
            "no_object_weight",
            "lambda_1",
            "lambda_2",
            "context_weight",
            "context_reach",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}; 0 disables the term.")
        for name in ("deform_kernel_size", "spatial_attention_kernel_size", "edge_emphasis_kernel_size"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ValueError(f"`{name}` must be odd to keep the size of maps, got {getattr(self, name)}.")
        kernel_sizes = self.receptive_field_kernel_sizes
        if not kernel_sizes or any(k < 1 or k % 2 == 0 for k in kernel_sizes):
            raise ValueError(
                "`receptive_field_kernel_sizes` must list odd kernel sizes to keep the size of maps, got "
                f"{kernel_sizes}."
            )
        if self.context_size is not None and (self.context_size < 64 or self.context_size % 32):
            raise ValueError(
                f"`context_size` must be a multiple of 32 and at least 64, got {self.context_size}; `None` disables "
                "the second pass."
            )
        if self.context_size is not None and self.num_labels == 1:
            raise ValueError("`context_size` compares the scores of classes and needs at least two; set it to `None`.")
        if self.oversample_ratio < 1:
            raise ValueError(f"`oversample_ratio` must be at least 1, got {self.oversample_ratio}.")
        if not 0 <= self.importance_sample_ratio <= 1:
            raise ValueError(f"`importance_sample_ratio` must lie in [0, 1], got {self.importance_sample_ratio}.")

    def _validate_widths(self):
        width, num_branches = self.pixel_decoder_hidden_size, len(self.receptive_field_kernel_sizes)
        for name, value, divisor_name, divisor in (
            ("hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads),
            ("hidden_size", self.hidden_size, "4 (sine and cosine of two axes)", 4),
            ("pixel_decoder_hidden_size", width, "4 (sine and cosine of two axes)", 4),
            (
                "pixel_decoder_hidden_size",
                width,
                "cross_semantic_num_attention_heads",
                self.cross_semantic_num_attention_heads,
            ),
            ("pixel_decoder_hidden_size", width, "the number of receptive_field_kernel_sizes", num_branches),
            ("pixel_decoder_hidden_size", width, "squeeze_reduction", self.squeeze_reduction),
            ("pixel_decoder_hidden_size", width, "fusion_reduction", self.fusion_reduction),
        ):
            if value % divisor:
                raise ValueError(
                    f"`{name}` must be a multiple of {divisor_name}: {value} is not a multiple of {divisor}. "
                    f"Use {value + divisor - value % divisor}, for example."
                )
        num_labels = self.num_labels or 0
        if self.num_queries < num_labels:
            raise ValueError(
                f"`num_queries` ({self.num_queries}) must be at least the number of labels ({num_labels}), "
                "because every class of an image is matched to its own query. Increase `num_queries`."
            )
        if self.matching not in MATCHINGS:
            raise ValueError(f"`matching` must be one of {', '.join(MATCHINGS)}, got {self.matching!r}.")
        if self.initialization not in INITIALIZATIONS:
            raise ValueError(
                f"`initialization` must be one of {', '.join(INITIALIZATIONS)}, got {self.initialization!r}."
            )
        if self._has_query_per_label() and self.num_queries != num_labels:
            raise ValueError(
                f"`num_queries` must be the number of labels ({num_labels}), because each class has its own query; "
                f"got {self.num_queries}."
            )
        self._validate_ignore_index()
        unknown = [index for index in self.pseudo_label_classes if not 0 <= index < num_labels]
        if unknown:
            raise ValueError(
                f"`pseudo_label_classes` contains {unknown}, but the classes are 0 to {num_labels - 1}. Add new "
                "classes to `id2label`."
            )

    def _validate_backbone(self):
        out_features = getattr(self.backbone_config, "out_features", None)
        out_indices = getattr(self.backbone_config, "out_indices", None)
        selected = out_features if out_features is not None else out_indices
        if selected is None or len(selected) != 4:
            raise ValueError(
                "`backbone_config` must return four feature maps, at strides 4, 8, 16 and 32, but it returns "
                f"{selected}. Set its `out_features` (transformers) or `out_indices` (timm), for example "
                '`out_features=["stage1", "stage2", "stage3", "stage4"]` or `out_indices=[1, 2, 3, 4]`.'
            )


__all__ = ["MASS13K_LABELS", "MaSSFormerConfig"]
