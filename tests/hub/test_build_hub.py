"""The published folders: complete, reproducible, and loadable in a process without the package."""

import json
import subprocess
from pathlib import Path

import pytest
from build_hub import add_remote_code, render_card
from support import ROOT
from support.commands import run_python
from support.hub import build_hub
from support.tiny import tiny_model, tiny_semask
from transformers import AutoConfig

from transformers_massformer import MaSSFormerImageProcessor, SeMaskImageProcessor


MASSFORMER = {
    "README.md",
    "arguments.py",
    "batch_norm_folding.py",
    "batch_norm_statistics.py",
    "config.json",
    "configuration_massformer.py",
    "deform_conv.py",
    "deform_conv_triton.py",
    "image_processing_massformer.py",
    "image_values.py",
    "loss_massformer.py",
    "modeling_massformer.py",
    "photo_headers.py",
    "preprocessor_config.json",
    "semantic_prior.py",
    "semantic_readout.py",
    "srgb.py",
}
SEMASK = {
    "README.md",
    "arguments.py",
    "batch_norm_statistics.py",
    "config.json",
    "configuration_massformer.py",
    "configuration_semask_swin.py",
    "image_processing_massformer.py",
    "image_values.py",
    "image_processing_semask.py",
    "modeling_semask_swin.py",
    "photo_headers.py",
    "preprocessor_config.json",
    "semantic_prior.py",
    "semantic_readout.py",
    "srgb.py",
}
FILES = {
    **{f"massformer-{variant}": MASSFORMER for variant in ("r50", "r18-lite", "swin-t", "swin-b")},
    "massformer-photo": MASSFORMER | {"model.safetensors", "examples.jpg"},
    "massformer-demo": MASSFORMER | {"model.safetensors"},
    **{f"semask-fpn-swin-{size}": SEMASK for size in "tsbl"},
    "mass13k": {
        "README.md",
        "headers.py",
        "id2label.json",
        "label_headers.py",
        "layout.py",
        "mass13k.py",
        "palette.json",
        "photo_headers.py",
    },
    "boundary_segmentation": {
        "README.md",
        "app.py",
        "boundary_segmentation.py",
        "counts.py",
        "requirements.txt",
        "scores.py",
        "tests.py",
    },
    "space": {"README.md", "app.py", "requirements.txt"},
}

# A process that has transformers but not this package.
REMOTE = """
import sys
sys.modules["transformers_massformer"] = None
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation
folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
assert "ImageProcessor" in type(processor).__name__
"""
WITHOUT_WEIGHTS = """
with torch.device("meta"):
    model = AutoModelForSemanticSegmentation.from_config(config, trust_remote_code=True)
print(model.num_parameters())
"""
WITH_WEIGHTS = """
options = {"trust_remote_code": True}
model, info = AutoModelForSemanticSegmentation.from_pretrained(folder, **options, output_loading_info=True)
assert not any(info.values()), info
if model.config.model_type == "massformer":
    assert AutoModel.from_pretrained(folder, **options).num_parameters() < model.num_parameters()
image = torch.arange(3 * 40 * 50).reshape(3, 40, 50).remainder(256).byte()
with torch.no_grad():
    outputs = model(**processor(image, return_tensors="pt"))
label_map = processor.post_process_semantic_segmentation(outputs, target_sizes=[(40, 50)])[0]
assert label_map.shape == (40, 50)
print(type(model).__module__.partition(".")[0], repr(outputs.logits.double().sum().item()))
"""
# The same in a process that has the package and trusts no code.
LOCAL = (
    (REMOTE + WITH_WEIGHTS)
    .replace('sys.modules["transformers_massformer"] = None', "import transformers_massformer")
    .replace("trust_remote_code=True", "trust_remote_code=False")
    .replace('"trust_remote_code": True', '"trust_remote_code": False')
)


def run(code, folder, tmp_path):
    """Run code in a process without this one's environment, such as its number of threads, and without an input."""
    environment = {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    return run_python("-c", code, folder, env=environment, stdin=subprocess.DEVNULL)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_folder_is_complete(built_hub):
    assert {path.name: {file.name for file in path.iterdir()} for path in built_hub.iterdir()} == FILES


def test_a_second_build_is_equal(built_hub, tmp_path):
    assert contents(build_hub(tmp_path / "hub")) == contents(built_hub)


def test_a_card_with_an_empty_field_is_an_error():
    with pytest.raises(ValueError, match=r"massformer\.md has fields without a value: .*parameters, title"):
        render_card("massformer", variant="r50")


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [("r50", 37_578_176), ("r18-lite", 15_080_864), ("swin-t", 41_119_802), ("swin-b", 100_573_688)],
)
def test_massformer_folders_load_without_the_package(built_hub, variant, parameters, tmp_path):
    folder = built_hub / f"massformer-{variant}"
    assert run(REMOTE + WITHOUT_WEIGHTS, folder, tmp_path).stdout.strip() == str(parameters)
    assert f"{parameters:,} parameters" in (folder / "README.md").read_text()


# The other sizes differ in numbers only.
@pytest.mark.parametrize(("size", "parameters"), [("t", 34.66), ("b", 96.49)])
def test_semask_folders_load_without_the_package(built_hub, size, parameters, tmp_path):
    folder = built_hub / f"semask-fpn-swin-{size}"
    count = int(run(REMOTE + WITHOUT_WEIGHTS, folder, tmp_path).stdout)
    assert round(count / 1e6, 2) == parameters
    assert f"{count:,} parameters" in (folder / "README.md").read_text()


@pytest.mark.parametrize("family", ["massformer", "semask", "demo"])
def test_remote_weights_load_bit_equal(request, family, tmp_path):
    folder = tmp_path / "model"
    if family == "demo":
        folder = request.getfixturevalue("built_hub") / "massformer-photo"
    else:
        model, processor = {
            "massformer": (tiny_model, MaSSFormerImageProcessor),
            "semask": (tiny_semask, SeMaskImageProcessor),
        }[family]
        model().save_pretrained(folder)
        processor().save_pretrained(folder)
        add_remote_code(folder)
    remote, local = (run(code, folder, tmp_path).stdout.split() for code in (REMOTE + WITH_WEIGHTS, LOCAL))
    assert (remote[0], local[0]) == ("transformers_modules", "transformers_massformer")
    assert remote[1] == local[1]


def test_the_configuration_is_that_of_the_variant(built_hub):
    config = AutoConfig.from_pretrained(built_hub / "massformer-r18-lite", trust_remote_code=False)
    assert config.hidden_size == 128
    assert config.cross_semantic_intermediate_size == 1024


PIPELINE = """
import sys, warnings
warnings.simplefilter("error")
import numpy, PIL.Image, transformers_massformer
from transformers import pipeline
from transformers.utils import logging
logging.disable_progress_bar()
image = PIL.Image.fromarray(numpy.arange(64 * 96 * 3).reshape(64, 96, 3).astype("uint8"))
print({mask["mask"].size for mask in pipeline("image-segmentation", model=sys.argv[1])(image)})
"""


@pytest.mark.parametrize("where", ["committed", "built"])
def test_the_demo_checkpoint_in_a_pipeline(built_hub, where, tmp_path):
    """With the package there is neither a question, which would fail for lack of an answer, nor a log message."""
    result = run(PIPELINE, {"committed": ROOT / "hub", "built": built_hub}[where] / "massformer-photo", tmp_path)
    assert result.stdout.strip() == "{(96, 64)}"
    assert result.stderr == ""


def test_committed_folders_hold_no_copies():
    copies = {path.name for path in (ROOT / "hub").rglob("*.py")} - {"app.py"}
    assert copies == set()
    assert "auto_map" not in json.loads((ROOT / "hub" / "massformer-photo" / "config.json").read_text())
