"""Files that `massformer label` writes: label maps with new classes, beside those of a data set."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .layout import LABEL_FOLDER, SPLIT_FOLDERS, Pair


@dataclass(frozen=True)
class PseudoLabelFiles:
    """
    Paths in a folder of pseudo-labels.

    Attributes:
        root (`Path`): The folder.
    """

    root: Path

    @property
    def manifest(self) -> Path:
        """Path of the boxes, scores and masks of all instances, as COCO JSON."""
        return self.root / "manifest.json"

    def combined(self, split: str, image_id: str) -> Path:
        """Return the path of the data set's label map with the new classes added."""
        return self.root / LABEL_FOLDER / SPLIT_FOLDERS[split][0] / f"{image_id}.png"

    def alone(self, split: str, image_id: str) -> Path:
        """Return the path of the pseudo-labels alone: the new classes' ids, and 0 elsewhere."""
        return self.root / "pseudo_labels" / SPLIT_FOLDERS[split][0] / f"{image_id}.png"

    def read_manifest(self) -> dict[str, Any]:
        """
        Read the manifest.

        Raises:
            FileNotFoundError: If labelling has not been run or not been finished.
        """
        if not self.manifest.is_file():
            raise FileNotFoundError(
                f"{self.root} has no {self.manifest.name}: it was not written by `massformer label`, or labelling was "
                "interrupted. Run the same command again."
            )
        return json.loads(self.manifest.read_text(encoding="utf-8"))

    def read_classes(self) -> dict[int, str]:
        """
        Read the names of the new classes by id, including those of the folders that this one extends.

        Raises:
            FileNotFoundError: If labelling has not been run or not been finished.
        """
        return {category["id"]: category["name"] for category in self.read_manifest()["categories"]}

    def pairs(self, pairs: Sequence[Pair], split: str, alone: bool = False) -> list[Pair]:
        """
        Return a data set's photographs with these label maps instead of its own.

        Args:
            pairs (`Sequence[Pair]`): Pairs of the data set.
            split (`str`): Their split.
            alone (`bool`, *optional*, defaults to `False`): Whether to use the pseudo-labels alone.

        Raises:
            FileNotFoundError: If a photograph has no label map here.
        """
        file = self.alone if alone else self.combined
        replaced = [replace(pair, label=file(split, pair.image_id)) for pair in pairs]
        missing = [str(pair.label) for pair in replaced if not pair.label.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{self.root} has no label maps for {len(missing)} of {len(pairs)} photographs, such as {missing[0]}. "
                f"Label split {split} of this data first."
            )
        return replaced
