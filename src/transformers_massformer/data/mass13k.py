"""
The `datasets` builder of MaSS13K, over files that stay where they are.

A copy travels as the loading script of datasets 3.x, so it imports only `datasets`, its siblings `headers` and
`layout`, and the standard library.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from .headers import label_orientation, read_header, rewritten_photo, turned_png
from .label_headers import read_label_header
from .layout import HOW_TO_OBTAIN, check_faults, check_pictures, choose_split, find_splits, fingerprint


DESCRIPTION = (
    "13,348 photographs of about 4096 x 3072 pixels with label maps of matting quality in seven classes "
    "(MaSS13K, CVPR 2025, arXiv:2503.18364)."
)
CITATION = """@inproceedings{xie2025mass13k,
  title={MaSS13K: A Matting-level Semantic Segmentation Benchmark},
  author={Xie, Chenxi and Li, Minghan and Zeng, Hui and Luo, Jun and Zhang, Lei},
  booktitle={CVPR},
  year={2025}
}"""


class MaSS13K(datasets.GeneratorBasedBuilder):
    """
    `datasets` builder for photographs with label maps in the folder `data_dir`. Columns: `image`, upright, in the mode
    and with the colour profile of its file; `label`, a map of class ids at the photograph's size; `image_id`, their
    name without suffix.
    """

    VERSION = datasets.Version("1.1.0")

    @staticmethod
    def features() -> datasets.Features:
        """Return the columns."""
        return datasets.Features(
            {"image": datasets.Image(), "label": datasets.Image(), "image_id": datasets.Value("string")}
        )

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=DESCRIPTION,
            citation=CITATION,
            homepage="https://github.com/xiechenxi99/MaSS13K",
            features=self.features(),
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        if self.config.data_dir is None:
            raise ValueError(f"MaSS13K cannot be downloaded automatically: pass `data_dir`. {HOW_TO_OBTAIN}")
        generators = []
        for name, split in find_splits(self.config.data_dir).items():
            check_faults(name, split)
            check_pictures(split)
            # `datasets` splits lists among its processes.
            files = {
                "image_ids": [pair.image_id for pair in split.pairs],
                "images": [str(pair.image) for pair in split.pairs],
                "labels": [str(pair.label) for pair in split.pairs],
            }
            generators.append(datasets.SplitGenerator(name=name, gen_kwargs=files))
        return generators

    def _generate_examples(self, **kwargs: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
        for image_id, image, label in zip(kwargs["image_ids"], kwargs["images"], kwargs["labels"], strict=True):
            orientation = label_orientation(read_header(Path(image)), read_label_header(Path(label)))
            rewritten = rewritten_photo(Path(image))
            image_file = image if rewritten is None else {"path": None, "bytes": rewritten}
            label_file: Any = label
            if orientation not in (0, 1):
                label_file = {"path": None, "bytes": turned_png(Path(label), orientation)}
            yield image_id, {"image": image_file, "label": label_file, "image_id": image_id}


def load_mass13k(
    data_dir: str | Path,
    split: str | None = None,
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | Path | None = None,
) -> Any:
    """
    Load MaSS13K, or any folder in its layout. The files stay where they are; the cache holds their names.

    Args:
        data_dir (`str` or `Path`):
            The folder that holds `annotations` and `images_pad`, `images` or `images_copy`, directly or in `msem`.
        split (`str`, *optional*):
            `"train"`, `"validation"` (or `"val"`), `"test"`, or a slice such as `"train[:10%]"`. All splits by
            default.
        streaming (`bool`, *optional*, defaults to `False`): Whether to iterate over the files without a cache.
        num_proc (`int`, *optional*): Number of processes that list the files.
        cache_dir (`str` or `Path`, *optional*): Defaults to the cache of `datasets`.

    Returns:
        `datasets.Dataset`, or `datasets.IterableDataset` if streaming; without `split`, a dictionary
        of these.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If the data has no such split, or if files are missing, unreadable or of different sizes, or label
            maps are not PNG files, with counts and names.
    """
    data_dir = Path(data_dir).resolve()
    splits = find_splits(data_dir)
    if split is not None:
        split = re.sub(r"\bval\b", "validation", split)
        for name in re.findall(r"[a-z]\w*", re.sub(r"\[.*?\]", "", split)):
            if name != "all":
                choose_split(splits, name)
    cache = None if cache_dir is None else str(cache_dir)
    builder = MaSS13K(data_dir=str(data_dir), cache_dir=cache, hash=fingerprint(splits))
    if streaming:
        return builder.as_streaming_dataset(split)
    builder.download_and_prepare(num_proc=num_proc)
    return builder.as_dataset(split)
