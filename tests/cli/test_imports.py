"""Modules that help, completion, the package and a pipeline load; what a plain install contains and lacks."""

import ast
import configparser
import fnmatch
import json
import os
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
import typer
from support import ROOT
from support.commands import run_python
from support.tiny_data import write_pair

from transformers_massformer.cli import app
from transformers_massformer.cli.options import DEMO_CHECKPOINT, demo_checkpoint
from transformers_massformer.cli.train import find_recipe, read_recipe, recipe_names
from transformers_massformer.conversion import SEMASK_VARIANTS, VARIANTS
from transformers_massformer.export.job import SIZE


PACKAGE = ROOT / "src" / "transformers_massformer"
# Modules of the extras, by extra.
EXTRAS = {
    "coco": ["pycocotools"],
    "demo": ["gradio"],
    "editing": ["pymatting"],
    "onnx": ["onnx", "onnxruntime", "onnxscript"],
    "ray": ["ray"],
    "scenes": ["aggdraw"],
    "stats": ["matplotlib"],
}
OPTIONAL = {name for names in EXTRAS.values() for name in names}
# Distributions of modules that have another name; triton comes with PyTorch, pyarrow with datasets.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "huggingface_hub": "huggingface-hub",
    "pyarrow": "datasets",
    "triton": "torch",
    "yaml": "pyyaml",
}


def run_code(code, *arguments, **options):
    """Run code in a new process; return its last line of output, which is JSON."""
    return json.loads(run_python("-c", code, *arguments, **options).stdout.splitlines()[-1])


# The command line

COMMAND = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(["\\n", *sys.modules])))
from _massformer import main
sys.argv[0] = "massformer"
main()
"""
SLOW_TO_IMPORT = OPTIONAL | {"torch", "transformers", "numpy", "PIL", "datasets", "pandas", "pyarrow", "yaml"}


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["evaluate-hq-sam", "--help"]], ids=" ".join)
def test_help_imports_nothing_that_takes_time(arguments):
    loaded = run_code(COMMAND, *arguments)
    assert "transformers_massformer.cli.segment" in loaded
    assert not SLOW_TO_IMPORT & set(loaded)


@pytest.mark.parametrize(
    ("words", "found"), [("massformer eval", "evaluate-hq-sam"), ("massformer segment --ov", "--overlap")]
)
def test_completion_imports_nothing_that_takes_time(words, found):
    variables = {"_MASSFORMER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    code = COMMAND.replace('["\\n", *sys.modules]', "[*sys.modules]")
    *completions, loaded = run_python("-c", code, env=os.environ | variables).stdout.splitlines()
    assert found in completions
    assert not SLOW_TO_IMPORT & set(json.loads(loaded))


def test_help_names_what_the_options_take():
    """Help is written without the modules that define these values."""
    commands = typer.main.get_group(app).commands
    texts = {name: {each.name: each.help for each in commands[name].params} for name in ("convert", "export")}
    for name in [*VARIANTS, *SEMASK_VARIANTS]:
        assert name in texts["convert"]["variant"]
    assert "x".join(map(str, SIZE)) in texts["export"]["size"]


# The package

PIPELINE = """
import json, sys
import PIL.Image
import transformers_massformer
from transformers import pipeline
imported = [*sys.modules]
masks = pipeline("image-segmentation", model=sys.argv[1])(PIL.Image.new("RGB", (64, 64)))
print(json.dumps({"imported": imported, "segmented": [*sys.modules], "masks": len(masks)}))
"""


def test_the_package_and_a_pipeline_import_only_what_they_use():
    loaded = run_code(PIPELINE, demo_checkpoint())
    unused = OPTIONAL | {"datasets", "evaluate", "pandas", "pyarrow", "scipy.signal"}
    assert not (unused | {"timm"}) & set(loaded["imported"])
    assert not unused & set(loaded["segmented"])
    assert loaded["masks"]


# Missing extras

WITHOUT_EXTRAS = f"""
import json, os, sys
for name in {sorted(OPTIONAL)}:
    sys.modules[name] = None
from typer.testing import CliRunner
from transformers_massformer.cli import app
results = {{}}
for name, arguments in json.loads(sys.argv[1]).items():
    result = CliRunner().invoke(app, arguments)
    crash = None if isinstance(result.exception, SystemExit | None) else repr(result.exception)
    results[name] = [result.exit_code, result.output, crash]
print(json.dumps(results))
"""
PLAIN = ["segment", "photo.png", "--model", "tiny", "--device", "cpu", "--output"]
MODELS = ["--detector", "none", "--segmenter", "none"]
WITHOUT = {
    "annotations --format coco-rle": ("coco", ["annotations", "data", "--output", "1", "--format", "coco-rle"]),
    "label": ("coco", ["label", "--data", "data", "--class", "car", "--output", "2", *MODELS]),
    "segment --format coco-rle": ("coco", [*PLAIN, "3", "--format", "coco-rle"]),
    "demo": ("demo", ["demo", "--model", "tiny", "--device", "cpu"]),
    "segment --cutouts": ("editing", [*PLAIN, "4", "--cutouts"]),
    "segment --bokeh": ("editing", [*PLAIN, "5", "--bokeh", "sky"]),
    "segment --refine-mattes": ("editing", [*PLAIN, "6", "--mattes", "--refine-mattes"]),
    "export": ("onnx", ["export", "--model", "tiny", "--output", "out.onnx"]),
    "segment model.onnx": ("onnx", ["segment", "photo.png", "--model", "model.onnx", "--output", "7"]),
    "segment --ray": ("ray", ["segment", "photo.png", "--model", "tiny", "--output", "10", "--ray", "local"]),
    "scenes": ("scenes", ["scenes", "--output", "8", "--count", "1", "--size", "64x48"]),
}


@pytest.fixture(scope="module")
def without_extras(tmp_path_factory):
    """Results of commands in a process without the extras: exit code, output, and unexpected exception."""
    folder = tmp_path_factory.mktemp("work")
    PIL.Image.effect_noise((64, 48), 60).convert("RGB").save(folder / "photo.png")
    (folder / "tiny").symlink_to(demo_checkpoint())
    (folder / "model.onnx").write_bytes(b"")
    write_pair(folder / "data", "train", "photo", 0)
    commands = {name: arguments for name, (_, arguments) in WITHOUT.items()}
    commands |= {"segment": [*PLAIN, "9", "--overlay"], "stats": ["stats", "data", "--output", "statistics"]}
    return folder, run_code(WITHOUT_EXTRAS, json.dumps(commands), cwd=folder)


@pytest.mark.parametrize("name", WITHOUT)
def test_a_missing_extra_is_named_in_one_line(without_extras, name):
    code, output, crash = without_extras[1][name]
    extra, _ = WITHOUT[name]
    assert (code, crash) == (1, None)
    *progress, last = output.strip().splitlines()
    assert last.startswith("error: ")
    assert last.endswith(f"pip install 'transformers-massformer[{extra}]'")
    assert "error" not in " ".join(progress)


def test_segment_needs_no_extra(without_extras):
    folder, results = without_extras
    assert results["segment"][::2] == [0, None], results["segment"]
    assert (folder / "9" / "photo.png").is_file()


def test_statistics_are_written_without_their_picture(without_extras):
    folder, results = without_extras
    code, output, crash = results["stats"]
    assert (code, crash) == (0, None), output
    assert "distributions.png was not drawn" in output
    assert "pip install 'transformers-massformer[stats]'" in output
    assert {path.name for path in (folder / "statistics").iterdir()} == {"images.csv", "statistics.json"}


# What is installed


@pytest.fixture(scope="module")
def setup_options():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def distributions(text):
    return {line.partition(">")[0].partition("=")[0].partition("[")[0].strip() for line in text.splitlines() if line}


# The package, and the module of its entry point.
OWN = {PACKAGE.name, "_massformer"}


def test_every_import_is_declared(setup_options):
    declared = distributions(setup_options["options"]["install_requires"]) | OPTIONAL
    for path in PACKAGE.rglob("*.py"):
        if path.name == "space_app.py":
            # These travel to Spaces, which have requirements of their own.
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in {each.partition(".")[0] for each in names} - sys.stdlib_module_names - OWN:
                assert DISTRIBUTIONS.get(name, name) in declared, f"{path}: {name}"


def test_extras_hold_the_modules_that_the_errors_name(setup_options):
    extras = setup_options["options.extras_require"]
    for extra, modules in EXTRAS.items():
        assert set(modules) <= distributions(extras[extra])
        assert distributions(extras[extra]) <= distributions(extras["all"]) <= distributions(extras["dev"])


def test_every_file_of_the_package_is_in_the_wheel(setup_options):
    patterns = setup_options["options.package_data"]["transformers_massformer"].split()
    listed = subprocess.run(["git", "ls-files", PACKAGE], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = {str((ROOT / name).relative_to(PACKAGE)) for name in listed.splitlines() if not name.endswith(".py")}
    links = {name for name in files if (PACKAGE / name).is_symlink()}
    files |= {f"{link}/{name}" for link in links for name in ("config.json", "model.safetensors")}
    assert {"py.typed", "recipes/finetune-24gb.yaml"} < files
    for name in sorted(files - links):
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name


# Names of what travels in the package


def test_the_demo_checkpoint_is_known_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert demo_checkpoint() == ROOT / "hub" / DEMO_CHECKPOINT
    command = typer.main.get_group(app).commands["segment"]
    arguments = ["photo.jpg", "--output", "out", "--model"]
    assert command.make_context("segment", [*arguments, DEMO_CHECKPOINT]).params["model"] == str(demo_checkpoint())
    # A folder of this name comes first, as for any other name.
    (tmp_path / DEMO_CHECKPOINT).mkdir()
    # Completion adds a slash; a folder of this name counts if it holds a model.
    for name in (DEMO_CHECKPOINT, f"{DEMO_CHECKPOINT}/"):
        assert command.make_context("segment", [*arguments, name]).params["model"] == str(demo_checkpoint())
    (tmp_path / DEMO_CHECKPOINT / "config.json").write_text("{}")
    assert command.make_context("segment", [*arguments, DEMO_CHECKPOINT]).params["model"] == DEMO_CHECKPOINT


def test_recipes_are_known_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {"finetune-24gb", "benchmark/eomt-l"} < set(recipe_names())
    for name in recipe_names():
        assert read_recipe(find_recipe(name))
    with pytest.raises(FileNotFoundError, match="no recipe nothing.*benchmark/eomt-l.*finetune-24gb"):
        find_recipe("nothing")
    (tmp_path / "finetune-24gb").write_text("seed: 1")
    assert find_recipe("finetune-24gb") == Path("finetune-24gb")
