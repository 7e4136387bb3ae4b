import numpy as np
import PIL.Image
import pytest
import torch
from tiny import tiny_model

from transformers_massformer import MaSSFormerImageProcessor, open_image
from transformers_massformer.inference import PeakMemory, Segmenter


def test_peak_memory_is_that_of_the_block():
    with PeakMemory("cpu") as before:
        pass
    with PeakMemory("cpu") as large:
        torch.ones(2**26).sum()
    with PeakMemory("cpu") as after:
        pass
    # 256 MiB of float32; other allocations of the process come and go.
    assert large.bytes - before.bytes > 200 * 2**20
    assert large.bytes - after.bytes > 200 * 2**20


def test_segmenter_gives_the_processor_s_label_map(tmp_path):
    model, processor = tiny_model(), MaSSFormerImageProcessor()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "photo.png")
    result = Segmenter(tmp_path, device="cpu")(open_image(tmp_path / "photo.png"))
    with torch.no_grad():
        outputs = model(**processor(pixels, return_tensors="pt"))
    expected = processor.post_process_semantic_segmentation(outputs, target_sizes=[(45, 70)])[0]
    assert result.label_map.dtype == np.uint8
    assert np.array_equal(result.label_map, expected.numpy())
    assert result.seconds > 0


def test_missing_models_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nothing"):
        Segmenter(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        Segmenter(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no model at nobody/nothing"):
        Segmenter("nobody/nothing")
