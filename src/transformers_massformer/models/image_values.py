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
"""Checks of images given as arrays or tensors: values on another scale give other masks without an error"""

import math
import warnings

import torch


# Share of the white level by which values of resized images may exceed black and white.
OVERSHOOT = 0.5
# Values of normalized images and of images between 0 and 1 lie below this.
SCALED_MAXIMUM = 4.0


def warn_of_scale(dtype: torch.dtype, problem: str, remedy: str):
    """Warn of images on another scale; Python shows the same text once."""
    warnings.warn(
        f"Images of {str(dtype).removeprefix('torch.')} {problem}, so the masks will be wrong: {remedy}.",
        UserWarning,
        stacklevel=2,
    )


def value_range(image: torch.Tensor) -> tuple[float, float]:
    """Return the least and the greatest value; NaN if there is one."""
    # Unsigned integers of 16 bits and more have no such operation.
    least, greatest = (image if image.is_floating_point() else image.long()).aminmax()
    return least.item(), greatest.item()


def check_rescaled(image: torch.Tensor, white: float):
    """
    Check an image that is about to be rescaled, whose black is 0 and whose white is `white`.

    Raises:
        ValueError: If an image of integers has values outside this range.
    """
    # Nothing to see in the usual case, which must cost nothing.
    if image.dtype == torch.uint8 and white >= 255:
        return
    least, greatest = value_range(image)
    if not image.is_floating_point():
        if least < 0 or greatest > white:
            raise ValueError(
                f"Images of {str(image.dtype).removeprefix('torch.')} must have values from 0 to {white:g} for this "
                f"`rescale_factor`, got {least} to {greatest}. For 16 bits, pass `rescale_factor=1 / 65535`."
            )
    elif white <= SCALED_MAXIMUM:
        return
    elif least >= 0 and 0 < greatest <= 1:
        warn_of_scale(image.dtype, "range from 0 to 1 and are rescaled again", "pass `do_rescale=False`")
    elif least < 0 and greatest <= SCALED_MAXIMUM:
        warn_of_scale(
            image.dtype,
            "have small negative values, like normalized ones, and are rescaled again",
            "pass `do_rescale=False`, and `do_normalize=False` if they are normalized",
        )
    elif least < -OVERSHOOT * white or greatest > (1 + OVERSHOOT) * white:
        warn_of_scale(
            image.dtype,
            f"have values far outside 0 to {white:g}",
            "pass the `rescale_factor` that makes white 1",
        )


def check_not_rescaled(image: torch.Tensor, mean: float):
    """Check an image that is normalized without being rescaled first; `mean` is the largest of its channels' means."""
    # Means above 1 belong to values up to 255.
    if mean > 1:
        return
    if not image.is_floating_point():
        warn_of_scale(image.dtype, "are normalized without being rescaled", "leave out `do_rescale=False`")
    elif value_range(image)[1] > SCALED_MAXIMUM:
        warn_of_scale(
            image.dtype, "have values far above 1 and are normalized without being rescaled", "pass `do_rescale=True`"
        )


def check_values(
    image: torch.Tensor, do_rescale: bool, rescale_factor: float, do_normalize: bool, image_mean: float | list[float]
):
    """
    Check that an image has the values that the processing expects. Wrong scales cause a warning.

    Args:
        image (`torch.Tensor` of shape `(num_channels, height, width)`): The image before any processing.
        do_rescale (`bool`): Whether it is multiplied by `rescale_factor`.
        rescale_factor (`float`): Factor that makes white 1.
        do_normalize (`bool`): Whether it is normalized.
        image_mean (`float` or `list[float]`): Means for this.

    Raises:
        ValueError: If values are booleans, not finite, or integers outside the range of the factor.
    """
    if image.dtype == torch.bool:
        raise ValueError("Images must have values from 0 to 255, got booleans, as masks have. Multiply them by 255.")
    if not image.numel():
        return
    if image.is_floating_point() and not all(math.isfinite(value) for value in value_range(image)):
        raise ValueError(f"Images must have finite values, got NaN or infinity in {tuple(image.shape)} values.")
    if do_rescale and rescale_factor > 0:
        check_rescaled(image, 1 / rescale_factor)
    elif do_normalize and not do_rescale:
        check_not_rescaled(image, max(image_mean) if isinstance(image_mean, list | tuple) else image_mean)


__all__ = ["check_values"]
