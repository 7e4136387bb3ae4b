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
"""Per-pixel baseline configuration"""

from huggingface_hub.dataclasses import strict

from .configuration_massformer import MaSSFormerConfig


# The decorator would require documentation of every field of the parent class. trf-ignore: TRF057
@strict
class PerPixelBaselineConfig(MaSSFormerConfig):
    r"""
    [`MaSSFormerConfig`] for per-pixel classification (MaskFormer, section 4). Fields of matching and of mask losses
    have no effect.

    Args:
        use_transformer_decoder (`bool`, *optional*, defaults to `False`):
            Whether MaSSFormer's transformer decoder computes the classifier of each image from a query per class
            (PerPixelBaseline+), or all images share one linear classifier (PerPixelBaseline).
        num_queries (`int`, *optional*, defaults to the number of labels):
            Number of queries. Each class has its own query; any other number is refused.

    Example:

    ```python
    >>> from transformers_massformer import PerPixelBaselineConfig, PerPixelBaselineForSemanticSegmentation

    >>> configuration = PerPixelBaselineConfig(use_transformer_decoder=True)
    >>> configuration.num_queries
    7

    ```"""

    model_type = "per_pixel_baseline"

    use_transformer_decoder: bool = False
    num_queries: int | None = None  # ty: ignore[incompatible-attribute-override]

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.num_queries is None:
            self.num_queries = self.num_labels

    def validate_architecture(self):
        """Part of `@strict`-powered validation: rejects combinations that cannot be built."""
        if self.num_queries is None:
            self.num_queries = self.num_labels
        super().validate_architecture()
        if self.context_size is not None:
            raise ValueError(
                f"Per-pixel baselines have one pass; set `context_size` to `None`, got {self.context_size}."
            )

    def _has_query_per_label(self) -> bool:
        return True


__all__ = ["PerPixelBaselineConfig"]
