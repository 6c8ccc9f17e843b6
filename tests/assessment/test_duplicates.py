"""Planted copies are found, relatives and strangers are not called copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.assessment.code_files import CodeFile, nearest
from ctmr_core.assessment.duplicates import find_duplicates, keep
from ctmr_core.assessment.reference import open_reference
from ctmr_core.assessment.streaming import DatasetVolumes
from ctmr_core.assessment.thumbnails import agreement, image_cells, image_code, label_cells, label_code, unit
from ctmr_core.cases.case import Case
from tests.assessment.small_sets import person, small_case, small_set

STRANGERS = 10


def with_copies(case: Case) -> tuple[LabelMap, dict[str, np.ndarray]]:
    """Case 11 is case 2 voxel by voxel; 12 is case 3 with noise; 13 has the organs of case 4 in another contrast."""
    number = int(case.case_id[-4:])
    label_map, images = person({11: 2, 12: 3, 13: 4}.get(number, case.body_seed))
    rng = np.random.default_rng(number)
    if number == 12:
        images = {"ct": images["ct"] + rng.integers(-5, 6, images["ct"].shape).astype(np.int16)}
    if number == 13:
        images = {"ct": np.where(label_map.voxels == 1, 400, rng.integers(0, 300, images["ct"].shape)).astype(np.int16)}
    return label_map, images


def test_planted_copies_are_found_and_kept(tmp_path: Path) -> None:
    cases = [small_case(i) for i in range(STRANGERS)] + [small_case(i) for i in (11, 12, 13)]
    cases.append(small_case(14, body_seed=5, seed=1))  # the person of case 5 again
    dataset = small_set(tmp_path / "set", cases, with_copies)
    table, summary = find_duplicates(dataset, DatasetVolumes(dataset))
    found = {(row["case_id"], row["other"], row["kind"]) for row in table.to_pylist()}
    assert found == {
        ("case-0011", "case-0002", "exact"),
        ("case-0014", "case-0005", "exact"),  # another seed must not give the same voxels
        ("case-0011", "case-0002", "image"),
        ("case-0011", "case-0002", "labels"),
        ("case-0012", "case-0003", "image"),
        ("case-0012", "case-0003", "labels"),
        ("case-0013", "case-0004", "labels"),
    }
    assert summary["counts"] == {"exact": 2, "image": 2, "labels": 3}
    assert summary["relatives"] == {"pairs": 1, "cases": 2}
    assert summary["nearest"]["labels"]["p50"] < 0.5
    name = keep(dataset, table)
    assert pq.read_table(tmp_path / "set" / name).equals(table)
    assert find_duplicates(dataset, DatasetVolumes(dataset), workers=1)[0].equals(table)


def test_copies_of_a_reference_are_found(tmp_path: Path) -> None:
    dataset = small_set(tmp_path / "set", [small_case(i) for i in range(4)])
    small_set(tmp_path / "other", [small_case(i, body_seed=seed) for i, seed in enumerate((50, 2, 51))])
    reference = open_reference(str(tmp_path / "other"), ["ct"])
    table, summary = find_duplicates(dataset, DatasetVolumes(dataset), reference)
    assert {(row["case_id"], row["other"], row["kind"]) for row in table.to_pylist()} == {
        ("case-0002", "case-0001", "reference-image"),
        ("case-0002", "case-0001", "reference-labels"),
    }
    assert summary["reference"] == 3


def test_templates_that_leaked_into_a_set_are_found(tmp_path: Path) -> None:
    from ctmr_core.anatomy.templates.library import TemplateLibrary

    library = TemplateLibrary.open(tmp_path / "library", create=True)
    for seed in (1, 60):
        library.add(f"body-{seed}", person(seed)[0], source="made", licence="none")
    dataset = small_set(tmp_path / "set", [small_case(i) for i in range(3)])
    table, _ = find_duplicates(dataset, DatasetVolumes(dataset), open_reference(str(tmp_path / "library"), ["ct"]))
    assert [(row["case_id"], row["other"], row["kind"]) for row in table.to_pylist()] == [
        ("case-0001", "body-1", "reference-labels")
    ]


def test_no_two_real_brains_alarm(real_data: Path) -> None:
    import nibabel as nib

    from ctmr_core.anatomy.vocabulary import load_vocabulary

    files = sorted((real_data / "brain_label_maps").glob("*.nii.gz"))[:5]
    maps = [nib.as_closest_canonical(nib.load(file)) for file in files]
    cells = [label_cells(np.asanyarray(found.dataobj).astype(np.uint16), load_vocabulary("brain")) for found in maps]
    agreements = [agreement(a, b) for i, a in enumerate(cells) for b in cells[:i]]
    assert min(agreements) > 0.2
    assert max(agreements) < 0.60


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_code_of_an_image_never_understates_likeness(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    a, other = (rng.integers(0, 256, (24, 24, 24)).astype(np.float32) for _ in range(2))
    b = (1 - share) * a + share * other
    cells = [x.round().astype(np.uint8) for x in (a, b)]
    correlation = float(np.corrcoef(cells[0].ravel(), cells[1].ravel())[0, 1])
    assert float(unit(cells[0]) @ unit(cells[1])) == pytest.approx(correlation, abs=1e-4)
    assert float(image_code(cells[0]) @ image_code(cells[1])) >= correlation - 1e-4


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_code_of_a_label_map_tells_agreement(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    a, other = (rng.integers(1, 20, (24, 24, 24)).astype(np.uint8) for _ in range(2))
    b = np.where(rng.random(a.shape) < share, other, a)
    told = float(label_code(a)[:-1] @ label_code(b)[:-1]) / 12**3
    assert told == pytest.approx((a[1::2, 1::2, 1::2] == b[1::2, 1::2, 1::2]).mean(), abs=0.2)


def test_nearest_of_blocks_are_those_of_one_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctmr_core.assessment.code_files.BLOCK", 7)
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((30, 6)).astype(np.float32)
    file = CodeFile(tmp_path / "codes")
    for i, code in enumerate(codes):
        file.append(i, i // 2, code, np.zeros(3, np.uint8))
    file.close()
    places, products = nearest(file, file, counted=False, count=4)
    whole = codes @ codes.T
    whole[np.arange(30)[:, None] // 2 == np.arange(30) // 2] = -np.inf
    order = np.argsort(-whole, axis=1)[:, :4]
    np.testing.assert_array_equal(places, order)
    np.testing.assert_allclose(products, np.take_along_axis(whole, order, 1), rtol=1e-5)


def test_cells_average_the_box() -> None:
    image = np.arange(48**3).reshape(48, 48, 48).astype(np.float32)
    cells = image_cells(image, (slice(0, 48),) * 3)
    means = image.reshape(24, 2, 24, 2, 24, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(cells, (means - means.min()) / np.ptp(means) * 255, atol=0.51)
