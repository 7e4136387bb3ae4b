import json
import math
import os
import re
import sys

import numpy as np
import PIL.Image
import pytest
import torch
from support.commands import run_python
from support.processes import CONTEXT

from transformers_massformer.metrics import CountSettings, count_image, count_images, score


evaluate = pytest.importorskip("evaluate")

SIZES = [(40, 50), (7, 90), (64, 64)]


@pytest.fixture(scope="session")
def folder(built_hub):
    return built_hub / "boundary_segmentation"


@pytest.fixture
def load(folder, tmp_path, monkeypatch):
    """Load the built metric as a user of `evaluate` does, with caches of the test's own."""
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "modules")])

    def load_metric(**options):
        return evaluate.load(str(folder), cache_dir=str(tmp_path / "metrics"), **options)

    yield load_metric
    for name in [name for name in sys.modules if name.startswith("evaluate_modules")]:
        del sys.modules[name]


def pairs(seed=0):
    generator = np.random.default_rng(seed)
    for height, width in SIZES:
        label = generator.integers(0, 4, (height // 5 + 1, width)).repeat(5, 0)[:height].astype(np.uint8)
        prediction = np.roll(label, 1, 1)
        label[: height // 3, : width // 4] = 255
        yield prediction, label


def expected(num_labels=5, chosen=None, seed=0):
    predictions, labels = zip(*pairs(seed), strict=True)
    chosen = chosen or CountSettings()
    tensors = [[torch.from_numpy(x) for x in maps] for maps in (predictions, labels)]
    return score(count_images(*tensors, num_labels, chosen), chosen)


def assert_same(result, expected):
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert (
            np.array_equal(result[name], value, equal_nan=True) if isinstance(value, list) else result[name] == value
        )


def test_scores_equal_those_of_the_package(load):
    metric = load()
    for prediction, label in pairs():
        metric.add_batch(predictions=[prediction], references=[torch.from_numpy(label)])
    result = metric.compute(num_labels=5)
    assert_same(result, expected())
    assert isinstance(result["mean_iou"], float)
    assert len(result["per_category_boundary_iou"]) == 5
    assert math.isnan(result["per_category_bf1"][4])


def test_adding_batches_single_maps_or_all_at_once_is_the_same(load):
    metric = load(keep_in_memory=True)
    predictions, labels = zip(*pairs(), strict=True)
    at_once = metric.compute(predictions=predictions, references=[label.tolist() for label in labels])
    assert_same(at_once, expected(num_labels=4))
    for prediction, label in pairs():
        metric.add(prediction=prediction, reference=label)
    assert_same(metric.compute(), at_once)


def test_settings_of_load_and_of_compute(load):
    chosen = CountSettings(None, 0.05, 1, "chebyshev")
    predictions, labels = zip(*((prediction, label % 5) for prediction, label in pairs()), strict=True)
    settings = {"ignore_index": None, "boundary_ratio": 0.05, "bf1_tolerance": 1, "bf1_distance": "chebyshev"}
    by_compute = load().compute(predictions=predictions, references=labels, num_labels=5, **settings)
    metric = load(**settings)
    metric.add_batch(predictions=predictions, references=labels)
    assert_same(metric.compute(num_labels=5, boundary_ratio=0.05), by_compute)
    counts = [count_image(*map(torch.from_numpy, pair), 5, chosen) for pair in zip(predictions, labels, strict=True)]
    assert_same(by_compute, score(type(counts[0]).stack(counts), chosen))
    assert by_compute["settings"]["bf1_distance"] == "chebyshev"


def test_settings_cannot_change_after_counting(load):
    metric = load()
    prediction, label = next(pairs())
    metric.add(prediction=prediction, reference=label)
    for given in ({}, {"predictions": [prediction], "references": [label]}):
        with pytest.raises(ValueError, match=r"counted with .*boundary_ratio=0.001.* `evaluate.load`"):
            metric.compute(boundary_ratio=0.02, **given)
    # Nothing is lost by the refusal.
    assert metric.compute()["num_images"] == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, p, r: m.add_batch(predictions=[p, p], references=[r]), "2 predictions for 1 references"),
        (lambda m, p, r: m.add_batch(predictions=[p], references=[r], num_labels=3), "num_labels"),
        (lambda m, p, r: m.add(prediction=p[1:], reference=r), "Pair 0: .*50 x 39"),
        (lambda m, p, r: m.compute(predictions=[p], references=[r], tolerance=3), "Unknown settings: tolerance"),
        (lambda m, p, r: m.compute(predictions=[p], references=[r], num_labels=2), "a class 3, but"),
    ],
)
def test_invalid_input_raises(load, call, words):
    with pytest.raises(ValueError, match=words):
        call(load(), *next(pairs()))


def count_every_other_pair(folder, cache, process_id):
    metric = evaluate.load(
        str(folder), cache_dir=str(cache), num_process=2, process_id=process_id, experiment_id="two-processes"
    )
    for index, (prediction, label) in enumerate(pairs()):
        if index % 2 == process_id:
            metric.add_batch(predictions=[prediction], references=[label])
    return metric.compute(num_labels=5)


def test_two_processes_give_the_same_numbers(folder, load, tmp_path):
    load()
    other = CONTEXT.Process(target=count_every_other_pair, args=(folder, tmp_path / "metrics", 1))
    other.start()
    result = count_every_other_pair(folder, tmp_path / "metrics", 0)
    other.join(60)
    assert other.exitcode == 0
    assert_same(result, expected())


CASES = """
import sys
sys.modules["transformers_massformer"] = None
import evaluate
metric = evaluate.load(sys.argv[1])
sys.path.insert(0, sys.argv[1])
from tests import test_cases
for case in test_cases:
    result = metric.compute(predictions=case["predictions"], references=case["references"])
    assert case["result"].items() <= result.items(), (case, result)
print(len(test_cases))
"""


def test_cases_of_the_space_hold_without_the_package(folder, tmp_path):
    environment = os.environ | {"HF_HOME": str(tmp_path)}
    done = run_python("-c", CASES, folder, cwd=tmp_path, env=environment)
    assert done.stdout.splitlines()[-1] == "3"


PAGE = """
import json, sys
sys.modules["transformers_massformer"] = None
sys.path.insert(0, sys.argv[1])
import app
try:
    app.compare("colour.png", "label.png", 255, 0.001, 2)
except app.gr.Error as error:
    message = str(error)
rows = app.compare("prediction.png", "label.png", 255, 0.001, 2)
print(json.dumps({"rows": rows, "message": message, "title": app.build().title}))
"""


def test_the_page_scores_two_files(folder, tmp_path):
    pytest.importorskip("gradio")
    prediction, label = next(pairs())
    for name, label_map in (("prediction", prediction), ("label", label)):
        PIL.Image.fromarray(label_map).save(tmp_path / f"{name}.png")
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "colour.png")
    # A process of its own: Gradio leaves event loops open.
    done = run_python("-c", PAGE, folder, cwd=tmp_path)
    found = json.loads(done.stdout.splitlines()[-1])
    assert [row[0] for row in found["rows"]] == ["mean", "0", "1", "2", "3"]
    assert 0 < float(found["rows"][0][1]) < 1
    assert "has mode RGB" in found["message"]
    assert found["title"] == "Boundary segmentation"


def test_the_space_requires_what_it_imports(folder):
    required = {re.match(r"\w+", line)[0] for line in (folder / "requirements.txt").read_text().splitlines()}
    imported = {
        name
        for path in folder.glob("*.py")
        for name in re.findall(r"^(?:import|from) (\w+)", path.read_text(), re.MULTILINE)
    }
    others = imported - set(sys.stdlib_module_names)
    assert {"pillow" if name == "PIL" else name for name in others} == required
