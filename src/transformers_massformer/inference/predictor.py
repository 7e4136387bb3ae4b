"""The engine: label maps of whole photographs from any segmentation model."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tvF
from transformers import AutoProcessor, PreTrainedModel
from transformers.image_transforms import get_size_with_aspect_ratio

from ..models.configuration_massformer import MaSSFormerConfig
from ..models.image_processing_massformer import MaSSFormerImageProcessor
from ..models.semantic_readout import INFERENCES, read_general_map, read_logits_map, read_semantic_map
from ..models.srgb import to_rgb
from .loading import class_names, has_queries, load_model
from .mattes import matte_values
from .memory import available_memory, least_memory, out_of_memory
from .tiling import MIN_TILE, plan_tiles


# Models with a stride of 32 need sides that are multiples of it.
SIZE_DIVISOR = 32
# Value of pixels that general inference leaves without a class.
UNLABELLED = 255
# Longer side of the maps of semantic priors in pixels; they are coarse anyway.
PRIOR_SIDE = 1024


@dataclass(frozen=True)
class PredictionOptions:
    """
    How photographs pass through a model.

    Args:
        native_input (`bool`, *optional*, defaults to `False`):
            Give the model the photograph at its own size, normalised and padded to a multiple of 32. By default its
            image processor prepares it, which for most models makes it much smaller. EoMT, which knows one size only,
            always sees windows of the resized photograph.
        peer_postprocess (`bool`, *optional*, defaults to `False`):
            Read label maps with the model's own image processor. By default mask logits are resized once, to the
            photograph's size.
        tile (`int`, *optional*):
            Segment photographs that are higher or wider than this many pixels in overlapping tiles of this size, at
            native size. Tiles bound the memory, but a tile does not see the rest of the photograph.
        overlap (`int`, *optional*): Pixels that neighbouring tiles share. By default an eighth of a tile.
        scales (`tuple[float, ...]`, *optional*, defaults to `(1.0,)`):
            Average the scores over these sizes, relative to the photograph or tile; implies native input.
        flip (`bool`, *optional*, defaults to `False`):
            Average with the scores of the mirrored photograph or tile; implies native input.
        inference (`str`, *optional*, defaults to `"semantic"`):
            How to read label maps from queries: `"semantic"` sums over queries, `"general"` takes the best one, see
            [`read_general_map`].

    Raises:
        ValueError: If the options contradict each other.
    """

    native_input: bool = False
    peer_postprocess: bool = False
    tile: int | None = None
    overlap: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    inference: str = "semantic"

    def __post_init__(self):
        if self.tile is not None and self.tile < MIN_TILE:
            raise ValueError(f"Tiles must have {MIN_TILE} pixels or more, got {self.tile}.")
        if self.overlap is not None and self.tile is None:
            raise ValueError(f"An overlap of {self.overlap} pixels needs tiles; set their size too.")
        if self.overlap is not None and not 0 <= self.overlap < (self.tile or math.inf):
            raise ValueError(f"The overlap must be from 0 to less than a tile ({self.tile}), got {self.overlap}.")
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise ValueError(f"Scales must be positive and finite, got {self.scales}.")
        if self.inference not in INFERENCES:
            raise ValueError(f"Inference must be one of {', '.join(INFERENCES)}, got {self.inference}.")
        if self.inference == "general" and (self.averages or self.peer_postprocess):
            raise ValueError(
                "General inference assigns each pixel to one query and has no scores to average: it cannot be "
                "combined with scales, flips or the model's own post-processing."
            )
        if self.peer_postprocess and (self.tile or self.averages or self.native_input):
            raise ValueError(
                "The model's own post-processing reads what its own processor prepares: it cannot be combined with "
                "tiles, scales, flips or native input."
            )

    @property
    def averages(self) -> bool:
        """Whether the scores of several passes are averaged."""
        return self.flip or self.scales != (1.0,)

    @property
    def at_native_size(self) -> bool:
        """Whether the model is given pixels at their own size."""
        return self.native_input or self.averages or self.tile is not None

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, by name."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}


@dataclass
class Prediction:
    """
    What was read of a photograph.

    Attributes:
        label_map (`torch.Tensor` of shape `(height, width)`):
            Class ids on the CPU, uint8 for up to 256 classes, else int64; 255 where general inference finds no class.
        mattes (`np.ndarray` of shape `(num_labels, height, width)`, *optional*): See [`matte_values`].
        semantic_priors (`list[np.ndarray]`, *optional*):
            For each stage of a SeMask backbone its most likely classes, uint8, at the size of [`prior_size`].
    """

    label_map: torch.Tensor
    mattes: np.ndarray | None = None
    semantic_priors: list[np.ndarray] | None = None


def prior_size(width: int, height: int) -> tuple[int, int]:
    """Return the height and width at which semantic priors are read: the photograph's, or less."""
    scale = min(1.0, PRIOR_SIDE / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


class Predictor(ABC):
    """
    Base class of the engines, which segment photographs whole or in tiles.

    Args:
        labels (`list[str]`): Names of the classes, in the order of their ids.
        device (`torch.device`): Where to compute.
        dtype (`torch.dtype`): Type of the weights.
        options ([`PredictionOptions`], *optional*): How photographs pass through the model.
    """

    def __init__(
        self, labels: list[str], device: torch.device, dtype: torch.dtype, options: PredictionOptions | None = None
    ):
        self.labels, self.device, self.dtype = labels, device, dtype
        self.options = options or PredictionOptions()
        if self.options.inference == "general" and len(labels) > UNLABELLED:
            raise ValueError(f"General inference marks pixels by {UNLABELLED} and takes at most {UNLABELLED} classes.")

    @property
    def label_dtype(self) -> torch.dtype:
        """The smallest type that holds every class id."""
        return torch.uint8 if len(self.labels) <= 256 else torch.int64

    @property
    def allows_unlabelled(self) -> bool:
        """Whether predictions may leave pixels without a class."""
        return self.options.inference == "general"

    @property
    def num_semantic_labels(self) -> int | None:
        """Number of classes of the backbone's semantic maps; `None` if it has none."""
        return None

    def check_mattes(self):
        """
        Check that the model gives scores, which mattes are made of.

        Raises:
            ValueError: If it does not.
        """
        if self.options.peer_postprocess or self.options.inference == "general":
            raise ValueError(
                "Mattes are made of scores, which neither a model's own post-processing nor general inference gives."
            )

    @abstractmethod
    def predict_whole(self, image: PIL.Image.Image, mattes: bool = False, semantic_priors: bool = False) -> Prediction:
        """
        Segment an image or a tile in one piece.

        Raises:
            MemoryError: If it does not fit into memory.
        """

    def predict_tiles(self, image: PIL.Image.Image, mattes: bool = False) -> Prediction:
        """Segment an image in tiles and keep of each what the plan assigns to it."""
        size = (image.height, image.width)
        label_map = torch.empty(size, dtype=self.label_dtype)
        joined = np.empty((len(self.labels), *size), dtype=np.uint8) if mattes else None
        for tile in plan_tiles(*size, self.options.tile, self.options.overlap):
            part = self.predict_whole(image.crop(tile.box), mattes)
            label_map[tile.kept] = part.label_map[tile.kept_in_tile]
            if joined is not None and part.mattes is not None:
                joined[:, *tile.kept] = part.mattes[:, *tile.kept_in_tile]
        return Prediction(label_map, joined)

    def predict(self, image: PIL.Image.Image, mattes: bool = False, semantic_priors: bool = False) -> Prediction:
        """
        Segment a photograph at its own size.

        Args:
            image (`PIL.Image.Image`): The photograph, upright.
            mattes (`bool`, *optional*, defaults to `False`): Whether to return a matte of each class too.
            semantic_priors (`bool`, *optional*, defaults to `False`):
                Whether to return the semantic maps of a SeMask backbone too; not with tiles.

        Returns:
            [`Prediction`]

        Raises:
            MemoryError: If the photograph does not fit into memory.
        """
        image = to_rgb(image)
        if self.options.tile is None:
            return self.predict_whole(image, mattes, semantic_priors)
        return self.predict_tiles(image, mattes)

    def __call__(self, image: PIL.Image.Image) -> torch.Tensor:
        """Return the label map of a photograph, see [`Prediction`]."""
        return self.predict(image).label_map


def task_inputs(model: str | Path, device: torch.device) -> dict[str, torch.Tensor]:
    """Prepare the words that tell OneFormer which task to do."""
    processor = AutoProcessor.from_pretrained(model)
    small = PIL.Image.new("RGB", (SIZE_DIVISOR, SIZE_DIVISOR))
    inputs = processor(images=small, task_inputs=["semantic"], return_tensors="pt")
    return {"task_inputs": inputs["task_inputs"].to(device)}


class ModelPredictor(Predictor):
    """
    Segments photographs with a model in PyTorch: MaSSFormer, SeMask and per-pixel baselines, and Mask2Former,
    MaskFormer, OneFormer, SegFormer, UperNet and EoMT of transformers.

    Args:
        model (`PreTrainedModel`): A semantic or universal segmentation model, on its device and in eval mode.
        processor (`BaseImageProcessor`): Its image processor.
        options ([`PredictionOptions`], *optional*): How photographs pass through it.
        constant_inputs (`dict[str, torch.Tensor]`, *optional*): Inputs that the model is given with every photograph.

    Raises:
        ValueError: If the options do not suit the model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        options: PredictionOptions | None = None,
        constant_inputs: dict[str, torch.Tensor] | None = None,
    ):
        super().__init__(class_names(model.config), model.device, model.dtype, options)
        # The processor of OneFormer wraps its image processor.
        self.model, self.processor = model, getattr(processor, "image_processor", processor)
        self.constant_inputs = constant_inputs or {}
        # EoMT's processor cuts photographs into squares of one size.
        self.splits = bool(getattr(self.processor, "do_split_image", False))
        if self.splits and self.options.scales != (1.0,):
            raise ValueError(f"{type(model).__name__} resizes photographs to its own size; leave out the scales.")
        if self.splits and self.options.inference == "general":
            raise ValueError(f"{type(model).__name__} averages windows: it has semantic inference only.")
        if self.options.inference == "general" and not has_queries(model.config):
            raise ValueError(f"{type(model).__name__} has no queries; read it with semantic inference.")

    @classmethod
    def load(
        cls,
        model: str | Path,
        device: str | torch.device,
        dtype: torch.dtype = torch.float32,
        options: PredictionOptions | None = None,
    ) -> "ModelPredictor":
        """
        Load a model and its image processor.

        Args:
            model (`str` or `Path`): A folder (or Hub name) with both.
            device (`str` or `torch.device`): Where to compute.
            dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Type of the weights.
            options ([`PredictionOptions`], *optional*): How photographs pass through it.

        Raises:
            FileNotFoundError: If the model or its weights are missing.
            ValueError: If it is not a segmentation model, or the options do not suit it.
        """
        network, processor = load_model(model)
        try:
            network.to(device=torch.device(device), dtype=dtype)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"{model} cannot be moved to device {device}: {error}") from error
        constant_inputs = task_inputs(model, network.device) if network.config.model_type == "oneformer" else None
        return cls(network, processor, options, constant_inputs)

    @property
    def num_semantic_labels(self) -> int | None:
        return getattr(getattr(self.model.config, "backbone_config", None), "num_semantic_labels", None)

    def process(self, image: PIL.Image.Image, **options: Any) -> Any:
        """Apply the model's image processor."""
        return self.processor(images=image, return_tensors="pt", **options)

    def run(self, inputs: dict[str, Any]) -> Any:
        """Return the outputs of the model."""
        tensors = {name: x.to(self.device) for name, x in inputs.items() if isinstance(x, torch.Tensor)}
        others = {name: x for name, x in inputs.items() if not isinstance(x, torch.Tensor)}
        tensors["pixel_values"] = tensors["pixel_values"].to(self.dtype)
        return self.model(**{**tensors, **others, **self.constant_inputs})

    def native_inputs(self, image: PIL.Image.Image) -> tuple[dict[str, Any], tuple[int, int]]:
        """Normalise an image at its own size and pad it below and to the right."""
        size = (image.height, image.width)
        if isinstance(self.processor, MaSSFormerImageProcessor):
            return dict(self.process(image, do_resize=False)), size
        pixels = tvF.pil_to_tensor(image).to(self.device).float() * self.processor.rescale_factor
        if self.processor.do_normalize:
            pixels = tvF.normalize(pixels, list(self.processor.image_mean), list(self.processor.image_std))
        padding = [0, 0, -image.width % SIZE_DIVISOR, -image.height % SIZE_DIVISOR]
        return {"pixel_values": tvF.pad(pixels, padding)[None]}, size

    def processed_inputs(self, image: PIL.Image.Image) -> tuple[dict[str, Any], tuple[int, int]]:
        """Prepare an image with the model's processor, and find the part of its input that shows the image."""
        inputs = {name: x for name, x in self.process(image).items() if name in ("pixel_values", "pixel_mask")}
        if "pixel_mask" in inputs:
            shown = inputs["pixel_mask"][0]
        elif getattr(self.processor, "do_pad", False):
            # A white image is black where it was padded.
            white = PIL.Image.new("RGB", image.size, "white")
            shown = self.process(white, do_rescale=False, do_normalize=False)["pixel_values"][0].amax(dim=0) > 0
        else:
            return inputs, tuple(inputs["pixel_values"].shape[-2:])
        return inputs, (int(shown.bool().any(1).sum()), int(shown.bool().any(0).sum()))

    def split_inputs(self, image: PIL.Image.Image) -> tuple[dict[str, Any], tuple[int, int]]:
        """Prepare the windows of EoMT, and return the size that its processor gave the image before cutting it."""
        size = self.processor.size
        resized = get_size_with_aspect_ratio((image.height, image.width), size["shortest_edge"], size["longest_edge"])
        return dict(self.process(image)), resized

    def prepare(self, image: PIL.Image.Image) -> tuple[dict[str, Any], tuple[int, int]]:
        """Return the model's inputs for an image or a tile, and the size of the part of them that shows it."""
        if self.splits:
            return self.split_inputs(image)
        # Ours leave photographs at their own size unless told otherwise.
        is_native = isinstance(self.processor, MaSSFormerImageProcessor) and not self.processor.do_resize
        return self.native_inputs(image) if is_native or self.options.at_native_size else self.processed_inputs(image)

    def inputs_of(self, photo: PIL.Image.Image) -> dict[str, torch.Tensor]:
        """Return the model's inputs for one forward of a photograph: all of it, or its first tile."""
        tile = next(plan_tiles(photo.height, photo.width, self.options.tile, self.options.overlap))
        inputs, _ = self.prepare(photo.crop(tile.box))
        return {name: x for name, x in inputs.items() if isinstance(x, torch.Tensor)}

    def read_split(
        self,
        outputs: Any,
        inputs: dict[str, Any],
        resized: tuple[int, int],
        target_size: tuple[int, int],
        return_scores: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Join the windows of EoMT as its processor does, and read the label map at the target size in bands."""
        window = tuple(inputs["pixel_values"].shape[-2:])
        strides = tuple(
            side / length for side, length in zip(window, outputs.masks_queries_logits.shape[2:], strict=True)
        )
        num_windows = len(outputs.class_queries_logits)
        windows = torch.empty(num_windows, len(self.labels), *window, device=self.device)
        for index, queries in enumerate(zip(outputs.class_queries_logits, outputs.masks_queries_logits, strict=True)):
            _, scores = read_semantic_map(*queries, window, window, strides, return_scores=True)
            windows[index] = cast(torch.Tensor, scores)
        (merged,) = self.processor.merge_image_patches(
            windows, inputs["patch_offsets"], [resized], self.processor.size
        )
        label_map, _ = read_logits_map(merged, target_size, resized, (1, 1))
        if not return_scores:
            return label_map, None
        return label_map, F.interpolate(merged[None], size=target_size, mode="bilinear", align_corners=False)[0]

    def read(
        self,
        outputs: Any,
        inputs: dict[str, Any],
        valid_size: tuple[int, int],
        target_size: tuple[int, int],
        return_scores: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Read the label map, and if asked the scores, of one image at the target size."""
        if self.splits:
            return self.read_split(outputs, inputs, valid_size, target_size, return_scores)
        is_query_model = getattr(outputs, "class_queries_logits", None) is not None
        maps = (outputs.masks_queries_logits if is_query_model else outputs.logits)[0]
        strides = tuple(
            side / length for side, length in zip(inputs["pixel_values"].shape[-2:], maps.shape[1:], strict=True)
        )
        if not is_query_model:
            return read_logits_map(maps, target_size, valid_size, strides, return_scores)
        classes = outputs.class_queries_logits[0]
        if self.options.inference == "general":
            return read_general_map(classes, maps, target_size, valid_size, strides, ignore_index=UNLABELLED), None
        return read_semantic_map(classes, maps, target_size, valid_size, strides, return_scores)

    def read_priors(self, outputs: Any, input_size: tuple[int, int], image: PIL.Image.Image) -> list[np.ndarray]:
        """Return the most likely classes of each stage's semantic map."""
        priors = []
        for semantic_map in outputs.semantic_maps:
            strides = (input_size[0] / semantic_map.shape[2], input_size[1] / semantic_map.shape[3])
            label_map, _ = read_logits_map(
                semantic_map[0], prior_size(*image.size), (image.height, image.width), strides
            )
            priors.append(label_map.to(torch.uint8).cpu().numpy())
        return priors

    def average_scores(self, image: PIL.Image.Image) -> torch.Tensor:
        """Sum the scores at the image's size over scales and flips."""
        target_size = (image.height, image.width)
        total = torch.zeros(len(self.labels), *target_size, device=self.device)
        for scale in self.options.scales:
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            resized = image if size == image.size else image.resize(size, PIL.Image.Resampling.BILINEAR)
            for mirrored in (False, True)[: 1 + self.options.flip]:
                view = resized.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else resized
                inputs, valid_size = self.prepare(view)
                _, scores = self.read(self.run(inputs), inputs, valid_size, target_size, return_scores=True)
                found = cast(torch.Tensor, scores)
                total += found.flip(-1) if mirrored else found
        return total

    def peer_label_map(self, image: PIL.Image.Image) -> torch.Tensor:
        """Read a label map with the model's own image processor."""
        outputs = self.run(dict(self.process(image)))
        (label_map,) = self.processor.post_process_semantic_segmentation(
            outputs, target_sizes=[(image.height, image.width)]
        )
        return label_map

    def remedies(self) -> str:
        """Name what helps when memory is short."""
        smaller_dtype = "" if self.dtype.itemsize < 4 else "a smaller dtype (bfloat16), "
        fewer_scales = "fewer scales, " if self.options.scales != (1.0,) else ""
        tile = self.options.tile // 2 if self.options.tile else 2048
        return (
            f"Use tiles (of {tile} pixels, say), {smaller_dtype}{fewer_scales}or a smaller variant of the model "
            "(r18-lite)."
        )

    def check_memory(self, width: int, height: int):
        """
        Refuse what MaSSFormer certainly cannot hold: most systems promise more memory than they have, and kill the
        process that uses it. Of other models the needs are not known.

        Raises:
            MemoryError: If the memory is too small.
        """
        if not isinstance(self.model.config, MaSSFormerConfig):
            return
        scale = max(self.options.scales)
        needed = least_memory(self.model.config, round(height * scale), round(width * scale), self.dtype)
        available = available_memory(self.device)
        if needed > available:
            raise MemoryError(
                f"{width} x {height} pixels need more than {needed / 2**30:.1f} GiB in {self.dtype}, and "
                f"{available / 2**30:.1f} GiB are free on {self.device}. {self.remedies()}"
            )

    @torch.inference_mode()
    def predict_whole(self, image: PIL.Image.Image, mattes: bool = False, semantic_priors: bool = False) -> Prediction:
        self.check_memory(*image.size)
        message = f"{image.width} x {image.height} pixels do not fit into the memory of {self.device} in {self.dtype}."
        with out_of_memory(f"{message} {self.remedies()}"):
            priors = scores = None
            if self.options.peer_postprocess:
                label_map = self.peer_label_map(image)
            elif self.options.averages:
                scores = self.average_scores(image)
                label_map = scores.argmax(dim=0)
            else:
                inputs, valid_size = self.prepare(image)
                outputs = self.run(inputs)
                if semantic_priors:
                    priors = self.read_priors(outputs, tuple(inputs["pixel_values"].shape[-2:]), image)
                label_map, scores = self.read(outputs, inputs, valid_size, (image.height, image.width), mattes)
            values = matte_values(scores) if mattes and scores is not None else None
            return Prediction(label_map.to(self.label_dtype).cpu(), values, priors)
