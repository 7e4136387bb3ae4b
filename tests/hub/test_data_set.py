import json

from support.commands import run_python

from transformers_massformer.data.layout import LABELS


def test_labels_and_colours_by_id(built_hub):
    names, colours = (
        json.loads((built_hub / "mass13k" / name).read_text()) for name in ("id2label.json", "palette.json")
    )
    assert names == {str(index): label for index, label in enumerate(LABELS)}
    assert colours.keys() == names.keys()
    assert colours["3"] == [64, 150, 72]


def test_the_loading_script_is_imported_without_the_package(built_hub):
    code = (
        "import sys; sys.modules['transformers_massformer'] = None; import mass13k.mass13k as script; "
        "print(script.MaSS13K.__name__, 'torch' in sys.modules)"
    )
    assert run_python("-c", code, cwd=built_hub).stdout.strip() == "MaSS13K False"
