"""Names of classes: which are the same, which clash, and how two sets are brought together."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformers_massformer.utils.files import file_name
from transformers_massformer.utils.names import (
    are_placeholders,
    check_names,
    file_names,
    match_names,
    name_key,
    names_in_order,
)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "there are no class names"),
        (["sky", "sky"], "classes 0 and 1 have the same name, twice"),
        (["Sky", "a", "sky"], "classes 0 and 2 have the same name, as 'Sky' and 'sky'"),
        (["geb\u00e4ude", "geba\u0308ude"], "the same name"),
        (["sky", " sky "], "the same name"),
        (["traffic light", "traffic  light"], "the same name"),
        (["traffic light", "traffic\u00a0light"], "the same name"),
        (["\uff53\uff4b\uff59", "sky"], "the same name"),
        (["sky", "s\u200bky"], "the same name"),
        (["stra\u00dfe", "STRASSE"], "the same name"),
        (["sky", ""], "name of class 1 is empty"),
        (["sky", " \u200b"], "name of class 1 is empty"),
        (["sky\nwater"], "control characters"),
        (["sky\0"], "control characters"),
        (["gr\udcc3\udcbcn"], "cannot be read in this locale"),
        ([7], "names must be text"),
        (["a/b", "a:b"], "'a/b' and 'a:b' would both be written to files named 'a_b'"),
        (["a b", "A_B"], "would both be written"),
        (["con", "con_"], "would both be written"),
        (["..", "_"], "would both be written"),
    ],
)
def test_clashes_are_refused(names, words):
    with pytest.raises(ValueError, match=f"(?s)the data: .*{words}"):
        check_names(names, "the data")


def test_names_are_stored_composed_and_trimmed():
    assert check_names(["\ufeffothers ", "geba\u0308ude", "a  b"], "the data") == ["others", "geb\u00e4ude", "a b"]


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=12))
def test_file_names_are_portable(name):
    found = file_name(name)
    assert not set(found) & set('<>:"/\\|?*\0')
    assert found.strip(". ") == found
    assert found.split(".")[0].lower() not in {"con", "prn", "aux", "nul", "com1", "lpt9"}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(string.printable, min_size=1, max_size=4), min_size=2, max_size=2, unique_by=name_key))
def test_two_classes_never_share_a_file(names):
    try:
        first, second = file_names(names)
    except ValueError:
        return
    assert first.casefold() != second.casefold()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40).flatmap(lambda count: st.permutations(range(count))))
def test_sets_are_matched_by_name(order):
    names = [f"class {index}" for index in range(len(order))]
    turned = [f" CLASS  {index}" for index in order]
    assert match_names(turned, names, "one", "other") == list(order)
    table = {str(index): names[index] for index in order}
    assert names_in_order(table, "the table") == names


def test_names_without_a_counterpart_and_of_several():
    assert match_names(["sky", "car"], ["water", "Sky"], "one", "other") == [1, None]
    # Some published models have classes of one name; this matters only where it is looked for.
    assert match_names(["sky"], ["crane", "sky", "crane"], "one", "other") == [1]
    with pytest.raises(ValueError, match="other: classes 0 'crane' and 2 'Crane' have the name 'crane' of one"):
        match_names(["crane"], ["crane", "sky", "Crane"], "one", "other")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"0": "a", "2": "b"}, "ids have gaps, 1 of 0 to 2 missing"),
        ({"1": "a", "2": "b"}, "ids have gaps, 0 of 0 to 2 missing"),
        ({"0": "a", "00": "b"}, "id 0 occurs twice, as a and b"),
        ({0: "a", "0": "b"}, "id 0 occurs twice"),
        ({"a": 0}, "'a' is not the id of a class"),
        ({-1: "a"}, "-1 is not the id"),
        ({True: "a"}, "True is not the id"),
        ({0.5: "a"}, "0.5 is not the id"),
    ],
)
def test_ids_must_be_complete(table, words):
    with pytest.raises(ValueError, match=words):
        names_in_order(table, "the table")


def test_placeholders_are_recognised():
    assert are_placeholders(["LABEL_0", "LABEL_1"])
    assert not are_placeholders(["LABEL_0", "sky"])
    assert not are_placeholders([])
