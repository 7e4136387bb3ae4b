"""
Code blocks of the documents: find, check and run them.

Every `bash` and `python` block is run, unless the line above it gives a reason (`<!-- not run: the reason -->`). Then
its commands, options and imports are still checked.

Commands run in this process, through their own parsers, because a process each would take six seconds to import
everything. A bash block may therefore contain simple commands only. Slow commands are run with smaller settings: see
`SMALLER`.
"""

import ast
import configparser
import functools
import importlib
import re
import runpy
import shlex
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import typer
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser
from transformers import HfArgumentParser
from typer.testing import CliRunner

from support import ROOT
from transformers_massformer.cli import app
from transformers_massformer.cli.train import option_parser
from transformers_massformer.hq_sam import HQSamTrainingArguments


RECIPES = ROOT / "src" / "transformers_massformer" / "recipes"
FENCE = re.compile(r"^```(\w*)\s*$")
NOT_RUN = re.compile(r"<!-- not run: (\S.*) -->")
# Blocks in these languages contain nothing to run.
OTHER_LANGUAGES = {"", "bibtex", "json", "yaml"}
COMMAND = re.compile(r"^\s*(?:massformer|python|pip|make|torchrun|accelerate) ", re.MULTILINE)

# Options appended to a command to make it fast; the last value of an option wins.
SMALLER = {
    "evaluate": ["--profile-size", "0", "--device", "cpu"],
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
    """A fenced code block of a document."""

    page: str
    line: int
    language: str
    code: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def find_blocks(text: str, page: str) -> list[Block]:
    """
    Return the code blocks of a page in order.

    Raises:
        ValueError: If a "not run" comment gives no reason or is not directly above a block, or a block has no end.
    """
    blocks, lines = [], text.splitlines()
    starts = iter(range(len(lines)))
    for start in starts:
        if "<!-- not run" in lines[start]:
            if not NOT_RUN.fullmatch(lines[start].strip()):
                raise ValueError(f"{page}:{start + 1} gives no reason: write <!-- not run: the reason -->")
            if start + 1 == len(lines) or FENCE.match(lines[start + 1]) is None:
                raise ValueError(f"{page}:{start + 1} is not directly above a block.")
        opening = FENCE.match(lines[start])
        if opening is None:
            continue
        end = next((index for index in starts if lines[index].strip() == "```"), None)
        if end is None:
            raise ValueError(f"{page}:{start + 1} starts a block without an end.")
        above = NOT_RUN.fullmatch(lines[start - 1].strip()) if start else None
        code = "\n".join(lines[start + 1 : end])
        blocks.append(Block(page, start + 1, opening[1], code, above[1] if above else None))
    return blocks


def split_commands(code: str) -> list[list[str]]:
    """
    Split a bash block into commands, and each command into words.

    Raises:
        ValueError: If a line is not a simple command but has pipes, variables or redirections.
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


@functools.cache
def script_app(path: str) -> typer.Typer:
    """Return a script's command line without running it."""
    found: list[Callable] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend((ROOT / path).parent)
        patch.setattr(typer, "run", found.append)
        runpy.run_path(str(ROOT / path), run_name="__main__")
    script = typer.Typer(add_completion=False)
    script.command()(found[0])
    return script


def extras() -> set[str]:
    """Return the names of the package's extras."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    return set(setup["options.extras_require"])


def massformer_command(name: str) -> Any:
    """
    Return a subcommand of `massformer`.

    Raises:
        ValueError: If there is no such subcommand.
    """
    group = typer.main.get_group(app)
    command = group.get_command(typer.Context(group), name)
    if command is None:
        raise ValueError(f"There is no massformer {name}.")
    return command


def more_options(name: str) -> ArgumentParser | None:
    """Return the parser of the options that a subcommand of `massformer` does not declare itself."""
    parsers = {
        "train": option_parser,
        "train-hq-sam": lambda: HfArgumentParser(HQSamTrainingArguments, allow_abbrev=False),
    }
    return parsers[name]() if name in parsers else None


def without_launcher(words: list[str]) -> list[str]:
    """
    Return the command that `accelerate launch` or `torchrun` starts, after checking the launcher's options.

    Raises:
        ValueError: If the launcher does not start a command of this package.
    """
    if words[:2] == ["accelerate", "launch"]:
        launched = launch_command_parser().parse_args(words[2:])
    elif words[0] == "torchrun":
        launched = get_args_parser().parse_args(words[1:])
    else:
        return words
    if not launched.module or launched.training_script != "transformers_massformer.cli":
        raise ValueError(f"{' '.join(words)} does not start a command of this package.")
    return ["massformer", *launched.training_script_args]


def check_parsed(command: Any, name: str, arguments: list[str]) -> list[str]:
    """Parse a command's own options and return the rest; "..." stands for omitted options."""
    if "..." in arguments:
        for parameter in command.params:
            parameter.required = False
    return command.make_context(name, [word for word in arguments if word != "..."]).args


def check_recipes(arguments: list[str]):
    """Raise an error unless every `--recipe` names a recipe of the package or an existing file."""
    for option, value in zip(arguments, arguments[1:], strict=False):
        if option == "--recipe" and not (RECIPES / f"{value}.yaml").is_file() and not (ROOT / value).is_file():
            raise ValueError(f"There is no recipe {value}.")


def check_massformer(arguments: list[str]):
    """Raise an error unless `massformer` accepts the arguments."""
    name, *rest = arguments
    passed_on = check_parsed(massformer_command(name), name, rest)
    parser = more_options(name)
    if parser is not None:
        for action in parser._actions:
            action.required = False
        _, unknown = parser.parse_known_args(passed_on)
        if unknown:
            raise ValueError(f"massformer {name} has no {' '.join(unknown)}.")
    check_recipes(rest)


def check_command(words: list[str]):
    """Raise an error unless a command exists and accepts its options."""
    words = without_launcher(words)
    if words[0] == "massformer":
        check_massformer(words[1:])
    elif words[0] == "python" and words[1].startswith("scripts/"):
        check_parsed(typer.main.get_command(script_app(words[1])), words[1], words[2:])
    elif words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        unknown = set(words[1:]) - set(targets)
        if unknown or len(words) == 1:
            raise ValueError(f"The targets of make are {', '.join(targets)}, not {', '.join(unknown)}.")
    elif words[:2] == ["pip", "install"]:
        for name in re.findall(r"\[(.*?)\]", " ".join(words[2:])):
            if not set(name.split(",")) <= extras():
                raise ValueError(f"setup.cfg has no extra {name}.")
    else:
        raise ValueError(f"{' '.join(words)}: cannot be checked here.")


def run_command(words: list[str]):
    """
    Run a command in this process with smaller settings.

    Raises:
        ValueError: If it is neither `massformer` nor a script of this repository.
        RuntimeError: If it fails.
    """
    if words[0] == "massformer":
        program, arguments = app, [*words[1:], *SMALLER.get(words[1], [])]
    elif words[0] == "python" and words[1].startswith("scripts/"):
        program, arguments = script_app(words[1]), words[2:]
    else:
        raise ValueError(f"{' '.join(words)} cannot run here. Say why above its block: <!-- not run: the reason -->")
    result = CliRunner().invoke(program, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code != 0:
        raise RuntimeError(f"{shlex.join(words)} exited with {result.exit_code}:\n{result.output}")


def check_python(block: Block):
    """Raise an error unless the code compiles and its imports from this package exist."""
    for node in ast.walk(ast.parse(block.code, str(block))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("transformers_massformer"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    raise ValueError(f"{block}: {node.module} has no {alias.name}.")


def run_python(block: Block, namespace: dict):
    """Run code with smaller numbers in the namespace shared by the blocks of its page."""
    code = block.code
    for name, number in SMALLER_NUMBERS.items():
        code = re.sub(rf"\b{name}=\d+", f"{name}={number}", code)
    exec(compile("\n" * block.line + code, block.page, "exec"), namespace)


def check_or_run(blocks: list[Block]):
    """Check all blocks of a page, and run those without a reason not to, in order, in the working directory."""
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
                raise ValueError(f"Blocks in {block.language} are not run. Call it bash or python.")
            elif COMMAND.search(block.code):
                raise ValueError("A block that is not called bash contains commands.")
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{block}: {error}") from error


def option_names(command: Any) -> set[str]:
    """Return the names of a command's own options."""
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def known_options(scripts: Iterable[str]) -> set[str]:
    """Return all options of `massformer`, the launchers, and the given scripts."""
    group = typer.main.get_group(app)
    names = group.list_commands(typer.Context(group))
    parsers = [launch_command_parser(), get_args_parser(), *filter(None, map(more_options, names))]
    known = {name for parser in parsers for action in parser._actions for name in action.option_strings}
    for name in names:
        known |= option_names(massformer_command(name))
    for path in scripts:
        known |= option_names(typer.main.get_command(script_app(path)))
    return known
