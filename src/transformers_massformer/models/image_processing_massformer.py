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
"""Image processor class for MaSSFormer"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
import torch
import torchvision.transforms.v2.functional as tvF
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_outputs import SemanticSegmentationPostProcessorOutput
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    ImageInput,
    PILImageResampling,
    SizeDict,
)
from transformers.processing_utils import ImagesKwargs, Unpack
from transformers.utils import TensorType, auto_docstring, logging

from .arguments import UnknownArgumentError, close_names, refuse_unknown
from .image_values import check_values
from .photo_headers import UPRIGHT, open_lazily, quiet_pillow, stored_orientation, turned_upright
from .semantic_readout import (
    INFERENCES,
    QUERY_THRESHOLD,
    read_general_map,
    read_logits_map,
    read_semantic_map,
)
from .srgb import to_rgb


logger = logging.get_logger(__name__)


# Fields of saved processors that are no options.
SAVED_FIELDS = frozenset(
    {"_max_size", "_valid_processor_keys", "auto_map", "feature_extractor_type", "image_processor_type"}
    | {"processor_class"}
)
NO_REDUCTION = (
    "Class 0 is a class like others here. Subtract 1 from the segmentation maps yourself, with `ignore_index` for 0."
)
# Options of other image processors that this one does not carry out: the value with which they have no effect, and
# the remedy for others.
OTHER_OPTIONS: dict[str, tuple[Any, str]] = {
    "crop_size": (None, "Crop images before processing them."),
    "data_format": (ChannelDimension.FIRST, "Pixel values are channels first, as the model needs them."),
    "do_center_crop": (False, "Crop images before processing them."),
    "do_flip_channel_order": (False, "The model reads RGB; convert images from BGR before processing them."),
    "do_reduce_labels": (False, NO_REDUCTION),
    "do_split_image": (False, "Tiles are the segmenter's: `massformer segment --tile`."),
    "image_seq_length": (None, "The model has no image tokens."),
    "pad_size": (None, "Images are padded to multiples of `size_divisor`."),
    "reduce_labels": (False, NO_REDUCTION),
}


def check_options(options: Mapping[str, Any], known: frozenset[str]):
    """
    Refuse options that would have no effect.

    Raises:
        UnknownArgumentError: If some are unknown.
        ValueError: If one belongs to other processors, or a switch is neither true nor false.
    """
    given = {name: value for name, value in options.items() if value is not None and name not in SAVED_FIELDS}
    if given.get("do_center_crop") is False:
        # The size of a crop that is not made, as saved processors have it.
        given.pop("crop_size", None)
    for name, (harmless, remedy) in OTHER_OPTIONS.items():
        if name in given and given.pop(name) != harmless:
            raise ValueError(f"`{name}={options[name]}` is not carried out by this image processor. {remedy}")
    refuse_unknown("The image processor", given, known)
    for name, value in given.items():
        if name.startswith("do_") and not isinstance(value, bool):
            raise ValueError(f"`{name}` must be true or false, got {value!r}.")


class MaSSFormerImageProcessorKwargs(ImagesKwargs, total=False):
    r"""
    size_divisor (`int`, *optional*, defaults to `self.size_divisor`):
        Images are padded at the bottom and right, with zeros after normalization, to the next multiple of this value.
    ignore_index (`int`, *optional*, defaults to `self.ignore_index`):
        Label of pixels without a class, including the padding.
    num_labels (`int`, *optional*, defaults to `self.num_labels`):
        Number of classes: segmentation maps may contain 0 to `num_labels - 1` and `ignore_index`.
    """

    size_divisor: int
    ignore_index: int
    num_labels: int


@auto_docstring
class MaSSFormerImageProcessor(TorchvisionBackend):
    """
    Image processor for MaSSFormer, which prepares complete photographs and reads the model's output at their own size.
    Images are only resized with `do_resize=True`; the default `size` then is the release's test setting.
    """

    valid_kwargs = MaSSFormerImageProcessorKwargs
    model_input_names = ["pixel_values"]
    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"shortest_edge": 3072, "longest_edge": 4096}
    default_to_square = False
    do_resize = False
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    do_convert_rgb = True
    do_pad = True
    size_divisor = 32
    ignore_index = 255
    num_labels = 7

    def __init__(self, **kwargs: Unpack[MaSSFormerImageProcessorKwargs]):
        check_options(kwargs, self.known_options())
        # Harmless values of other options would be stored, and saved, as if they were this processor's.
        kept: dict[str, Any] = {name: x for name, x in kwargs.items() if name in SAVED_FIELDS | self.known_options()}
        super().__init__(**kept)

    @classmethod
    def known_options(cls) -> frozenset[str]:
        """Return the names of the options that are carried out."""
        return frozenset(cls.valid_kwargs.__annotations__) - OTHER_OPTIONS.keys()

    # Overridden because the base class drops unknown arguments of `from_pretrained`, among which it also receives
    # those for the model, so that only what resembles an option can be refused.
    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs):
        """
        Build a processor like the base class.

        Raises:
            ValueError: If an argument is an option of other image processors, or nearly the name of one of this one.
        """
        known = cls.known_options()
        check_options({name: x for name, x in kwargs.items() if name in known or name in OTHER_OPTIONS}, known)
        for name in kwargs.keys() - known - OTHER_OPTIONS.keys():
            if close_names(name, known):
                raise UnknownArgumentError(f"The image processor has no option {name}; {close_names(name, known)[0]}?")
        return super().from_dict(image_processor_dict, **kwargs)

    @auto_docstring
    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        **kwargs: Unpack[MaSSFormerImageProcessorKwargs],
    ) -> BatchFeature:
        r"""
        segmentation_maps (`ImageInput`, *optional*):
            Map of class indices for each image, with the image's size. Returned as `labels`.
        """
        check_options(kwargs, self.known_options())
        return super().preprocess(images, segmentation_maps, **kwargs)

    def fetch_images(self, image_url_or_urls: str | list[str] | list[list[str]]):
        """Open files upright and in their own mode. The library's loader opens URLs and base64."""
        if not isinstance(image_url_or_urls, str) or not os.path.isfile(image_url_or_urls):
            return super().fetch_images(image_url_or_urls)
        with open(image_url_or_urls, "rb") as file, quiet_pillow():
            image = open_lazily(file)
            image.load()
            return turned_upright(image, stored_orientation(image)).copy()

    def process_image(
        self,
        image: ImageInput,
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        device: torch.device | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """
        Process an image like the base class, but convert images of PIL to sRGB, with transparent parts on white and
        16 bits scaled, and never read (1, 1, 3) as channels first.
        """
        if isinstance(image, np.ndarray):
            image = np.require(image, requirements="W")
            if input_data_format is None and image.ndim == 3 and image.shape[2] in (3, 4):
                input_data_format = ChannelDimension.LAST
            if input_data_format == ChannelDimension.LAST and image.shape[2] == 4 and image.dtype == np.uint8:
                image, input_data_format = PIL.Image.fromarray(image), None
        if isinstance(image, PIL.Image.Image) and do_convert_rgb:
            if stored_orientation(image) in UPRIGHT:
                logger.warning_once(
                    "An image with an EXIF orientation is processed as its pixels are stored, and so are its masks. "
                    "To turn it upright first, pass its path, or open it with `transformers_massformer.open_image`."
                )
            image = to_rgb(image)
        return super().process_image(
            image, do_convert_rgb=do_convert_rgb, input_data_format=input_data_format, device=device
        )

    # The library's image processors narrow these two signatures in the same way.
    def _preprocess_image_like_inputs(  # ty: ignore[incompatible-method-override]
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None,
        do_convert_rgb: bool,
        input_data_format: ChannelDimension,
        return_tensors: str | TensorType | None,
        device: torch.device | None = None,
        **kwargs,
    ) -> BatchFeature:
        images = self._prepare_image_like_inputs(
            images=images, do_convert_rgb=do_convert_rgb, input_data_format=input_data_format, device=device
        )
        for image in images:
            check_values(
                image, *(kwargs[name] for name in ("do_rescale", "rescale_factor", "do_normalize", "image_mean"))
            )
        data = {"pixel_values": self._preprocess(images, fill_value=0, **kwargs)}
        if segmentation_maps is not None:
            maps = self._prepare_image_like_inputs(
                images=segmentation_maps,
                expected_ndims=2,
                do_convert_rgb=False,
                input_data_format=ChannelDimension.FIRST,
                device=device,
            )
            maps = [self._class_indices(label_map, index) for index, label_map in enumerate(maps)]
            self._check_segmentation_maps(maps, images, kwargs["num_labels"], kwargs["ignore_index"])
            kwargs.update(do_rescale=False, do_normalize=False, resample=tvF.InterpolationMode.NEAREST_EXACT)
            labels = self._preprocess(maps, fill_value=kwargs["ignore_index"], **kwargs)
            data["labels"] = [label_map[0] for label_map in labels]
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _class_indices(self, label_map: torch.Tensor, index: int) -> torch.Tensor:
        """Convert a segmentation map to integers, without rounding."""
        indices = label_map.to(torch.int64)
        if label_map.is_floating_point() and not torch.equal(indices.to(label_map.dtype), label_map):
            raise ValueError(
                f"Segmentation map {index} must contain class indices, got fractions, such as "
                f"{label_map[indices != label_map][0].item():g}. Probabilities and maps scaled to 0 to 1 are none."
            )
        return indices

    def _check_segmentation_maps(
        self, maps: list[torch.Tensor], images: list[torch.Tensor], num_labels: int, ignore_index: int
    ):
        if len(maps) != len(images):
            raise ValueError(f"Got {len(images)} images but {len(maps)} segmentation maps; each image needs its own.")
        for index, (label_map, image) in enumerate(zip(maps, images, strict=True)):
            if label_map.shape[0] != 1 or label_map.shape[1:] != image.shape[1:]:
                raise ValueError(
                    f"Segmentation map {index} must have its image's size, (height, width) = "
                    f"{tuple(image.shape[1:])}, with one class index per pixel, got shape {tuple(label_map.shape)}."
                )
            values = label_map.unique()
            invalid = values[((values < 0) | (values >= num_labels)) & (values != ignore_index)]
            if invalid.numel():
                raise ValueError(
                    f"Segmentation map {index} contains values outside the classes: {invalid.tolist()}. Allowed are "
                    f"0 to {num_labels - 1} and {ignore_index} (ignored). If there are more classes, set "
                    "the processor's `num_labels`; if the map is a color image, convert it to class indices first."
                )

    def _preprocess(  # ty: ignore[incompatible-method-override]
        self,
        images: list[torch.Tensor],
        do_resize: bool,
        size: SizeDict,
        resample: "PILImageResampling | tvF.InterpolationMode | int | None",
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: float | list[float],
        image_std: float | list[float],
        do_pad: bool,
        size_divisor: int,
        fill_value: int,
        **kwargs,
    ) -> list[torch.Tensor]:
        """Process images one by one: stacking 4K photographs of different sizes would gain nothing."""
        processed = []
        for image in images:
            if do_resize:
                image = self.resize(image, size=size, resample=resample)
            image = self.rescale_and_normalize(image, do_rescale, rescale_factor, do_normalize, image_mean, image_std)
            if do_pad:
                height, width = image.shape[-2:]
                image = tvF.pad(image, [0, 0, -width % size_divisor, -height % size_divisor], fill=fill_value)
            processed.append(image)
        sizes = [tuple(image.shape[-2:]) for image in processed]
        if len(set(sizes)) > 1:
            raise ValueError(
                f"The images have different padded sizes, (height, width) = {sizes}, and cannot form a batch: padding "
                "one to the other's size would change its global means, positions and attention, and so its masks. "
                "Process them one by one, or cut crops of one size."
            )
        return processed

    def _valid_size(self, target_size: tuple[int, int], size: SizeDict | None) -> tuple[int, int]:
        """Return the size of a processed image of `target_size` before padding."""
        if size is None:
            return target_size
        # Computed by the resize itself, on a tensor without data.
        height, width = self.resize(torch.empty(1, *target_size, device="meta"), size=size).shape[-2:]
        return height, width

    def _padded_size(self, maps: torch.Tensor, of_queries: bool, valid_size: tuple[int, int]) -> tuple[int, int]:
        """
        Return the size of the model's input. MaSSFormer's masks have half of it, whatever the padding; for other
        models it is the image's size, padded like this processor does.
        """
        twice = (2 * maps.shape[2], 2 * maps.shape[3])
        divisor = self.size_divisor if self.do_pad else 1
        height, width = (-(-length // divisor) * divisor for length in valid_size)
        if not of_queries:
            return height, width
        is_stride = height % maps.shape[2] == 0 and height * maps.shape[3] == width * maps.shape[2]
        return (height, width) if is_stride and height > twice[0] else twice

    def post_process_semantic_segmentation(
        self,
        outputs,
        target_sizes: list[tuple[int, int]] | None = None,
        size: dict[str, int] | None = None,
        return_segmentation_scores: bool = False,
        inference: str = "semantic",
        threshold: float | None = None,
    ) -> "list[torch.Tensor] | list[SemanticSegmentationPostProcessorOutput]":
        r"""
        Read label maps at the images' own sizes from the output of [`MaSSFormerForSemanticSegmentation`] or of a model
        with logits per pixel. Mask logits are resized once, straight to the final size and in bands of rows.

        Args:
            outputs ([`MaSSFormerForSemanticSegmentationOutput`]):
                Output of the model: `class_queries_logits` and `masks_queries_logits`, or `logits` without them.
            target_sizes (`list[tuple[int, int]]`, *optional*):
                Height and width of each image before processing, and so of its label map. Defaults to the size of the
                padded model input, or for logits per pixel, whose stride is unknown, to their own size.
            size (`dict[str, int]`, *optional*):
                The `size` to which the processor resized the images. Defaults to `self.size` if `self.do_resize`;
                otherwise images were not resized.
            return_segmentation_scores (`bool`, *optional*, defaults to `False`):
                Whether to also return the scores of all classes.
            inference (`str`, *optional*, defaults to `"semantic"`):
                `"semantic"`: each pixel gets the class with the largest sum over queries of class times mask
                probability. `"general"`: it gets the class of the query with the largest product of the two
                (MaskFormer, section 3.4).
            threshold (`float`, *optional*, defaults to 0.3):
                In general inference, queries whose class has a lower probability are left out. If none are left, all
                pixels are `ignore_index`. Semantic inference has no threshold.

        Returns:
            `list[torch.Tensor]` or `list[SemanticSegmentationPostProcessorOutput]`: For each image an int64 label map
            of shape `(height, width)`, or, with `return_segmentation_scores=True`, an object with this map as
            `segmentation` and the scores as `segmentation_scores`, of shape `(num_labels, height, width)`.

        Raises:
            ValueError: If the number of target sizes differs from the number of images, a resized image is larger than
                the model input, scores are requested from general inference, which has none, or an option has no
                effect on these outputs.
        """
        if inference not in INFERENCES:
            raise ValueError(f"`inference` must be one of {', '.join(INFERENCES)}, got {inference!r}.")
        if inference == "general" and return_segmentation_scores:
            raise ValueError(
                "General inference assigns each pixel to one query and has no scores; use semantic inference."
            )
        if inference == "semantic" and threshold is not None:
            raise ValueError(f"Semantic inference has no threshold; leave out {threshold} or use general inference.")
        class_queries_logits = getattr(outputs, "class_queries_logits", None)
        if inference == "general" and class_queries_logits is None:
            raise ValueError("General inference reads queries, which these outputs lack; use semantic inference.")
        maps = outputs.logits if class_queries_logits is None else outputs.masks_queries_logits
        batch_size = len(maps)
        if size is None and self.do_resize:
            size = self.size
        if size is not None and not isinstance(size, SizeDict):
            size = self._standardize_kwargs(size=size, default_to_square=self.default_to_square)["size"]
        if target_sizes is None:
            stride = 1 if class_queries_logits is None else 2
            target_sizes = valid_sizes = padded_sizes = [(stride * maps.shape[2], stride * maps.shape[3])] * batch_size
        else:
            target_sizes = [(int(height), int(width)) for height, width in target_sizes]
            valid_sizes = [self._valid_size(target_size, size) for target_size in target_sizes]
            padded_sizes = [self._padded_size(maps, class_queries_logits is not None, each) for each in valid_sizes]
        if len(target_sizes) != batch_size:
            raise ValueError(f"Got {len(target_sizes)} target sizes for a batch of {batch_size} images.")

        label_maps, with_scores = [], []
        all_sizes = zip(target_sizes, valid_sizes, padded_sizes, strict=True)
        for index, (target_size, valid_size, padded_size) in enumerate(all_sizes):
            if valid_size[0] > padded_size[0] or valid_size[1] > padded_size[1]:
                raise ValueError(
                    f"Image {index} was {valid_size[0]} x {valid_size[1]} pixels according to `target_sizes` and "
                    f"`size`, but the model's input was only {padded_size[0]} x {padded_size[1]}. Pass the sizes as "
                    "(height, width) of the images before processing, and the processor's `size` if it resized them."
                )
            sizes = (target_size, valid_size, (padded_size[0] / maps.shape[2], padded_size[1] / maps.shape[3]))
            scores = None
            if class_queries_logits is None:
                segmentation, scores = read_logits_map(maps[index], *sizes, return_segmentation_scores)
            elif inference == "general":
                segmentation = read_general_map(
                    class_queries_logits[index],
                    maps[index],
                    *sizes,
                    QUERY_THRESHOLD if threshold is None else threshold,
                    self.ignore_index,
                )
            else:
                segmentation, scores = read_semantic_map(
                    class_queries_logits[index], maps[index], *sizes, return_segmentation_scores
                )
            label_maps.append(segmentation)
            if return_segmentation_scores:
                data = {"segmentation": segmentation, "segmentation_scores": scores}
                with_scores.append(SemanticSegmentationPostProcessorOutput(data=data))
        return with_scores if return_segmentation_scores else label_maps


__all__ = ["MaSSFormerImageProcessor"]
