"""Thresholds learned from real scans accept them, say where they come from, and refuse what lies elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.assessment.calibration import IMAGE_LIMITS, calibrate
from ctmr_core.assessment.calibration_sources import scores_of_dataset, scores_of_library, scores_of_scan
from ctmr_core.cases.case import Case
from ctmr_core.errors import CheckError
from ctmr_core.quality.base import Candidate
from ctmr_core.quality.policy import load_policy, write_policy
from ctmr_core.quality.registry import load_checks
from tests.assessment.made import make_judged


def livers(values):
    return [{"hu_median": {"ct/liver": value, "ct/liver_voxels": 900.0}} for value in values]


def test_limits_are_the_wider_of_percentile_and_robust_sigma():
    learned = calibrate(livers(range(100)), percentiles=(0.5, 99.5), sigmas=1)
    limits = learned.policy.checks["hu_median"]
    assert limits["liver_low"] == pytest.approx(0.495, abs=0.01)  # the percentile: 49.5 - 1.4826 * 25 is higher
    assert limits["liver_high"] == pytest.approx(98.505, abs=0.01)
    wide = calibrate(livers(range(100)), sigmas=6).policy.checks["hu_median"]
    assert wide["liver_low"] == pytest.approx(49.5 - 6 * 1.4826 * 25, rel=1e-3)
    assert wide["liver_high"] == pytest.approx(49.5 + 6 * 1.4826 * 25, rel=1e-3)


def test_one_odd_scan_does_not_widen_sigma():
    usual = calibrate(livers([*range(40, 60), 50]), sigmas=6).policy.checks["hu_median"]["liver_low"]
    with_odd = calibrate(livers([*range(40, 60), 900]), sigmas=6).policy.checks["hu_median"]["liver_low"]
    assert with_odd == pytest.approx(usual, abs=10)


def test_what_was_seen_too_seldom_keeps_its_default():
    learned = calibrate([*livers(range(12)), {"hu_median": {"ct/spleen": 50.0, "ct/spleen_voxels": 900.0}}])
    assert set(learned.policy.checks["hu_median"]) == {"liver_low", "liver_high"}
    assert learned.kept == {"hu_median.spleen_high": 1, "hu_median.spleen_low": 1}
    assert learned.observations == {"hu_median.liver_high": 12, "hu_median.liver_low": 12}
    few = [{"hu_median": {"ct/liver": 50.0, "ct/liver_voxels": 3.0}}] * 12
    assert not calibrate(few).policy.checks  # too few voxels to count


def test_the_policy_says_where_its_numbers_come_from(tmp_path):
    policy = calibrate(livers(range(12)), origin="ward 7, 2024").policy
    for part in ("12 real volumes", "ward 7, 2024", "percentile 0.5", "6 sigma", "hu_median.liver_low 12"):
        assert part in policy.description
    write_policy(policy, tmp_path / "p.yaml")
    assert load_policy(tmp_path / "p.yaml") == policy


@pytest.mark.parametrize("wrong", [{"percentiles": (60, 40)}, {"percentiles": (-1, 40)}, {"sigmas": -1}, {"fewest": 0}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(CheckError):
        calibrate(livers([1]), **wrong)


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(CheckError, match="nothing to learn from"):
        calibrate([])


def test_every_learned_threshold_is_one_of_its_check():
    checks = {check.name: check for check in load_checks()}
    assert set(IMAGE_LIMITS) <= set(checks)
    for name, score in {
        "hu_median": "ct/liver", "hu_spread": "ct/bone", "noise": "ct/sd", "overlap": "mri_t1/dice", "gaps": "ct/empty_share",
        "mr_contrast": "mri_t1_skull_stripped/gm_over_wm", "constant": "ct/range", "clipped": "ct/high_share",
    }.items():  # fmt: skip
        own = {score: 1.0, f"{score}_voxels": 1e6}
        named = [threshold for threshold in IMAGE_LIMITS[name](score, own, checks[name].thresholds) if threshold]
        assert named
        assert set(named) <= set(checks[name].thresholds)


@given(st.lists(st.floats(-2000, 2000).map(lambda v: float(np.float32(v))), min_size=1, max_size=40), st.floats(0, 8))
def test_with_percentiles_0_and_100_every_scan_passes_what_was_learned_from_it(values, sigmas):
    limits = calibrate(livers(values), (0, 100), sigmas, fewest=1).policy.checks["hu_median"]
    assert all(limits["liver_low"] <= value <= limits["liver_high"] for value in values)


def test_stored_scores_of_a_dataset_are_learned_from(heads, tmp_path):
    dataset, verdicts = make_judged(tmp_path / "d", heads)
    learned = calibrate(scores_of_dataset(dataset), (0, 100), 0, fewest=3)
    ratios = [verdict.scores["mr_contrast/mri_t1/gm_over_wm"] for verdict in verdicts.values()]
    limits = learned.policy.checks["mr_contrast"]
    assert learned.volumes == 3
    assert limits["mri_t1_gm_over_wm_low"] == pytest.approx(min(ratios), rel=1e-3)
    assert limits["mri_t1_gm_over_wm_high"] == pytest.approx(max(ratios), rel=1e-3)


def test_cases_nobody_judged_are_measured(heads, tmp_path):
    judged, _ = make_judged(tmp_path / "judged", heads)
    unjudged, _ = make_judged(tmp_path / "unjudged", heads, unjudged=(0, 1, 2))
    assert list(scores_of_dataset(unjudged)) == list(scores_of_dataset(judged))


def test_of_a_mixed_dataset_only_the_imported_scans_teach(heads, tmp_path):
    scan = heads[0].case.model_copy(update={"case_id": "scan", "body": "template:scan", "engine": "import"})
    mixed, _ = make_judged(tmp_path / "mixed", [Candidate(scan, heads[0].label_map, heads[0].images), *heads[1:]])
    (scores,) = scores_of_dataset(mixed)
    assert scores["constant"]["mri_t1/range"] > 10


def test_label_maps_of_a_library_teach_anatomy(heads, tmp_path):
    library = TemplateLibrary.open(tmp_path / "templates", create=True)
    for number, head in enumerate(heads):
        library.add(f"head-{number}", head.label_map, licence="made")
    volumes = list(scores_of_library(library))
    assert {name for scores in volumes for name in scores} == {"volumes", "components"}
    learned = calibrate(volumes, (0, 100), 0, fewest=3)
    farthest = max(abs(place) for scores in volumes for place in scores["volumes"].values())
    assert learned.policy.checks["volumes"]["far"] == pytest.approx(farthest, rel=1e-3)
    assert 0 <= learned.policy.checks["components"]["hole_share"] < 0.02


def test_a_real_ct_and_a_real_t1_teach_the_thresholds_they_pass(real_data):
    ct, t1 = real_data / "ct_abdomen", real_data / "t1_brain"
    volumes = [
        scores_of_scan(ct / "ct.nii.gz", ct / "labels_totalsegmentator_v2.nii.gz", "totalsegmentator_v2", "ct"),
        scores_of_scan(t1 / "t1.mgz", t1 / "labels_freesurfer.mgz", "freesurfer", "mri_t1_skull_stripped"),
    ]
    assert volumes[0]["hu_median"]["ct/liver"] == pytest.approx(47, abs=3)
    policy = calibrate(volumes, (0, 100), 0, fewest=1).policy
    assert policy.checks["hu_median"]["liver_low"] == pytest.approx(47, abs=3)
    assert 0.5 < policy.checks["mr_contrast"]["mri_t1_gm_over_wm_high"] < 0.85
    assert policy.checks["overlap"]["ct_dice"] > 0.95
    assert policy.checks["constant"]["ct_range"] > 100
    checks = {check.name: check for check in load_checks()}
    for scores, sequence in zip(volumes, ("ct", "mri_t1_skull_stripped"), strict=True):
        case = Case(case_id="a", body="template:t", sequences=(sequence,), size=(64, 64, 64), spacing=(1, 1, 1))
        for name, own in scores.items():
            limits = {**checks[name].thresholds, **policy.checks.get(name, {})}
            assert checks[name].decide(case, own, limits) == []
