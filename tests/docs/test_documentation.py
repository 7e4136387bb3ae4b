"""
The documents' blocks: what is ```bash or ```python is run, or says in the line above why it is not
(`<!-- not run: the reason -->`), and then its options are still those of the commands that it names.

Commands run in this process, through the commands' own parsers, because a process for each would spend six seconds on
imports; a block of them may therefore hold simple commands only, which is checked. What would take minutes is made
smaller: see `SMALLER`.
"""

import ast
import configparser
import importlib
import re
import runpy
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import typer
from accelerate.commands.launch import launch_command_parser
from support.golden import golden_state_dict, semask_golden_state_dict
from support.tiny import tiny_model
from support.tiny_data import write_pair
from support.tiny_labelers import save_grounding_dino, save_sam_hq
from support.tiny_peers import write_peer
from torch.distributed.run import get_args_parser
from transformers import HfArgumentParser
from typer.testing import CliRunner

from transformers_massformer import MaSSFormerImageProcessor
from transformers_massformer.cli import app
from transformers_massformer.cli.train import option_parser
from transformers_massformer.export import job as export_job
from transformers_massformer.hq_sam import HQSamTrainingArguments


ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\s*$")
NOT_RUN = re.compile(r"<!-- not run: (\S.*) -->")
# Of other languages nothing can be run.
OTHER_LANGUAGES = {"", "bibtex", "json", "yaml"}
COMMAND = re.compile(r"^\s*(?:massformer|python|pip|make|torchrun|accelerate) ", re.MULTILINE)

# What makes a command short; options given later win.
SMALLER = {
    "evaluate": ["--profile-size", "96x64", "--device", "cpu"],
    "evaluate-hq-sam": ["--device", "cpu"],
    "label": ["--device", "cpu"],
    "refine": ["--device", "cpu"],
    "scenes": ["--count", "2", "--size", "96x64", "--processes", "1"],
    "segment": ["--device", "cpu"],
    "train": shlex.split(
        "--crop_size 64 --short_sides 72 96 --max_steps 2 --warmup_steps 0 --eval_steps 2 --save_steps 2 --use_cpu "
        "--per_device_train_batch_size 2 --total_train_batch_size 2 --dataloader_num_workers 0 --disable_tqdm True"
    ),
    "train-hq-sam": shlex.split("--max_steps 1 --per_device_train_batch_size 2 --dataloader_num_workers 0 --use_cpu"),
}
# The same for arguments in Python.
SMALLER_NUMBERS = {"max_steps": 2, "eval_steps": 2, "save_steps": 2, "crop_size": 64, "dataloader_num_workers": 0}


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    page: str
    line: int
    language: str
    code: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def find_blocks(text: str, page: str) -> list[Block]:
    """
    Raises:
        ValueError: If a comment gives no reason or stands above no block, or a block does not end.
    """
    blocks, lines = [], text.splitlines()
    starts = iter(range(len(lines)))
    for start in starts:
        if "<!-- not run" in lines[start]:
            if not NOT_RUN.fullmatch(lines[start].strip()):
                raise ValueError(f"{page}:{start + 1} gives no reason: <!-- not run: the reason -->")
            if start + 1 == len(lines) or FENCE.match(lines[start + 1]) is None:
                raise ValueError(f"{page}:{start + 1} stands directly above no block.")
        opening = FENCE.match(lines[start])
        if opening is None:
            continue
        end = next((index for index in starts if lines[index].strip() == "```"), None)
        if end is None:
            raise ValueError(f"{page}:{start + 1} begins a block without an end.")
        above = NOT_RUN.fullmatch(lines[start - 1].strip()) if start else None
        code = "\n".join(lines[start + 1 : end])
        blocks.append(Block(page, start + 1, opening[1], code, above[1] if above else None))
    return blocks


def split_commands(code: str) -> list[list[str]]:
    """
    The words of each command.

    Raises:
        ValueError: If there is more to a line than a command and its words: pipes, variables, redirections.
    """
    commands = []
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        if any(re.fullmatch(r"[();<>|&]+", word) or "$" in word or "`" in word for word in words):
            raise ValueError(f"{line!r} is not a simple command.")
        if words:
            commands.append(words)
    return commands


def script_app(path: str) -> typer.Typer:
    """What a script would run."""
    found: list[Callable] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        patch.setattr(typer, "run", found.append)
        runpy.run_path(str(ROOT / path), run_name="__main__")
    script = typer.Typer(add_completion=False)
    script.command()(found[0])
    return script


def without_launcher(words: list[str]) -> list[str]:
    """What a launcher of several processes starts, after its own options have been checked."""
    if words[:2] == ["accelerate", "launch"]:
        launched = launch_command_parser().parse_args(words[2:])
    elif words[0] == "torchrun":
        launched = get_args_parser().parse_args(words[1:])
    else:
        return words
    if not launched.module or launched.training_script != "transformers_massformer.cli":
        raise ValueError(f"{' '.join(words)} starts no command of this package.")
    return ["massformer", *launched.training_script_args]


def check_parsed(command: Any, name: str, arguments: list[str]) -> list[str]:
    """Checks a command's own options, and returns the ones that it passes on; "..." stands for what is left out."""
    if "..." in arguments:
        for parameter in command.params:
            parameter.required = False
    return command.make_context(name, [word for word in arguments if word != "..."]).args


def check_massformer(arguments: list[str]):
    commands = typer.main.get_group(app).commands
    name, *rest = arguments
    if name not in commands:
        raise ValueError(f"There is no massformer {name}.")
    passed_on = check_parsed(commands[name], name, rest)
    if not commands[name].context_settings.get("allow_extra_args"):
        return
    parser = option_parser() if name == "train" else HfArgumentParser(HQSamTrainingArguments, allow_abbrev=False)
    for action in parser._actions:
        action.required = False
    _, unknown = parser.parse_known_args(passed_on)
    if unknown:
        raise ValueError(f"massformer {name} has no {' '.join(unknown)}.")
    for option, value in zip(rest, rest[1:], strict=False):
        if option == "--recipe" and not (ROOT / value).is_file():
            raise ValueError(f"There is no recipe {value}.")


def check_command(words: list[str]):
    """Raises an error unless a command, its options and its targets exist."""
    words = without_launcher(words)
    if words[0] == "massformer":
        check_massformer(words[1:])
    elif words[0] == "python" and words[1].startswith("scripts/"):
        check_parsed(typer.main.get_command(script_app(words[1])), words[1], words[2:])
    elif words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        unknown = set(words[1:]) - set(targets)
        if unknown or len(words) == 1:
            raise ValueError(f"make knows {', '.join(targets)}, not {', '.join(unknown)}.")
    elif words[:2] == ["pip", "install"]:
        setup = configparser.ConfigParser(interpolation=None)
        setup.read(ROOT / "setup.cfg")
        for extra in re.findall(r"\[(.*)\]", " ".join(words[2:])):
            if extra not in setup["options.extras_require"]:
                raise ValueError(f"setup.cfg has no extra {extra}.")
    else:
        raise ValueError(f"{' '.join(words)}: nothing here can check it.")


def run_command(words: list[str]):
    """Runs a command in this process, made smaller."""
    if words[0] == "massformer":
        program, arguments = app, [*words[1:], *SMALLER.get(words[1], [])]
    elif words[0] == "python" and words[1].startswith("scripts/"):
        program, arguments = script_app(words[1]), words[2:]
    else:
        raise ValueError(f"{' '.join(words)} cannot be run here. Say why above its block: <!-- not run: reason -->")
    result = CliRunner().invoke(program, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code != 0:
        raise RuntimeError(f"{shlex.join(words)} ended with {result.exit_code}:\n{result.output}")


def check_python(block: Block):
    """Raises an error unless the code compiles and what it imports from this package exists."""
    for node in ast.walk(ast.parse(block.code, str(block))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("transformers_massformer"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    raise ValueError(f"{block}: {node.module} has no {alias.name}.")


def run_python(block: Block, namespace: dict):
    """Runs code among what earlier blocks of its page have defined, with its numbers made smaller."""
    code = block.code
    for name, number in SMALLER_NUMBERS.items():
        code = re.sub(rf"\b{name}=\d+", f"{name}={number}", code)
    exec(compile("\n" * block.line + code, block.page, "exec"), namespace)


def check_or_run(blocks: list[Block]):
    """All blocks of a page, in their order, in the working directory."""
    namespace: dict = {"__name__": "__main__"}
    for block in blocks:
        try:
            if block.language == "bash":
                for words in split_commands(block.code):
                    check_command(words)
                    if block.reason is None:
                        run_command(words)
            elif block.language == "python":
                check_python(block)
                if block.reason is None:
                    run_python(block, namespace)
            elif block.language not in OTHER_LANGUAGES:
                raise ValueError(f"Is {block.language} to be run? Call it bash or python.")
            elif COMMAND.search(block.code):
                raise ValueError("There are commands in a block that is not called bash.")
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{block}: {error}") from error


def save_model(folder: Path):
    torch.manual_seed(0)
    tiny_model().save_pretrained(folder)
    MaSSFormerImageProcessor().save_pretrained(folder)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """What the documents take for granted, under the names that they use, but small."""
    folder = tmp_path_factory.mktemp("documents")
    save_model(folder / "massformer-r50")
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
    for name in ("hub", "scripts", "docs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


# The documents' `TrainingArguments` are for GPUs; where there is none, PyTorch says so.
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator is found:UserWarning")
# The oldest transformers supported knows no other name.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks(page, prepared, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder, symlinks=True)
    if page.stem == "convert":
        shutil.rmtree(folder / "massformer-r50")
        torch.save({"state_dict": golden_state_dict("r50")}, folder / "massformer_r50.pth")
    if page.stem == "other_models":
        torch.save({"state_dict": semask_golden_state_dict()}, folder / "semask_tiny_fpn_ade20k.pth")
    monkeypatch.chdir(folder)
    # Of what exports are compared and measured on.
    monkeypatch.setattr(export_job, "SIZE", (96, 64))
    monkeypatch.setattr(export_job, "SCENE_SIZES", ((96, 64),))
    check_or_run(find_blocks(page.read_text(), page.name))


def blocks_of(text: str) -> list[Block]:
    return find_blocks(text, "page.md")


def bash(code: str, comment: str = "<!-- not run: takes days -->") -> list[Block]:
    return blocks_of(f"{comment}\n```bash\n{code}\n```\n")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("massformer segment photo.jpg --model m --output o --no-such-option", "No such option: --no-such-option"),
        ("massformer segment photo.jpg --model m", "Missing parameter: output"),
        ("massformer segment photo.jpg --model m --output o --dtype int8", "'int8' is not one of"),
        ("massformer sement photo.jpg", "There is no massformer sement"),
        ("massformer train --output o --learning_rte 1e-4 ...", "massformer train has no --learning_rte 1e-4"),
        (
            "massformer train --output o --recipe recipes/none.yaml ...",
            "There is no recipe",
        ),
        ("massformer train-hq-sam --data d --model m --output o --drop_affter 3", "has no --drop_affter 3"),
        ("python scripts/prepare_mass13k.py MaSS13K --outptu o", "No such option: --outptu"),
        ("python scripts/no_such_script.py", "no_such_script.py"),
        ("accelerate launch --num_processses 4 -m transformers_massformer.cli train ...", "2"),
        ("accelerate launch -m transformers_massformer.cli train --output o --no_such ...", "has no --no_such"),
        ("torchrun --nproc-per-node 2 -m transformers_massformer.cli evaluate --model m --dat d", "--dat"),
        ("torchrun --nproc-per-node 2 -m another.module", "starts no command of this package"),
        ("make demmo", "not demmo"),
        ("pip install '.[tim]'", "no extra tim"),
        ("massformer stats MaSS13K | head", "is not a simple command"),
        ("massformer stats $DATA", "is not a simple command"),
        ("rm -r MaSS13K", "nothing here can check it"),
    ],
)
def test_a_wrong_command_is_found_though_it_is_not_run(code, message):
    with pytest.raises(AssertionError, match=re.escape(message)):
        check_or_run(bash(code))


def test_a_block_is_run_unless_it_says_why_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "massformer segment photo.jpg --model m --output o"
    check_or_run(bash(code))
    with pytest.raises(AssertionError, match=r"page\.md:2: .* ended with 1"):
        check_or_run(bash(code, comment="A line of text."))
    # What cannot be run here needs a reason.
    with pytest.raises(AssertionError, match="cannot be run here. Say why"):
        check_or_run(bash("make test", comment=""))
    with pytest.raises(AssertionError, match="Call it bash or python"):
        check_or_run(blocks_of(f"```sh\n{code}\n```\n"))
    with pytest.raises(AssertionError, match="not called bash"):
        check_or_run(blocks_of(f"```\n{code}\n```\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- not run -->\n```bash\nmake test\n```", "gives no reason"),
        ("<!-- not run: -->\n```bash\nmake test\n```", "gives no reason"),
        ("<!-- not run: takes days -->\n\n```bash\nmake test\n```", "directly above no block"),
        ("<!-- not run: takes days -->", "directly above no block"),
        ("```bash\nmake test", "without an end"),
    ],
)
def test_a_reason_stands_directly_above_its_block(text, message):
    with pytest.raises(ValueError, match=message):
        blocks_of(text)


def test_python_blocks_share_a_page(capsys):
    check_or_run(blocks_of("```python\nx = 1\n```\n\n```python\nprint(x + 1)\n```\n"))
    assert capsys.readouterr().out == "2\n"
    with pytest.raises(AssertionError, match=r"page\.md:2: name 'y' is not defined"):
        check_or_run(blocks_of("\n```python\ny\n```\n"))
    reason = "<!-- not run: needs GPUs -->\n```python\n{}\n```\n"
    check_or_run(blocks_of(reason.format("from transformers_massformer import open_image\nopen_image('none')")))
    for code, message in (
        ("from transformers_massformer import no_such_name", "has no no_such_name"),
        ("import torch\nif torch", "expected ':'"),
    ):
        with pytest.raises(AssertionError, match=message):
            check_or_run(blocks_of(reason.format(code)))


def test_words_are_those_of_the_shell():
    code = "massformer label --class 'car=a red car' \\\n    --data d  # more\n\n# nothing\nmake demo"
    assert split_commands(code) == [
        ["massformer", "label", "--class", "car=a red car", "--data", "d"],
        ["make", "demo"],
    ]


LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(path: Path) -> set[str]:
    """What GitHub and mkdocs call the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(path), f"{page.name}: {target}"
