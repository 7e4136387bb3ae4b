"""Test that JSON files have only what every parser reads."""

import json
import math

import pytest

from transformers_massformer.utils.json_files import write_json


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


@pytest.mark.parametrize("indent", [None, 1])
def test_numbers_that_json_does_not_have_become_null(tmp_path, indent):
    values = {"a": math.nan, "b": [1.5, (math.inf, -math.inf)], "c": {"ü\udcfc": float("nan")}, "d": 0}
    write_json(values, tmp_path / "file.json", indent)
    text = (tmp_path / "file.json").read_text(encoding="ascii")
    expected = {"a": None, "b": [1.5, [None, None]], "c": {"ü\udcfc": None}, "d": 0}
    assert json.loads(text, parse_constant=refuse) == expected
