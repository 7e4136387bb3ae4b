"""Bringing the classes of a model and of data together."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.evaluation.label_spaces import class_lookup, read_label_map_file


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(7)))
def test_names_decide_in_any_order(order):
    lookup = class_lookup([MASS13K_LABELS[index] for index in order], MASS13K_LABELS)
    assert lookup.tolist() == list(order)


def test_spelling_and_placeholders_do_not_make_classes():
    assert class_lookup(["Sky", " geba\u0308ude"], ["geb\u00e4ude", "sky"]).tolist() == [1, 0]


def test_a_label_map_decides():
    mapping = {"tree": "vegetation", "1": 5, "*": "others"}
    assert class_lookup(["tree", "sky", "car"], MASS13K_LABELS, mapping).tolist() == [3, 5, 0]
    assert class_lookup(["Tree"], ["VEGETATION"], {"tree": "vegetation"}).dtype == torch.int64


@pytest.mark.parametrize(
    ("names", "mapping", "words"),
    [
        (["tree", "sky", "car"], None, r"0 tree, 1 sky, 2 car; the data 7, 0 others, .*--label-map"),
        # As many classes as the data, with the same ids.
        ([f"class {index}" for index in range(7)], None, r"names of the classes differ.*0 class 0.*0 others"),
        ([*MASS13K_LABELS[:6], "river"], None, "names of the classes differ.*6 river.*6 water"),
        ([f"LABEL_{index}" for index in range(7)], None, "have no names .*id2label in the model's config.json"),
        (["sky", "SKY"], None, "names of the classes differ|have the name"),
        (["tree", "sky", "car"], {"tree": "vegetation"}, r"lacks 2 classes .*sky, car"),
        (["tree", "sky", "car"], {"tre": "vegetation", "*": 0}, "unknown class, 'tre'; the model has tree, sky, car"),
        (["tree", "sky", "car"], {"tree": "bush", "*": 0}, "unknown class, 'bush'; the data has others"),
        (["tree", "sky", "car"], {"tree": 1, "0": 2, "*": 0}, "maps tree to both human and building"),
    ],
)
def test_classes_without_a_counterpart_are_named(names, mapping, words):
    with pytest.raises(ValueError, match=words):
        class_lookup(names, MASS13K_LABELS, mapping)


def test_label_map_files_are_read_as_utf_8_and_checked(tmp_path):
    path = tmp_path / "map.json"
    path.write_bytes('\ufeff{"geb\u00e4ude": 1}'.encode())
    assert read_label_map_file(path) == {"geb\u00e4ude": 1}
    path.write_text('{"a": true}')
    with pytest.raises(ValueError, match="must contain one object"):
        read_label_map_file(path)
