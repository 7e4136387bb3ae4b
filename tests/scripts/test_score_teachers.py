"""Scores of the teachers of pseudo-labels."""

import numpy as np
import pytest


pytest.importorskip("cv2")
from score_teachers import count, scores


def test_scores_are_over_labelled_pixels_and_labelled_classes():
    labels = np.array([[1, 1, 1, 5, 255]], np.uint8)
    found = np.array([[1, 1, 5, 5, 3]], np.uint8)
    accuracy, mean, human = scores(count(labels, found) + count(labels[:, 3:], found[:, 3:]))
    assert accuracy == pytest.approx(80)
    assert human == pytest.approx(200 / 3)
    # Sky: two of three; vegetation is not labelled.
    assert mean == pytest.approx(200 / 3)


def test_an_unlabelled_class_has_no_iou():
    assert np.isnan(scores(count(np.array([[5]], np.uint8), np.array([[1]], np.uint8)))[2])
