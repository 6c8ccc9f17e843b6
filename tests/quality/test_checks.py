"""Each check accepts what is right and names what is wrong, on real scans and on small hand-made volumes."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.templates.importing import import_template
from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.anatomy.templates.reading import read_scan
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import Case, Lesion
from ctmr_core.quality.base import Candidate, CheckResult
from ctmr_core.quality.geometry import GeometryCheck
from ctmr_core.quality.hu_median import GROUPS, HuMedianCheck
from ctmr_core.quality.intensity import ClippedCheck, ConstantCheck, FiniteCheck
from ctmr_core.quality.judge import judge
from ctmr_core.quality.labels import LabelsCheck
from ctmr_core.quality.lesions import LesionsCheck
from ctmr_core.quality.mr_contrast import MrContrastCheck
from ctmr_core.quality.overlap import OverlapCheck

N, MM = 48, 4.0


def case_of(sequences: tuple[str, ...], size=(N, N, N), spacing=(MM, MM, MM), body="parametric:torso", **fields) -> Case:
    return Case(case_id="a", body=body, sequences=sequences, size=size, spacing=spacing, **fields)


@cache
def torso() -> LabelMap:
    """A box of body with liver, lung, bone, muscle and a tumour."""
    voxels = np.zeros((N, N, N), np.uint8)
    voxels[8:40, 10:38, :] = 200
    voxels[12:24, 14:30, 4:20] = 1
    voxels[12:20, 14:30, 28:44] = 28
    voxels[26:32, 14:20, :] = 35
    voxels[32:38, 14:24, 6:40] = 104
    voxels[15:20, 18:23, 8:13] = 26
    return LabelMap(voxels, np.diag([MM, MM, MM, 1.0]), load_vocabulary("maisi"))


@cache
def head() -> LabelMap:
    """A ball of skin, skull, cortex, white matter and a ventricle."""
    x, y, z = np.indices((N, N, N), np.float32) - (N - 1) / 2
    radius = np.sqrt(x * x + y * y + z * z)
    voxels = np.zeros((N, N, N), np.uint16)
    for limit, label in ((20, 507), (18, 515), (16, 3), (12, 2), (6, 4)):
        voxels[radius < limit] = label
    return LabelMap(voxels, np.diag([MM, MM, MM, 1.0]), load_vocabulary("brain"))


def painted(label_map: LabelMap, values: dict[int, float], background: float, noise: float = 5.0) -> np.ndarray:
    table = np.full(int(label_map.voxels.max()) + 1, background, np.float32)
    for label, value in values.items():
        table[label] = value
    image = table[label_map.voxels] + np.random.default_rng(0).normal(0, noise, label_map.size)
    return np.round(np.maximum(image, 0) if background >= 0 else image).astype(np.int16)


HU = {200: -20, 1: 55, 28: -820, 35: 180, 104: 50, 26: 30}
T1 = {507: 700, 515: 60, 3: 600, 2: 1000, 4: 200}


def ct() -> np.ndarray:
    return painted(torso(), HU, -1000)


def run(check, label_map, images, **fields) -> CheckResult:
    fields.setdefault("body", "parametric:head" if label_map.vocabulary.name == "brain" else "parametric:torso")
    case = case_of(tuple(images), **fields)
    assert check.applies(case)
    return check.run(Candidate(case, label_map, images))


def only_reason(result: CheckResult) -> str:
    assert not result.passed
    assert len(result.reasons) == 1
    return result.reasons[0]


@pytest.fixture(scope="module")
def real_ct(real_data: Path, tmp_path_factory) -> Candidate:
    folder = real_data / "ct_abdomen"
    library = TemplateLibrary.open(tmp_path_factory.mktemp("library"), create=True)
    labels = folder / "labels_totalsegmentator_v2.nii.gz"
    import_template(
        labels, library, template_id="t", mapping="totalsegmentator_v2", image=folder / "ct.nii.gz", licence="Apache-2.0"
    )
    label_map = library.get("t")
    image = np.round(read_scan(folder / "ct.nii.gz").voxels).astype(np.int16)
    case = case_of(("ct",), size=label_map.size, spacing=label_map.spacing, body="template:t", center="abdomen")
    return Candidate(case, label_map, {"ct": image})


def test_a_real_ct_with_its_segmentation_is_accepted(real_ct):
    verdict = judge(real_ct)
    assert verdict.accepted, verdict.reasons
    assert verdict.scores["hu_median/ct/liver"] == pytest.approx(47, abs=3)
    assert verdict.scores["overlap/ct/dice"] > 0.97


def test_a_real_ct_beside_its_labels_is_rejected(real_ct):
    moved = dataclasses.replace(real_ct, images={"ct": np.roll(real_ct.images["ct"], 15, axis=1)})
    assert {reason.split(":")[0] for reason in judge(moved).reasons} >= {"overlap", "hu_median"}


def test_a_real_ct_in_attenuation_units_is_rejected(real_ct):
    water = 0.019 * 1000
    scaled = ((real_ct.images["ct"].astype(np.float32) + 1000) * water / 1000).astype(np.int16)
    assert not judge(dataclasses.replace(real_ct, images={"ct": scaled})).accepted


def test_a_real_t1_with_its_segmentation_has_t1_contrast_and_none_other(real_data, tmp_path):
    folder = real_data / "t1_brain"
    library = TemplateLibrary.open(tmp_path / "library", create=True)
    import_template(folder / "labels_freesurfer.mgz", library, template_id="t", mapping="freesurfer", licence="BSD-2")
    label_map = library.get("t")
    image = read_scan(folder / "t1.mgz").voxels.astype(np.int16)
    sequences = ("mri_t1_skull_stripped", "mri_t2_skull_stripped")
    case = case_of(sequences, size=label_map.size, spacing=label_map.spacing, body="template:t")
    result = MrContrastCheck().run(Candidate(case, label_map, dict.fromkeys(sequences, image)))
    assert 0.5 < result.scores["mri_t1_skull_stripped/gm_over_wm"] < 0.85
    assert result.scores["mri_t1_skull_stripped/csf_over_wm"] < 0.5
    assert [reason.split(":")[0] for reason in result.reasons] == ["mri_t2_skull_stripped"] * 2


def test_the_five_lobes_of_the_lungs_are_in_the_lung_group():
    assert GROUPS["maisi"]["lung"] == (28, 29, 30, 31, 32)
    assert set(GROUPS["maisi"]["bone"]) == {*range(33, 57), *range(63, 98), 120, 122, 127}


def test_organs_of_the_wrong_density_are_named():
    assert run(HuMedianCheck(), torso(), {"ct": ct()}).passed
    image = painted(torso(), {**HU, 1: 190}, -1000)
    assert only_reason(run(HuMedianCheck(), torso(), {"ct": image})) == "ct: the median of liver is 190 HU; allowed: -22..162 HU"
    flat = painted(torso(), dict.fromkeys(HU, 0), -1000)
    assert [reason.split()[4] for reason in run(HuMedianCheck(), torso(), {"ct": flat}).reasons] == ["lung", "bone"]


def test_thresholds_of_a_case_override_the_defaults():
    images = {"ct": ct()}
    strict = run(HuMedianCheck(), torso(), images, checks={"hu_median": {"liver_low": 60}})
    assert "allowed: 60..162 HU" in only_reason(strict)


def test_slivers_of_organs_are_passed_over():
    voxels = torso().voxels.copy()
    voxels[8, 10, :10] = 3
    label_map = dataclasses.replace(torso(), voxels=voxels)
    strict = {"spleen_low": 40}
    assert run(HuMedianCheck(), label_map, {"ct": ct()}, checks={"hu_median": strict}).passed
    assert not run(HuMedianCheck(), label_map, {"ct": ct()}, checks={"hu_median": strict | {"voxels": 5}}).passed


def test_head_ct_is_judged_by_brain_fluid_and_skull():
    hu = {507: 20, 515: 900, 3: 38, 2: 28, 4: 8}
    assert run(HuMedianCheck(), head(), {"ct": painted(head(), hu, -1000)}).passed
    bad = run(HuMedianCheck(), head(), {"ct": painted(head(), {**hu, 515: 100}, -1000)})
    assert "skull" in only_reason(bad)


@pytest.mark.parametrize(
    ("sequence", "change", "word"),
    [
        ("mri_t1", {}, None),
        ("mri_t1_skull_stripped", {}, None),
        ("mri_t1", {3: 1100}, "cortex"),
        ("mri_t1", {4: 900}, "ventricular fluid"),
        ("mri_t2", {3: 1300, 4: 3300}, None),
        ("mri_t2", {3: 800, 4: 3300}, "cortex"),
        ("mri_flair", {3: 1050}, None),
        ("mri_flair", {3: 1050, 4: 1500}, "ventricular fluid"),
        ("mri_pd", {3: 1150, 4: 1200}, None),
        ("mri_pd", {3: 700}, "cortex"),
        ("mri_swi", {3: 900, 4: 600}, None),
        ("mri_mra", {3: 1, 4: 9000}, None),
    ],
)
def test_brain_tissues_have_the_order_of_the_sequence(sequence, change, word):
    image = painted(head(), {**T1, **change}, 0)
    result = run(MrContrastCheck(), head(), {sequence: image})
    if word is None:
        assert result.passed, result.reasons
    else:
        assert word in only_reason(result)
        assert "allowed:" in only_reason(result)


def test_fat_is_brighter_than_muscle_in_body_t1():
    voxels = torso().voxels
    tissues = load_vocabulary("maisi").tissue_table[voxels]
    tissues[(voxels == 200)] = 2
    label_map = dataclasses.replace(torso(), tissues=tissues)
    bright, dark = ({200: fat, 1: 500, 28: 20, 35: 700, 104: 300, 26: 400} for fat in (1000, 200))
    assert run(MrContrastCheck(), label_map, {"mri_t1": painted(torso(), bright, 0)}).passed
    assert "fat is 0.6" in only_reason(run(MrContrastCheck(), label_map, {"mri_t1": painted(torso(), dark, 0)}))


def test_numbers_must_be_finite():
    image = ct().astype(np.float32)
    assert run(FiniteCheck(), torso(), {"ct": image}).passed
    image[3, 4, 5:7] = np.nan, np.inf
    assert only_reason(run(FiniteCheck(), torso(), {"ct": image})) == "ct holds 2 voxels that are not finite numbers; allowed: 0"
    assert run(FiniteCheck(), torso(), {"ct": ct()}).passed


def test_an_image_without_contrast_is_refused():
    assert run(ConstantCheck(), torso(), {"ct": ct()}).passed
    assert "almost constant" in only_reason(run(ConstantCheck(), torso(), {"ct": np.full((N, N, N), 40, np.int16)}))
    assert "almost constant" in only_reason(run(ConstantCheck(), head(), {"mri_t1": np.zeros((N, N, N), np.int16)}))


def test_cut_off_values_are_refused():
    assert run(ClippedCheck(), torso(), {"ct": ct()}).passed
    assert "cut off at 100" in only_reason(run(ClippedCheck(), torso(), {"ct": np.minimum(ct(), 100)}))
    assert "cut off at -200" in only_reason(run(ClippedCheck(), torso(), {"ct": np.maximum(ct(), -200)}))
    mr = painted(head(), T1, 0)
    assert run(ClippedCheck(), head(), {"mri_t1": mr}).passed
    assert "cut off at 900" in only_reason(run(ClippedCheck(), head(), {"mri_t1": np.minimum(mr, 900)}))


def test_geometry_must_be_what_was_asked_for():
    assert run(GeometryCheck(), torso(), {"ct": ct()}).passed
    assert "asked for 32 x 48 x 48" in only_reason(run(GeometryCheck(), torso(), {"ct": ct()}, size=(32, N, N)))
    assert "asked for 4 x 4 x 3.9 mm" in only_reason(run(GeometryCheck(), torso(), {"ct": ct()}, spacing=(4.0, 4.0, 3.9)))
    assert "ct has 48 x 48 x 47 voxels" in only_reason(run(GeometryCheck(), torso(), {"ct": ct()[..., 1:]}))
    assert "stored as uint8" in only_reason(run(GeometryCheck(), torso(), {"ct": ct().astype(np.uint8)}))
    flipped = dataclasses.replace(torso(), affine=np.diag([-MM, MM, MM, 1.0]))
    assert "180 degrees off RAS+" in only_reason(run(GeometryCheck(), flipped, {"ct": ct()}))
    candidate = Candidate(case_of(("ct", "ct_contrast")), torso(), {"ct": ct()})
    assert "no image of ct_contrast" in only_reason(GeometryCheck().run(candidate))
    candidate = Candidate(case_of(("ct",)), torso(), {"ct": ct(), "mri": ct()})
    assert "nobody asked for: mri" in only_reason(GeometryCheck().run(candidate))


def test_label_maps_must_show_what_was_asked_for():
    assert run(LabelsCheck(), torso(), {"ct": ct()}, center="abdomen").passed
    assert "centred on: pelvis" in only_reason(run(LabelsCheck(), torso(), {"ct": ct()}, center="pelvis"))
    empty = dataclasses.replace(torso(), voxels=np.zeros((N, N, N), np.uint8))
    assert len(run(LabelsCheck(), empty, {"ct": ct()}).reasons) == 2
    voxels = torso().voxels.copy()
    voxels[0, 0, 0] = 180
    stray = dataclasses.replace(torso(), voxels=voxels)
    assert only_reason(run(LabelsCheck(), stray, {"ct": ct()})) == "ids outside the vocabulary: 180"


def test_lesions_must_be_there_at_about_their_size():
    volume = 125 * MM**3
    diameter = (6 * volume / math.pi) ** (1 / 3)

    def lesions(*wanted: tuple[str, float], **fields) -> CheckResult:
        asked = tuple(Lesion(label=label, diameter=mm) for label, mm in wanted)
        return run(LesionsCheck(), torso(), {"ct": ct()}, lesions=asked, **fields)

    assert lesions(("hepatic tumor", diameter)).scores["hepatic tumor/volume_ratio"] == pytest.approx(1)
    assert "has no voxels" in only_reason(lesions(("lung tumor", 20.0)))
    assert "0.42 times" in only_reason(lesions(("hepatic tumor", diameter / 0.42 ** (1 / 3))))
    assert "2.00 times" in only_reason(lesions(("hepatic tumor", diameter / 2 ** (1 / 3))))
    assert lesions(("hepatic tumor", diameter / 2 ** (1 / 3)), body="template:t").passed, "a template may bring its own"
    assert lesions(("hepatic tumor", diameter / 2 ** (1 / 3)), ("hepatic tumor", diameter / 2 ** (1 / 3))).passed
    assert not LesionsCheck().applies(case_of(("ct",)))


def test_the_diameter_of_a_brain_tumor_includes_what_it_encloses():
    voxels = head().voxels.copy()
    voxels[10:20, 20:30, 20:30] = 401
    voxels[12:18, 22:28, 22:28] = 403
    voxels[14:16, 24:26, 24:26] = 402
    label_map = dataclasses.replace(head(), voxels=voxels)
    swapped = {401: "brain tumor necrosis", 402: "brain tumor edema", 403: "enhancing brain tumor"}
    assert {id_: load_vocabulary("brain").label(id_).name for id_ in swapped} == swapped
    diameter = (6 * 1000 * MM**3 / math.pi) ** (1 / 3)
    asked = (Lesion(label="brain tumor edema", diameter=diameter),)
    result = run(LesionsCheck(), label_map, {"mri_t1": painted(label_map, T1, 0)}, lesions=asked)
    assert result.scores["brain tumor edema/volume_ratio"] == pytest.approx(1)


@pytest.mark.parametrize("sequence", ["ct", "mri_t1", "mri_swi", "mri_t1_skull_stripped"])
def test_image_and_labels_must_show_the_same_body(sequence):
    values, background = ({507: 20, 515: 900, 3: 38, 2: 28, 4: 8}, -1000) if sequence == "ct" else (T1, 0)
    if sequence.endswith("stripped"):
        values = {**values, 507: 0, 515: 0}
    image = painted(head(), values, background)
    assert run(OverlapCheck(), head(), {sequence: image}).passed
    moved = np.roll(image, 12, axis=0)
    assert "overlap with a Dice of" in only_reason(run(OverlapCheck(), head(), {sequence: moved}))


def test_a_body_that_fills_the_view_has_nothing_to_overlap_with():
    full = dataclasses.replace(torso(), voxels=np.full((N, N, N), 1, np.uint8))
    assert run(OverlapCheck(), full, {"ct": np.full((N, N, N), 50, np.int16)}).scores == {}
