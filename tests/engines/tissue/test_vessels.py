import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctmr_core.engines.tissue.vessels import VesselTree, VoxelShares, grow_tree, rasterise, union


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**31))
def test_every_tip_is_joined_to_the_root_and_vessels_thin_out(tips: int, seed: int) -> None:
    points = np.random.default_rng(seed).uniform(0, 100, (tips, 3))
    root = np.array([0.0, 50.0, 50.0])
    tree = grow_tree(points, root, leaf_radius=0.5)
    assert tree.parent[0] == -1
    assert (tree.parent[1:] < np.arange(1, tips + 1)).all()  # hence no loops
    assert (tree.parent[1:] >= 0).all()
    assert (tree.radius[1:] <= tree.radius[tree.parent[1:]] + 1e-9).all()
    assert tree.radius.min() >= 0.5 - 1e-9
    assert {tuple(p) for p in points} == {tuple(p) for p in tree.points[1:]}


def test_flow_adds_up_at_a_branching_and_can_be_capped() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (300, 3))
    root = np.zeros(3)
    assert grow_tree(points, root, 0.5).radius[0] > 3.0
    assert grow_tree(points, root, 0.5, thickest=1.0).radius.max() == 1.0


@pytest.mark.parametrize("radius", [0.6, 2.0, 5.0])
def test_a_straight_vessel_has_the_volume_of_its_cylinder(radius: float) -> None:
    size, spacing = (40, 30, 30), (1.0, 1.0, 1.5)
    points = np.array([[-10.0, 15.0, 20.0], [60.0, 15.0, 20.0]])
    tree = VesselTree(points, np.array([-1, 0]), np.full(2, radius))
    shares = rasterise(tree, size, spacing)
    volume = shares.share.sum() * np.prod(spacing)
    assert volume == pytest.approx(np.pi * radius**2 * 40.0, rel=0.35)
    assert (np.diff(shares.index) > 0).all()
    place = np.stack(np.unravel_index(shares.index, size), axis=1) * spacing
    assert np.hypot(place[:, 1] - 15, place[:, 2] - 20).max() < radius + 2.0


def test_a_union_keeps_the_greatest_share() -> None:
    one = VoxelShares(np.array([1, 5]), np.array([0.2, 0.9], np.float32))
    two = VoxelShares(np.array([5, 7]), np.array([0.4, 0.1], np.float32))
    both = union([one, two])
    assert both.index.tolist() == [1, 5, 7]
    assert both.share.tolist() == pytest.approx([0.2, 0.9, 0.1])
    assert union([]).index.size == 0
