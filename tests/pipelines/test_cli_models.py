"""``ctmr models``: weights from a mirror folder, and single volumes written as NIfTI."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from ctmr_core.engines.maisi import released
from ctmr_core.engines.maisi.anatomy_sizes import SIZE_SLOTS
from pipelines.cli.main import app
from tests.engines.maisi.bank_maker import entry, write_bank
from tests.engines.maisi.checkpoints import shrink, write_checkpoints
from tests.engines.maisi.conftest import golden  # noqa: F401

IMAGE_NETWORKS = ("autoencoder", "diffusion_unet", "controlnet")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTMR_MODELS", str(tmp_path / "models"))
    return lambda *arguments: CliRunner().invoke(app, ["models", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def mirror(golden, tmp_path_factory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("mirror")
    config = shrink(golden.network("rflow"))
    write_checkpoints(folder, "rflow-ct", config, netseed=200, networks=IMAGE_NETWORKS)
    write_checkpoints(folder, "rflow-mr", config, netseed=200)
    (folder / "network.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def published(mirror, monkeypatch) -> None:
    """The digests of the mirror's files take the place of the published ones."""
    digests = {
        path: hashlib.sha256((mirror / path).read_bytes()).hexdigest() if (mirror / path).is_file() else digest
        for path, digest in released.SHA256.items()
    }
    monkeypatch.setattr(released, "SHA256", digests)


@pytest.mark.parametrize("command", ["pull", "list", "verify", "sample", "pair", "mask"])
def test_every_command_has_help_with_an_example(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output


def test_pull_verifies_and_list_and_verify_say_so(run, mirror, published):
    result = run("pull", "rflow-ct", "--from", mirror)
    assert result.exit_code == 0, result.output
    assert result.output.count("verified") == 3
    assert "NVIDIA Open Model License" in result.output

    listed = json.loads(run("list", "--json").output)["variants"]
    assert {file["status"] for file in listed["rflow-ct"]["files"] if file["part"] == "image"} == {"verified"}
    assert len(listed["rflow-ct"]["weights_digest"]) == 64
    assert listed["rflow-mr"]["weights_digest"] == ""
    assert "models/controlnet_3d_rflow-ct.pt" in run("list").output

    verified = run("verify", "rflow-ct", "--json")
    assert verified.exit_code == 0
    assert json.loads(verified.output)["verified"] is True


def test_verify_fails_on_a_changed_file(run, mirror, published, tmp_path):
    run("pull", "rflow-ct", "--from", mirror)
    changed = tmp_path / "models/models/autoencoder_v1.pt"
    data = changed.read_bytes()
    changed.unlink()
    changed.write_bytes(data[:-1] + b"?")
    result = run("verify", "rflow-ct")
    assert result.exit_code == 1
    assert "changed" in result.output


def test_weights_that_are_not_the_published_ones_are_refused(run, mirror):
    result = run("pull", "rflow-ct", "--from", mirror)
    assert result.exit_code == 1
    assert "not the published one" in result.output


def test_a_non_commercial_licence_must_be_accepted(run, mirror, published):
    refused = run("pull", "rflow-mr", "--from", mirror)
    assert refused.exit_code == 1
    assert "--accept-license" in refused.output
    assert "Research and evaluation only" in refused.output
    assert run("pull", "rflow-mr", "--from", mirror, "--accept-license").exit_code == 0


def test_an_unknown_variant_is_refused_with_the_known_ones(run):
    result = run("pull", "rflow-pet")
    assert result.exit_code == 1
    assert "rflow-mr-brain" in result.output


def sample(run, mirror, *arguments):
    result = run(
        "sample",
        "rflow-ct",
        "--root",
        mirror,
        "--network-config",
        mirror / "network.json",
        "--no-limits",
        "--steps",
        1,
        *arguments,
    )
    assert result.exit_code == 0, result.output
    return result


def test_a_sampled_image_is_where_its_header_says(run, mirror, tmp_path):
    sample(run, mirror, "--size", 32, 64, 32, "--spacing", 3, 2.5, 4, "--out", "a/ct.nii.gz", "--seed", 5)
    image = nib.load(tmp_path / "a/ct.nii.gz")
    assert image.shape == (32, 64, 32)
    assert image.get_data_dtype() == np.int16
    np.testing.assert_allclose(image.header.get_zooms(), (3, 2.5, 4))
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    record = json.loads((tmp_path / "a/ct.json").read_text())
    assert (record["seed"], record["sequence"], record["labels"]) == (5, "ct", "none")
    assert record["licences"] == ["NVIDIA Open Model License"]


def test_the_seed_decides_the_image(run, mirror, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        sample(run, mirror, "--size", 32, 32, 32, "--spacing", 3, 3, 3, "--out", f"{name}.nii", "--seed", seed)
    a, b, c = (np.asarray(nib.load(tmp_path / f"{name}.nii").dataobj) for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_an_image_can_start_from_another(run, mirror, tmp_path):
    grid = ("--size", 32, 32, 32, "--spacing", 2, 2, 2)
    sample(run, mirror, *grid, "--out", "first.nii.gz", "--seed", 1)
    for strength in (0, 1):
        more = ("--from", "first.nii.gz", "--strength", strength, "--out", f"from{strength}.nii.gz", "--seed", 2)
        sample(run, mirror, *grid, *more)
    sample(run, mirror, *grid, "--out", "second.nii.gz", "--seed", 2)
    images = {name: np.asarray(nib.load(tmp_path / f"{name}.nii.gz").dataobj) for name in ("from0", "from1", "second")}
    assert np.array_equal(images["from1"], images["second"])  # at strength 1 nothing is left of the first
    assert not np.array_equal(images["from0"], images["second"])
    record = json.loads((tmp_path / "from0.json").read_text())
    assert (record["from"], record["strength"]) == ("first.nii.gz", 0.0)


def test_an_image_of_a_mask_comes_with_the_mask_on_its_grid(run, mirror, tmp_path):
    """The mask is stored left-posterior-superior and odd-sized: it is turned, resampled about its middle and kept."""
    labels = np.zeros((40, 30, 20), np.uint8)
    labels[8:32, 6:24, 2:18] = 200
    labels[8:16, 6:14, 4:10] = 1
    affine = np.diag([-4.0, -4.0, 6.0, 1.0])
    affine[:3, 3] = (70, 50, -30)
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "mask.nii.gz")
    result = sample(
        run,
        mirror,
        "--mask",
        tmp_path / "mask.nii.gz",
        "--size",
        32,
        32,
        32,
        "--spacing",
        5,
        5,
        5,
        "--out",
        "ct.nii.gz",
        "--json",
    )
    report = json.loads(result.stdout)
    assert any("moved to 32x32x32 voxels" in remark for remark in report["remarks"])
    image, kept = (nib.load(tmp_path / name) for name in ("ct.nii.gz", "ct_labels.nii.gz"))
    np.testing.assert_array_equal(image.affine, kept.affine)
    voxels = np.asarray(kept.dataobj)
    assert set(np.unique(voxels)) == {0, 1, 200}
    assert (np.asarray(image.dataobj)[voxels == 0] == -1000).all()
    np.testing.assert_allclose(place_of_label_1(voxels, kept.affine), place_of_label_1(labels, affine), atol=2.5)


def place_of_label_1(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(affine, np.argwhere(voxels == 1).mean(0))


def test_impossible_requests_are_refused_with_advice(run, mirror):
    result = run("sample", "rflow-ct", "--root", mirror, "--size", 64, 64, 64, "--spacing", 1, 1, 1, "--out", "x.nii.gz")
    assert result.exit_code == 1
    assert "trained mostly on chest+abdomen" in result.output
    assert run("sample", "rflow-ct", "--out", "x.nii.gz").exit_code == 1
    assert "NIfTI" in run("sample", "rflow-ct", "--size", 64, 64, 64, "--spacing", 1, 1, 1, "--out", "x.png").output


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    """A bank of one label map: a body with a liver and a spleen."""
    labels = np.zeros((32, 32, 32), np.uint8)
    labels[4:28, 6:26, :] = 200
    labels[8:16, 8:20, 8:24] = 1
    labels[20:26, 8:14, 10:18] = 3
    folder = tmp_path_factory.mktemp("bank")
    index, _ = write_bank(folder, [(entry("one.nii.gz", labels, (10.0, 10.0, 10.0)), labels)], zipped=True)
    index.rename(folder / "candidate_masks_flexible_size_and_spacing_4000.json")
    return folder


GRID = ("--size", 32, 32, 32, "--spacing", 10, 10, 10, "--no-limits", "--steps", 1)


def test_a_pair_of_the_bank_is_written_with_its_whole_label_map(run, mirror, bank, tmp_path):
    own = ("--root", mirror, "--network-config", mirror / "network.json", "--bank", bank, "--uses", "uses.json")
    result = run("pair", "rflow-ct", *own, *GRID, "--label", "liver", "--region", "abdomen", "--no-check", "--out", "ct.nii.gz")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "uses.json").read_text()) == {"one.nii.gz": 1}
    labels, image = (np.asarray(nib.load(tmp_path / name).dataobj) for name in ("ct_labels.nii.gz", "ct.nii.gz"))
    assert set(np.unique(labels)) == {0, 1, 3, 200}
    assert (image[labels == 0] == -1000).all()
    record = json.loads((tmp_path / "ct.json").read_text())
    assert (record["accepted"], record["seed"]) == (True, 0)


def test_a_pair_without_the_hu_of_its_organs_is_drawn_again_and_marked(run, mirror, bank, tmp_path):
    own = ("--root", mirror, "--network-config", mirror / "network.json", "--bank", bank)
    result = run("pair", "rflow-ct", *own, *GRID, "--attempts", 2, "--out", "ct.nii.gz")
    assert result.exit_code == 1
    assert "the median of" in result.output
    record = json.loads((tmp_path / "ct.json").read_text())
    assert not record["accepted"]
    assert len(record["attempts"]) == 2


def test_pairs_of_organ_sizes_need_the_mask_networks(run, mirror):
    result = run("pair", "rflow-ct", "--root", mirror, "--organ", "liver=0.5", "--out", "ct.nii.gz")
    assert result.exit_code == 1
    assert "models/mask_generation_autoencoder.pt: missing" in result.output
    assert "--organ" in run("pair", "rflow-ct", "--organ", "liver", "--out", "ct.nii.gz").output
    assert "gallbladder" in run("pair", "rflow-ct", "--root", mirror, "--organ", "lver=1", "--out", "ct.nii.gz").output
    assert "no label maps" in run("pair", "rflow-mr", "--out", "ct.nii.gz").output


VARIANT_OF = {"rflow": "rflow-ct", "ddpm": "ddpm-ct"}


@pytest.mark.parametrize(
    "name", ["image_only_rflow_ct", "image_only_ddpm_ct", "image_from_mask_rflow_ct", "image_from_mask_rflow_ct_cfg_tiled"]
)
def test_compat_writes_what_the_reference_makes(run, golden, tmp_path, name):  # noqa: F811
    """From files to files: weights in the released formats, a mask as NIfTI, the image read back."""
    settings, arrays = golden.settings(name), golden.arrays(name)
    variant, config = VARIANT_OF[settings["network"]], shrink(golden.network(settings["network"]))
    root = tmp_path / "models"
    write_checkpoints(
        root, variant, config, netseed=settings["netseed"], scale_factor=settings["scale_factor"], networks=IMAGE_NETWORKS
    )
    (root / f"network_{variant}.json").write_text(json.dumps(config))
    where = ["--spacing", *settings["spacing"], "--size", *arrays["image"].shape]
    if "mask" in arrays:
        affine = np.diag([*settings["spacing"], 1.0])
        nib.save(nib.Nifti1Image(arrays["mask"], affine), tmp_path / "mask.nii.gz")
        where += ["--mask", tmp_path / "mask.nii.gz", "--window", *settings["roi"], "--overlap", settings["overlap"]]
    drawn = ["--seed", settings["seed"], "--steps", settings["steps"], "--guidance", settings["cfgscale"]]
    result = run("sample", variant, *where, *drawn, "--compat", "--no-limits", "--out", "ct.nii.gz")
    assert result.exit_code == 0, result.output
    image = np.asarray(nib.load(tmp_path / "ct.nii.gz").dataobj).astype(np.float64)
    difference = np.abs(image - arrays["image"])
    if "mask" in arrays:
        assert difference.max() <= 0.5 + 0.05  # stored as whole HU
    else:
        assert difference.max() <= 1
        assert (difference == 0).mean() > 0.998


def test_a_label_map_is_drawn_of_organ_sizes(run, golden, tmp_path):  # noqa: F811
    config = shrink(golden.network("rflow")) | {"mask_generation_latent_shape": [4, 8, 8, 8]}
    root = tmp_path / "models"
    networks = ("mask_generation_autoencoder", "mask_generation_diffusion")
    write_checkpoints(root, "rflow-ct", config, netseed=300, networks=networks)
    (root / "network_rflow-ct.json").write_text(json.dumps(config))
    organs = [part for name in SIZE_SLOTS for part in ("--organ", f"{name}=-1")]
    refused = run("mask", "rflow-ct", "--organ", "liver=0.5", "--steps", 2, "--out", "labels.nii.gz")
    assert "give all ten sizes" in refused.output
    (root / "datasets").mkdir()
    (root / "datasets/all_anatomy_size_conditions.json").write_text(json.dumps([{"organ_size": [0.5] * 5 + [-1] * 5}]))
    result = run("mask", "rflow-ct", *organs, "--steps", 2, "--out", "labels.nii.gz", "--json")
    assert result.exit_code == 0, result.output
    labels = nib.load(tmp_path / "labels.nii.gz")
    assert labels.shape == (32, 32, 32)
    assert labels.get_data_dtype() == np.uint8
    np.testing.assert_allclose(labels.header.get_zooms(), (1.5, 1.5, 1.5))
    assert json.loads(result.stdout)["size_vector"] == [-1] * 10
