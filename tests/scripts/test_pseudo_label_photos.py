"""Pseudo-labels of photographs."""

import numpy as np
import pytest


pytest.importorskip("cv2")
from pseudo_label_photos import BUILDING, HUMAN, IGNORE, SKY, WALL, label_photo, merge, seven_classes, sharpen_sky


def test_probabilities_of_ade20k_add_up():
    uniform = np.full((2, 2, 151), 1 / 151)
    assert np.allclose(seven_classes(uniform).sum(-1), 1)
    assert np.allclose(seven_classes(uniform)[..., SKY], 1 / 151)


def test_unsure_pixels_disagreement_and_walls_have_no_label():
    votes = np.zeros((8, 32, 9), np.uint8)
    votes[:, :8, SKY], votes[:, 8:16, WALL], votes[:, 16:24, BUILDING], votes[:, 24:, HUMAN] = 95, 95, 40, 95
    votes[:, 16:24, SKY] = 30
    votes[:, 24:, -1] = 1
    photo = np.repeat(np.repeat(np.uint8([[[0], [80], [160], [240]]]), 8, 1), 8, 0).repeat(3, -1)
    centres = label_photo(photo, votes, 0.6, keep_walls=False)[4, 3::8]
    assert centres.tolist() == [SKY, IGNORE, IGNORE, IGNORE]
    assert label_photo(photo, votes, 0.6, keep_walls=True)[4, 11] == BUILDING


def test_labels_decide_and_people_keep_a_margin():
    existing = np.full((1, 12), IGNORE, np.uint8)
    existing[0, :2] = HUMAN
    filling = np.full_like(existing, BUILDING)
    filling[0, -1] = HUMAN
    merged = merge(existing, filling, margin=4, complete=[HUMAN])
    assert merged[0].tolist() == [HUMAN] * 2 + [IGNORE] * 4 + [BUILDING] * 5 + [IGNORE]


def test_the_sky_net_decides_only_where_it_agrees_with_the_vote():
    votes = np.zeros((100, 100, 8), np.float32)
    votes[:50, :, SKY] = votes[50:, :, BUILDING] = 1
    sky = np.zeros((100, 100), np.float32)
    sky[:54] = 1
    sharp, near = sharpen_sky(votes, sky)
    assert sharp[52, 50, SKY] > 0.7
    assert near[52, 50]
    assert not near[5, 50]
    unchanged, near = sharpen_sky(votes, 1 - sky)
    assert unchanged is votes
    assert not near.any()
