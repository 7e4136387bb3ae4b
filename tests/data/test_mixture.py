"""Mixtures of data sets whose labels differ in quality."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from scipy import ndimage
from support.tiny_data import write_pair
from torch.utils.data import DataLoader

from transformers_massformer.data.layout import LABELS
from transformers_massformer.data.mixture import MixtureSet, Source, read_mixture
from transformers_massformer.data.training_set import EpochSampler
from transformers_massformer.data.transforms import TrainingTransform, ignore_band


SMALL = TrainingTransform(crop_size=48, short_sides=(60, 90))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with two data sets, `one` of three and `two` of five photos."""
    folder = tmp_path_factory.mktemp("mixture")
    for name, count in (("one", 3), ("two", 5)):
        for index in range(count):
            write_pair(folder / name, "train", f"{name}{index}", index)
    return folder


def items_of(folder: Path, name: str) -> list[dict[str, Path]]:
    photos = sorted((folder / name / "images" / "train").iterdir())
    return [{"image": p, "label": folder / name / "annotations" / "train" / f"{p.stem}.png"} for p in photos]


def mixture_set(folder: Path, shares=(3, 1), repeats=1, **fields) -> MixtureSet:
    """Return a mixture of both data sets; further fields are those of the first source."""
    sources = [Source(folder / "one", shares[0], **fields), Source(folder / "two", shares[1])]
    return MixtureSet([items_of(folder, name) * repeats for name in ("one", "two")], sources, SMALL, LABELS, seed=3)


# Shares and order


@pytest.mark.parametrize("shares", [(3, 1), (0.05, 0.95), (0.123, 0.877)])
def test_every_block_has_the_shares_to_within_one_and_an_epoch_nearly_exactly(folder, shares):
    samples = mixture_set(folder, shares, repeats=100)
    share = shares[0] / sum(shares)
    for epoch in range(3):
        samples.set_epoch(epoch)
        of_first = samples.plan()[:, 0] == 0
        assert len(of_first) == 800
        counts = of_first.reshape(-1, 20).sum(1)
        assert np.abs(counts - 20 * share).max() < 1 + 1e-9
        assert abs(of_first.sum() - 800 * share) < 3
        assert len(set(map(tuple, of_first.reshape(-1, 20)))) > 10


def test_images_of_a_source_are_drawn_equally_often_and_only_from_it(folder):
    samples = mixture_set(folder, repeats=20)
    plan = samples.plan()
    for number, (first, size) in enumerate(((0, 60), (60, 100))):
        drawn = Counter(plan[plan[:, 0] == number, 1].tolist())
        assert set(drawn) <= set(range(first, first + size))
        assert max(drawn.values()) - min([*drawn.values()] if len(drawn) == size else [0]) <= 1


def test_the_plan_depends_on_seed_and_epoch(folder):
    one, two, other = mixture_set(folder), mixture_set(folder), mixture_set(folder)
    other.seed = 4
    assert np.array_equal(one.plan(), two.plan())
    assert not np.array_equal(one.plan(), other.plan())
    two.set_epoch(1)
    assert not np.array_equal(one.plan(), two.plan())
    two.set_epoch(0)
    assert np.array_equal(one.plan(), two.plan())
    assert list(EpochSampler(one, 3)) == list(range(6))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_make_the_same_samples_in_every_epoch(folder):
    samples, found = mixture_set(folder), []
    for options in ({}, {"num_workers": 2, "persistent_workers": True}):
        loader = DataLoader(samples, batch_size=2, **options)
        for epoch in (0, 1):
            samples.set_epoch(epoch)
            found.append([torch.cat([batch[key] for batch in list(loader)]) for key in ("pixel_values", "labels")])
    for alone, together in zip(found[:2], found[2:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert not torch.equal(found[0][0], found[1][0])


# Edges, scales and classes


@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_band_is_what_lies_within_the_distance_of_another_class(width):
    rng = np.random.default_rng(width)
    label = rng.choice([0, 1, 3, 255], (6, 7)).astype(np.uint8).repeat(9, 0).repeat(11, 1)
    expected = label.copy()
    for value in (0, 1, 3):
        others = (label != value) & (label != 255)
        distance = ndimage.distance_transform_cdt(~others, metric="chessboard")
        expected[(label == value) & (distance <= width)] = 255
    found = ignore_band(torch.from_numpy(label), width, 255).numpy()
    assert np.array_equal(found, expected)
    assert (found != 255).any()
    assert (found != label).any()


def test_the_edges_of_a_source_are_those_of_its_own_samples(folder):
    samples = mixture_set(folder, edges=4, scales=(1.0, 1.0))
    exact = mixture_set(folder, scales=(1.0, 1.0))
    for index, (number, _) in enumerate(samples.plan()):
        ignored = (samples[index]["labels"] == 255).sum(), (exact[index]["labels"] == 255).sum()
        assert ignored[0] > ignored[1] if number == 0 else ignored[0] == ignored[1]
        assert not samples[index]["coarse_edges"]
    coarse = mixture_set(folder, edges="coarse")
    for index, (number, _) in enumerate(coarse.plan()):
        assert coarse[index]["coarse_edges"].dtype == torch.bool
        assert coarse[index]["coarse_edges"].item() == (number == 0)


def test_scales_are_log_uniform_factors_of_the_photo():
    transform = replace(SMALL, scales=(0.5, 4.0))
    rng = np.random.default_rng(0)
    sides = np.array([transform.draw_short_side((80, 96), rng) for _ in range(4000)])
    logs = np.log2(sides / 80)
    assert logs.min() >= -1
    assert logs.max() <= 2
    assert np.histogram(logs, 3, (-1, 2))[0] / 4000 == pytest.approx(1 / 3, abs=0.03)
    for wrong in ({"scales": (2.0, 1.0)}, {"scales": (0.0, 1.0)}, {"ignored_band": -1}):
        with pytest.raises(ValueError, match="ignored_band, .* must be 0 or more"):
            replace(SMALL, **wrong)


@pytest.mark.parametrize("scale", [0.6, 1.0, 3.7])
def test_every_second_window_contains_the_focus(scale):
    label = torch.zeros(80, 96, dtype=torch.uint8)
    # A few pixels in a corner, and a second class so that most windows are varied.
    label[:, ::2], label[74:, 90:] = 3, 1
    image, plain = torch.zeros(3, 80, 96, dtype=torch.uint8), replace(SMALL, crop_size=24, scales=(scale, scale))
    windows = {
        focus: [replace(plain, focus=focus)(image, label, np.random.default_rng(i))["labels"] for i in range(300)]
        for focus in ((), (1,), (5,))
    }
    shares = {focus: np.mean([(x == 1).any().item() for x in found]) for focus, found in windows.items()}
    assert shares[()] < 0.3
    assert 0.4 < shares[(1,)] < 0.75
    # Without a pixel of it, the focus changes nothing.
    assert shares[(5,)] == pytest.approx(shares[()], abs=0.12)
    with pytest.raises(ValueError, match=r"focus has \[7\]: with 7 classes, labels are 0 to 6"):
        replace(plain, focus=(1, 7))


def test_the_focus_of_a_source_is_that_of_its_own_samples(folder):
    samples = mixture_set(folder, focus=("sky", "human"))
    assert [transform.focus for transform in samples.transforms] == [[5, 1], []]
    with pytest.raises(ValueError, match=r"the mixture: focus has the unknown classes lake"):
        mixture_set(folder, focus=("lake",))
    with pytest.raises(ValueError, match=r"focus has human, which annotated_classes does not list. Remove it"):
        mixture_set(folder, focus=("sky", "human"), annotated_classes=("sky",))


def test_annotated_classes_travel_with_the_samples_and_are_checked(folder):
    samples = mixture_set(folder, annotated_classes=LABELS[:3])
    first = samples.plan()[:, 0].tolist()
    with pytest.raises(ValueError, match=r"the mixture: .*one\d.png has pixels of .*, which annotated_classes"):
        samples[first.index(0)]
    assert samples[first.index(1)]["annotated_classes"].tolist() == [True] * 7
    for item in samples.dataset.datasets[0]:
        label = np.array(PIL.Image.open(item["label"]))
        label[label > 2] = 255
        item["label"] = PIL.Image.fromarray(label)
    assert samples[first.index(0)]["annotated_classes"].tolist() == [True] * 3 + [False] * 4
    with pytest.raises(ValueError, match=r"the mixture: annotated_classes .* unknown classes lake; .* others, human"):
        mixture_set(folder, annotated_classes=("sky", "lake"))


def test_ids_beyond_the_classes_name_map_and_source(folder):
    samples = mixture_set(folder)
    samples.dataset.datasets[0][:] = [{**items_of(folder, "one")[0], "label": PIL.Image.new("L", (96, 80), 9)}] * 3
    with pytest.raises(ValueError, match=r"the mixture: .* has the unknown labels \[9\]"):
        samples[samples.plan()[:, 0].tolist().index(0)]


# The file


def write_mixture(path: Path, *sources: dict, **others) -> Path:
    path.write_text(yaml.safe_dump({"sources": list(sources), **others}))
    return path


def test_a_description_is_read_relative_to_its_file(folder):
    first = {"data": "one", "share": 3, "edges": "coarse", "scales": [0.5, 2], "annotated_classes": ["sky", "human"]}
    first["focus"] = ["sky", "water"]
    one, two = read_mixture(write_mixture(folder / "a.yaml", first, {"data": str(folder / "two"), "share": 1}))
    assert (one.data, one.share, one.edges, one.scales) == (folder / "one", 3, "coarse", (0.5, 2))
    assert (one.annotated_classes, one.focus, two.focus) == (("sky", "human"), ("sky", "water"), ())
    assert (two.edges, two.scales, two.annotated_classes) == ("exact", None, None)
    assert two.data == folder / "two"
    focused = "every second window with sky or water"
    assert one.describe(4) == (
        f"75 % from `one` (coarse edges, scales 0.5 to 2, labels of sky / human only, {focused})"
    )
    assert replace(two, edges=3).describe(4) == "25 % from `two` (edges ignored within 3 pixels)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sahre": 1}, "has the unknown keys sahre; the keys are data, share"),
        ({"share": 0}, "share is 0; it must be a positive number"),
        ({"share": "much"}, "share is 'much'"),
        ({"share": None}, "share is None"),
        ({"share": float("nan")}, "share is nan"),
        ({"edges": "blurred"}, "edges is 'blurred'; it must be `exact`, `coarse` or a positive number"),
        ({"edges": 0}, "edges is 0"),
        ({"edges": True}, "edges is True"),
        ({"edges": ["coarse"]}, r"edges is \['coarse'\]"),
        ({"scales": [2, 1]}, r"scales is \[2, 1\]; it must be two positive numbers"),
        ({"scales": [0, 1]}, "scales is"),
        ({"scales": 1}, "scales is 1"),
        ({"annotated_classes": []}, r"annotated_classes is \[\]; it must be a list of class names"),
        ({"annotated_classes": "sky"}, "annotated_classes is 'sky'"),
        ({"focus": "sky"}, "focus is 'sky'; it must be a list of class names"),
        ({"data": "three"}, "the folder .*three does not exist; paths are relative"),
        ({"data": 3}, "data is 3; it must be a folder"),
        ({"data": "two/../one"}, r"is the folder of .*a.yaml, source 1 \(one\): merge"),
    ],
    ids=str,
)
def test_wrong_values_name_file_source_and_remedy(folder, change, message):
    sources = {"data": "one", "share": 1}, {"data": "two", "share": 1, **change}
    path = write_mixture(folder / "a.yaml", *sources)
    with pytest.raises((ValueError, FileNotFoundError), match=r"a.yaml, source 2 \(.*" + message):
        read_mixture(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not valid YAML"),
        ("some text", "does not describe a mixture"),
        ("sources: []", "does not describe a mixture"),
        ("sources: [{data: one, share: 1}]\nmore: 1", "and no other key"),
        ("sources: [one]", "source 1 is 'one'; write keys with values"),
        ("sources: [{share: 1}]", "source 1 has no `data`; add it: a folder"),
        ("sources: [{data: one}]", r"source 1 \(one\) has no `share`; add it: a positive number"),
    ],
)
def test_files_that_are_no_description_are_refused(folder, text, message):
    (folder / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"a.yaml.*{message}"):
        read_mixture(folder / "a.yaml")
