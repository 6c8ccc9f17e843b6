from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctmr_core.anatomy.field_of_view import center_of, output_affine
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.errors import AnatomyError

MAISI = load_vocabulary("maisi")


def oblique(spacing: tuple[float, float, float], turn: float, origin: tuple[float, float, float]) -> np.ndarray:
    affine = np.eye(4)
    c, s = np.cos(turn), np.sin(turn)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def boxes() -> LabelMap:
    voxels = np.zeros((40, 30, 20), np.uint8)
    voxels[5:35, 4:26, 2:18] = 200
    voxels[10:15, 10:13, 4:9] = 1
    voxels[20:31, 8:11, 10:12] = 3
    return LabelMap(voxels, oblique((1.5, 2.0, 3.0), 0.2, (10, -20, 30)), MAISI)


def test_center_of_one_label_is_the_middle_of_its_box() -> None:
    assert center_of(boxes(), (1,)) == (12.0, 11.0, 6.0)


def test_center_of_several_labels_is_the_middle_of_the_box_around_all() -> None:
    assert center_of(boxes(), (1, 3)) == (20.0, 10.0, 7.5)


def test_center_without_labels_is_the_middle_of_the_body() -> None:
    assert center_of(boxes()) == (19.5, 14.5, 9.5)


def test_missing_label_is_refused_with_what_is_there() -> None:
    with pytest.raises(AnatomyError, match="bladder") as caught:
        center_of(boxes(), (15,))
    assert "liver" in str(caught.value.allowed)


@given(
    size=st.tuples(*[st.integers(16, 300)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6.0)] * 3),
    centre=st.tuples(*[st.floats(-50, 50)] * 3),
    turn=st.floats(-0.7, 0.7),
)
def test_output_is_centred_with_the_asked_spacing_on_the_axes_of_the_source(size, spacing, centre, turn) -> None:
    source = LabelMap(np.zeros((8, 8, 8), np.uint8), oblique((1.5, 2.0, 3.0), turn, (10, -20, 30)), MAISI)
    affine = output_affine(source, size, spacing, centre)
    middle = affine[:3, :3] @ ((np.array(size) - 1) / 2) + affine[:3, 3]
    np.testing.assert_allclose(middle, source.affine[:3, :3] @ centre + source.affine[:3, 3], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), spacing, rtol=1e-9)
    np.testing.assert_allclose(affine[:3, :3] / np.array(spacing), source.affine[:3, :3] / np.array(source.spacing), atol=1e-9)
