"""The relaxation table and the contrasts it predicts."""

from __future__ import annotations

import numpy as np
import pytest

from ctmr_core.anatomy.tissues import tissue_id, tissues
from ctmr_core.engines.tissue.mr_acquisition import draw_acquisition
from ctmr_core.engines.tissue.mr_contrast import tissue_signals
from ctmr_core.engines.tissue.mr_parameters import MrParameters, draw
from ctmr_core.engines.tissue.mr_protocols import PROTOCOLS
from ctmr_core.engines.tissue.mr_relaxation import chemical_shift_of_fat, relaxation_at


def signals(sequence, seed, vocabulary="brain", parameters=None):
    parameters = parameters or MrParameters()
    rng = np.random.Generator(np.random.Philox(seed))
    field_strength = draw(parameters.field_strength, rng)
    relaxation = relaxation_at(field_strength, rng)
    csf = float(relaxation.t1[tissue_id("csf_ventricular")])
    acquisition = draw_acquisition(sequence, vocabulary, parameters, field_strength, csf, chemical_shift_of_fat(), rng)
    return tissue_signals(relaxation, acquisition), acquisition


def ratio(values, tissue, reference="cerebral_white_matter"):
    return values.mean[tissue_id(tissue)] / values.mean[tissue_id(reference)]


def test_every_tissue_has_physical_values():
    table = relaxation_at(3.0)
    assert len(table.t1) == len(tissues())
    protons = table.t1 > 0
    assert {tissue.name for tissue in tissues() if not protons[tissue.id]} == {
        "background",
        "airway_lumen",
        "bowel_gas",
        "metal",
    }
    assert np.all(table.t2[protons] < table.t1[protons])
    assert np.all(table.t2star[protons] <= table.t2[protons])
    assert np.all((table.pd >= 0) & (table.pd <= 1))
    assert np.all((table.fat_fraction >= 0) & (table.fat_fraction <= 1))


def test_t1_grows_with_the_field_and_passes_through_the_tabled_values():
    low, middle, high = (relaxation_at(b) for b in (1.5, 2.2, 3.0))
    white = tissue_id("cerebral_white_matter")
    assert (low.t1[white], high.t1[white]) == pytest.approx((590, 840))
    protons = low.t1 > 0
    assert np.all(low.t1[protons] < middle.t1[protons])
    assert np.all(middle.t1[protons] < high.t1[protons])
    assert np.all(low.t2star >= high.t2star)


def test_a_subject_deviates_by_no_more_than_twice_the_tabled_spread():
    average = relaxation_at(3.0)
    protons = average.t1 > 0
    drawn = [relaxation_at(3.0, np.random.Generator(np.random.Philox(seed))) for seed in range(50)]
    deviation = np.array([each.t1[protons] / average.t1[protons] - 1 for each in drawn])
    assert np.all(np.abs(deviation) <= 2 * average.spread[protons] / 100 + 1e-9)
    assert np.all(deviation.std(0) > 0.4 * average.spread[protons] / 100)


@pytest.mark.parametrize(
    ("sequence", "tissue", "low", "high"),
    [
        ("mri_t1", "cerebral_cortex", 0.5, 0.8),
        ("mri_t1", "csf_ventricular", 0.05, 0.5),
        ("mri_t1", "white_matter_lesion", 0.6, 0.97),
        ("mri_t1", "subcutaneous_fat", 1.3, 2.5),
        ("mri_t1", "cortical_bone", 0.0, 0.2),
        ("mri_t1", "vitreous", 0.05, 0.5),
        ("mri_t1", "thalamus", 0.7, 0.95),
        ("mri_t1", "pallidum", 0.8, 1.1),
        ("mri_t2", "cerebral_cortex", 1.1, 1.5),
        ("mri_t2", "csf_ventricular", 2.2, 5.2),
        ("mri_t2", "white_matter_lesion", 1.5, 3.0),
        ("mri_t2", "cerebral_artery", 0.0, 0.2),
        ("mri_pd", "cerebral_cortex", 1.0, 1.25),
        ("mri_flair", "csf_ventricular", 0.0, 0.7),
        ("mri_flair", "cerebral_cortex", 0.8, 1.35),
        ("mri_flair", "white_matter_lesion", 1.3, 2.8),
        ("mri_flair", "brain_tumor_edema", 1.3, 2.6),
        ("mri_swi", "pallidum", 0.5, 0.85),
    ],
)
def test_predicted_ratios_to_white_matter_lie_in_measured_ranges(sequence, tissue, low, high):
    ratios = [ratio(signals(sequence, seed)[0], tissue) for seed in range(60)]
    assert low <= min(ratios)
    assert max(ratios) <= high


def test_tumour_parts_look_like_a_tumour():
    for seed in range(20):
        t1, t2, flair = (signals(name, seed)[0] for name in ("mri_t1", "mri_t2", "mri_flair"))
        assert ratio(t1, "brain_tumor_necrosis") < ratio(t1, "brain_tumor_enhancing") < 1
        assert ratio(t2, "brain_tumor_necrosis") > ratio(t2, "brain_tumor_edema") > ratio(t2, "brain_tumor_enhancing") > 1
        assert ratio(flair, "brain_tumor_edema") > 1.3


def test_body_contrasts_in_t1_and_t2():
    for seed in range(20):
        t1 = signals("mri_t1", seed, "maisi")[0]
        assert ratio(t1, "liver", "spleen") > 1
        assert ratio(t1, "subcutaneous_fat", "muscle") > 1.5
        t2 = signals("mri_t2", seed, "maisi")[0]
        assert ratio(t2, "spleen", "liver") > 1.3
        assert ratio(t2, "urine", "muscle") > 5
        assert ratio(t2, "hepatic_tumor", "liver") > 1.2


def test_fat_suppression_takes_fat_and_leaves_water():
    plain = signals("mri_t2", 3, "maisi")[0]
    suppressed = signals("mri_t2", 3, "maisi", MrParameters(fat_suppression=True))[0]
    assert ratio(suppressed, "subcutaneous_fat", "spleen") < 0.15 * ratio(plain, "subcutaneous_fat", "spleen")
    assert suppressed.mean[tissue_id("spleen")] == pytest.approx(plain.mean[tissue_id("spleen")], rel=0.03)


def test_one_spot_of_texture_is_darker_on_t1_and_brighter_on_t2():
    white = tissue_id("cerebral_white_matter")
    assert signals("mri_t1", 0)[0].fine[white] < 0 < signals("mri_t2", 0)[0].fine[white]


@pytest.mark.parametrize(("vocabulary", "sequence"), sorted(PROTOCOLS))
def test_drawn_timing_stays_in_the_protocol(vocabulary, sequence):
    for seed in range(30):
        acquisition = signals(sequence, seed, vocabulary)[1]
        protocol = next(each for each in PROTOCOLS[vocabulary, sequence] if each.name == acquisition.protocol)
        if protocol.kind != "swi":
            assert protocol.tr[0] <= acquisition.tr <= protocol.tr[1]
        assert acquisition.te < acquisition.tr
        assert protocol.flip[0] <= acquisition.flip <= protocol.flip[1]


def test_water_and_fat_are_in_phase_in_body_gradient_echoes():
    parameters = MrParameters(field_strength=3.0, protocols={"mri_t1": {"name": "spoiled_gre"}})
    assert signals("mri_t1", 1, "maisi", parameters)[1].te == pytest.approx(2.30, abs=0.03)
