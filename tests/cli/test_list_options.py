"""List options of `massformer train`, of which the parser would keep the last one alone."""

import pytest

from transformers_massformer.cli.train import parse_arguments


@pytest.mark.parametrize("again", [["--labels", "b"], ["--labels=b"]])
def test_a_list_given_twice_is_refused(again):
    with pytest.raises(ValueError, match="--labels is given twice"):
        parse_arguments({}, ["--output_dir", "o", "--labels", "a", *again], "recipe")
    model, *_ = parse_arguments({"labels": ["x"]}, ["--output_dir", "o", "--labels", "a", "b"], "recipe")
    assert model.labels == ["a", "b"]
