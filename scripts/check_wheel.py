"""
Build the package, install it without extras into a temporary environment, and use it outside the clone.

Checks help, import, pipeline and `massformer segment` with the demo checkpoint, the list of recipes, and the message
of each command whose extra is missing.
"""

import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]

# What a user's first program does. The photograph is a gradient.
PROGRAM = """
import importlib.util
import PIL.Image
extras = ["aggdraw", "gradio", "matplotlib", "onnx", "onnxruntime", "pycocotools", "pymatting", "ray"]
found = [name for name in extras if importlib.util.find_spec(name)]
if found:
    raise SystemExit(f"A plain install brings {found}.")
import transformers_massformer
from transformers import pipeline
from transformers_massformer.cli.options import demo_checkpoint
PIL.Image.linear_gradient("L").convert("RGB").resize((200, 100)).save("photo.png")
masks = pipeline("image-segmentation", model=str(demo_checkpoint()))("photo.png")
if not masks or any(mask["mask"].size != (200, 100) for mask in masks):
    raise SystemExit(f"The pipeline gave {masks}.")
"""
SEGMENT = ["segment", "photo.png", "--model", "massformer-photo", "--output", "label-maps"]
# Commands that end with an error, and part of its message.
REFUSED = [
    (["train", "--output", "trained", "--recipe", "none"], "finetune-24gb"),
    (["scenes", "--output", "scenes", "--count", "1"], "[scenes]"),
    (["demo"], "[demo]"),
    (["export", "--model", "massformer-photo", "--output", "model.onnx"], "[onnx]"),
    ([*SEGMENT, "--overwrite", "--format", "coco-rle"], "[coco]"),
    ([*SEGMENT, "--overwrite", "--mattes", "--cutouts"], "[editing]"),
    ([*SEGMENT, "--overwrite", "--ray", "local"], "[ray]"),
]


def run(*command: str | Path, folder: Path, code: int = 0) -> str:
    """Run a command offline in a folder and return its output; raises SystemExit for any other exit code."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != code:
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {result.returncode}\n{result.stdout}")
    return result.stdout


def build(folder: Path) -> Path:
    """Build a source archive, and a wheel from it, and return the wheel."""
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    run(sys.executable, "-c", code, folder=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, archive, folder=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel into a new environment and return the folder of its programs."""
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    pip_install = [programs / "python", "-m", "pip", "install", "--no-compile"]
    run(*pip_install, "--constraint", ROOT / "constraints.txt", wheel, folder=wheel.parent)
    return programs


def check(programs: Path, folder: Path):
    """Use the installed package in a folder outside the clone; raises SystemExit where it does not work."""
    massformer = programs / "massformer"
    run(massformer, "--help", folder=folder)
    run(programs / "python", "-c", PROGRAM, folder=folder)
    run(massformer, *SEGMENT, folder=folder)
    if not (folder / "label-maps" / "photo.png").is_file():
        raise SystemExit("massformer segment wrote no label map.")
    for arguments, words in REFUSED:
        lines = [line for line in run(massformer, *arguments, folder=folder, code=1).splitlines() if line.strip()]
        if words not in lines[-1] or not lines[-1].startswith("error: ") or any("Traceback" in line for line in lines):
            raise SystemExit(f"massformer {' '.join(arguments)} should end with one line that names {words}:\n{lines}")


def main():
    """Build, install and check the package, and print the time of each step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        wheel = build(folder)
        built = time.perf_counter()
        programs = install(wheel, folder / "environment")
        installed = time.perf_counter()
        work = folder / "work"
        work.mkdir()
        check(programs, work)
        checked = time.perf_counter()
        megabytes = wheel.stat().st_size / 1e6
        print(f"{wheel.name}, {megabytes:.1f} MB: built in {built - start:.0f} s, ", end="")
        print(f"installed in {installed - built:.0f} s, checked in {checked - installed:.0f} s")


if __name__ == "__main__":
    main()
