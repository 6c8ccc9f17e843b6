"""A pose: which way the angles turn, what it shows where, and what it must not lose."""

from __future__ import annotations

import numpy as np
import pytest

from ctmr_core.anatomy.deformation import random_displacement
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.pose import Pose, PoseField, lost_structures
from ctmr_core.anatomy.resample import resample
from ctmr_core.anatomy.vocabulary import load_vocabulary

FRONT, HEAD, RIGHT = (0, 1, 0), (0, 0, 1), (1, 0, 0)


@pytest.mark.parametrize(
    ("pose", "axis", "towards"),
    [
        (Pose(nod=30), HEAD, FRONT),
        (Pose(nod=-30), FRONT, HEAD),
        (Pose(turn=30), FRONT, RIGHT),
        (Pose(tilt=30), HEAD, RIGHT),
    ],
    ids=["chin to the chest", "nodded back", "face to the right", "head to the right shoulder"],
)
def test_angles_turn_the_way_their_names_say(pose, axis, towards) -> None:
    turned = pose.placed(axis, (0, 0, 0))
    assert np.dot(turned, towards) == pytest.approx(0.5)
    assert np.dot(turned, axis) == pytest.approx(np.cos(np.deg2rad(30)))
    assert pose.angle == pytest.approx(30)


def test_placed_and_origin_undo_each_other_and_the_pivot_stays() -> None:
    pose, pivot = Pose(-20, 7, 5), (3.0, -8.0, 40.0)
    assert pose.origin_of(pose.placed((1.0, 2.0, 3.0), pivot), pivot) == pytest.approx((1, 2, 3))
    assert pose.placed(pivot, pivot) == pytest.approx(pivot)
    assert np.linalg.det(pose.matrix) == pytest.approx(1)


def test_the_field_shows_what_the_body_shows_where_a_place_came_from() -> None:
    pose, pivot = Pose(-20, 7, 5), (30.0, 20.0, 25.0)
    warp = random_displacement((60.0, 60.0, 60.0), 3.0, np.random.default_rng(0))
    x, y, z = np.arange(0, 60, 7.0), np.arange(0, 50, 9.0), np.arange(0, 60, 11.0)
    places = np.stack(np.meshgrid(x, y, z, indexing="ij"))
    for one in (None, warp):
        found = places + PoseField(pose, pivot, one).at(x, y, z)
        shift = np.zeros_like(places) if one is None else one.at(x, y, z)
        expected = [pose.origin_of(tuple(p), pivot) for p in (places + shift).reshape(3, -1).T]
        assert np.allclose(found.reshape(3, -1).T, expected, atol=1e-3)


def test_what_is_turned_out_of_view_is_named_and_what_is_turned_in_view_is_not() -> None:
    x, y, z = np.indices((40, 40, 40)) - 20
    ball = (x**2 + (y - 10) ** 2 + z**2 < 25).astype(np.uint8)
    body = LabelMap(ball, np.diag([3.0, 3.0, 3.0, 1.0]), load_vocabulary("maisi"))
    turned = PoseField(Pose(turn=40), (60.0, 60.0, 60.0))
    inside = resample(body, body.size, body.spacing, displacement=turned)
    assert lost_structures(body, inside) == []
    narrow = resample(body, (14, 40, 40), body.spacing)
    out = resample(body, (14, 40, 40), body.spacing, displacement=turned)
    assert lost_structures(narrow, out) == ["liver"]
    assert lost_structures(narrow, narrow) == []
