"""The API reference: docstrings are converted to Markdown, and all public names are listed."""

import importlib
import logging
import re
from pathlib import Path

import griffe
import pytest
from support import ROOT


EXTENSION = ROOT / "scripts" / "transformers_docstrings.py"
PACKAGES = ("", ".conversion", ".editing", ".export", ".labeling", ".metrics", ".training")
# Base classes without members of their own.
NOT_SHOWN = {"MaSSFormerPreTrainedModel", "SeMaskPreTrainedModel", "SeMaskSwinPreTrainedModel"}

MODULE = '''
"""A module."""

def auto_docstring(function):
    return function

class Thing:
    """A thing; see [`measure`], [`Thing.size`] and [`torch.Tensor`]."""

    def size(self): ...

    @auto_docstring
    def forward(self, pixel_values, labels=None):
        r"""
        labels (`dict[str, int]`, *optional*):
            Classes.
        """

def measure(first, second, other=1):
    """
    Measures.

    Args:
        first, second (`int`): Two
            numbers.
        other (`float` of shape `(1, 2)`, *optional*, defaults to `f(1)`): [`Thing`].

    Returns:
        `int`: Their sum.

    Raises:
        ValueError: If one is negative.
    """
'''


def load(source: str, folder: Path, name: str) -> griffe.Object:
    (folder / f"{name}.py").write_text(source)
    extensions = griffe.load_extensions(str(EXTENSION))
    module = griffe.load(name, search_paths=[folder], extensions=extensions, allow_inspection=False)
    assert isinstance(module, griffe.Object)
    return module


def text(obj: griffe.Object) -> str:
    assert obj.docstring is not None
    return obj.docstring.value


def test_sections_become_lists(tmp_path):
    module = load(MODULE, tmp_path, "some_module")
    link = '<autoref identifier="some_module.{0}" optional><code>{0}</code></autoref>'.format
    expected = (
        "Measures. **Args** * **`first`**, **`second`** (`int`): Two numbers. "
        f"* **`other`** (`float` of shape `(1, 2)`, *optional*, defaults to `f(1)`): {link('Thing')}. "
        "**Returns** * `int`: Their sum. **Raises** * **`ValueError`**: If one is negative."
    )
    assert " ".join(text(module["measure"]).split()) == expected
    assert text(module["Thing"]) == f"A thing; see {link('measure')}, {link('Thing.size')} and `torch.Tensor`."


def test_common_arguments_of_auto_docstring_are_described(tmp_path):
    module = load(MODULE, tmp_path, "another_module")
    shown = text(module["Thing.forward"])
    assert "* **`pixel_values`** (`torch.Tensor` of shape" in shown
    assert "* **`labels`** (`dict[str, int]`, *optional*): Classes." in " ".join(shown.split())


def test_an_unknown_documented_argument_logs_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        load(MODULE, tmp_path, "right_module")
        assert not caplog.records
        load(MODULE.replace("other=1", "another=1"), tmp_path, "wrong_module")
    assert "wrong_module.measure documents other, which is not one of its parameters." in caplog.text


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_lists_all_public_names(package):
    module = importlib.import_module(f"transformers_massformer{package}")
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    public = [name for name in module.__all__ if not name.isupper() and name not in NOT_SHOWN]
    names = {f"{module.__name__}.{name}" for name in public}
    assert names <= shown


def test_all_names_in_the_reference_exist():
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        for path in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE):
            module, _, name = path.rpartition(".")
            assert hasattr(importlib.import_module(module), name), f"{page.name}: {path}"
