"""Rendered MR images: real label maps, a small phantom, determinism, noise and skull stripping."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import Case
from ctmr_core.engines.tissue.context import RenderContext
from ctmr_core.engines.tissue.mr import render_mr, supported, supported_sequences
from ctmr_core.engines.tissue.mr_parameters import MrParameters
from ctmr_core.errors import EngineError

SEQUENCES = ("mri_t1", "mri_t2", "mri_flair", "mri_pd", "mri_swi")
CLEAN = MrParameters(noise_percent=0, inu_percent=0, gibbs=0)


def context_of(label_map, seed=0, threads=1):
    case = Case(case_id="case", body="parametric:head", sequences=SEQUENCES, size=label_map.size, spacing=(1, 1, 1), seed=seed)
    return RenderContext(case, label_map, 0, threads=threads)


def brain_map(labels):
    vocabulary = load_vocabulary("brain")
    labels = np.ascontiguousarray(labels, np.uint16)
    return LabelMap(labels, np.eye(4), vocabulary, tissues=vocabulary.tissue_table[labels])


def phantom(size=(49, 44, 39)):
    """A ball of a head: skin, skull, fluid, cortex, white matter, a ventricle, a lesion, a pallidum and a vein along z."""
    x, y, z = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in size), indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    labels = np.zeros(size, np.uint16)
    for label, limit in ((511, 18.4), (515, 17.0), (24, 15.0), (3, 13.5), (2, 10.5), (4, 2.6)):
        labels[radius < limit] = label
    labels[np.sqrt((x - 6) ** 2 + y**2 + z**2) < 2.5] = 25
    labels[np.sqrt((x + 6) ** 2 + y**2 + z**2) < 2.5] = 13
    labels[(np.hypot(x, y - 6) < 1.6) & (radius < 11)] = 514
    return brain_map(labels)


def real_map(real_data, number, size=96):
    """The middle of a real label map, ``size`` voxels a side."""
    image = nibabel.as_closest_canonical(nibabel.load(real_data / "brain_label_maps" / f"training_seg_{number:02d}.nii.gz"))
    labels = np.asarray(image.dataobj).astype(np.uint16)
    middle = np.round(np.argwhere((labels == 2) | (labels == 41)).mean(0)).astype(int)
    return brain_map(labels[tuple(slice(c - size // 2, c + size // 2) for c in middle)])


def median(image, label_map, tissue, erode=1):
    mask = label_map.tissues == tissue_id(tissue)
    core = binary_erosion(mask, iterations=erode) if erode else mask
    return float(np.median(image[core if core.sum() > 20 else mask]))


def assert_real_contrasts(label_map, seed):
    context = context_of(label_map, seed)
    images = {sequence: render_mr(context, sequence)[0] for sequence in SEQUENCES}

    def ratio(sequence, tissue):
        return median(images[sequence], label_map, tissue) / median(images[sequence], label_map, "cerebral_white_matter")

    assert 0.5 <= ratio("mri_t1", "cerebral_cortex") <= 0.8
    assert ratio("mri_t1", "csf_ventricular") < min(0.5, ratio("mri_t1", "cerebral_cortex"))
    assert 1.1 <= ratio("mri_t2", "cerebral_cortex") <= 1.5
    assert ratio("mri_t2", "csf_ventricular") > 2
    assert 0.8 <= ratio("mri_flair", "cerebral_cortex") <= 1.35
    assert ratio("mri_flair", "csf_ventricular") < 0.7
    assert 1.0 <= ratio("mri_pd", "cerebral_cortex") <= 1.25
    assert ratio("mri_swi", "pallidum") < 0.9
    if np.count_nonzero(binary_erosion(label_map.tissues == tissue_id("white_matter_lesion"))) > 50:
        assert ratio("mri_flair", "white_matter_lesion") > 1.2
        assert ratio("mri_t1", "white_matter_lesion") < 1


@pytest.mark.parametrize("number", [1, 6])
def test_contrasts_of_real_heads_lie_in_measured_ranges(real_data, number):
    assert_real_contrasts(real_map(real_data, number), seed=number)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 13))
def test_contrasts_of_every_real_head_lie_in_measured_ranges(real_data, number):
    for seed in range(3):
        assert_real_contrasts(real_map(real_data, number, 128), seed)


@pytest.mark.parametrize("sequence", ["mri_t1", "mri_swi_skull_stripped"])
def test_the_bytes_depend_on_the_case_and_not_on_the_threads(sequence):
    label_map = phantom((71, 67, 59))  # odd sizes: threads split them in uneven shares
    label_map = brain_map(np.tile(label_map.voxels, (2, 2, 1)))
    before = torch.get_num_threads()
    images = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            images.append(render_mr(context_of(label_map, threads=threads), sequence)[0])
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], render_mr(context_of(label_map, seed=1), sequence)[0])


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_images_are_non_negative_int16_on_the_grid_of_the_labels(sequence):
    label_map = phantom()
    image, record = render_mr(context_of(label_map), sequence)
    assert image.dtype == np.int16
    assert image.shape == label_map.size
    assert image.min() >= 0
    white = render_mr(context_of(brain_map(np.full((32, 32, 32), 2))), sequence, CLEAN)[0]
    assert 880 < np.median(white) < 1120
    assert record["tr_ms"] > record["te_ms"] > 0


def test_sequences_of_a_case_share_field_strength_and_anatomical_texture():
    label_map = brain_map(np.full((48, 48, 48), 2))
    context = context_of(label_map)
    (t1, first), (t2, second) = (render_mr(context, name, CLEAN) for name in ("mri_t1", "mri_t2"))
    assert first["field_strength_t"] == second["field_strength_t"]
    inner = (slice(4, -4),) * 3
    assert np.corrcoef(t1[inner].ravel(), t2[inner].ravel())[0, 1] < -0.9
    assert 0.01 < t1[inner].std() / t1[inner].mean() < 0.1


def test_without_texture_noise_and_non_uniformity_a_tissue_is_flat():
    parameters = CLEAN.model_copy(update={"texture": 0.0})
    image, _ = render_mr(context_of(brain_map(np.full((20, 20, 20), 2))), "mri_t1", parameters)
    assert image.min() == image.max()


def test_noise_is_rician_in_tissue_and_rayleigh_in_air():
    labels = np.zeros((64, 48, 48), np.uint16)
    labels[32:] = 2
    parameters = MrParameters(noise_percent=5, inu_percent=0, texture=0, gibbs=0)
    image, record = render_mr(context_of(brain_map(labels)), "mri_t1", parameters)
    sigma = 0.05 * record["cerebral_white_matter_signal"]
    assert record["noise_sigma"] == pytest.approx(sigma, rel=1e-3)
    assert image[36:].std() == pytest.approx(sigma, rel=0.03)
    assert image[:28].mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.03)
    assert image[:28].std() == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.03)


def test_t2_noise_refers_to_cerebrospinal_fluid():
    label_map = phantom()
    parameters = MrParameters(noise_percent=3, inu_percent=0)
    image, record = render_mr(context_of(label_map), "mri_t2", parameters)
    clean, _ = render_mr(context_of(label_map), "mri_t2", CLEAN)
    assert record["noise_sigma"] == pytest.approx(0.03 * clean[24, 21:23, 19].mean(), rel=0.1)
    assert image.shape == clean.shape


def test_inu_of_20_percent_spans_0_90_to_1_10():
    label_map = brain_map(np.full((40, 44, 36), 2))
    parameters = MrParameters(noise_percent=0, texture=0, inu_percent=20, gibbs=0)
    image, record = render_mr(context_of(label_map), "mri_t1", parameters)
    low, high = np.percentile(image, [1, 99]) / record["cerebral_white_matter_signal"]
    assert low == pytest.approx(0.90, abs=0.015)
    assert high == pytest.approx(1.10, abs=0.015)


def test_deep_nuclei_pass_into_white_matter_but_not_into_the_ventricle():
    labels = np.full((40, 30, 30), 4)
    labels[10:] = 10
    labels[25:] = 2
    image = render_mr(context_of(brain_map(labels)), "mri_t1", CLEAN)[0].astype(float)
    profile = image[:, 8:22, 8:22].mean((1, 2))
    thalamus, white, fluid = profile[17], profile[36], profile[4]
    at_white = np.count_nonzero(np.abs(profile - (thalamus + white) / 2) < 0.4 * (white - thalamus))
    at_fluid = np.count_nonzero(np.abs(profile - (thalamus + fluid) / 2) < 0.4 * (thalamus - fluid))
    assert at_white > at_fluid


def test_edges_are_blurred_and_not_blocky():
    labels = np.zeros((24, 24, 24), np.uint16)
    labels[12:] = 2
    parameters = CLEAN.model_copy(update={"texture": 0.0})
    profile = render_mr(context_of(brain_map(labels)), "mri_t1", parameters)[0][:, 12, 12].astype(float)
    steps = np.diff(profile) / profile[-1]
    assert steps.max() < 0.75
    assert np.all(steps >= 0)


@pytest.mark.parametrize("sequence", ["mri_t1", "mri_t2", "mri_flair", "mri_swi"])
def test_skull_stripping_leaves_the_same_scan_of_the_brain_and_exact_zeros_elsewhere(sequence):
    label_map = phantom()
    context = context_of(label_map)
    whole, stripped = render_mr(context, sequence)[0], render_mr(context, f"{sequence}_skull_stripped")[0]
    inside = np.isin(label_map.voxels, (2, 3, 4, 13, 24, 25, 514))
    assert not stripped[~inside].any()
    core = binary_erosion(inside, np.ones((3, 3, 3)))
    assert np.array_equal(stripped[core], whole[core])
    edge = inside & ~core
    assert np.all(stripped[edge] <= whole[edge])
    assert stripped[edge].any()


def test_vessels_outside_the_brain_are_stripped():
    labels = phantom((60, 60, 60)).voxels.copy()
    labels[10:13, 28:32, 28:32] = 502  # in the scalp
    stripped = render_mr(context_of(brain_map(labels)), "mri_t1_skull_stripped")[0]
    assert not stripped[10:13, 28:32, 28:32].any()


def test_dura_between_parts_of_the_brain_stays_and_around_it_goes():
    labels = phantom((60, 60, 60)).voxels.copy()
    radius = np.linalg.norm(np.indices(labels.shape) - 29.5, axis=0)
    labels[(radius > 14) & (radius < 16)] = 543
    labels[30, :, 33:][radius[30, :, 33:] < 13] = 543  # a falx, one voxel thick
    stripped = render_mr(context_of(brain_map(labels)), "mri_t1_skull_stripped")[0]
    assert stripped[30, 28:32, 36:40].all()
    assert not stripped[(radius > 14.8) & (radius < 16)].any()


def test_veins_and_pallidum_are_dark_in_susceptibility_weighting():
    label_map = phantom((64, 64, 64))
    image, _ = render_mr(context_of(label_map), "mri_swi", CLEAN)
    white = median(image, label_map, "cerebral_white_matter", 2)
    assert median(image, label_map, "cerebral_vein", 0) < 0.6 * white
    assert median(image, label_map, "pallidum", 0) < 0.85 * white


def test_lesions_are_bright_in_flair_and_t2_and_dark_in_t1():
    label_map = phantom()
    context = context_of(label_map)
    for sequence, brighter in (("mri_t1", False), ("mri_t2", True), ("mri_flair", True)):
        image, _ = render_mr(context, sequence, CLEAN)
        ratio = median(image, label_map, "white_matter_lesion") / median(image, label_map, "cerebral_white_matter")
        assert (ratio > 1.2) if brighter else (ratio < 0.97)


@pytest.mark.parametrize("sequence", ["mri_t1", "mri_t2", "mri_pd"])
def test_bodies_have_plausible_contrast_and_fat_can_be_suppressed(sequence):
    vocabulary = load_vocabulary("maisi")
    labels = np.full((48, 40, 32), 200, np.uint8)
    tissues = np.full(labels.shape, tissue_id("muscle"), np.uint8)
    for i, (label, tissue) in enumerate(((1, "liver"), (3, "spleen"), (15, "urine"), (200, "subcutaneous_fat"))):
        labels[4 + 11 * i : 12 + 11 * i, 8:32, 8:24] = label
        tissues[4 + 11 * i : 12 + 11 * i, 8:32, 8:24] = tissue_id(tissue)
    label_map = LabelMap(labels, np.eye(4), vocabulary, tissues=tissues)
    context = context_of(label_map)
    image, _ = render_mr(context, sequence, CLEAN)
    assert 240 < median(image, label_map, "muscle", 2) < 360
    suppressed, record = render_mr(context, sequence, CLEAN.model_copy(update={"fat_suppression": True}))
    assert median(suppressed, label_map, "subcutaneous_fat", 2) < 0.3 * median(image, label_map, "subcutaneous_fat", 2)
    assert record["fat_suppression"]


@pytest.mark.parametrize("size", [(16, 16, 16), (16, 200, 17), (1, 30, 30)])
def test_small_and_long_volumes(size):
    label_map = brain_map(np.full(size, 41))
    image, _ = render_mr(RenderContext(context_of(phantom()).case, label_map, 0, threads=1), "mri_swi")
    assert image.shape == size
    assert np.isfinite(image).all()


def test_an_empty_volume_is_noise():
    image, _ = render_mr(context_of(brain_map(np.zeros((24, 24, 24)))), "mri_swi")
    assert 0 < image.mean() < 100


def test_what_is_supported():
    assert supported("mri_swi_skull_stripped", "brain")
    assert supported("mri_t1", "maisi")
    assert not supported("mri_t1_skull_stripped", "maisi")
    assert not supported("mri_flair", "maisi")
    assert not supported("mri_dwi", "brain")
    assert supported_sequences("maisi") == {"mri_t1", "mri_t2", "mri_pd"}
    assert len(supported_sequences()) == 9


def test_a_sequence_without_physics_is_refused_with_the_allowed_ones():
    with pytest.raises(EngineError, match="mri_t1_skull_stripped"):
        render_mr(context_of(phantom()), "mri_dwi")


def test_timing_from_the_parameters_is_used():
    parameters = MrParameters(field_strength=1.5, protocols={"mri_t2": {"tr": 4500, "te": (88, 88)}})
    _, record = render_mr(context_of(phantom()), "mri_t2", parameters)
    assert (record["tr_ms"], record["te_ms"], record["field_strength_t"]) == (4500, 88, 1.5)
