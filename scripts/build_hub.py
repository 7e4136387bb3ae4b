"""Build the folders to publish on the Hub from the package and the sources in hub/."""

import inspect
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jinja2
import jinja2.meta
import torch
import typer
import yaml
from huggingface_hub import CardData, RepoCard
from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING, MODEL_MAPPING
from transformers.utils import logging

from transformers_massformer import MaSSFormerImageProcessor, SeMaskImageProcessor
from transformers_massformer.conversion import SEMASK_VARIANTS, semask_variant_config, variant_config
from transformers_massformer.data import headers, label_headers, layout, mass13k
from transformers_massformer.data.label_images import MASS13K_PALETTE
from transformers_massformer.data.layout import LABELS, PUBLISHED_COUNTS
from transformers_massformer.data.mass13k import CITATION
from transformers_massformer.metrics import CountSettings, count_images, score
from transformers_massformer.metrics.boundary_segmentation import BoundarySegmentation
from transformers_massformer.models import photo_headers


ROOT = Path(__file__).parent.parent
HUB = ROOT / "hub"
# Folders with weights, of photographs and of drawn scenes.
CHECKPOINTS = ("massformer-photo", "massformer-demo")
ADE20K_LABELS = 150


def render_card(name: str, **fields: Any) -> str:
    """
    Render a card, with validated metadata, from its template in `hub/cards`.

    Raises:
        ValueError: If a field of the template has no value, or the metadata is invalid.
    """
    path = HUB / "cards" / f"{name}.md"
    missing = (
        jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(path.read_text(encoding="utf-8")))
        - fields.keys()
    )
    if missing:
        raise ValueError(f"{path} has fields without a value: {', '.join(sorted(missing))}.")
    card = RepoCard.from_template(CardData(), template_path=str(path), **fields)
    return card.content.rstrip() + "\n"


def copy_code(classes: Sequence[type], folder: Path):
    """Copy the modules that define the classes, with every sibling module that they import."""
    for module in {inspect.getfile(each) for each in classes}:
        for path in (module, *get_relative_import_files(module)):
            shutil.copy(path, folder)


def update_json(path: Path, **fields: Any):
    """Set fields of a configuration file and make it independent of the version of transformers that wrote it."""
    values = json.loads(path.read_text(encoding="utf-8")) | fields
    values.pop("transformers_version", None)
    # With this field, loading looks for the class in this file instead of in the `auto_map` of config.json. An
    # `auto_map` in this file would be mistaken for that of a video processor by pipelines, which would then ask
    # whether to run the code even where the package is installed.
    values.pop("image_processor_type", None)
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def add_remote_code(folder: Path):
    """Make a saved model of the package loadable with `trust_remote_code=True` where the package is not installed."""
    config_class = type(AutoConfig.from_pretrained(folder))
    classes: dict[str, Any] = {
        "AutoConfig": config_class,
        "AutoModel": MODEL_MAPPING.get(config_class, None),
        "AutoModelForSemanticSegmentation": MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING[config_class],
        "AutoImageProcessor": type(AutoImageProcessor.from_pretrained(folder)),
    }
    classes = {name: found for name, found in classes.items() if found is not None}
    auto_map = {name: f"{found.__module__.rpartition('.')[2]}.{found.__name__}" for name, found in classes.items()}
    copy_code(list(classes.values()), folder)
    update_json(folder / "config.json", auto_map=auto_map)
    update_json(folder / "preprocessor_config.json")


def build_model(folder: Path, card: str, variant: str, **fields: Any):
    """Build the folder of a published model, a variant in `conversion`, without weights."""
    if variant in SEMASK_VARIANTS:
        config = semask_variant_config(variant, ADE20K_LABELS)
        processor = SeMaskImageProcessor(num_labels=ADE20K_LABELS)
    else:
        config, processor = variant_config(variant), MaSSFormerImageProcessor()
    with torch.device("meta"):
        model = AutoModelForSemanticSegmentation.from_config(config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    add_remote_code(folder)
    fields |= {"folder": folder.name, "variant": variant, "parameters": f"{model.num_parameters():,}"}
    (folder / "README.md").write_text(render_card(card, citation=CITATION, **fields), encoding="utf-8")


def build_data_set(folder: Path):
    """Build the folder of MaSS13K: card, class names, colours and loading script, without photographs."""
    classes = list(zip(LABELS, MASS13K_PALETTE, strict=True))
    (folder / "README.md").write_text(
        render_card("mass13k", counts=PUBLISHED_COUNTS, classes=classes, citation=CITATION),
        encoding="utf-8",
    )
    names, colours = dict(enumerate(LABELS)), dict(enumerate(MASS13K_PALETTE))
    (folder / "id2label.json").write_text(json.dumps(names, indent=2) + "\n", encoding="utf-8")
    (folder / "palette.json").write_text(json.dumps(colours, indent=2) + "\n", encoding="utf-8")
    # The loading script has all its modules beside it.
    for module in (mass13k, layout, headers, label_headers, photo_headers):
        source = Path(module.__file__)
        code = source.read_text(encoding="utf-8").replace("from ..models.", "from .")
        (folder / source.name).write_text(code, encoding="utf-8")


def metric_cases() -> list[dict[str, Any]]:
    """
    Compute the metric's example cases: equal label maps, label maps shifted by one column, and ignored pixels.

    Raises:
        ValueError: If a score is NaN, which equals nothing.
    """
    label = [[0, 0, 0, 1, 1, 1]] * 4
    ignored = [[0, 0, 0, 1, 255, 255]] * 4
    pairs = [(label, label), ([[0, 0, 1, 1, 1, 1]] * 4, label), ([[0, 0, 0, 0, 0, 0]] * 4, ignored)]
    cases = []
    for prediction, reference in pairs:
        counts = count_images(torch.tensor([prediction]), torch.tensor([reference]), 2, CountSettings())
        scores = {name: value for name, value in score(counts).items() if name.startswith("mean_")}
        if any(math.isnan(value) for value in scores.values()):
            raise ValueError(f"A test case cannot contain NaN: {scores}")
        cases.append({"predictions": [prediction], "references": [reference], "result": scores})
    return cases


def build_metric(folder: Path):
    """Build the Space of the `evaluate` metric: card, code, example cases and page."""
    shutil.copytree(HUB / "boundary_segmentation", folder, dirs_exist_ok=True)
    copy_code([BoundarySegmentation], folder)
    (folder / "README.md").write_text(render_card("boundary_segmentation", citation=CITATION), encoding="utf-8")
    cases = json.dumps(metric_cases(), indent=4)
    (folder / "tests.py").write_text(
        f'"""Example cases for the page and for tests."""\n\ntest_cases = {cases}\n', encoding="utf-8"
    )


def build(output: Path):
    """Build every folder; existing files with other names stay."""
    variants = yaml.safe_load((HUB / "variants.yaml").read_text(encoding="utf-8"))
    for name in (*variants, "mass13k", "boundary_segmentation"):
        (output / name).mkdir(parents=True, exist_ok=True)
    for name, fields in variants.items():
        build_model(output / name, **fields)
    for name in (*CHECKPOINTS, "space"):
        shutil.copytree(HUB / name, output / name, dirs_exist_ok=True)
    for name in CHECKPOINTS:
        add_remote_code(output / name)
    build_data_set(output / "mass13k")
    build_metric(output / "boundary_segmentation")


def main(output: Annotated[Path, typer.Option(help="Folder to write to.")] = ROOT / "build" / "hub"):
    logging.disable_progress_bar()
    build(output)


if __name__ == "__main__":
    typer.run(main)
