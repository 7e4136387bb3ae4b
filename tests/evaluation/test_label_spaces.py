import pytest

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.evaluation.label_spaces import class_lookup


def test_classes_are_matched_by_name_then_by_id():
    turned = dict(enumerate(reversed(MASS13K_LABELS)))
    assert class_lookup(turned, MASS13K_LABELS).tolist() == [6, 5, 4, 3, 2, 1, 0]
    other_names = {index: f"class {index}" for index in range(7)}
    assert class_lookup(other_names, MASS13K_LABELS).tolist() == list(range(7))
    mapping = {"tree": "vegetation", "1": 5, "*": "others"}
    assert class_lookup({0: "tree", 1: "sky", 2: "car"}, MASS13K_LABELS, mapping).tolist() == [3, 5, 0]


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        (None, "has 3 classes .*label map"),
        ({"tree": "vegetation"}, r"lacks 2 classes .*sky, car"),
        ({"tre": "vegetation", "*": 0}, "unknown class, 'tre'; the model has tree, sky, car"),
        ({"tree": "bush", "*": 0}, "unknown class, 'bush'; the data has others"),
    ],
)
def test_classes_without_a_counterpart_are_named(mapping, words):
    with pytest.raises(ValueError, match=words):
        class_lookup({0: "tree", 1: "sky", 2: "car"}, MASS13K_LABELS, mapping)
