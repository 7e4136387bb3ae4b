"""The documents: code blocks run or give a reason, and the links, paths, options and extras in their text exist."""

import re
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from support import ROOT
from support.documents import check_or_run, extras, find_blocks, known_options
from support.golden import golden_state_dict, semask_golden_state_dict
from support.tiny_data import write_pair
from support.tiny_labelers import save_grounding_dino, save_sam_hq
from support.tiny_peers import write_peer

from transformers_massformer.export import job as export_job


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with small versions of everything the documents assume, under the names they use."""
    folder = tmp_path_factory.mktemp("documents")
    write_peer("massformer", folder / "massformer-r50")
    write_peer("mask2former", folder / "my-mask2former")
    for data in ("MaSS13K", "my-data"):
        for index, split in enumerate(("train", "train", "train", "val", "test")):
            write_pair(folder / data, split, f"{split}{index}", index)
    for name in ("grounding-dino-base", "IDEA-Research/grounding-dino-base"):
        save_grounding_dino(folder / name)
    for name in ("sam-hq-vit-large", "syscv-community/sam-hq-vit-large", "syscv-community/sam-hq-vit-base"):
        save_sam_hq(folder / name)
    for name in ("photos", "masks", "maps", "folder-of-pngs"):
        (folder / name).mkdir()
    for index in range(5):
        photo, label = write_pair(folder / "pairs", "all", f"photo{index}", index)
        shutil.copy(photo, folder / "photos")
        shutil.copy(label, folder / "masks")
        shutil.copy(label, folder / "maps")
    shutil.copy(photo, folder / "photo.jpg")
    for label in (folder / "MaSS13K" / "annotations" / "val").glob("*.png"):
        values = np.asarray(PIL.Image.open(label))
        PIL.Image.fromarray(np.where(values == 255, 0, values)).save(folder / "folder-of-pngs" / label.name)
    for split in ("train", "val"):
        _, label = write_pair(folder / "my-masks", split, split, 0)
        PIL.Image.fromarray(np.where(np.asarray(PIL.Image.open(label)) > 2, 255, 0).astype(np.uint8)).save(label)
    for name in ("hub", "scripts", "docs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


# The `TrainingArguments` of the documents are for GPUs; PyTorch warns where there is none.
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator is found:UserWarning")
# The oldest supported version of transformers has no other name for it.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
@each_page
def test_blocks(page, prepared, tmp_path, monkeypatch, request):
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder, symlinks=True)
    if page.stem == "convert":
        shutil.rmtree(folder / "massformer-r50")
        torch.save({"state_dict": golden_state_dict("r50")}, folder / "massformer_r50.pth")
    if page.stem == "other_models":
        torch.save({"state_dict": semask_golden_state_dict()}, folder / "semask_tiny_fpn_ade20k.pth")
    if page.stem == "evaluation":
        (folder / "build").mkdir()
        (folder / "build" / "hub").symlink_to(request.getfixturevalue("built_hub"))
    monkeypatch.chdir(folder)
    # Sizes at which exports are compared and measured.
    monkeypatch.setattr(export_job, "SIZE", (96, 64))
    monkeypatch.setattr(export_job, "SCENE_SIZES", ((96, 64),))
    check_or_run(find_blocks(page.read_text(), page.name))


LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub and mkdocs give to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(path), f"{page.name}: {target}"


def code_spans(page: Path) -> str:
    """Return the inline code of a page, one span per line."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return "\n".join(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text))


@each_page
def test_paths_in_the_text_exist(page):
    for path in re.findall(r"(?:^| )((?:docs|hub|scripts|src|tests)/[\w./-]+)", code_spans(page), re.MULTILINE):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


@each_page
def test_options_in_the_text_exist(page):
    spans = code_spans(page)
    named_scripts = set(re.findall(r"\bscripts/[\w/]+\.py", page.read_text()))
    scripts = {path for path in named_scripts if "typer.run(" in (ROOT / path).read_text()}
    # Those of pip are not this package's.
    named = set(re.findall(r"(?<!\S)--[a-z][\w-]*", re.sub(r"^pip .*$", "", spans, flags=re.MULTILINE)))
    assert named <= known_options(scripts)


@each_page
def test_extras_in_the_text_exist(page):
    named = re.findall(r"(?:^|\.)\[([a-z,]+)\]'?$", code_spans(page), re.MULTILINE)
    assert {name for names in named for name in names.split(",")} <= extras()
