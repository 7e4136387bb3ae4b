"""The data set's folder as it is pushed to the Hub: card, classes, colours and loading script."""

import json
import shutil
from pathlib import Path

from .data import headers, layout, mass13k
from .data.label_images import MASS13K_PALETTE
from .data.layout import LABELS, PUBLISHED_COUNTS
from .data.mass13k import CITATION


CARD = """---
license: other
license_name: authors-terms
license_link: https://github.com/xiechenxi99/MaSS13K
pretty_name: MaSS13K
task_categories:
- image-segmentation
task_ids:
- semantic-segmentation
size_categories:
- 10K<n<100K
tags:
- high-resolution
- matting
- semantic-segmentation
---

# MaSS13K

{images:,} photographs of about 4096 x 3072 pixels with label maps of matting quality, for semantic segmentation with
sharp boundaries: hair, leaves, railings and wires are labelled as they are seen. From
[MaSS13K: A Matting-level Semantic Segmentation Benchmark](https://arxiv.org/abs/2503.18364) (CVPR 2025).

| split | photographs |
|---|---|
{counts}

| id | class | colour |
|---|---|---|
{classes}

255 marks pixels of no class. "others" is a class of its own, of well-segmented things without a name, and is learned
and scored like the rest.

## How to obtain it

**This folder holds no photographs.** They are the authors': follow their instructions at
<https://github.com/xiechenxi99/MaSS13K>, and unpack what you get into one folder. It is to look like this; the folder
of photographs may also be called `images` or `images_copy`, and all may lie in a folder `msem`.

```
MaSS13K/
  images_pad/train/*.jpg    images_pad/val/*.jpg    images_pad/test/*.jpg
  annotations/train/*.png   annotations/val/*.png   annotations/test/*.png
```

## Load it

```python
from transformers_massformer.data.mass13k import load_mass13k

data_set = load_mass13k("MaSS13K", split="validation")  # columns image, label, image_id
```

With `datasets` 3.x, which still runs loading scripts, the package is not needed:
`load_dataset("mass13k", data_dir="MaSS13K", split="validation", trust_remote_code=True)` with the path of this folder.
`scripts/prepare_mass13k.py` of transformers-massformer writes Parquet files that every version loads and streams.

Photographs come upright, whatever their EXIF orientation says. A label map without a tag that has the size in which
its photograph is stored is turned with it.

## How it was made

Smartphones of seven kinds took the photographs, indoors and outdoors, in different light and weather. Annotators drew
the masks in an image editor, and each went through several stages of review (paper, section 3).

## Intended use

Training and scoring semantic segmentation whose boundaries matter: the paper reports mIoU, Boundary IoU and boundary
F1 of the test split. The authors' terms say what is allowed.

## Limitations

* Seven classes, without instances.
* Photographs show people. The authors report reviews of ethics and privacy (paper, section 3).
* A label map without a tag whose photograph is turned by 180 degrees or mirrored is left as it is stored;
  `massformer stats --verify` lists such pairs.

## Licence

The photographs and label maps are under the authors' terms, to be found at their repository. The loading script is
under the Apache License 2.0.

## Citation

```bibtex
{citation}
```
"""


def colour_text(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{value:02x}" for value in colour)


def data_set_card() -> str:
    """The card, with the classes and counts that the code has."""
    return CARD.format(
        images=sum(PUBLISHED_COUNTS.values()),
        counts="\n".join(f"| {name} | {count:,} |" for name, count in PUBLISHED_COUNTS.items()),
        classes="\n".join(
            f"| {index} | {label} | {colour_text(colour)} |"
            for index, (label, colour) in enumerate(zip(LABELS, MASS13K_PALETTE, strict=True))
        ),
        citation=CITATION,
    )


def write_label_files(folder: Path):
    """Names and colours of the classes, by id."""
    names = {str(index): label for index, label in enumerate(LABELS)}
    colours = {str(index): list(colour) for index, colour in enumerate(MASS13K_PALETTE)}
    (folder / "id2label.json").write_text(json.dumps(names, indent=2) + "\n")
    (folder / "palette.json").write_text(json.dumps(colours, indent=2) + "\n")


def write_data_set_folder(folder: str | Path) -> Path:
    """
    Writes the Hub folder of MaSS13K, without photographs.

    Args:
        folder (`str` or `Path`): The folder; its files of these names are replaced, others stay.

    Returns:
        `Path`: The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(data_set_card())
    write_label_files(folder)
    for module in (headers, layout, mass13k):
        shutil.copy(module.__file__, folder)
    return folder
