"""Label maps of whole photographs from any segmentation model of transformers, or from a folder."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import PIL.Image
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tvF
from transformers import AutoProcessor, PreTrainedModel

from ..data.layout import LABEL_SUFFIXES
from ..data.reading import read_label
from ..models.image_processing_massformer import to_rgb
from ..models.semantic_readout import INFERENCES, read_general_map, read_logits_map, read_semantic_map
from .loading import load_model
from .memory import out_of_memory
from .tiling import windows


# Models that reach a stride of 32 take sides that are a multiple of it.
SIZE_DIVISOR = 32
# What predictions hold where there is no class.
UNLABELLED = 255


@dataclass(frozen=True)
class PredictionOptions:
    """
    How photographs go through a model.

    Args:
        native_input (`bool`, *optional*, defaults to `False`):
            Give the model the photograph at its own size, normalised and padded to a multiple of 32. By default its
            image processor prepares it, which for most models makes it much smaller.
        peer_postprocess (`bool`, *optional*, defaults to `False`):
            Read label maps with the model's own image processor. By default mask logits are resized once, to the
            photograph's size.
        tile (`int`, *optional*): Slide a window of so many pixels over the photograph, at its own size.
        overlap (`int`, *optional*, defaults to 0): Pixels that neighbouring windows have in common.
        scales (`tuple[float, ...]`, *optional*, defaults to `(1.0,)`):
            Sizes, relative to the photograph's, whose scores are averaged. With scales or a flip the input is native.
        flip (`bool`, *optional*, defaults to `False`): Average with the mirrored photograph's scores, too.
        inference (`str`, *optional*, defaults to `"semantic"`):
            How label maps are read from a model of queries: by the sum over queries, or with `"general"` by the best
            one; see [`read_general_map`].

    Raises:
        ValueError: If they cannot go together.
    """

    native_input: bool = False
    peer_postprocess: bool = False
    tile: int | None = None
    overlap: int = 0
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    inference: str = "semantic"

    def __post_init__(self):
        if self.tile is not None and self.tile < 2 * SIZE_DIVISOR:
            raise ValueError(f"Windows must have {2 * SIZE_DIVISOR} pixels or more, got {self.tile}.")
        if not 0 <= self.overlap < (self.tile or math.inf):
            raise ValueError(f"The overlap must be smaller than the window ({self.tile}), got {self.overlap}.")
        if self.overlap and self.tile is None:
            raise ValueError("There is an overlap, but no window; give `tile`.")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"Scales must be positive, got {self.scales}.")
        if self.inference not in INFERENCES:
            raise ValueError(f"Inference must be one of {', '.join(INFERENCES)}, got {self.inference}.")
        if self.inference == "general" and (self.tile or self.averages or self.peer_postprocess):
            raise ValueError(
                "General inference gives each pixel to one query and has no scores to average: it goes with neither "
                "windows, scales, flips nor the model's own post-processing."
            )
        if self.peer_postprocess and (self.tile or self.averages or self.native_input):
            raise ValueError(
                "The model's own post-processing gives label maps of what its own processor prepares: it goes with "
                "neither windows, scales, flips nor native input."
            )

    @property
    def averages(self) -> bool:
        """Whether scores of several passes are averaged."""
        return self.flip or self.scales != (1.0,)

    @property
    def at_native_size(self) -> bool:
        return self.native_input or self.averages or self.tile is not None


def task_inputs(model: str | Path, device: torch.device) -> dict[str, torch.Tensor]:
    """OneFormer is told what to do in words."""
    processor = AutoProcessor.from_pretrained(model)
    small = PIL.Image.new("RGB", (SIZE_DIVISOR, SIZE_DIVISOR))
    inputs = processor(images=small, task_inputs=["semantic"], return_tensors="pt")
    return {"task_inputs": inputs["task_inputs"].to(device)}


class ModelPredictor:
    """
    Segments photographs with a model.

    Args:
        model (`PreTrainedModel`): A semantic or universal segmentation model, on its device and in eval mode.
        processor (`BaseImageProcessor`): Its image processor.
        options ([`PredictionOptions`], *optional*): How photographs go through it.
        constant_inputs (`dict[str, torch.Tensor]`, *optional*): What the model is given with every photograph.

    Raises:
        ValueError: If the options do not go with the model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        options: PredictionOptions | None = None,
        constant_inputs: dict[str, torch.Tensor] | None = None,
    ):
        self.model, self.processor, self.options = model, processor, options or PredictionOptions()
        self.constant_inputs = constant_inputs or {}
        self.labels = {int(index): label for index, label in (self.model.config.id2label or {}).items()}
        # EoMT's sees squares of one size.
        self.window = (
            self.processor.size["shortest_edge"] if getattr(self.processor, "do_split_image", False) else None
        )
        if self.window and (self.options.tile or self.options.peer_postprocess):
            raise ValueError(
                f"{type(model).__name__} looks at windows of {self.window} pixels by itself: it goes with neither "
                "`tile` nor its own post-processing."
            )
        if self.window and self.options.inference == "general":
            raise ValueError(f"{type(model).__name__} averages windows: it goes with semantic inference only.")

    @classmethod
    def load(
        cls,
        model: str | Path,
        device: str | torch.device,
        dtype: torch.dtype = torch.float32,
        options: PredictionOptions | None = None,
    ) -> "ModelPredictor":
        """
        Args:
            model (`str` or `Path`): A folder (or Hub name) with the model and its image processor.
            device (`str` or `torch.device`): Where to compute.
            dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Type of the weights.
            options ([`PredictionOptions`], *optional*): How photographs go through it.

        Raises:
            FileNotFoundError: If there is no such model, or it has no weights.
            ValueError: If it is no segmentation model, or the options do not go with it.
        """
        network, processor = load_model(model)
        network.to(device=torch.device(device), dtype=dtype)
        constant_inputs = task_inputs(model, network.device) if network.config.model_type == "oneformer" else None
        return cls(network, processor, options, constant_inputs)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def process(self, image: PIL.Image.Image, **options: Any) -> Any:
        """What the model's image processor makes of an image."""
        return self.processor(images=image, return_tensors="pt", **options)

    def run(self, inputs: dict[str, Any]) -> Any:
        """The outputs of the model."""
        tensors = {name: x.to(self.device) for name, x in inputs.items() if isinstance(x, torch.Tensor)}
        others = {name: x for name, x in inputs.items() if not isinstance(x, torch.Tensor)}
        tensors["pixel_values"] = tensors["pixel_values"].to(self.dtype)
        return self.model(**{**tensors, **others, **self.constant_inputs})

    def native_inputs(self, image: PIL.Image.Image) -> tuple[dict[str, torch.Tensor], tuple[int, int]]:
        """The photograph at its own size, normalised and padded below and to the right."""
        pixels = tvF.pil_to_tensor(image).to(self.device).float() * self.processor.rescale_factor
        if self.processor.do_normalize:
            pixels = tvF.normalize(pixels, list(self.processor.image_mean), list(self.processor.image_std))
        if self.window:
            padding = [0, 0, self.window - image.width, self.window - image.height]
        else:
            padding = [0, 0, -image.width % SIZE_DIVISOR, -image.height % SIZE_DIVISOR]
        return {"pixel_values": tvF.pad(pixels, padding)[None]}, (image.height, image.width)

    def processed_inputs(self, image: PIL.Image.Image) -> tuple[dict[str, torch.Tensor], tuple[int, int]]:
        """What the image processor prepares, and the part of it that shows the photograph."""
        inputs = self.process(image)
        inputs = {name: inputs[name] for name in ("pixel_values", "pixel_mask") if name in inputs}
        if "pixel_mask" in inputs:
            shown = inputs["pixel_mask"][0]
        elif getattr(self.processor, "do_pad", False):
            # Where a white image is not black was no padding.
            white = PIL.Image.new("RGB", image.size, "white")
            shown = self.process(white, do_rescale=False, do_normalize=False)["pixel_values"][0].amax(dim=0) > 0
        else:
            return inputs, tuple(inputs["pixel_values"].shape[-2:])
        return inputs, (int(shown.bool().any(1).sum()), int(shown.bool().any(0).sum()))

    def prepare(self, image: PIL.Image.Image) -> tuple[dict[str, torch.Tensor], tuple[int, int]]:
        """The model's inputs for an image or a window, and the part of them that shows it."""
        native = self.options.at_native_size or self.window is not None
        return self.native_inputs(image) if native else self.processed_inputs(image)

    def inputs_of(self, photo: PIL.Image.Image) -> dict[str, torch.Tensor]:
        """What the model gets of a photograph in one forward: all of it, or the first window."""
        tile = self.window or self.options.tile
        if tile is not None:
            photo = photo.crop((0, 0, min(tile, photo.width), min(tile, photo.height)))
        return self.prepare(photo)[0]

    def read(
        self,
        outputs: Any,
        input_size: tuple[int, int],
        valid_size: tuple[int, int],
        target_size: tuple[int, int],
        return_scores: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The label map, and if asked the scores, of the outputs for one image at its own size."""
        is_query_model = getattr(outputs, "class_queries_logits", None) is not None
        maps = (outputs.masks_queries_logits if is_query_model else outputs.logits)[0]
        strides = (input_size[0] / maps.shape[1], input_size[1] / maps.shape[2])
        if self.options.inference == "general":
            if not is_query_model:
                raise ValueError(f"{type(self.model).__name__} has no queries; read it with semantic inference.")
            general = read_general_map(
                outputs.class_queries_logits[0], maps, target_size, valid_size, strides, ignore_index=UNLABELLED
            )
            return general, None
        if is_query_model:
            return read_semantic_map(
                outputs.class_queries_logits[0], maps, target_size, valid_size, strides, return_scores
            )
        return read_logits_map(maps, target_size, valid_size, strides, return_scores)

    def segment(
        self, image: PIL.Image.Image, target_size: tuple[int, int], return_scores: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One pass of an image or a window, read at a size."""
        inputs, valid_size = self.prepare(image)
        height, width = inputs["pixel_values"].shape[-2:]
        return self.read(self.run(inputs), (height, width), valid_size, target_size, return_scores)

    def scores_of(self, image: PIL.Image.Image, target_size: tuple[int, int]) -> torch.Tensor:
        """The scores of one pass."""
        _, scores = self.segment(image, target_size, return_scores=True)
        return cast(torch.Tensor, scores)

    def scores_by_windows(self, image: PIL.Image.Image) -> torch.Tensor:
        """Scores at an image's size, averaged where windows overlap."""
        tile = self.window or self.options.tile
        total = torch.zeros(len(self.labels), image.height, image.width, device=self.device)
        count = torch.zeros(image.height, image.width, device=self.device)
        for top, left, bottom, right in windows(image.height, image.width, tile, self.options.overlap):
            part = image.crop((left, top, right, bottom))
            total[:, top:bottom, left:right] += self.scores_of(part, (part.height, part.width))
            count[top:bottom, left:right] += 1
        return total / count

    def scores(self, image: PIL.Image.Image) -> torch.Tensor:
        """Scores at the photograph's size, averaged over scales, flips and windows."""
        target_size = (image.height, image.width)
        total = torch.zeros(len(self.labels), *target_size, device=self.device)
        for scale in self.options.scales:
            # EoMT's recipe: the shorter side as long as its window.
            factor = scale * self.window / min(image.size) if self.window else scale
            size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
            resized = image if size == image.size else image.resize(size, PIL.Image.Resampling.BILINEAR)
            for mirrored in (False, True)[: 1 + self.options.flip]:
                view = resized.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else resized
                if self.options.tile is None and self.window is None:
                    scores = self.scores_of(view, target_size)
                else:
                    scores = self.scores_by_windows(view)[None]
                    scores = F.interpolate(scores, size=target_size, mode="bilinear", align_corners=False)[0]
                total += scores.flip(-1) if mirrored else scores
        return total

    def peer_label_map(self, image: PIL.Image.Image) -> torch.Tensor:
        """As the model's own image processor reads it."""
        outputs = self.run(dict(self.process(image)))
        return self.processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])[
            0
        ]

    @torch.inference_mode()
    def __call__(self, image: PIL.Image.Image) -> torch.Tensor:
        """
        The label map of a photograph at its own size.

        Args:
            image (`PIL.Image.Image`): The photograph, upright.

        Returns:
            `torch.Tensor` of shape `(height, width)`: int64, in the model's classes; 255 where general inference finds
            none.

        Raises:
            MemoryError: If it does not fit into memory.
        """
        image = to_rgb(image)
        remedy = "Use windows (tile=1024), a smaller dtype, or fewer scales."
        with out_of_memory(f"{image.width} x {image.height} pixels do not fit into memory. {remedy}"):
            if self.options.peer_postprocess:
                return self.peer_label_map(image)
            if self.options.tile is None and self.window is None and not self.options.averages:
                return self.segment(image, (image.height, image.width), return_scores=False)[0]
            return self.scores(image).argmax(dim=0)


class FolderPredictor:
    """
    Label maps that something else has made: PNGs with class ids or JSON in COCO's format, named like the photographs.

    Args:
        folder (`str` or `Path`): The folder; they may lie in folders within.

    Raises:
        FileNotFoundError: If it holds neither.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.files: dict[str, list[Path]] = {}
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in LABEL_SUFFIXES:
                self.files.setdefault(path.stem, []).append(path)
        if not self.files:
            raise FileNotFoundError(f"{folder} holds no label maps ({', '.join(LABEL_SUFFIXES)}).")

    def file(self, image_id: str) -> Path:
        """
        Raises:
            FileNotFoundError: If there is none for this photograph.
            ValueError: If there are several.
        """
        if image_id not in self.files:
            raise FileNotFoundError(f"There is no prediction {self.folder / image_id}.png, nor .json.")
        first, *others = self.files[image_id]
        if others:
            raise ValueError(f"There are several predictions for {image_id}: {first} and {others[0]}. Remove one.")
        return first

    def __call__(self, image_id: str, size: tuple[int, int]) -> torch.Tensor:
        """
        The label map of a photograph.

        Args:
            image_id (`str`): Name of the photograph.
            size (`tuple[int, int]`): Its height and width.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If there are several, or it is no label map of this size.
        """
        path = self.file(image_id)
        label_map, _ = read_label(path, str(path))
        if tuple(label_map.shape) != size:
            raise ValueError(
                f"{path} has {label_map.shape[1]} x {label_map.shape[0]} pixels, its photograph {size[1]} x {size[0]} "
                "(width x height). Predictions must have the photograph's own size."
            )
        return label_map.long()
