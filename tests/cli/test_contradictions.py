"""Options that contradict each other or would have no effect are refused before anything is loaded."""

import PIL.Image
import pytest
import typer.main
from support.commands import run

from transformers_massformer.cli import app
from transformers_massformer.cli.contradictions import EXCLUDES, NEEDS


COMMANDS = typer.main.get_command(app).commands
# Values of options that are no switches.
VALUES = {
    "add_class": ["person"],
    "batch_size": ["2"],
    "bf1_tolerance": ["1"],
    "bokeh": ["sky"],
    "bokeh_strength": ["0.02"],
    "boundary_ratio": ["0.1"],
    "dtype": ["float32"],
    "image_column": ["photo"],
    "ray": ["local"],
    "review": ["list.csv"],
    "tile": ["64"],
}
REQUIRED = {
    "evaluate": ["--model", "nowhere"],
    "label": ["--data", "nowhere", "--class", "car", "--output", "out"],
    "segment": ["nowhere.jpg", "--model", "nowhere", "--output", "out"],
}
PAIRS = [
    *((command, [name]) for command, needs in NEEDS.items() for name in needs),
    *(
        (command, [name, each])
        for command, excludes in EXCLUDES.items()
        for name, excluded in excludes.items()
        for each in excluded
    ),
]


def written(command: str, names: list[str]) -> list[str]:
    """Write options of a command, with values where they take one."""
    parameters = {parameter.name: parameter for parameter in COMMANDS[command].params}
    words = []
    for name in names:
        option, _, value = name.partition("=")
        given = [value] if value else VALUES.get(option, ["1"])
        words += [parameters[option].opts[0], *([] if parameters[option].is_flag else given)]
    return words


@pytest.mark.parametrize(("command", "names"), PAIRS)
def test_options_without_an_effect_are_refused(command, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed = run(command, *REQUIRED[command], *written(command, names), code=1)
    assert " no effect with" in " ".join(failed.stderr.split())
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "name"), [(c, name) for c, needs in NEEDS.items() for name in needs])
def test_each_of_the_options_that_one_needs_will_do(command, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for needed in NEEDS[command][name]:
        failed = run(command, *REQUIRED[command], *written(command, [name, needed]), code=1)
        assert "no effect" not in failed.stderr


def test_names_of_classes_differ(tmp_path):
    failed = run("evaluate", "--model", tmp_path, "--add-class", "car", "--add-class", "car", code=2)
    assert "car is given twice" in failed.stderr


@pytest.mark.parametrize("option", [["--dtype", "float32"], ["--profile-size", "64x64"], ["--flip"], ["--tile", "64"]])
def test_options_of_models_are_refused_for_label_maps(option, tmp_path):
    (tmp_path / "maps").mkdir()
    PIL.Image.new("L", (8, 8)).save(tmp_path / "maps" / "a.png")
    failed = run("evaluate", "--model", tmp_path / "maps", "--data", tmp_path, *option, code=1)
    assert option[0] in failed.stderr
    assert "leave" in failed.stderr


@pytest.mark.parametrize(
    "command", [["train"], ["train-hq-sam", "--model", "nowhere"]], ids=lambda command: command[0]
)
def test_steps_and_epochs_together_are_refused(command, tmp_path):
    lengths = ("--max_steps", "3", "--num_train_epochs=2", "--use_cpu")
    failed = run(*command, "--data", tmp_path, "--output", tmp_path / "out", *lengths, code=1)
    assert "both set the length of the training; leave out one" in " ".join(failed.stderr.split())
