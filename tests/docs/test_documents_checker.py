"""The checker of the documents' code blocks finds mistakes."""

import re

import pytest
from support.documents import Block, check_or_run, find_blocks, split_commands


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
        ("massformer train --output o --recipe recipes/none.yaml ...", "There is no recipe recipes/none.yaml"),
        ("massformer train --output o --recipe finetune-23gb ...", "There is no recipe finetune-23gb"),
        ("massformer train-hq-sam --data d --model m --output o --drop_affter 3", "has no --drop_affter 3"),
        ("python scripts/prepare_mass13k.py MaSS13K --outptu o", "No such option: --outptu"),
        ("python scripts/no_such_script.py", "no_such_script.py"),
        ("accelerate launch --num_processses 4 -m transformers_massformer.cli train ...", "2"),
        ("accelerate launch -m transformers_massformer.cli train --output o --no_such ...", "has no --no_such"),
        ("torchrun --nproc-per-node 2 -m transformers_massformer.cli evaluate --model m --dat d", "--dat"),
        ("torchrun --nproc-per-node 2 -m another.module", "does not start a command of this package"),
        ("make demmo", "not demmo"),
        ("pip install '.[dmo]'", "no extra dmo"),
        ("pip install '.[demo,onx]'", "no extra demo,onx"),
        ("massformer stats MaSS13K | head", "is not a simple command"),
        ("massformer stats $DATA", "is not a simple command"),
        ("rm -r MaSS13K", "cannot be checked here"),
    ],
)
def test_mistakes_in_commands_that_are_not_run(code, message):
    with pytest.raises(AssertionError, match=re.escape(message)):
        check_or_run(bash(code))


def test_recipes_by_name_and_by_path():
    for recipe in ("finetune-24gb", "benchmark/segformer-b2", "src/transformers_massformer/recipes/demo.yaml"):
        check_or_run(bash(f"massformer train --data d --output o --recipe {recipe} ..."))


def test_a_block_runs_unless_it_gives_a_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "massformer segment photo.jpg --model m --output o"
    check_or_run(bash(code))
    with pytest.raises(AssertionError, match=r"page\.md:2: .* exited with 1"):
        check_or_run(bash(code, comment="A line of text."))
    # Commands that cannot run here need a reason.
    with pytest.raises(AssertionError, match="cannot run here. Say why"):
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
        ("<!-- not run: takes days -->\n\n```bash\nmake test\n```", "not directly above a block"),
        ("<!-- not run: takes days -->", "not directly above a block"),
        ("```bash\nmake test", "without an end"),
    ],
)
def test_reasons_are_directly_above_blocks(text, message):
    with pytest.raises(ValueError, match=message):
        blocks_of(text)


def test_python_blocks_share_a_namespace(capsys):
    check_or_run(blocks_of("```python\nx = 1\n```\n\n```python\nprint(x + 1)\n```\n"))
    assert capsys.readouterr().out == "2\n"
    with pytest.raises(AssertionError, match=r"page\.md:2: name 'y' is not defined"):
        check_or_run(blocks_of("\n```python\ny\n```\n"))


def test_python_blocks_that_are_not_run_are_checked():
    reason = "<!-- not run: needs GPUs -->\n```python\n{}\n```\n"
    check_or_run(blocks_of(reason.format("from transformers_massformer import open_image\nopen_image('none')")))
    for code, message in (
        ("from transformers_massformer import no_such_name", "has no no_such_name"),
        ("import torch\nif torch", "expected ':'"),
    ):
        with pytest.raises(AssertionError, match=message):
            check_or_run(blocks_of(reason.format(code)))


def test_commands_are_split_like_in_a_shell():
    code = "massformer label --class 'car=a red car' \\\n    --data d  # more\n\n# nothing\nmake demo"
    assert split_commands(code) == [
        ["massformer", "label", "--class", "car=a red car", "--data", "d"],
        ["make", "demo"],
    ]
