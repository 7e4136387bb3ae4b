"""Folders of SeMask-FPN as they are pushed to the Hub."""

from pathlib import Path

import torch

from .conversion import semask_variant_config
from .hub_folders import add_auto_maps, copy_remote_code
from .models.image_processing_semask import SeMaskImageProcessor
from .models.modeling_semask_swin import SeMaskForSemanticSegmentation


MODULES = (
    "configuration_massformer.py",
    "configuration_semask_swin.py",
    "image_processing_massformer.py",
    "image_processing_semask.py",
    "modeling_semask_swin.py",
    "semantic_prior.py",
    "semantic_readout.py",
)
CLASSES = {
    "AutoConfig": "configuration_semask_swin.SeMaskConfig",
    "AutoModelForSemanticSegmentation": "modeling_semask_swin.SeMaskForSemanticSegmentation",
    "AutoImageProcessor": "image_processing_semask.SeMaskImageProcessor",
}
# The paper's Table 1: mIoU on ADE20K's validation split, of one and of several scales.
PUBLISHED_SCORES = {
    "semask-swin-t": (42.11, 43.16),
    "semask-swin-s": (45.92, 47.63),
    "semask-swin-b": (49.35, 50.98),
    "semask-swin-l": (51.89, 53.52),
}
ADE20K_LABELS = 150

MODEL_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-segmentation
tags:
- semask
- semantic-segmentation
---

# {title}

SeMask-FPN puts a semantic layer after each stage of a Swin Transformer, which learns a map of the classes and lets it
steer attention, and reads the four stages with a Semantic-FPN head. This one is for the 150 classes of ADE20K and has
{parameters:,} parameters. It is described in
[SeMask: Semantically Masked Transformers for Semantic Segmentation](https://arxiv.org/abs/2112.12782).

## Weights

**This folder holds no weights.** It holds the configuration, the image processor and the code. The weights are the
authors': get their checkpoint from <https://github.com/Picsart-AI-Research/SeMask-Segmentation> and convert it.
Nothing in their file is executed.

```bash
pip install transformers-massformer
massformer convert --checkpoint semask.pth --variant {variant} --output {folder}
```

Which stages look at the whole image and which at windows is in no checkpoint. By default it is what the authors'
SeMask-FPN has for so many classes; `--semantic-attention window,window,global,global` says it.

The authors report for their checkpoint on the validation split of ADE20K: mIoU {miou:.2f} at one scale, {multi:.2f} at
several (their Table 1). Neither the weights nor these figures were made here.

## Use

```python
import transformers_massformer
from transformers import pipeline

pipe = pipeline("image-segmentation", model="{folder}")
masks = pipe("photo.jpg")  # one mask per class, at the photograph's size
```

Without the package the model loads with `trust_remote_code=True` through `AutoModelForSemanticSegmentation` and
`AutoImageProcessor`. The backbone alone is `SeMaskSwinBackbone`: it serves MaSSFormer and any other model of
transformers that takes a backbone.

## Intended use

Label maps of the 150 classes of ADE20K, a start for fine-tuning on other classes, and a backbone for other models.

## Training data

The authors trained on the 20,210 training images of ADE20K, in crops of 512 x 512 pixels (the largest model: 640 x
640), with a backbone that started from ImageNet (their section 4).

## Limitations

* It has no instances, and reads label maps from a quarter of the picture's sides: fine edges are lost.
* The published scores are those of ADE20K's pictures. On photographs of 4K nothing was measured.
* It was not examined for differences between groups of people.

## Licence

The code is under the Apache License 2.0. For the weights see the authors' repository.

## Citation

```bibtex
@article{{jain2021semask,
  title={{SeMask: Semantically Masked Transformers for Semantic Segmentation}},
  author={{Jain, Jitesh and Singh, Anukriti and Orlov, Nikita and Huang, Zilong and Li, Jiachen and Walton, Steven and
    Shi, Humphrey}},
  journal={{arXiv:2112.12782}},
  year={{2021}}
}}
```
"""


def folder_name(variant: str) -> str:
    """Of a variant on the Hub."""
    return variant.replace("semask-", "semask-fpn-")


def write_semask_folder(variant: str, folder: str | Path) -> Path:
    """
    Writes the Hub folder of a published SeMask-FPN for ADE20K, without weights.

    Args:
        variant (`str`): `"semask-swin-t"`, `"semask-swin-s"`, `"semask-swin-b"` or `"semask-swin-l"`.
        folder (`str` or `Path`): The folder; its files of these names are replaced, others stay.

    Returns:
        `Path`: The folder.

    Raises:
        ValueError: If there is no such variant.
    """
    folder = Path(folder)
    config = semask_variant_config(variant, ADE20K_LABELS)
    with torch.device("meta"):
        parameters = SeMaskForSemanticSegmentation(config).num_parameters()
    config.architectures = [SeMaskForSemanticSegmentation.__name__]
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    SeMaskImageProcessor(num_labels=ADE20K_LABELS).save_pretrained(folder)
    copy_remote_code(folder, MODULES)
    add_auto_maps(folder, CLASSES)
    miou, multi = PUBLISHED_SCORES[variant]
    size = variant.rsplit("-", 1)[1].upper()
    card = MODEL_CARD.format(
        title=f"SeMask-{size} FPN",
        parameters=parameters,
        variant=variant,
        folder=folder_name(variant),
        miou=miou,
        multi=multi,
    )
    (folder / "README.md").write_text(card)
    return folder
