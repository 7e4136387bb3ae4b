import numpy as np
import PIL.Image
import pytest
import torch
from support.commands import run_python
from support.tiny_data import smooth_photo

from transformers_massformer import MaSSFormerForSemanticSegmentation, MaSSFormerImageProcessor, open_image
from transformers_massformer.inference import predictor
from transformers_massformer.inference.memory import PeakMemory, available_memory
from transformers_massformer.inference.segmenter import Segmenter


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


@pytest.fixture
def model_folder(peers):
    return peers("massformer")


def test_segmenter_gives_the_processor_s_label_map(model_folder, tmp_path):
    photo = smooth_photo(70, 45)
    model = MaSSFormerForSemanticSegmentation.from_pretrained(model_folder)
    processor = MaSSFormerImageProcessor.from_pretrained(model_folder)
    photo.save(tmp_path / "photo.png")
    result = Segmenter(model_folder, device="cpu")(open_image(tmp_path / "photo.png"))
    with torch.no_grad():
        outputs = model(**processor(photo, return_tensors="pt"))
    expected = processor.post_process_semantic_segmentation(outputs, target_sizes=[(45, 70)])[0]
    assert result.label_map.dtype == np.uint8
    assert np.array_equal(result.label_map, expected.numpy())
    assert result.seconds > 0


def test_missing_models_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder .*nothing"):
        Segmenter(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        Segmenter(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no model at nobody/nothing"):
        Segmenter("nobody/nothing")


def test_segmenter_runs_the_fused_model(model_folder):
    segmenter = Segmenter(model_folder, device="cpu", dtype=torch.bfloat16)
    assert segmenter.predictor.model.is_fused
    assert segmenter.predictor.model.dtype == torch.bfloat16


def test_the_least_memory_is_less_than_what_is_used(model_folder):
    # In a process of its own, which has no memory left over from other tests to use again.
    code = f"""
import PIL.Image, torch
from transformers_massformer.inference.memory import PeakMemory, least_memory
from transformers_massformer.inference.segmenter import Segmenter
segmenter = Segmenter({str(model_folder)!r}, device="cpu")
config = segmenter.predictor.model.config
sizes = [least_memory(config, 1024, 1024, dtype) for dtype in (torch.float32, torch.bfloat16)]
with PeakMemory("cpu") as before:
    pass
print(*sizes, before.bytes, segmenter(PIL.Image.new("RGB", (1024, 1024))).peak_bytes)
"""
    least, least_in_half, before, peak = map(int, run_python("-c", code).stdout.split())
    # 9 queries and 8 fused channels at stride 2, 16 channels of the body at stride 4.
    assert least == (512 * 512 * (9 + 8) + 256 * 256 * 16) * 4
    assert least_in_half == least // 2
    assert peak - before > least


def test_images_that_cannot_fit_are_refused_before_work_starts(model_folder, monkeypatch):
    assert available_memory(torch.device("cpu")) > 2**20
    segmenter = Segmenter(model_folder, device="cpu")
    monkeypatch.setattr(predictor, "available_memory", lambda device: 2**20)
    with pytest.raises(MemoryError, match=r"800 x 600 pixels need more than .* free on cpu.*tiles.*bfloat16"):
        segmenter(PIL.Image.new("RGB", (800, 600)))
    assert segmenter(PIL.Image.new("RGB", (64, 64))).label_map.shape == (64, 64)
    monkeypatch.setattr(predictor, "available_memory", lambda device: 2**19)
    half = Segmenter(model_folder, device="cpu", dtype=torch.bfloat16, tile=512)
    with pytest.raises(MemoryError, match=r"512 x 512 pixels .*\(of 256 pixels, say\), or a smaller variant"):
        half(PIL.Image.new("RGB", (900, 512)))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
)
def test_allocators_errors_are_said_in_words(model_folder, monkeypatch, error):
    segmenter = Segmenter(model_folder, device="cpu")

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(segmenter.predictor, "run", fail)
    with pytest.raises(
        MemoryError, match="70 x 45 pixels do not fit into the memory of cpu in torch.float32. Use tiles"
    ):
        segmenter(PIL.Image.new("RGB", (70, 45)))
    error = RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else"):
        segmenter(PIL.Image.new("RGB", (70, 45)))


def test_other_models_are_segmented_too(peers):
    segmenter = Segmenter(peers("segformer"), device="cpu")
    assert segmenter(PIL.Image.new("RGB", (90, 70))).label_map.shape == (70, 90)
