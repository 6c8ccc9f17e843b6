"""Scans of people beside synthetic cases: imported, judged, exported again."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctmr_core.errors import AnatomyError, ExchangeError, StoreError
from ctmr_core.exchange import export, load_exporter
from ctmr_core.exchange.importing import PairImport, import_pair, import_pairs, new_pair, read_pairs
from ctmr_core.store import Dataset, verify
from tests.exchange.exchange_maker import BODY, LIVER, exchange_case, exchange_dataset, label_voxels, oblique_affine


def real_pair(real_data: Path, **changes: object) -> PairImport:
    folder = real_data / "ct_abdomen"
    fields = {
        "case_id": "patient-1",
        "images": {"ct": folder / "ct.nii.gz"},
        "labels": folder / "labels_totalsegmentator_v2.nii.gz",
        "mapping": "totalsegmentator_v2",
        "licence": "Apache-2.0",
        "source": "TotalSegmentator reference files",
    }
    return PairImport.model_validate({**fields, **changes})


@pytest.mark.real_data
def test_a_real_scan_joins_a_synthetic_dataset(tmp_path: Path, real_data: Path) -> None:
    dataset = exchange_dataset(tmp_path / "set", [exchange_case(0)])
    imported = import_pair(dataset, real_pair(real_data))
    assert imported.new
    assert list(Dataset.open(dataset.uri)) == ["case-0000", "patient-1"]
    row = dataset.row("patient-1")
    assert (row["status"], row["engine"], row["licences"], row["body_identity"]) == (
        "accepted",
        "import",
        ["Apache-2.0"],
        "template:patient-1",
    )
    assert row["judged"]
    assert row["scores"]
    volume = dataset["patient-1"]
    assert volume.attributes["synthetic"] is False
    original = nib.as_closest_canonical(nib.load(real_data / "ct_abdomen/ct.nii.gz"))
    assert np.allclose(volume.affine, original.affine, atol=1e-4)
    assert np.array_equal(np.asarray(volume.images["ct"]), np.rint(original.get_fdata()).astype(np.int16))
    labels = nib.as_closest_canonical(nib.load(real_data / "ct_abdomen/labels_totalsegmentator_v2.nii.gz"))
    assert np.array_equal(np.asarray(volume.labels) == LIVER, np.asanyarray(labels.dataobj) == 5)  # liver is 5 in v2
    assert not verify(dataset).problems

    assert not import_pair(dataset, real_pair(real_data)).new
    assert len(Dataset.open(dataset.uri)) == 2
    changed = import_pair(dataset, real_pair(real_data, split="val"))
    assert changed.new
    assert dataset.row("patient-1")["split"] == "val"
    assert len(dataset) == 2

    export(dataset, load_exporter("nifti"), tmp_path / "out")
    back = nib.load(tmp_path / "out/images/patient-1_ct.nii.gz")
    assert np.array_equal(np.asanyarray(back.dataobj), np.asarray(volume.images["ct"]))
    assert bytes(back.header["descrip"]).startswith(b"imported")  # a person's scan is not called synthetic


def write_pair(folder: Path, image: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(image, affine), folder / "image.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), folder / "labels.nii.gz")
    return folder / "image.nii.gz", folder / "labels.nii.gz"


def test_axes_are_turned_and_mr_is_scaled(tmp_path: Path) -> None:
    labels = label_voxels()
    image = np.linspace(-0.5, 1.5, labels.size).reshape(labels.shape)
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    flip[:2, 3] = labels.shape[0] - 1, labels.shape[1] - 1
    paths = write_pair(tmp_path, image[::-1, ::-1], labels[::-1, ::-1], oblique_affine() @ flip)
    dataset = Dataset.create(tmp_path / "set")
    pair = PairImport(case_id="mr-1", images={"mri_t1": paths[0]}, labels=paths[1], checks="skip")
    import_pair(dataset, pair)
    volume = dataset["mr-1"]
    assert np.array_equal(np.asarray(volume.labels), labels)
    assert np.allclose(volume.affine, oblique_affine(), atol=1e-4)
    stored = np.asarray(volume.images["mri_t1"])
    assert (stored.min(), stored.max()) == (0, 4095)
    import json

    scaling = json.loads(dataset.row("mr-1")["image_parameters"])["images"]["mri_t1"]
    assert np.allclose(stored / scaling["scale"] + scaling["offset"], image, atol=0.51 / scaling["scale"])
    assert dataset.row("mr-1")["judged"] is None


def test_mr_of_whole_numbers_stays_as_it_is(tmp_path: Path) -> None:
    """Below 0 too, as resampling leaves them: scaled they would have gaps in their histogram."""
    labels = label_voxels()
    image = np.random.default_rng(0).integers(-47, 834, labels.shape).astype(np.int16)
    paths = write_pair(tmp_path, image, labels, oblique_affine())
    dataset = Dataset.create(tmp_path / "set")
    import_pair(dataset, PairImport(case_id="mr-1", images={"mri_t1": paths[0]}, labels=paths[1], checks="skip"))
    assert np.array_equal(np.asarray(dataset["mr-1"].images["mri_t1"]), image)


def test_pairs_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    labels = label_voxels()
    image = np.full(labels.shape, -1000, np.int16)
    good = write_pair(tmp_path / "good", image, labels, oblique_affine())
    small = write_pair(tmp_path / "small", image[:-2], labels, oblique_affine())
    dataset = Dataset.create(tmp_path / "set")
    pairs = [
        PairImport(case_id="first", images={"ct": good[0]}, labels=good[1], checks="skip"),
        PairImport(case_id="second", images={"ct": small[0]}, labels=good[1], checks="skip"),
    ]
    with pytest.raises(AnatomyError, match=r"case second.*not on the grid"):
        import_pairs(dataset, pairs)
    assert list(Dataset.open(dataset.uri)) == ["first"]
    with pytest.raises(ExchangeError, match="does not pass the checks"):
        import_pair(dataset, PairImport(case_id="third", images={"ct": good[0]}, labels=good[1], checks="enforce"))
    with pytest.raises(AnatomyError, match="not in the mapping"):
        import_pair(dataset, PairImport(case_id="third", images={"ct": good[0]}, labels=good[1], mapping="spl_abdominal_atlas"))
    assert list(Dataset.open(dataset.uri)) == ["first"]
    with pytest.raises(ExchangeError, match="case_id"):
        new_pair({"case_id": "../evil", "images": {"ct": good[0]}, "labels": good[1]})


def test_tables_of_pairs(tmp_path: Path) -> None:
    labels = label_voxels()
    write_pair(tmp_path / "scans", np.full(labels.shape, -900, np.int16), labels, oblique_affine())
    table = tmp_path / "pairs.csv"
    table.write_text("case_id,ct,labels,split,body\na-1,scans/image.nii.gz,scans/labels.nii.gz,val,anna\n")
    (pair,) = read_pairs(table, {"checks": "skip", "licence": "CC0-1.0"})
    dataset = Dataset.create(tmp_path / "set")
    import_pairs(dataset, [pair])
    row = dataset.row("a-1")
    assert (row["split"], row["body_identity"], row["licences"]) == ("val", "template:anna", ["CC0-1.0"])
    assert set(row["label_ids"]) >= {LIVER, BODY}
    table.write_text("case_id,ct,labels,age\na-1,x,y,3\n")
    with pytest.raises(ExchangeError, match="unknown column"):
        read_pairs(table, {})
    table.write_text("case_id,ct,labels,split\na-1,x,y,holdout\n")
    with pytest.raises(ExchangeError, match="line 2, split"):
        read_pairs(table, {})


def test_an_envelope_is_put_around_labels_that_lack_one(tmp_path: Path) -> None:
    labels = label_voxels(size=(48, 48, 24))
    inside = labels > 0
    image = np.where(inside, 40, -1000).astype(np.int16)
    organs = np.where(labels == BODY, 0, labels).astype(np.uint8)
    paths = write_pair(tmp_path, image, organs, np.diag([4.0, 4.0, 4.0, 1.0]))
    dataset = Dataset.create(tmp_path / "set")
    pair = {"images": {"ct": paths[0]}, "labels": paths[1], "checks": "skip"}
    bare = import_pair(dataset, new_pair({**pair, "case_id": "bare"}))
    seen = import_pair(dataset, new_pair({**pair, "case_id": "seen", "envelope": "auto"}))
    drawn = import_pair(dataset, new_pair({**pair, "case_id": "drawn", "envelope": "labels"}))
    assert np.array_equal(np.asarray(dataset["bare"].labels), organs)
    found = np.asarray(dataset["seen"].labels)
    assert np.array_equal(found[organs > 0], organs[organs > 0])
    assert ((found == BODY) != (labels == BODY)).sum() < 0.02 * (labels == BODY).sum()
    assert BODY in dataset.row("drawn")["label_ids"]
    assert (bare.notes, seen.notes) == ((), ())
    assert any("a guess" in note for note in drawn.notes)
    with pytest.raises(ExchangeError, match="envelope"):
        new_pair({**pair, "case_id": "x", "envelope": "skin"})


def test_an_imported_case_is_not_made_again(tmp_path: Path) -> None:
    from pipelines.factory.replay import replay

    labels = label_voxels()
    paths = write_pair(tmp_path, np.full(labels.shape, -900, np.int16), labels, oblique_affine())
    dataset = Dataset.create(tmp_path / "set")
    import_pair(dataset, PairImport(case_id="scan", images={"ct": paths[0]}, labels=paths[1], checks="skip"))
    with pytest.raises(StoreError, match="imported, not made"):
        replay(dataset, "scan", None)
