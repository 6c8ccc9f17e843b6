"""Pieces that are too small to be true are taken away, and nothing else."""

from __future__ import annotations

import numpy as np

from ctmr_core.learning.segmentation.pieces import without_small_pieces


def test_pieces_below_a_share_of_the_largest_of_their_class_go() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[1:7, 1:7, 1:7] = 1  # a kidney, 216 voxels
    labels[10:15, 1:7, 1:7] = 1  # the other, 180
    labels[1:4, 15:18, 15:18] = 1  # 27 far away
    labels[15:17, 15:17, 15:17] = 2  # small, and all there is of its class
    labels[7, 6, 6] = 2  # touches a kidney, one voxel
    wanted = labels.copy()
    wanted[1:4, 15:18, 15:18] = 0
    wanted[7, 6, 6] = 0
    np.testing.assert_array_equal(without_small_pieces(labels, 0.2), wanted)


def test_an_empty_volume_stays_empty() -> None:
    assert not without_small_pieces(np.zeros((4, 5, 6), np.uint8), 0.5).any()
