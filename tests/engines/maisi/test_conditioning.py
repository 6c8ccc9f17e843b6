"""What the networks are told: spacing, regions, masks; lesions taken out of a mask; limits of the variants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ctmr_core.engines.maisi.behaviour import COMPAT, FIXED
from ctmr_core.engines.maisi.conditioning import labels_present, mask_code, regions_of_mask, spacing_input
from ctmr_core.engines.maisi.tumors import remove_tumors
from ctmr_core.engines.maisi.variants import MODALITY_CODES, VARIANTS, check_limits
from ctmr_core.errors import EngineError

MASKS = hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3))


def test_spacing_is_rounded_as_on_each_path_of_the_reference() -> None:
    spacing = (0.781, 0.684, 0.66667)

    assert spacing_input(spacing, COMPAT, rounded_first=True).tolist() == [[78.0625, 68.4375, 66.625]]
    assert spacing_input(spacing, COMPAT, rounded_first=False).tolist() == [[78.125, 68.375, 66.6875]]
    np.testing.assert_allclose(spacing_input(spacing, FIXED, rounded_first=True), [[78.1, 68.4, 66.667]], rtol=1e-6)


@given(mask=MASKS)
@settings(deadline=None, max_examples=40)
def test_the_mask_code_holds_every_label(mask: np.ndarray) -> None:
    code = mask_code(mask, torch.device("cpu"))[0].numpy()

    decoded = sum(code[bit] * 2**bit for bit in range(8))
    np.testing.assert_array_equal(decoded, mask)
    assert labels_present(mask).tolist() == sorted(np.unique(mask).tolist())


@pytest.mark.parametrize(
    ("labels", "regions"),
    [
        ([22, 200], ("head", "head")),
        ([28, 1], ("chest", "abdomen")),
        ([120, 93], ("head", "pelvis")),
        ([14], ("abdomen", "abdomen")),
    ],
)
def test_regions_are_the_highest_and_lowest_shown(labels: list[int], regions: tuple[str, str]) -> None:
    mask = np.zeros((3, 3, 3), np.uint8)
    mask.flat[: len(labels)] = labels

    assert regions_of_mask(mask, COMPAT) == regions
    assert regions_of_mask(mask, FIXED) == regions


def body(*boxes: tuple[tuple[slice, slice, slice], int]) -> np.ndarray:
    mask = np.full((16, 16, 16), 200, np.uint8)
    for box, label in boxes:
        mask[box] = label
    return mask


LEFT, RIGHT = slice(0, 8), slice(8, 16)
ALL = slice(None)
SPOT, OTHER_SPOT = (slice(3, 5),) * 3, (slice(11, 13), slice(3, 5), slice(3, 5))


@pytest.mark.parametrize("compat", [True, False])
@pytest.mark.parametrize(("lesion", "host"), [(26, 1), (24, 4), (27, 62), (116, 14), (117, 5), (176, 22), (23, 30)])
def test_lesions_become_their_host(compat: bool, lesion: int, host: int) -> None:
    mask = body(((slice(1, 14),) * 3, host), (SPOT, lesion))

    cleaned = remove_tumors(mask, compat=compat)

    assert (cleaned[SPOT] == host).all()
    assert mask[SPOT].min() == lesion
    np.testing.assert_array_equal(cleaned[mask != lesion], mask[mask != lesion])


def test_lung_tumours_of_both_lungs_keep_to_their_own_lobe_when_fixed() -> None:
    mask = body(((LEFT, ALL, ALL), 28), ((RIGHT, ALL, ALL), 30), (SPOT, 23), (OTHER_SPOT, 23))

    fixed, compat = remove_tumors(mask, compat=False), remove_tumors(mask, compat=True)

    assert (np.unique(fixed[SPOT]).tolist(), np.unique(fixed[OTHER_SPOT]).tolist()) == ([28], [30])
    assert np.unique(compat[SPOT]).tolist() == np.unique(compat[OTHER_SPOT]).tolist() == [28]


def test_bone_lesions_and_kidney_masses_are_removed_when_fixed_only() -> None:
    mask = body(((LEFT, ALL, ALL), 36), ((RIGHT, ALL, ALL), 14), (SPOT, 128), (OTHER_SPOT, 129))

    fixed = remove_tumors(mask, compat=False)

    np.testing.assert_array_equal(remove_tumors(mask, compat=True), mask)
    assert (np.unique(fixed[SPOT]).tolist(), np.unique(fixed[OTHER_SPOT]).tolist()) == ([36], [14])


def test_a_lesion_far_from_any_host_takes_the_most_frequent_one_or_becomes_body() -> None:
    assert (remove_tumors(body((SPOT, 128)), compat=False) == 200).all()
    with_rib = body((SPOT, 128), ((slice(10, 16), ALL, ALL), 70))
    assert (remove_tumors(with_rib, compat=False)[SPOT] == 70).all()


def test_variants_accept_what_they_recommend() -> None:
    for variant in VARIANTS.values():
        assert variant.modalities <= set(MODALITY_CODES.values())
        for view in variant.fields_of_view:
            if view.size is not None and view.spacing is not None:
                check_limits(variant.name, view.size, view.spacing, 1)


@pytest.mark.parametrize(
    ("name", "size", "spacing", "modality", "named"),
    [
        ("rflow-ct", (256, 256, 128), (0.4, 0.4, 2), 1, "spacing along x"),
        ("rflow-ct", (256, 256, 128), (1.5, 1.5, 5.5), 1, "spacing along z"),
        ("rflow-ct", (256, 256, 128), (1.5, 1.4, 2), 1, "equal spacing"),
        ("rflow-ct", (256, 384, 128), (1.5, 1.5, 2), 1, "size"),
        ("rflow-ct", (256, 256, 96), (1.5, 1.5, 2), 1, "size"),
        ("rflow-ct", (256, 256, 128), (0.9, 0.9, 2), 1, "field of view"),
        ("rflow-ct", (256, 256, 128), (1.5, 1.5, 2), 9, "modality"),
        ("rflow-mr-brain", (512, 512, 288), (0.5, 0.5, 0.5), 9, "size"),
        ("rflow-mr-brain", (240, 256, 256), (1, 1, 1), 9, "size"),
        ("rflow-mr-brain", (256, 256, 128), (1, 1, 1), 17, "modality"),
        ("rflow-mr", (512, 512, 256), (0.5, 0.5, 0.5), 9, "size"),
    ],
)
def test_requests_beyond_the_limits_are_refused(
    name: str, size: tuple[int, int, int], spacing: tuple[float, float, float], modality: int, named: str
) -> None:
    with pytest.raises(EngineError, match=named):
        check_limits(name, size, spacing, modality)


def test_documented_sizes_the_reference_rejects_are_accepted_when_fixed() -> None:
    check_limits("rflow-mr-brain", (512, 512, 256), (0.5, 0.5, 0.7), 33)
    with pytest.raises(EngineError, match="size"):
        check_limits("rflow-mr-brain", (512, 512, 256), (0.5, 0.5, 0.7), 33, compat=True)
    check_limits("rflow-mr-brain", (128, 256, 256), (1, 1, 1), 9, compat=True)
