import json

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines.cli.templates import templates_app


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CTMR_TEMPLATES", raising=False)
    return lambda *arguments: CliRunner().invoke(templates_app, [str(argument) for argument in arguments])


@pytest.fixture
def scans(tmp_path):
    voxels = np.zeros((40, 30, 20), np.int16)
    voxels[24:32, 10:20, 4:16] = 5
    voxels[8:13, 10:16, 8:14] = 1
    folder = tmp_path / "scans"
    folder.mkdir()
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    nib.save(nib.Nifti1Image(voxels, affine), folder / "labels.nii.gz")
    nib.save(nib.Nifti1Image(np.where(voxels == 5, 250, voxels).astype(np.int16), affine), folder / "odd.nii.gz")
    return folder


def imported(run, scans, name="patient_1"):
    result = run("import", scans / "labels.nii.gz", "-m", "totalsegmentator_v2", "--id", name, "--source", "ward 3")
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("command", ["import", "list", "show", "find", "remove", "labels"])
def test_every_command_has_help_with_an_example(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"ctmr templates {command}" in result.output


def test_import_list_show_find_remove(run, scans):
    assert "patient_1: 3 labels, abdomen, 40 x 30 x 20" in imported(run, scans).output
    listed = json.loads(run("list", "--json").stdout)
    assert [row["id"] for row in listed] == ["patient_1"]
    assert listed[0]["labels"] == [1, 3, 200]
    assert "patient_1" in run("list").output
    shown = run("show", "patient_1").output
    assert "liver" in shown
    assert "ward 3" in shown
    assert json.loads(run("show", "patient_1", "--json").stdout)["regions"] == ["abdomen"]
    found = run("find", "--region", "abdomen", "--label", "spleen", "--size", 40, 30, 20, "--spacing", 4, 4, 4, "--json")
    assert [row["id"] for row in json.loads(found.stdout)] == ["patient_1"]
    assert json.loads(run("find", "--label", "left thalamus", "--json").stdout) == []
    assert run("remove", "patient_1").exit_code == 0
    assert json.loads(run("list", "--json").stdout) == []


def test_refused_files_are_reported_beside_the_imported_ones(run, scans):
    result = run("import", scans, "-m", "totalsegmentator_v2")
    assert result.exit_code == 1
    assert "250 (960 voxels)" in result.output
    assert "1 imported, 1 refused" in result.output
    as_json = run("import", scans, "-m", "totalsegmentator_v2", "--replace", "--json")
    report = json.loads(as_json.stdout)
    assert [row["id"] for row in report["imported"]] == ["labels"]
    assert "--drop-unknown" in next(iter(report["errors"].values()))["fix"]
    assert run("import", scans, "-m", "totalsegmentator_v2", "--replace", "--drop-unknown").exit_code == 0


def test_mistakes_are_answered_without_a_traceback(run, scans):
    imported(run, scans)
    for arguments, message in [
        (("show", "patient_2"), "patient_1"),
        (("list", "--library", "gone"), "no template library"),
        (("find", "--region", "thigh"), "pelvis"),
        (("find", "--label", "spleeen"), "spleen"),
        (("import", "gone.nii.gz"), "no such file"),
        (("import", scans / "labels.nii.gz", "-m", "nope"), "totalsegmentator_v2"),
        (("import", scans / "labels.nii.gz", "--sequence", "pet"), "mri_t1"),
        (("remove", "patient_1", "patient_2"), "patient_1"),
        (("labels", "mice"), "maisi"),
    ]:
        result = run(*arguments)
        assert result.exit_code == 1, arguments
        assert message in result.output
        assert "Traceback" not in result.output
    assert "patient_1" in run("list").output


def test_one_id_for_several_maps_is_a_usage_error(run, scans):
    assert run("import", scans, "--id", "x").exit_code == 2


def test_the_library_folder_comes_from_the_environment(run, scans, tmp_path, monkeypatch):
    monkeypatch.setenv("CTMR_TEMPLATES", str(tmp_path / "elsewhere"))
    imported(run, scans)
    assert (tmp_path / "elsewhere" / "index.parquet").is_file()


def test_labels_lists_a_vocabulary(run):
    assert "hippocampus" in run("labels", "brain").output
    assert {"id": 1, "name": "liver", "group": "organ", "side": ""} in json.loads(run("labels", "--json").stdout)
