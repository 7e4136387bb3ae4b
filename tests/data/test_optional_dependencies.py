import sys

import numpy as np
import pytest
from support.commands import run_python

from transformers_massformer.data.annotations import decode_segmentation, read_coco_annotation, write_label_map
from transformers_massformer.data.label_headers import read_label_header


def test_modules_are_imported_when_they_are_used():
    code = """
import sys
from transformers_massformer import images, scenes
from transformers_massformer.data import annotations, layout, reading, statistics_plot, training_set, verification
names = ("aggdraw", "datasets", "matplotlib", "pandas", "pyarrow", "pycocotools", "scipy.signal")
print([name for name in names if name in sys.modules])
"""
    assert run_python("-c", code).stdout.strip() == "[]"


def test_coco_format_names_its_extra(tmp_path, monkeypatch):
    label_map = np.zeros((4, 5), np.uint8)
    write_label_map(label_map, tmp_path / "a.json", ["sky"], "a.jpg")
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    # PNG files and run-length encodings are read without it.
    assert np.array_equal(read_coco_annotation(tmp_path / "a.json").numpy(), label_map)
    assert read_label_header(tmp_path / "a.json").upright_size == (5, 4)
    write_label_map(label_map, tmp_path / "a.png", ["sky"], "a.jpg")
    message = r"COCO format needs pycocotools.mask: pip install 'transformers-massformer\[coco\]'"
    with pytest.raises(ImportError, match=message):
        decode_segmentation([[0, 0, 2, 0, 2, 2]], (4, 5))
    with pytest.raises(ImportError, match=message):
        write_label_map(label_map, tmp_path / "b.json", ["sky"], "a.jpg")
    assert not (tmp_path / "b.json").exists()
