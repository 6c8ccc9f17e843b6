"""What is encoded, on which grid, what is written beside it, and that nothing is passed over."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation, Resize, ScaleIntensityRange

from ctmr_core.engines.maisi import MaisiModels
from ctmr_core.errors import LearningError
from ctmr_core.learning.maisi.autoencoder import AutoencoderTask
from ctmr_core.learning.maisi.latent_files import INDEX, LatentItem, read_labels, read_latent, read_latents
from ctmr_core.learning.maisi.latents import latent_grid, make_latents
from ctmr_core.learning.maisi.settings import AutoencoderConfig, Images, LatentsConfig
from ctmr_core.learning.maisi.sources import sources_of
from tests.learning.maisi.conftest import shrunken


def load(base):
    return MaisiModels.load("rflow-ct", root=base, network_config=base / "network_rflow-ct.json")


@pytest.fixture
def scans(tmp_path):
    """A list of two scans: one in RAS order [40, 44, 70], one stored with its axes permuted and flipped."""
    rng = np.random.default_rng(3)
    voxels = rng.normal(0, 400, (40, 44, 70)).astype(np.float32)
    affine = np.diag([2.0, 2.0, 1.5, 1.0])
    plain = nibabel.Nifti1Image(voxels, affine)
    nibabel.save(plain, tmp_path / "plain.nii.gz")
    nibabel.save(plain.as_reoriented(np.array([[2, -1], [0, 1], [1, 1]])), tmp_path / "turned.nii.gz")
    entries = [{"image": f"{name}.nii.gz", "modality": "ct", "fold": fold} for fold, name in enumerate(("plain", "turned"))]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    return tmp_path


def config(base, folder, **settings):
    images = Images(list=folder / "list.json")
    return LatentsConfig(**{"variant": "rflow-ct", "models": base, "images": images, "multiple": 32, **settings})


def reference_values(path, size):
    """The image as NVIDIA's scripts prepare it, by MONAI's own transforms."""
    prepare = Compose(
        [LoadImage(), EnsureChannelFirst(), Orientation("RAS"), ScaleIntensityRange(-1000, 1000, 0, 1, clip=True), Resize(size)]
    )
    prepare.transforms[-1].mode = "trilinear"
    return prepare(path)


def test_latents_are_the_mean_of_what_the_reference_encodes(base, scans):
    done = make_latents(config(base, scans), scans / "out")
    assert (done.made, done.refused) == (["plain", "turned"], {})
    volume = reference_values(scans / "plain.nii.gz", (32, 32, 64))
    with torch.inference_mode():
        mean, _ = load(base).autoencoder.encode(torch.as_tensor(np.asarray(volume))[None])
    for name in done.made:
        np.testing.assert_allclose(read_latent(scans / "out" / f"{name}_emb.nii.gz"), mean[0].numpy(), rtol=0, atol=2e-5)
    stored = nibabel.load(scans / "out" / "plain_emb.nii.gz")
    assert stored.shape == (8, 8, 16, 4)
    np.testing.assert_allclose(stored.affine, volume.affine.numpy(), rtol=0, atol=1e-5)


def test_compat_draws_from_the_latent_and_takes_sizes_from_the_header(base, scans):
    make_latents(config(base, scans, mode="compat"), scans / "out")
    volume = reference_values(scans / "plain.nii.gz", (32, 32, 64))
    with torch.inference_mode():
        mean, spread = load(base).autoencoder.encode(torch.as_tensor(np.asarray(volume))[None])
    drawn = read_latent(scans / "out" / "plain_emb.nii.gz")
    noise = (drawn - mean[0].numpy()) / spread[0].numpy()
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(1, abs=0.1)
    turned = json.loads((scans / "out" / "turned_emb.nii.gz.json").read_text())
    assert turned["dim"] == [8, 16, 8], "the size of the stored axes, though the axes are turned: as the reference"
    first = (scans / "out" / "plain_emb.nii.gz").read_bytes()
    make_latents(config(base, scans, mode="compat"), scans / "again")
    assert (scans / "again" / "plain_emb.nii.gz").read_bytes() == first


@pytest.mark.parametrize(
    ("size", "grid"), [((512, 512, 70), (512, 512, 128)), ((192, 320, 448), (256, 256, 512)), ((30, 65, 191), (128, 128, 128))]
)
def test_sizes_become_the_nearest_multiple_as_in_the_reference(size, grid):
    assert latent_grid(size, 128) == grid


def test_sidecar_and_index_say_what_nvidias_scripts_read(base, scans, latents):
    make_latents(config(base, scans), scans / "out")
    sidecar = json.loads((scans / "out" / "plain_emb.nii.gz.json").read_text())
    assert (sidecar["dim"], sidecar["modality"]) == ([8, 8, 16], "ct")
    assert sidecar["spacing"] == pytest.approx([2.5, 2.75, 1.640625], abs=1e-5)
    index = json.loads((latents / INDEX).read_text())
    entry = index["training"][2]
    assert {"image", "label", "spacing", "modality", "fold", "dim"} <= set(entry)
    assert (entry["image"], entry["label"], entry["fold"]) == ("case-0002_ct_emb.nii.gz", "case-0002_ct_labels.nii.gz", 0)
    assert read_labels(latents / entry["label"]).shape == tuple(4 * n for n in entry["dim"])


def test_a_second_run_keeps_what_is_there_and_makes_what_changed(base, scans, tmp_path_factory):
    make_latents(config(base, scans), scans / "out")
    before = {path.name: path.read_bytes() for path in (scans / "out").iterdir()}
    assert make_latents(config(base, scans), scans / "out").kept == ["plain", "turned"]
    (scans / "out" / "turned_emb.nii.gz").unlink()
    done = make_latents(config(base, scans), scans / "out")
    assert (done.made, done.kept) == (["turned"], ["plain"])
    assert {path.name: path.read_bytes() for path in (scans / "out").iterdir()} == before
    other = shrunken(tmp_path_factory.mktemp("other"), "rflow-ct", ("autoencoder",))
    state = torch.load(other / "models" / "autoencoder_v1.pt", weights_only=True)
    torch.save({name: value * 1.01 for name, value in state.items()}, other / "models" / "autoencoder_v1.pt")
    assert make_latents(config(other, scans), scans / "out").made == ["plain", "turned"]


def test_images_that_cannot_be_used_are_named_and_the_others_made(base, scans):
    (scans / "turned.nii.gz").write_bytes(b"nothing")
    done = make_latents(config(base, scans), scans / "out")
    assert done.made == ["plain"]
    assert "turned" in done.refused
    index = json.loads((scans / "out" / INDEX).read_text())
    assert list(index["refused"]) == ["turned"]
    assert [entry["image"] for entry in index["training"]] == ["plain_emb.nii.gz"]
    (scans / "turned.nii.gz").unlink()
    with pytest.raises(LearningError, match="is not there"):
        make_latents(config(base, scans), scans / "out")


def test_lists_of_nvidias_are_read_and_missing_latents_named(latents, tmp_path):
    (found,) = read_latents([latents])
    assert len(found.items) == 7
    entries = [{"image": str(latents / f"case-000{number}_ct.nii.gz"), "modality": "ct"} for number in range(2)]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    (listed,) = read_latents([tmp_path / "list.json"])
    assert [item.spacing for item in listed.items] == [item.spacing for item in found.items[:2]]
    entries.append({"image": str(latents / "case-0099_ct.nii.gz"), "modality": "ct"})
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    with pytest.raises(LearningError, match=r"case-0099_ct_emb\.nii\.gz is not there"):
        read_latents([tmp_path / "list.json"])


def with_labels(scans, values):
    labels = np.zeros((40, 44, 70), np.uint16)
    labels[5:35, 5:35, 5:60] = values[0]
    labels[10:20, 10:20, 20:40] = values[-1]
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([2.0, 2.0, 1.5, 1.0])), scans / "labels.nii.gz")
    entry = {"image": "plain.nii.gz", "modality": "ct", "fold": 1, "label": "labels.nii.gz"}
    (scans / "list.json").write_text(json.dumps({"training": [entry]}))


def test_ids_beyond_the_controlnets_code_need_another_id(base, scans):
    with_labels(scans, (200, 401))
    assert "[401]" in make_latents(config(base, scans, labels=True), scans / "out").refused["plain"]
    assert (
        "already that of another"
        in make_latents(config(base, scans, labels=True, label_ids={401: 200}), scans / "out").refused["plain"]
    )
    assert make_latents(config(base, scans, labels=True, label_ids={401: 133}), scans / "out").made == ["plain"]
    labels = read_labels(scans / "out" / "plain_labels.nii.gz")
    assert set(np.unique(labels).tolist()) == {0, 133, 200}
    assert labels.shape == (32, 32, 64)


def test_networks_that_are_told_the_region_get_it_from_the_label_map(scans, tmp_path):
    ddpm = shrunken(tmp_path / "ddpm", "ddpm-ct", ("autoencoder", "diffusion_unet"))
    with_labels(scans, (1, 28))
    make_latents(config(ddpm, scans, variant="ddpm-ct"), scans / "out")
    item = LatentItem.model_validate_json((scans / "out" / "plain_emb.nii.gz.json").read_text())
    assert (item.top_region_index, item.bottom_region_index) == ([0, 1, 0, 0], [0, 0, 1, 0])


def test_names_never_lead_out_of_the_folder_and_are_unique(base, scans):
    entries = [{"image": str(scans / "plain.nii.gz"), "modality": "ct"}, {"image": "sub/../plain.nii.gz", "modality": "ct"}]
    (scans / "sub").mkdir()
    (scans / "list.json").write_text(json.dumps({"training": entries}))
    names = [source.name for source in sources_of(Images(list=scans / "list.json"), 5)]
    assert names == sorted([f"{str(scans)[1:]}/plain", "sub/plain"])
    (scans / "list.json").write_text(json.dumps({"training": [entries[1]] * 2}))
    with pytest.raises(LearningError, match="same name"):
        make_latents(config(base, scans), scans / "out")


def test_a_list_of_latents_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "list.json").write_text("{")
    with pytest.raises(LearningError, match="can not be read"):
        read_latents([tmp_path / "list.json"])


def test_only_cases_of_one_vocabulary_are_taken(bodies):
    every = sources_of(Images(dataset=bodies.uri), 5)
    assert {source.vocabulary for source in every} == {"maisi"}
    assert [source.name for source in sources_of(Images(dataset=bodies.uri, vocabulary="maisi"), 5)] == [
        one.name for one in every
    ]
    with pytest.raises(LearningError, match="no images"):
        sources_of(Images(dataset=bodies.uri, vocabulary="brain"), 5)


def test_an_autoencoder_without_held_out_images_says_what_to_do(base, bodies):
    config = AutoencoderConfig(variant="rflow-ct", models=base, images=Images(dataset=bodies.uri), validation_fold=9)
    with pytest.raises(LearningError, match=r"no images are held out[\s\S]*validation_fold: null"):
        AutoencoderTask(config)
