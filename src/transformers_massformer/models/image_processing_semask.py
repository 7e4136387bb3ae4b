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
"""Image processor class for SeMask"""

from transformers.utils import auto_docstring

from .image_processing_massformer import MaSSFormerImageProcessor


@auto_docstring
class SeMaskImageProcessor(MaSSFormerImageProcessor):
    """
    Image processor for SeMask, which prepares complete photographs and reads the logits at their own size. Images are
    neither resized nor padded: the model takes any size, and its logits are resized straight to the image's (release).
    """

    do_pad = False


__all__ = ["SeMaskImageProcessor"]
