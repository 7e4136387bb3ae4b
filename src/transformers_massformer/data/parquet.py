"""Write MaSS13K, or data in its layout, as Parquet files that contain the images."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from ..utils.files import written_whole
from ..utils.json_files import write_json
from .headers import label_orientation, read_header, rewritten_photo, turned_png
from .label_headers import read_label_header
from .layout import Pair, Split, check_faults, check_pictures, fingerprint
from .mass13k import MaSS13K


# 4K photographs in a row group, the part of a file that is read at once.
ROW_GROUP_IMAGES = 8
# Hidden, because `datasets` would read it as data.
MANIFEST = ".preparation.json"


def embedded_example(pair: Pair) -> dict[str, Any]:
    """Return the row of a pair: the bytes of its files, which decoders that honour EXIF turn upright."""
    orientation = label_orientation(read_header(pair.image), read_label_header(pair.label))
    image = rewritten_photo(pair.image) or pair.image.read_bytes()
    label = pair.label.read_bytes() if orientation in (0, 1) else turned_png(pair.label, orientation)
    return {
        "image": {"path": pair.image.name, "bytes": image},
        "label": {"path": pair.label.name, "bytes": label},
        "image_id": pair.image_id,
    }


def check_manifest(folder: Path, manifest: dict[str, Any]):
    """Refuse a folder with files of another preparation; record this one in a new folder."""
    path = folder / MANIFEST
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != manifest:
        raise ValueError(
            f"{folder} holds files made from other data or with another number of images per file. Choose another "
            "folder or remove this one."
        )
    if not path.exists():
        if any(folder.rglob("*.parquet")):
            raise ValueError(f"{folder} holds Parquet files of unknown origin. Choose another folder.")
        write_json(manifest, path, indent=2)


def write_shard(pairs: list[Pair], path: Path):
    """Write a Parquet file, so that it is either complete or absent."""
    with written_whole(path) as partial:
        examples = datasets.Dataset.from_list([embedded_example(pair) for pair in pairs], features=MaSS13K.features())
        examples.to_parquet(str(partial), batch_size=ROW_GROUP_IMAGES)


def write_parquet(
    splits: dict[str, Split], output: str | Path, images_per_file: int = 64
) -> Iterator[tuple[Path, bool]]:
    """
    Write Parquet files with the bytes of every image, which `load_dataset(output)` loads and streams without this
    package. Existing files are kept, so that an interrupted preparation can be resumed.

    Args:
        splits (`dict[str, Split]`): From [`find_splits`].
        output (`str` or `Path`): The folder; files are written to its subfolder `data`.
        images_per_file (`int`, *optional*, defaults to 64): About half a gigabyte of 4K photographs.

    Yields:
        `tuple[Path, bool]`: Each file, and whether this call wrote it.

    Raises:
        ValueError: If a split has faults or label maps that are not PNG files, or the folder holds other files.
    """
    for name, split in splits.items():
        check_faults(name, split)
        check_pictures(split)
    folder = Path(output) / "data"
    folder.mkdir(parents=True, exist_ok=True)
    check_manifest(Path(output), {"fingerprint": fingerprint(splits), "images_per_file": images_per_file})
    for name, split in splits.items():
        shards = [split.pairs[i : i + images_per_file] for i in range(0, len(split.pairs), images_per_file)]
        for index, pairs in enumerate(shards):
            path = folder / f"{name}-{index:05d}-of-{len(shards):05d}.parquet"
            is_new = not path.exists()
            if is_new:
                write_shard(pairs, path)
            yield path, is_new
