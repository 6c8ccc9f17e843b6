"""Image to image: what strength does, how images are encoded and brought to the grid, and sets of contrasts of one noise."""

from __future__ import annotations

import hashlib
import json

import nibabel
import numpy as np
import pytest
import torch

from ctmr_core.cases.case import Case
from ctmr_core.engines import load_engine
from ctmr_core.engines.maisi import MaisiModels, Start, sample_contrasts, sample_image, sample_image_from_mask
from ctmr_core.engines.maisi import encode as encode_module
from ctmr_core.engines.maisi.behaviour import COMPAT, FIXED
from ctmr_core.engines.maisi.intensities import image_only_values
from ctmr_core.engines.maisi.schedulers import make_sampler
from ctmr_core.engines.maisi.starting_image import begin, encode, read_start
from ctmr_core.errors import EngineError
from tests.engines.maisi.checkpoints import shrink, write_checkpoints

GRID = {"size": (32, 32, 32), "spacing": (2.0, 2.0, 2.0)}
NETWORKS = ("autoencoder", "diffusion_unet", "controlnet")


@pytest.fixture(scope="module")
def root(golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for variant, names in (("rflow-ct", NETWORKS), ("ddpm-ct", NETWORKS), ("rflow-mr-brain", NETWORKS[:2])):
        config = shrink(golden.network("ddpm" if variant == "ddpm-ct" else "rflow"))
        write_checkpoints(folder, variant, config, netseed=200, networks=names)
        (folder / f"network_{variant}.json").write_text(json.dumps(config))
    return folder


def load(root, variant) -> MaisiModels:
    return MaisiModels.load(variant, root=root, network_config=root / f"network_{variant}.json")


@pytest.fixture(scope="module")
def flow(root):
    return load(root, "rflow-ct")


def body(seed: int = 0) -> np.ndarray:
    """HU [32, 32, 32]: a ball with a bright core in air."""
    grid = np.indices((32, 32, 32)) - 15.5
    distance = np.sqrt((grid**2).sum(axis=0))
    noise = np.random.default_rng(seed).normal(0, 10, distance.shape)
    return (np.where(distance < 13, np.where(distance < 5, 300, 40), -1000) + noise).astype(np.int16)


def reconstruction(models, image) -> np.ndarray:
    with torch.inference_mode():
        decoded = models.autoencoder.decode_stage_2_outputs(encode(models, image, 1))
        return image_only_values(decoded, 1, FIXED)


def test_strength_0_gives_the_image_as_the_autoencoder_does(flow):
    image = sample_image(flow, start=Start(body(), 0.0), steps=4, seed=1, compat=False, **GRID)
    assert np.abs(image.astype(int) - reconstruction(flow, body())).max() <= 1


@pytest.mark.parametrize("compat", [False, True])
def test_strength_1_is_sampling_from_noise_alone(flow, compat):
    settings = {"steps": 2, "seed": 3, "compat": compat, **GRID}
    assert np.array_equal(sample_image(flow, start=Start(body(), 1.0), **settings), sample_image(flow, **settings))


def test_the_stronger_the_less_is_left_of_the_image(flow):
    first = sample_image(flow, start=Start(body(), 0.0), steps=4, seed=1, compat=False, **GRID).astype(float)
    distance = [
        np.abs(sample_image(flow, start=Start(body(), strength), steps=4, seed=1, compat=False, **GRID) - first).mean()
        for strength in (0.25, 0.5, 1.0)
    ]
    assert 0 < distance[0] < distance[1] < distance[2]


@pytest.mark.parametrize("variant", ["rflow-ct", "ddpm-ct"])
@torch.inference_mode()
def test_the_latent_is_noised_by_the_share_of_its_step(root, variant):
    """The mixture is the scheduler's own ``add_noise`` at the timestep of the first step that is left."""
    models = load(root, variant)
    sampler = make_sampler(models.scheduler(), 10 if variant == "rflow-ct" else 1000, (8, 8, 8), COMPAT)
    noise = torch.randn((1, 4, 8, 8, 8), generator=torch.Generator().manual_seed(1))
    latent, rest = begin(models, Start(body(), 0.4), 1, noise, sampler)
    assert len(rest.timesteps) == round(0.4 * len(sampler.timesteps))
    assert rest.timesteps == sampler.timesteps[-len(rest.timesteps) :]
    clean = encode(models, body(), 1) * models.scale_factor
    timestep = torch.tensor([rest.timesteps[0]])
    scheduler = models.scheduler()
    expected = scheduler.add_noise(clean, noise, timestep if variant == "rflow-ct" else timestep.long())
    torch.testing.assert_close(latent, expected, rtol=1e-4, atol=1e-5)


def test_images_of_label_maps_start_from_images_too(flow):
    mask = np.where(body() > -500, 200, 0).astype(np.uint8)
    settings = {"spacing": GRID["spacing"], "steps": 2, "seed": 3, "compat": False}
    started = sample_image_from_mask(flow, mask, start=Start(body(), 0.5), **settings)
    assert (started[mask == 0] == -1000).all()
    assert not np.array_equal(started, sample_image_from_mask(flow, mask, **settings))


def test_large_images_are_encoded_in_windows(flow, monkeypatch):
    whole = encode(flow, body(), 1)
    monkeypatch.setattr(encode_module, "first_rung", lambda rungs, *_: len(rungs) - 1)
    wide = np.concatenate([body()] * 5)
    windows = encode(flow, wide, 1)
    assert windows.shape == (1, 4, 40, 8, 8)
    inner = windows[..., 17:23, :, :]  # the middle copy, away from seams
    assert float((inner - whole[..., 1:7, :, :]).abs().mean()) < float(whole.std())


def test_mr_is_normalised_by_percentiles(root):
    models = load(root, "rflow-mr-brain")
    image = body().astype(np.float32) + 1000
    np.testing.assert_allclose(encode(models, image, 9), encode(models, image * 7, 9), rtol=1e-3, atol=1e-4)
    with pytest.raises(EngineError, match="constant"):
        encode(models, np.zeros((32, 32, 32)), 9)


@pytest.mark.parametrize(
    ("image", "strength", "problem"),
    [
        (body(), 1.5, "strength"),
        (body()[0], 0.5, "not an image"),
        (np.full((32, 32, 32), np.nan), 0.5, "no numbers"),
        (body()[:16], 0.5, "another grid"),
    ],
)
def test_impossible_starts_are_refused(flow, image, strength, problem):
    with pytest.raises(EngineError, match=problem):
        sample_image(flow, start=Start(image, strength), steps=2, **GRID)


def save(path, image, affine):
    nibabel.save(nibabel.Nifti1Image(image, affine), path)
    return path


def test_a_file_is_turned_to_ras_and_brought_to_the_grid(tmp_path):
    image = body()
    image[2:6] = 900
    las = np.diag([-2.0, 2.0, 2.0, 1.0])
    same = read_start(save(tmp_path / "las.nii.gz", image[::-1], las), (32, 32, 32), (2, 2, 2), 1)
    assert np.array_equal(same, image)
    finer = read_start(tmp_path / "las.nii.gz", (64, 64, 64), (1, 1, 1), 1)
    assert np.abs(finer.reshape(32, 2, 32, 2, 32, 2).mean(axis=(1, 3, 5)) - image)[8:24, 8:24, 8:24].mean() < 20
    wider = read_start(tmp_path / "las.nii.gz", (64, 32, 32), (2, 2, 2), 1)
    assert (wider[:16] == -1000).all()
    with pytest.raises(EngineError, match="can't be read"):
        read_start(tmp_path / "none.nii.gz", (32, 32, 32), (2, 2, 2), 1)


def test_cases_start_from_the_file_they_name(root, tmp_path, monkeypatch):
    monkeypatch.setenv("CTMR_MODELS", str(root))
    path = save(tmp_path / "scan.nii.gz", body(), np.diag([2.0, 2.0, 2.0, 1.0]))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    start = {"image": str(path), "sha256": digest[:12], "strength": 0.5}
    case = Case(
        case_id="a",
        body="unlabelled:chest",
        sequences=("ct",),
        engine="rflow-ct",
        engine_parameters={"limits": "off", "steps": 2, "start": start},
        **GRID,
    )
    engine = load_engine("rflow-ct")
    engine.validate(case)
    image, record = engine.sample(case, None, "ct", 5)
    expected = sample_image(load(root, "rflow-ct"), start=Start(body(), 0.5), steps=2, seed=5, compat=False, **GRID)
    assert np.array_equal(image, expected)
    assert record["strength"] == 0.5
    for wrong, problem in (({"sha256": "0" * 12}, "not the file that is meant"), ({"image": "none.nii"}, "not there")):
        parameters = {**case.engine_parameters, "start": {**start, **wrong}}
        with pytest.raises(EngineError, match=problem):
            engine.validate(case.model_copy(update={"engine_parameters": parameters}))


def test_contrasts_of_one_noise(root):
    models = load(root, "rflow-mr-brain")
    images = sample_contrasts(models, (9, 11), seed=4, steps=1, compat=False, **GRID)
    alone = {code: sample_image(models, modality=code, seed=4, steps=1, compat=False, **GRID) for code in (9, 11)}
    assert all(np.array_equal(images[code], alone[code]) for code in (9, 11))
    stream = torch.Generator().manual_seed(8)
    drawn = sample_contrasts(models, (9, 11), seed=stream, steps=1, compat=False, **GRID)
    again = sample_contrasts(models, (11,), seed=torch.Generator().manual_seed(8), steps=1, compat=False, **GRID)
    assert np.array_equal(drawn[11], again[11])
    other = sample_image(models, modality=9, seed=5, steps=1, compat=False, **GRID)
    correlation = [np.corrcoef(image.ravel(), images[9].ravel())[0, 1] for image in (images[11], other)]
    assert correlation[0] > correlation[1]
    with pytest.raises(EngineError, match="each once"):
        sample_contrasts(models, (9, 9), **GRID)
