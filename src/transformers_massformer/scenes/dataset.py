"""Provide scenes as a `datasets` data set, and as files in the layout of MaSS13K."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..data.label_images import write_label_image
from ..data.layout import LABELS, SPLIT_FOLDERS
from ..utils.files import written_whole
from ..utils.png import write_png
from .photograph import encode_jpeg
from .rendering import Scene, check_size, render_scene


if TYPE_CHECKING:
    import datasets


JPEG_QUALITY = 95


def scene_name(seed: int, index: int) -> str:
    """Return the name of a scene, which is its image id."""
    return f"scene_{seed:04d}_{index:06d}"


def generate(indices: list[int], size: tuple[int, int], seed: int, with_alpha: bool) -> Iterator[dict[str, Any]]:
    """Render the rows of [`load_scenes`]."""
    for index in indices:
        scene = render_scene(seed, index, size)
        row = {
            "image": {"bytes": encode_jpeg(scene.image, JPEG_QUALITY), "path": None},
            "label": Image.fromarray(scene.label),
            "image_id": scene_name(seed, index),
        }
        if with_alpha:
            row["alpha"] = [Image.fromarray(alpha) for alpha in scene.alpha]
            row["bicycle"] = Image.fromarray(scene.objects["bicycle"])
        yield row


def load_scenes(
    n: int,
    size: tuple[int, int] = (4096, 3072),
    seed: int = 0,
    with_alpha: bool = False,
    num_proc: int | None = None,
    streaming: bool = False,
    cache_dir: str | Path | None = None,
) -> "datasets.Dataset | datasets.IterableDataset":
    """
    Load the first scenes of a seed, rendered on first use and then kept in the cache of `datasets`.

    The columns are `image`, `label` (mode L, class ids in the order of `LABELS`) and `image_id`, and with alphas
    `alpha` (one image of mode L per class, summing to 255) and `bicycle` (the alpha of the bicycles, which are part
    of class others). The photographs are JPEG files of quality 95.

    Args:
        n (`int`): Number of scenes.
        size (`tuple[int, int]`): Width and height in pixels, 16 to 16384.
        seed (`int`): Scene `i` depends on the seed, `i` and the size alone. Use a different seed for each split.
        with_alpha (`bool`): Whether to add the columns of alphas.
        num_proc (`int`, *optional*): Number of rendering processes; not with `streaming`.
        streaming (`bool`): Whether to render while iterating, without a cache.
        cache_dir (`str` or `Path`, *optional*): Defaults to the cache of `datasets`.

    Raises:
        ValueError: For fewer than one scene, a negative seed, a size out of range, or `num_proc` with `streaming`.
    """
    import datasets

    if n < 1 or seed < 0:
        raise ValueError(f"Cannot load {n} scenes of seed {seed}: n must be at least 1, and the seed at least 0.")
    check_size(size)
    features: dict[str, Any] = {
        "image": datasets.Image(),
        "label": datasets.Image(mode="L"),
        "image_id": datasets.Value("string"),
    }
    if with_alpha:
        features |= {"alpha": [datasets.Image(mode="L")], "bicycle": datasets.Image(mode="L")}
    arguments = {"indices": list(range(n)), "size": tuple(size), "seed": seed, "with_alpha": with_alpha}
    if streaming:
        if num_proc is not None:
            raise ValueError(
                "num_proc cannot be combined with streaming: use the workers of a torch DataLoader instead."
            )
        return datasets.IterableDataset.from_generator(
            generate, features=datasets.Features(features), gen_kwargs=arguments
        )
    options: dict[str, Any] = {} if cache_dir is None else {"cache_dir": str(cache_dir)}
    return datasets.Dataset.from_generator(
        generate,
        features=datasets.Features(features),
        gen_kwargs=arguments,
        num_proc=num_proc,
        **options,
    )


class SceneFiles:
    """Files of one scene, in the layout of MaSS13K."""

    def __init__(self, root: Path, split: str, seed: int, index: int, with_alpha: bool):
        folder, name = split_folder(split), scene_name(seed, index)
        self.image = root / "images" / folder / f"{name}.jpg"
        self.label = root / "annotations" / folder / f"{name}.png"
        self.alphas = {}
        if with_alpha:
            self.alphas = {label: root / "alphas" / folder / name / f"{label}.png" for label in (*LABELS, "bicycle")}

    @property
    def paths(self) -> list[Path]:
        """The files, in the order in which they are written."""
        return [self.image, *self.alphas.values(), self.label]

    def exist(self, size: tuple[int, int]) -> bool:
        """Return whether the scene is finished; raise a ValueError if its files have another size."""
        if not all(path.exists() for path in self.paths):
            return False
        with Image.open(self.label) as label:
            if label.size != tuple(size):
                raise ValueError(
                    f"{self.label} is {label.width}x{label.height}, not {size[0]}x{size[1]}. "
                    "Choose another --output or --seed."
                )
        return True

    def write(self, scene: Scene):
        """Write each file completely or not at all; the label map last, because it marks the scene as finished."""
        with written_whole(self.image) as partial:
            partial.write_bytes(encode_jpeg(scene.image, JPEG_QUALITY))
        alphas = {**dict(zip(LABELS, scene.alpha, strict=True)), **scene.objects}
        for name, path in self.alphas.items():
            write_alpha(path, alphas[name])
        write_label_image(scene.label, self.label, palette=False)


def split_folder(split: str) -> str:
    """Return the folder of a split of MaSS13K; raise a ValueError that lists the splits if there is none."""
    for folders in SPLIT_FOLDERS.values():
        if split in folders:
            return folders[0]
    known = [folder for folders in SPLIT_FOLDERS.values() for folder in folders]
    raise ValueError(f"Unknown split {split}: choose from {', '.join(known)}.")


def write_alpha(path: Path, values: np.ndarray):
    """Write an array as a PNG, completely or not at all."""
    with written_whole(path) as partial:
        write_png(Image.fromarray(values), partial)
