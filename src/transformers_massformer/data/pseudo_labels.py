"""The files that `massformer label` writes: label maps with new classes, beside those of a data set."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .mass13k import LABEL_FOLDER, SPLIT_FOLDERS, Pair


@dataclass(frozen=True)
class PseudoLabelFiles:
    """
    Where everything lies in a folder of pseudo-labels.

    Attributes:
        root (`Path`): The folder.
    """

    root: Path

    @property
    def manifest(self) -> Path:
        """Boxes, scores and masks of all instances, as COCO JSON."""
        return self.root / "manifest.json"

    def combined(self, split: str, image_id: str) -> Path:
        """The label map of the data set, with the new classes in it."""
        return self.root / LABEL_FOLDER / SPLIT_FOLDERS[split][0] / f"{image_id}.png"

    def alone(self, split: str, image_id: str) -> Path:
        """The pseudo-labels alone: the new classes' ids, and 0 elsewhere."""
        return self.root / "pseudo_labels" / SPLIT_FOLDERS[split][0] / f"{image_id}.png"

    def read_manifest(self) -> dict[str, Any]:
        """
        Raises:
            FileNotFoundError: If nothing was labelled there, or not to the end.
        """
        if not self.manifest.is_file():
            raise FileNotFoundError(
                f"{self.root} holds no {self.manifest.name}: it is no folder of `massformer label`, or labelling was "
                "interrupted. Run the same command again."
            )
        return json.loads(self.manifest.read_text())

    def read_classes(self) -> dict[int, str]:
        """
        Names of the new classes by id, of this folder and of those it was built upon.

        Raises:
            FileNotFoundError: If nothing was labelled there, or not to the end.
        """
        return {category["id"]: category["name"] for category in self.read_manifest()["categories"]}

    def pairs(self, pairs: Sequence[Pair], split: str, alone: bool = False) -> list[Pair]:
        """
        Photographs of a data set with these label maps in place of its own.

        Args:
            pairs (`Sequence[Pair]`): Of the data set.
            split (`str`): Which they are.
            alone (`bool`, *optional*, defaults to `False`): Whether to take the pseudo-labels without the others.

        Raises:
            FileNotFoundError: If a photograph has none.
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
