"""The rooms of the package: which of them may import which, and that no modules import each other in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest


PACKAGE = Path(__file__).parents[2] / "src" / "transformers_massformer"

# Rooms that all others may import.
BASIS = {"utils", "images", "photo_files", "models"}
# Rooms, or single modules of rooms, that a room may import.
ALLOWED = {
    "models": set(),
    "utils": set(),
    "images": {"models"},
    "photo_files": {"models", "utils"},
    "metrics": {"utils"},
    "inference": BASIS,
    "data": BASIS | {"metrics"},
    "scenes": BASIS | {"data"},
    "editing": BASIS | {"inference.mattes", "inference.tiling", "data.label_images"},
    "conversion": BASIS | {"inference"},
    # New models start from the authors' configurations and checkpoints.
    "training": BASIS | {"inference", "data", "metrics", "conversion"},
    "evaluation": BASIS | {"inference", "data", "metrics", "editing"},
    "labeling": BASIS | {"inference", "data", "metrics", "editing"},
    "segmenting": BASIS | {"inference", "data", "editing"},
    "cluster": BASIS | {"inference", "data", "segmenting"},
    "hq_sam": BASIS | {"inference", "data", "metrics", "editing", "labeling.segmentation", "training.epochs"},
    # The package itself has the version.
    "export": BASIS | {"inference", "data", "metrics", "scenes", "__init__"},
    "demo": BASIS | {"inference", "data", "metrics", "scenes", "editing"},
}
# Modules that may import everything.
OPEN = {"cli", "__init__"}


def module_name(path: Path) -> str:
    """Return a module's name inside the package, such as `"data.reading"`; `"data"` for the room's `__init__`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported_modules(name: str, path: Path) -> set[str]:
    """Return the package's modules that a module imports, at the top or inside functions."""
    package = ["transformers_massformer", *name.split(".")] if name != "__init__" else ["transformers_massformer"]
    if path.name != "__init__.py":
        package.pop()
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            # `from .room import module` imports the module.
            inside = source.removeprefix("transformers_massformer").removeprefix(".")
            for alias in node.names:
                member = f"{inside}.{alias.name}".removeprefix(".")
                found.add(f"transformers_massformer.{member}" if member in MODULES else source)
    names = {each.removeprefix("transformers_massformer.") for each in found if each.startswith("transformers_massf")}
    return {"__init__" if each == "transformers_massformer" else each for each in names} - {name}


GRAPH = {name: imported_modules(name, path) for name, path in MODULES.items()}


def test_imports_name_modules():
    assert sum(map(len, GRAPH.values())) > 200
    assert {name for names in GRAPH.values() for name in names} <= MODULES.keys()


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f"An import circle: {' <- '.join(error.args[1])}")


def test_every_room_has_a_rule():
    assert {name.partition(".")[0] for name in MODULES} == ALLOWED.keys() | OPEN


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_it_may(room):
    allowed = ALLOWED[room] | {room}
    wrong = [
        f"{name} -> {imported}"
        for name, names in GRAPH.items()
        if name.partition(".")[0] == room
        for imported in sorted(names)
        if imported.partition(".")[0] not in allowed and imported not in allowed
    ]
    assert not wrong


def test_commands_do_not_import_commands():
    shared = {"cli", "cli.__main__", "cli.console", "cli.contradictions", "cli.options", "cli.processes"}
    # The parts of a command that has several.
    shared |= {"cli.local", "cli.cluster"}
    commands = {name for name in MODULES if name.startswith("cli.")} - shared
    wrong = {name: names & commands for name, names in GRAPH.items() if name in commands and names & commands}
    assert not wrong
