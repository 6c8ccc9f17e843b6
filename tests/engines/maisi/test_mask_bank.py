from __future__ import annotations

import gzip
import json
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.engines.maisi.mask_bank import Candidate, MaskBank, Request, label_ids, safe_path, split
from ctmr_core.engines.maisi.mask_files import UseCounter, on_grid, read_nifti
from ctmr_core.errors import AnatomyError, EngineError
from tests.engines.maisi.bank_maker import TOP, entry, write_bank
from tests.engines.maisi.mask_networks import blobs, torso
from tests.fresh_process import run_fresh

HEALTHY = blobs((1, 3, 5, 200), 1)
HEPATIC = blobs((1, 3, 26, 200), 2)
PELVIS = blobs((93, 94, 62, 200), 3)
SMALL = blobs((1, 3, 200), 4, size=24)
MASKS = [
    (entry("a/healthy.nii.gz", HEALTHY, (2.0, 2.0, 2.0)), HEALTHY),
    (entry("a/hepatic.nii.gz", HEPATIC, (2.0, 2.0, 2.0)), HEPATIC),
    (entry("b/pelvis.nii.gz", PELVIS, (2.0, 2.0, 2.0), ("abdomen", "pelvis")), PELVIS),
    (entry("b/small.nii.gz", SMALL, (2.5, 2.5, 2.5), None), SMALL),
]
GRID = {"size": (32, 32, 32), "spacing": (2.0, 2.0, 2.0)}


@pytest.fixture(scope="module", params=["zip", "folder"])
def bank(request, tmp_path_factory):
    return MaskBank(*write_bank(tmp_path_factory.mktemp("bank"), MASKS, zipped=request.param == "zip"))


def found(bank, **wish):
    return [match.candidate.path for match in bank.matches(Request(**{**GRID, **wish}))]


def test_label_maps_come_back_as_they_were_stored(bank):
    assert len(bank) == 4
    for candidate, (_, mask) in zip(bank.candidates, MASKS, strict=True):
        label_map = bank.read(candidate)
        assert np.array_equal(label_map.voxels, mask)
        assert label_map.spacing == pytest.approx(candidate.spacing)


def test_axes_are_turned_to_ras(tmp_path):
    bank = MaskBank(*write_bank(tmp_path, MASKS[:1], zipped=True, flip=True))
    label_map = bank.read(bank.candidates[0])
    assert np.array_equal(label_map.voxels, HEALTHY)
    assert (np.diag(label_map.affine)[:3] > 0).all()


def test_exact_matches_have_structures_regions_and_no_other_tumours(bank):
    assert found(bank) == ["a/healthy.nii.gz", "b/pelvis.nii.gz"]
    assert found(bank, anatomy=(1, 5)) == ["a/healthy.nii.gz"]
    assert found(bank, anatomy=(26,)) == ["a/hepatic.nii.gz"]
    assert found(bank, regions=("pelvis",)) == ["b/pelvis.nii.gz"]
    assert found(bank, regions=("lower", "abdomen")) == ["b/pelvis.nii.gz"]
    assert found(bank, regions=("thorax",)) == ["a/healthy.nii.gz"]
    assert found(bank, regions=("chest", "pelvis")) == []
    assert found(bank, anatomy=(22,)) == []


def test_the_nearest_grid_comes_first(bank):
    matches = bank.matches(Request((26, 26, 26), (2.5, 2.5, 2.5), anatomy=(1,)))
    assert [match.candidate.path for match in matches] == ["b/small.nii.gz", "a/healthy.nii.gz"]
    assert matches[0].score == pytest.approx(3 * (5 / 10 + 2 / 100 + 0))
    assert matches[1].score == pytest.approx(3 * (1 / 10 + 6 / 100 + 0.5))
    assert not matches[0].exact


def test_much_smaller_candidates_are_left_out(bank):
    assert found(bank, size=(152, 152, 152), anatomy=(1,)) == ["a/healthy.nii.gz"]
    assert found(bank, size=(160, 160, 160), anatomy=(1,)) == []


def test_entries_without_regions_fit_a_region_only_in_the_reference(bank):
    wish = Request((24, 24, 24), (2.5, 2.5, 2.5), regions=("head",))
    assert bank.matches(wish) == []
    assert [match.candidate.path for match in bank.matches(wish, compat=True)] == ["b/small.nii.gz"]


def test_unknown_regions_and_structures_are_refused(bank):
    with pytest.raises(EngineError, match="body region"):
        bank.matches(Request(**GRID, regions=("arm",)))
    with pytest.raises(AnatomyError, match="no such label"):
        label_ids(["livver"])
    assert label_ids(["liver", 3, 1]) == (1, 3)


@pytest.mark.parametrize(
    "name",
    ["../x.nii.gz", "/etc/x.nii.gz", "a/../../x.nii.gz", "C:/x.nii.gz", "a\\..\\x.nii.gz", "", ".", "a/x.txt", "a\0.nii.gz"],
)
def test_paths_that_lead_elsewhere_are_refused(name, tmp_path):
    index, source = write_bank(tmp_path, MASKS[:1], zipped=False)
    index.write_text(json.dumps([{**MASKS[0][0], "pseudo_label_filename": name}]))
    with pytest.raises(EngineError, match=r"entry 0: impossible path"):
        MaskBank(index, source)


@given(st.text("./\\ab:", min_size=1, max_size=12))
def test_no_accepted_path_leaves_the_bank(text):
    try:
        path = safe_path(text + "x.nii.gz", "here")
    except EngineError:
        return
    assert not path.startswith("/")
    assert ".." not in path.split("/")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    index, source = write_bank(tmp_path / "bank", MASKS[:1], zipped=False)
    outside = tmp_path / "secret.nii.gz"
    (source / "a/healthy.nii.gz").rename(outside)
    (source / "a/healthy.nii.gz").symlink_to(outside)
    bank = MaskBank(index, source)
    with pytest.raises(EngineError, match="leads out"):
        bank.read(bank.candidates[0])


def test_missing_and_damaged_label_maps_are_named(tmp_path):
    index, source = write_bank(tmp_path, MASKS[:2], zipped=False)
    bank = MaskBank(index, source)
    (source / "a/healthy.nii.gz").unlink()
    with pytest.raises(EngineError, match=r"lacks a label map"):
        bank.read(bank.candidates[0])
    content = (source / "a/hepatic.nii.gz").read_bytes()
    for damage in (content[: len(content) // 2], b"no gzip", gzip.compress(b"no nifti")):
        (source / "a/hepatic.nii.gz").write_bytes(damage)
        with pytest.raises(EngineError, match=r"hepatic\.nii\.gz: not a NIfTI"):
            bank.read(bank.candidates[1])


def test_a_damaged_zip_is_named(tmp_path):
    index, source = write_bank(tmp_path, MASKS[:1], zipped=True)
    content = bytearray(source.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 50] = bytes(50)
    source.write_bytes(content)
    bank = MaskBank(index, source)
    with pytest.raises(EngineError, match="healthy"):
        bank.read(bank.candidates[0])
    source.write_bytes(b"no zip")
    broken = MaskBank(index, source)
    with pytest.raises(EngineError, match="no zip archive"):
        broken.read(broken.candidates[0])


@pytest.mark.parametrize("content", ["{}", "[1]", '[{"pseudo_label_filename": "a.nii"}]', "nonsense"])
def test_a_damaged_index_is_named(tmp_path, content):
    index, source = write_bank(tmp_path, MASKS[:1], zipped=False)
    index.write_text(content)
    with pytest.raises(EngineError, match=r"candidate_masks\.json"):
        MaskBank(index, source)


def test_values_that_are_no_labels_are_refused():
    for values in (np.full((4, 4, 4), 1.5, np.float32), np.full((4, 4, 4), 300, np.int16), np.full((4, 4, 4), -1, np.int16)):
        content = nibabel.Nifti1Image(values, np.eye(4)).to_bytes()
        with pytest.raises(EngineError, match="whole numbers"):
            read_nifti(content, "x.nii", "x.nii")
    voxels, _ = read_nifti(nibabel.Nifti1Image(np.full((4, 4, 4), 3, np.float32), np.eye(4)).to_bytes(), "x.nii", "x.nii")
    assert voxels.dtype == np.uint8


def test_one_member_is_read_at_a_time(bank, monkeypatch):
    if bank.source.is_dir():
        pytest.skip("of zips")
    read = []
    original = zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, name, *rest: read.append(name) or original(self, name, *rest))
    bank.read(bank.candidates[2])
    assert read == [f"{TOP}/b/pelvis.nii.gz"]


def test_banks_travel_between_processes(bank):
    bank.read(bank.candidates[0])
    again = pickle.loads(pickle.dumps(bank))
    assert np.array_equal(again.read(again.candidates[1]).voxels, HEPATIC)


def test_a_split_shares_no_label_map_and_stays_as_the_bank_grows():
    candidates = [Candidate(f"s/{n}.nii.gz", frozenset({1}), (8, 8, 8), (1.0, 1.0, 1.0), None) for n in range(400)]
    shares = {"train": 0.7, "validation": 0.1, "test": 0.2}
    parts = split(candidates, shares, seed=4)
    paths = {name: {entry.path for entry in part} for name, part in parts.items()}
    assert sum(len(part) for part in paths.values()) == 400
    assert not paths["train"] & paths["test"]
    assert not paths["train"] & paths["validation"]
    assert 240 < len(paths["train"]) < 320
    fewer = split(candidates[::3] * 2, shares, seed=4)
    for name, part in fewer.items():
        assert {entry.path for entry in part} <= paths[name]
    with pytest.raises(EngineError, match="add up"):
        split(candidates, {"train": 0.5})


def test_a_part_of_the_bank_shows_its_candidates_alone(bank):
    part = bank.only(bank.candidates[2:])
    assert found(part) == ["b/pelvis.nii.gz"]
    assert len(bank) == 4


COUNT_TEN = """
import sys
from pathlib import Path
from ctmr_core.engines.maisi.mask_files import UseCounter
for _ in range(10):
    UseCounter(Path(sys.argv[1])).add("a.nii.gz")
"""


def test_uses_are_counted_by_several_processes(tmp_path):
    counter = UseCounter(tmp_path / "uses.json")
    assert counter.counts() == {}
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: run_fresh(COUNT_TEN, counter.file), range(3)))
    assert counter.add("b.nii.gz") == 1
    assert counter.counts() == {"a.nii.gz": 30, "b.nii.gz": 1}
    counter.file.write_text("[")
    with pytest.raises(EngineError, match="record of uses"):
        counter.counts()


@pytest.mark.parametrize("compat", [True, False])
def test_label_maps_on_another_grid_keep_their_middle_and_their_volume(compat):
    label_map = LabelMap(torso().copy(), np.diag([2.0, 2.0, 2.0, 1.0]), load_vocabulary("maisi"))
    assert on_grid(label_map, (48, 48, 48), (2.0, 2.0, 2.0), compat=compat) is label_map.voxels
    finer = on_grid(label_map, (112, 112, 112), (1.0, 1.0, 1.0), compat=compat)
    assert finer.shape == (112, 112, 112)
    assert set(np.unique(finer)) == set(np.unique(torso()))
    assert (finer == 1).sum() == pytest.approx(8 * (torso() == 1).sum(), rel=0.08)
    middle = np.argwhere(finer == 62).mean(axis=0) - 55.5
    assert middle == pytest.approx(2 * (np.argwhere(torso() == 62).mean(axis=0) - 23.5), abs=1.2)
