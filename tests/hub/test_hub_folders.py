import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny import tiny_model, tiny_semask
from transformers import AutoConfig

from transformers_massformer import MaSSFormerImageProcessor, SeMaskImageProcessor, hub_semask
from transformers_massformer.hub_folders import add_auto_maps, copy_remote_code


ROOT = Path(__file__).parents[2]

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
print(repr(outputs.logits.double().sum().item()))
"""


def run(code, folder, tmp_path):
    """In a process of its own, with nothing of this one's environment, such as its number of threads."""
    environment = {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-c", code, str(folder)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def run_remote(code, folder, tmp_path):
    return run(REMOTE + code, folder, tmp_path)


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [("r50", 37_578_176), ("r18-lite", 15_080_864), ("swin-t", 41_119_802), ("swin-b", 100_573_688)],
)
def test_the_folders_load_where_the_package_is_absent(variant, parameters, tmp_path):
    folder = ROOT / "hub" / f"massformer-{variant}"
    assert run_remote(WITHOUT_WEIGHTS, folder, tmp_path) == str(parameters)
    assert f"{parameters:,} parameters" in (folder / "README.md").read_text()


# The others differ in numbers only.
@pytest.mark.parametrize(("size", "parameters"), [("t", 34.66), ("b", 96.49)])
def test_semask_folders_load_where_the_package_is_absent(size, parameters, tmp_path):
    folder = ROOT / "hub" / f"semask-fpn-swin-{size}"
    count = int(run_remote(WITHOUT_WEIGHTS, folder, tmp_path))
    assert round(count / 1e6, 2) == parameters
    assert f"{count:,} parameters" in (folder / "README.md").read_text()


@pytest.mark.parametrize("family", ["massformer", "semask"])
def test_remote_weights_are_loaded_bit_equal(family, tmp_path):
    folder = tmp_path / "model"
    if family == "massformer":
        tiny_model().save_pretrained(folder)
        MaSSFormerImageProcessor().save_pretrained(folder)
        copy_remote_code(folder)
        add_auto_maps(folder)
    else:
        tiny_semask().save_pretrained(folder)
        SeMaskImageProcessor().save_pretrained(folder)
        copy_remote_code(folder, hub_semask.MODULES)
        add_auto_maps(folder, hub_semask.CLASSES)
    here = (
        REMOTE.replace('sys.modules["transformers_massformer"] = None', "import transformers_massformer")
        + WITH_WEIGHTS
    )
    code = here.replace("True", "False", 2).replace('"trust_remote_code": True', '"trust_remote_code": False')
    assert run_remote(WITH_WEIGHTS, folder, tmp_path) == run(code, folder, tmp_path)


def test_hub_is_current():
    result = subprocess.run(
        [sys.executable, "scripts/build_hub.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_an_outdated_folder_is_named(tmp_path):
    shutil.copytree(ROOT / "hub", tmp_path, dirs_exist_ok=True)
    (tmp_path / "massformer-r50" / "deform_conv.py").write_text("# edited")
    (tmp_path / "massformer-swin-t" / "README.md").unlink()
    command = [sys.executable, "scripts/build_hub.py", "--check", "--output", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    outdated = [line.split(" is not current")[0] for line in result.stderr.splitlines() if "is not current" in line]
    assert outdated == [
        str(tmp_path / name) for name in ("massformer-r50/deform_conv.py", "massformer-swin-t/README.md")
    ]


def test_config_in_the_folder_is_the_variant_s():
    config = AutoConfig.from_pretrained(ROOT / "hub" / "massformer-r18-lite", trust_remote_code=False)
    assert config.hidden_size == 128
    assert config.cross_semantic_intermediate_size == 1024
