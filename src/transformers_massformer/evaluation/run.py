"""Evaluate image by image, in one of several processes."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import PIL.Image
import torch

from ..data.headers import read_header
from ..data.label_map_folder import LabelMapFolder
from ..data.layout import Pair
from ..data.mask_values import MaskValues, check_ids
from ..data.reading import lay_on_photo, read_label, read_pair
from ..images import read_photo
from ..inference.identity import prediction_settings
from ..inference.predictor import UNLABELLED, Predictor
from ..metrics import CountSettings, count_image
from ..utils.fingerprint import files_state
from .records import ImageRecord


Source = Predictor | LabelMapFolder


def pair_files(pair: Pair, predictor: Source) -> list[Path]:
    """Return the files that the result of a pair is made from: photograph, label map, and prediction, if it is one."""
    files = [pair.image, pair.label]
    return [*files, predictor.file(pair.image_id)] if isinstance(predictor, LabelMapFolder) else files


class Evaluator:
    """
    Compares predictions with label maps.

    Args:
        predictor ([`Predictor`] or [`LabelMapFolder`]): Where predictions come from.
        lookup (`torch.Tensor`): The data's class for each of the predictor's, -1 where there is none.
        num_labels (`int`): Number of classes of the data.
        settings ([`CountSettings`]): What is counted.
    """

    def __init__(self, predictor: Source, lookup: torch.Tensor, num_labels: int, settings: CountSettings):
        self.predictor, self.lookup = predictor, lookup
        self.num_labels, self.settings = num_labels, settings

    def read(self, pair: Pair) -> tuple[PIL.Image.Image | None, torch.Tensor]:
        """Read the label map of a pair, upright, and the photograph if a model has to see it."""
        names = str(pair.image), str(pair.label)
        if isinstance(self.predictor, Predictor):
            image, label = read_pair(pair.image, pair.label, names, pair.mask_values)
            return image, label.as_subclass(torch.Tensor)
        header = read_header(pair.image)
        stored = read_label(pair.label, names[1], pair.mask_values)
        label = lay_on_photo(*stored, header.upright_size[::-1], header.orientation or 1, names)
        return None, label.as_subclass(torch.Tensor)

    def read_photo(self, pair: Pair) -> PIL.Image.Image:
        """Read the photograph alone, upright."""
        return read_photo(pair.image, str(pair.image))[0]

    def predict(self, pair: Pair, image: PIL.Image.Image | None, size: tuple[int, int]) -> torch.Tensor:
        """Return the prediction in the data's classes, on the CPU."""
        if isinstance(self.predictor, LabelMapFolder):
            predicted, name = self.predictor.read(pair.image_id, size), str(self.predictor.file(pair.image_id))
        else:
            predicted, name = self.predictor(cast(PIL.Image.Image, image)), f"the prediction for {pair.image}"
        predicted = predicted.long()
        known = predicted < len(self.lookup)
        mapped = self.lookup[predicted.where(known, 0)].where(known, -1)
        if self.predictor.allows_unlabelled:
            mapped = mapped.where(predicted != UNLABELLED, UNLABELLED)
        if (mapped < 0).any():
            unknown = predicted[mapped < 0].unique().tolist()
            remedy = "Map them with a label map."
            if unknown == [UNLABELLED]:
                remedy = f"If {UNLABELLED} marks pixels without a class, pass --inference general."
            raise ValueError(
                f"{name} contains values outside the {self.num_labels} classes: {', '.join(map(str, unknown[:10]))}. "
                f"{remedy}"
            )
        return mapped

    def __call__(self, pair: Pair) -> tuple[ImageRecord, PIL.Image.Image | None, torch.Tensor, torch.Tensor]:
        """
        Evaluate one image: its record, the photograph (if a model has seen it), label map and prediction.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If a file cannot be used.
            MemoryError: If the photograph does not fit into memory.
        """
        # Before they are read, so that a change meanwhile is noticed the next time.
        state = files_state(pair_files(pair, self.predictor))
        image, label = self.read(pair)
        check_ids(label.numpy(), self.num_labels, str(pair.label), self.settings.ignore_index)
        prediction = self.predict(pair, image, (label.shape[0], label.shape[1]))
        try:
            counts = count_image(prediction, label, self.num_labels, self.settings, self.predictor.allows_unlabelled)
        except ValueError as error:
            raise ValueError(f"{pair.label}: {error}") from error
        height, width = label.shape
        content = hashlib.sha256(label.numpy().tobytes()).hexdigest()
        record = ImageRecord(pair.image_id, state, content, width, height, counts)
        return record, image, label, prediction

    def records(self, pairs: Sequence[Pair]) -> Iterator[ImageRecord]:
        """Evaluate images one after the other."""
        for pair in pairs:
            yield self(pair)[0]


def describe(
    model: str,
    split: str,
    labels: Sequence[str],
    settings: CountSettings,
    mapping: Mapping[str, Any] | None,
    predictor: Source,
    mask_values: MaskValues | None = None,
) -> dict[str, Any]:
    """Return the settings that identify an evaluation when resuming."""
    described: dict[str, Any] = {
        "split": split,
        "labels": list(labels),
        "label_map": mapping,
        "counting": dataclasses.asdict(settings),
    }
    if mask_values is not None:
        described["mask_values"] = mask_values
    if isinstance(predictor, LabelMapFolder):
        described |= {"model": str(predictor.folder.resolve()), "allows_unlabelled": predictor.allows_unlabelled}
    else:
        prediction = prediction_settings(model, predictor.options, predictor.dtype)
        described |= {"model": prediction.pop("model"), "prediction": prediction}
    return json.loads(json.dumps(described))
