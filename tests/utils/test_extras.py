import sys

import pytest

from transformers_massformer.utils.extras import require


def test_an_installed_module_is_returned():
    assert require("json.decoder", "all", "Reading") is sys.modules["json.decoder"]


@pytest.mark.parametrize("module", ["absent_package", "absent_package.part", "json.absent_part"])
def test_a_missing_module_names_the_extra_that_installs_it(module):
    message = rf"^Drawing needs {module}: pip install 'transformers-massformer\[stats\]'$"
    with pytest.raises(ImportError, match=message):
        require(module, "stats", "Drawing")


def test_a_missing_dependency_of_an_installed_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "incomplete_package.py").write_text("import absent_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="absent_package"):
        require("incomplete_package", "stats", "Drawing")
