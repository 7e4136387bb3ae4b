"""Look up label maps made elsewhere by the names of their photographs."""

from pathlib import Path

import torch

from .class_names import CLASS_FILES, category_faults, names_of_categories, read_class_names
from .label_headers import read_annotation
from .layout import LABEL_FOLDER, LABEL_SUFFIXES, LABELS, describe_faults
from .reading import read_label


class LabelMapFolder:
    """
    Folder of label maps: PNG files of class ids or JSON in COCO format, named like the photographs.

    Args:
        folder (`str` or `Path`): The folder, which is searched recursively.
        allows_unlabelled (`bool`, *optional*, defaults to `False`):
            Whether 255 marks pixels without a class, as general inference writes them.

    Raises:
        FileNotFoundError: If the folder contains no label maps.
    """

    def __init__(self, folder: str | Path, allows_unlabelled: bool = False):
        self.folder, self.allows_unlabelled = Path(folder), allows_unlabelled
        self.files: dict[str, list[Path]] = {}
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in LABEL_SUFFIXES and path.name not in CLASS_FILES:
                self.files.setdefault(path.stem, []).append(path)
        if not self.files:
            raise FileNotFoundError(f"{folder} holds no label maps ({', '.join(LABEL_SUFFIXES)}).")

    def file(self, image_id: str) -> Path:
        """
        Return the label map's file for a photograph.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If there are several.
        """
        if image_id not in self.files:
            raise FileNotFoundError(
                f"There is no prediction {self.folder / image_id}.png, nor .json. Folders without config.json are "
                "read as label maps, not as models."
            )
        first, *others = self.files[image_id]
        if others:
            raise ValueError(f"There are several predictions for {image_id}: {first} and {others[0]}. Remove one.")
        return first

    def class_names(self) -> list[str] | None:
        """
        Return the names of the label maps' classes in the order of ids: from `classes.txt` or `id2label.json` in the
        folder or beside a folder `annotations`, or from their categories in COCO format; `None` if nothing names them.

        Raises:
            ValueError: If names are malformed, or two label maps name a class differently.
        """
        names = read_class_names(self.folder)
        if names is None and self.folder.name == LABEL_FOLDER:
            names = read_class_names(self.folder.parent)
        paths = [path for paths in self.files.values() for path in paths if path.suffix == ".json"]
        categories = {
            path: {category["id"]: category["name"] for category in read_annotation(path)["categories"]}
            for path in paths
        }
        if names is None and categories:
            classes = names_of_categories(categories)
            names = list(LABELS) if classes is None else classes.names
        faults = [] if names is None else category_faults(categories, names)
        if faults:
            raise ValueError(
                f"The label maps in {self.folder} name their classes differently. {describe_faults(faults)}."
            )
        return names

    def read(self, image_id: str, size: tuple[int, int]) -> torch.Tensor:
        """
        Read the label map of a photograph.

        Args:
            image_id (`str`): Name of the photograph.
            size (`tuple[int, int]`): Its height and width.

        Returns:
            `torch.Tensor` of shape `(height, width)`: uint8.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If there are several, or it is not a label map of this size.
        """
        path = self.file(image_id)
        label_map, _ = read_label(path, str(path))
        if tuple(label_map.shape) != size:
            raise ValueError(
                f"{path} has {label_map.shape[1]} x {label_map.shape[0]} pixels, its photograph {size[1]} x {size[0]} "
                "(width x height). Predictions must have the photograph's own size."
            )
        return label_map
