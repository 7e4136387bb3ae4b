"""Folders as they are pushed to the Hub: configuration, image processor, remote code and model card."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from .conversion import variant_config
from .data.mass13k import CITATION
from .models.image_processing_massformer import MaSSFormerImageProcessor
from .models.modeling_massformer import MaSSFormerForSemanticSegmentation


# The modules that travel with a model, so that it loads where this package is not installed.
MASSFORMER_CODE = (
    "batch_norm_folding.py",
    "configuration_massformer.py",
    "deform_conv.py",
    "deform_conv_triton.py",
    "image_processing_massformer.py",
    "loss_massformer.py",
    "modeling_massformer.py",
    "semantic_prior.py",
    "semantic_readout.py",
)
MASSFORMER_CLASSES = {
    "AutoConfig": "configuration_massformer.MaSSFormerConfig",
    "AutoModel": "modeling_massformer.MaSSFormerModel",
    "AutoModelForSemanticSegmentation": "modeling_massformer.MaSSFormerForSemanticSegmentation",
    "AutoImageProcessor": "image_processing_massformer.MaSSFormerImageProcessor",
}

TITLES = {
    "r50": ("MaSSFormer (ResNet-50)", "a ResNet-50"),
    "r18-lite": ("MaSSFormer-Lite (ResNet-18)", "a ResNet-18 and half the widths"),
    "swin-t": ("MaSSFormer (Swin-T)", "a Swin-T"),
    "swin-b": ("MaSSFormer (Swin-B)", "a Swin-B"),
}
# Table 2 and Table 5 of the paper, test set: mIoU, boundary IoU, boundary F1.
PUBLISHED_SCORES = {
    "r50": (88.21, 48.39, 0.5593),
    "r18-lite": (86.13, 43.28, 0.5086),
    "swin-t": (89.40, 49.50, 0.5685),
    "swin-b": (91.31, 52.74, 0.6076),
}

MODEL_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-segmentation
tags:
- massformer
- semantic-segmentation
- high-resolution
- mass13k
---

# {title}

MaSSFormer segments whole 4K photographs into seven classes (others, human, building, vegetation, ground, sky, water)
with sharp boundaries. This one has {backbone} as pixel encoder and {parameters:,} parameters. It is described in
[MaSS13K: A Matting-level Semantic Segmentation Benchmark](https://arxiv.org/abs/2503.18364) (CVPR 2025).

## Weights

**This folder holds no weights.** It holds the configuration, the image processor and the code. The weights are the
authors': get their checkpoint from <https://github.com/xiechenxi99/MaSS13K> and convert it. Nothing in their file is
executed.

```bash
pip install transformers-massformer
massformer convert --checkpoint massformer.pth --variant {variant} --output massformer-{variant}
```

The authors report for their checkpoint, on the 1,500 test photographs of MaSS13K: mIoU {miou:.2f}, boundary IoU
{biou:.2f}, boundary F1 {bf1:.4f} (tables 2 and 5 of the paper). Neither the weights nor these figures were made here.

## Use

```python
import transformers_massformer
from transformers import pipeline

pipe = pipeline("image-segmentation", model="massformer-{variant}")
masks = pipe("photo.jpg")  # one mask per class, at the photograph's size
```

Without the package the model loads with `trust_remote_code=True` through `AutoModelForSemanticSegmentation` and
`AutoImageProcessor`.

## Intended use

Masks of the seven classes for photographs, at their own size, as photo editors need them; and a start for fine-tuning
on other classes or photographs.

## Training data

The authors trained on the training split of MaSS13K: 11,348 photographs of about 4096 x 3072 pixels, taken by
smartphones, indoors and outdoors, with label maps of matting quality (paper, section 3). Their settings are those of
`massformer train --recipe src/transformers_massformer/recipes/massformer-{variant}.yaml`.

## Limitations

* Seven classes, and no instances: two people who touch are one region. What is none of the six named classes is
  "others".
* The published scores are those of photographs like MaSS13K's. On others, such as drawings, documents or medical
  pictures, nothing was measured.
* Time and memory are high for mobile devices (paper, section D).
* It marks where people are. It was not examined for differences between groups of people, and is not made to identify
  anybody.

## Licence

The code is under the Apache License 2.0. For the weights and the data set see the authors' repository.

## Citation

```bibtex
{citation}
```
"""


def copy_remote_code(folder: Path, modules: Sequence[str] = MASSFORMER_CODE):
    """Puts the modules that a model needs beside it; the folder is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in modules:
        shutil.copyfile(Path(__file__).parent / "models" / name, folder / name)


def add_auto_maps(folder: Path, classes: Mapping[str, str] = MASSFORMER_CLASSES):
    """Tells `trust_remote_code` which classes to take from the modules beside the configuration files."""
    for name, auto_map in (("config.json", {"auto_map": dict(classes)}), ("preprocessor_config.json", {})):
        path = folder / name
        fields = json.loads(path.read_text()) | auto_map
        # The same folder whichever version of the library wrote it.
        fields.pop("transformers_version", None)
        # Without it the image processor is looked up by the configuration. Were the code named in this file, pipelines
        # would take it for a video processor's and ask whether to run it, also where this package is installed.
        fields.pop("image_processor_type", None)
        path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")


def write_model_folder(variant: str, folder: str | Path) -> Path:
    """
    Writes the Hub folder of a published model, without weights.

    Args:
        variant (`str`): `"r50"`, `"r18-lite"`, `"swin-t"` or `"swin-b"`.
        folder (`str` or `Path`): The folder; its files of these names are replaced, others stay.

    Returns:
        `Path`: The folder.

    Raises:
        ValueError: If there is no such variant.
    """
    folder = Path(folder)
    config = variant_config(variant)
    with torch.device("meta"):
        parameters = MaSSFormerForSemanticSegmentation(config).num_parameters()
    config.architectures = [MaSSFormerForSemanticSegmentation.__name__]
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    MaSSFormerImageProcessor().save_pretrained(folder)
    copy_remote_code(folder)
    add_auto_maps(folder)
    title, backbone = TITLES[variant]
    miou, biou, bf1 = PUBLISHED_SCORES[variant]
    card = MODEL_CARD.format(
        title=title,
        backbone=backbone,
        parameters=parameters,
        variant=variant,
        miou=miou,
        biou=biou,
        bf1=bf1,
        citation=CITATION,
    )
    (folder / "README.md").write_text(card)
    return folder
