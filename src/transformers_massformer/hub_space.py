"""The web page's folder as it is pushed to the Hub: a Space with card, requirements and page."""

import shutil
from pathlib import Path


NAME = "space"
# The page, and what a Space calls it.
PAGE, PAGE_IN_SPACE = "space_app.py", "app.py"
# The version that the page was tried with; the Space gets it.
GRADIO_VERSION = "6.31.0"
REQUIREMENTS = ("transformers-massformer[demo]",)

CARD = """---
title: MaSSFormer
emoji: ✂️
colorFrom: green
colorTo: indigo
sdk: gradio
sdk_version: {gradio}
python_version: "3.11"
app_file: {app}
pinned: false
license: apache-2.0
tags:
- image-segmentation
- massformer
short_description: Sharp segmentation of whole 4K photographs
---

# MaSSFormer

Segments a photograph of up to 50 megapixels into classes, at its own size, and makes label maps, mattes, cut-outs and
background blur of it. [MaSS13K: A Matting-level Semantic Segmentation Benchmark](https://arxiv.org/abs/2503.18364)
(CVPR 2025) describes the model.

## Start it

The model is a folder `massformer-demo` beside this page, or what the variable `MASSFORMER_MODEL` names: another folder
or a model on the Hub. The page itself is the package's; `massformer demo` serves the same one without a Space.

```bash
pip install -r requirements.txt
MASSFORMER_MODEL=my-model python app.py
```

The demo checkpoint takes 4.4 GiB of memory for 4096 x 3072 pixels on a CPU, and 13.2 GiB for 8160 x 6120.
"""


def write_space_folder(folder: str | Path) -> Path:
    """
    Writes the Space's folder.

    Args:
        folder (`str` or `Path`): The folder; its files of these names are replaced, others stay.

    Returns:
        `Path`: The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).parent / "demo" / PAGE, folder / PAGE_IN_SPACE)
    (folder / "README.md").write_text(CARD.format(gradio=GRADIO_VERSION, app=PAGE_IN_SPACE))
    (folder / "requirements.txt").write_text("\n".join(REQUIREMENTS) + "\n")
    return folder
