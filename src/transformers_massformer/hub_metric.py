"""The metric's folder as it is pushed to the Hub: a Space with card, requirements, page and test cases."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch

from .metrics import CountSettings, count_images, score


NAME = "boundary_segmentation"
# What `evaluate.load` runs and what that imports; the page, and what a Space calls it.
MODULES = ("boundary_segmentation.py", "counts.py", "scores.py")
PAGE, PAGE_IN_SPACE = "space_app.py", "app.py"
REQUIREMENTS = ("datasets>=3.6", "evaluate>=0.4.6", "gradio>=5.0", "numpy>=1.26", "pillow", "torch>=2.6")

CARD = """---
title: Boundary segmentation
emoji: ✂️
colorFrom: blue
colorTo: green
sdk: gradio
app_file: app.py
pinned: false
license: apache-2.0
tags:
- evaluate
- metric
- semantic-segmentation
description: IoU, Boundary IoU and boundary F1 of label maps, as MaSS13K reports them.
---

# Boundary segmentation

How well predicted label maps agree with true ones, at the images' own size and above all at the boundaries.

## Description

* **IoU**: intersection over union of each class.
* **Boundary IoU** (BIoU): the same, of the pixels of a class that lie within `d` pixels of its boundary, `d` being a
  share of the image's diagonal. [Boundary IoU](https://arxiv.org/abs/2103.16562), as in
  [MaSS13K](https://arxiv.org/abs/2503.18364).
* **BF1**: precision and recall of boundary pixels, which match within a tolerance, and their harmonic mean.

## Use

```python
import evaluate

metric = evaluate.load("{name}", ignore_index=255, boundary_ratio=0.001, bf1_tolerance=2)
for predictions, references in batches:  # lists of label maps, of any sizes
    metric.add_batch(predictions=predictions, references=references)
results = metric.compute(num_labels=7)
```

`add_batch` counts at once and keeps a few hundred numbers per image, so a data set of 4K label maps takes no more
memory than one pair. Several processes share the work through `num_process`, `process_id` and `experiment_id`.

### Inputs

| name | where | meaning |
|---|---|---|
| `predictions`, `references` | `add`, `add_batch`, `compute` | label maps: arrays, tensors, images or lists |
| `num_labels` | `compute` | number of classes; by default one more than the largest id there is |
| `ignore_index` | `load`, `compute` | label that is left out (255), or `None` |
| `boundary_ratio` | `load`, `compute` | width of the band as a share of the diagonal (0.001), at least one pixel |
| `bf1_tolerance` | `load`, `compute` | distance in pixels within which boundary pixels match (2) |
| `bf1_distance` | `load`, `compute` | `"euclidean"` or `"chebyshev"` |
| `release_compatible` | `load`, `compute` | whether predicted bands keep ignored pixels (`False`) |

`compute` takes the settings for predictions given to it; what was added before has been counted with those of `load`.

### Output

`mean_iou`, `mean_boundary_iou`, `mean_bf1`, `mean_accuracy` and `overall_accuracy` are floats from 0 to 1, of counts
summed over all images; `image_mean_iou`, `image_mean_boundary_iou` and `image_mean_bf1` are means over images.
`per_category_iou`, `per_category_boundary_iou`, `per_category_bf1` and `per_category_accuracy` have a float for each
class. `mean_pq_st` and `per_category_pq_st` are the panoptic quality in which a class in an image is one segment.
Classes in neither predictions nor references are NaN, count in no mean, and are listed as `absent_categories`.

## Limitations

* A boundary of a class is also where the image ends and where ignored pixels begin.
* BF1 has no single definition; here boundary pixels are those of the class with another class among their eight
  neighbours, on both maps, and counts are summed over the images before precision and recall are taken.

## Citation

```bibtex
{citation}
```
"""


def test_cases() -> list[dict[str, Any]]:
    """Pairs of label maps and what is to come out: equal, shifted by a column, and with ignored pixels."""
    label = [[0, 0, 0, 1, 1, 1]] * 4
    ignored = [[0, 0, 0, 1, 255, 255]] * 4
    pairs = [(label, label), ([[0, 0, 1, 1, 1, 1]] * 4, label), ([[0, 0, 0, 0, 0, 0]] * 4, ignored)]
    cases = []
    for prediction, reference in pairs:
        counts = count_images(torch.tensor([prediction]), torch.tensor([reference]), 2, CountSettings())
        scores = {name: value for name, value in score(counts).items() if name.startswith("mean_")}
        if any(math.isnan(value) for value in scores.values()):
            raise ValueError(f"NaN cannot stand in a test case: {scores}")
        cases.append({"predictions": [prediction], "references": [reference], "result": scores})
    return cases


def write_metric_folder(folder: str | Path) -> Path:
    """
    Writes the metric's Hub folder.

    Args:
        folder (`str` or `Path`): The folder; its files of these names are replaced, others stay.

    Returns:
        `Path`: The folder.
    """
    from .metrics.boundary_segmentation import CITATION

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).parent / "metrics"
    for name in MODULES:
        shutil.copyfile(source / name, folder / name)
    shutil.copyfile(source / PAGE, folder / PAGE_IN_SPACE)
    (folder / "README.md").write_text(CARD.format(name=NAME, citation=CITATION.strip()))
    (folder / "requirements.txt").write_text("\n".join(REQUIREMENTS) + "\n")
    cases = json.dumps(test_cases(), indent=4)
    (folder / "tests.py").write_text(
        f'"""Examples for the page and for who changes the metric."""\n\ntest_cases = {cases}\n'
    )
    return folder
