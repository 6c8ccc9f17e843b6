"""Checkpoint files: what is read, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.weights import file_digest
from ctmr_core.errors import EngineError
from tests.engines.maisi.checkpoints import (
    AUTOENCODER,
    CONTROLNET,
    DIFFUSION_UNET,
    MASK_AUTOENCODER,
    MASK_DIFFUSION,
    RELEASED_FILES,
    Golden,
    build,
    shrink,
    write_checkpoints,
)


@pytest.fixture
def config(golden: Golden) -> dict[str, Any]:
    return shrink(golden.network("rflow"))


def change(folder: Path, network: str, edit: Callable[[dict[str, Any]], Any], variant: str = "rflow-ct") -> Path:
    path = folder / "models" / RELEASED_FILES[variant][network]
    content = torch.load(path, weights_only=True)
    torch.save(edit(content) or content, path)
    return path


def test_every_network_of_a_variant_loads_with_its_latent_scale(config: dict[str, Any], tmp_path: Path) -> None:
    write_checkpoints(tmp_path, "rflow-ct", config, netseed=1, scale_factor=0.75)

    models = MaisiModels.load("rflow-ct", root=tmp_path, network_config=config)

    parts = [models.autoencoder, models.diffusion_unet, models.mask_autoencoder, models.mask_diffusion]
    parts += [models.controlnet.embedding, models.controlnet.network]
    assert (models.scale_factor, models.mask_scale_factor) == (0.75, 0.75)
    for network in parts:
        assert not network.training
        entries = [*network.parameters(), *network.buffers()]
        assert all(not entry.is_meta and not entry.requires_grad and entry.dtype == torch.float32 for entry in entries)
    stored = torch.load(tmp_path / "models" / "controlnet_3d_rflow-ct.pt", weights_only=True)["controlnet_state_dict"]
    torch.testing.assert_close(
        models.controlnet.embedding.state_dict()["conv_in.conv.weight"], stored["controlnet_cond_embedding.conv_in.conv.weight"]
    )


def test_files_are_read_only_when_needed_and_once(config: dict[str, Any], tmp_path: Path) -> None:
    write_checkpoints(tmp_path, "rflow-ct", config, netseed=1, networks=[AUTOENCODER])
    models = MaisiModels.load("rflow-ct", root=tmp_path, network_config=config)

    assert models.autoencoder is models.autoencoder
    with pytest.raises(EngineError, match=r"diff_unet_3d_rflow-ct\.pt"):
        _ = models.diffusion_unet


def test_files_may_lie_in_the_root_itself_or_anywhere(config: dict[str, Any], tmp_path: Path) -> None:
    write_checkpoints(tmp_path, "rflow-ct", config, netseed=1, networks=[AUTOENCODER])
    own = (tmp_path / "models" / "autoencoder_v1.pt").rename(tmp_path / "own.pt")

    assert MaisiModels.load("rflow-ct", root=tmp_path, network_config=config, files={AUTOENCODER: own}).autoencoder
    own.rename(tmp_path / "autoencoder_v1.pt")
    assert MaisiModels.load("rflow-ct", root=tmp_path, network_config=config).autoencoder
    with pytest.raises(EngineError, match="no such networks"):
        MaisiModels.load("rflow-mr", root=tmp_path, network_config=config, files={CONTROLNET: own})


def test_wrapped_autoencoders_and_plain_scales_are_read(config: dict[str, Any], tmp_path: Path) -> None:
    write_checkpoints(tmp_path, "rflow-ct", config, netseed=1, networks=[AUTOENCODER, DIFFUSION_UNET, MASK_AUTOENCODER])
    change(tmp_path, AUTOENCODER, lambda content: {"unet_state_dict": dict(content)})
    change(tmp_path, DIFFUSION_UNET, lambda content: content.update(scale_factor=np.float64(1.25), loss=np.float32(0.5)))

    models = MaisiModels.load("rflow-ct", root=tmp_path, network_config=config)

    assert models.autoencoder
    assert models.scale_factor == 1.25


@pytest.mark.parametrize("network", [AUTOENCODER, DIFFUSION_UNET, CONTROLNET, MASK_AUTOENCODER, MASK_DIFFUSION])
def test_missing_unexpected_and_misshapen_entries_are_refused_by_name(
    config: dict[str, Any], tmp_path: Path, network: str
) -> None:
    write_checkpoints(tmp_path, "rflow-ct", config, netseed=1, networks=[network])
    gone, bent = sorted(build(config, network).state_dict())[:2]

    def damage(content: dict[str, Any]) -> None:
        state = content.get("unet_state_dict", content.get("controlnet_state_dict", content))
        del state[gone]
        state[bent] = torch.zeros(1, 1, 7)
        state["stranger.weight"] = torch.zeros(1)

    change(tmp_path, network, damage)
    models = MaisiModels.load("rflow-ct", root=tmp_path, network_config=config)

    with pytest.raises(EngineError) as refusal:
        {
            AUTOENCODER: lambda: models.autoencoder,
            DIFFUSION_UNET: lambda: models.diffusion_unet,
            CONTROLNET: lambda: models.controlnet,
            MASK_AUTOENCODER: lambda: models.mask_autoencoder,
            MASK_DIFFUSION: lambda: models.mask_diffusion,
        }[network]()
    assert f"1 missing: {gone}" in str(refusal.value)
    assert "1 unexpected: stranger.weight" in str(refusal.value)
    assert f"1 misshapen: {bent} (1, 1, 7)" in str(refusal.value)


def test_the_unused_projection_of_released_ddpm_files_is_accepted_there_only(golden: Golden, tmp_path: Path) -> None:
    ddpm, rflow = shrink(golden.network("ddpm")), shrink(golden.network("rflow"))
    write_checkpoints(tmp_path, "ddpm-ct", ddpm, netseed=1, networks=[DIFFUSION_UNET])
    write_checkpoints(tmp_path, "rflow-ct", rflow, netseed=1, networks=[DIFFUSION_UNET])
    name = "middle_block.attention.attn.out_proj.weight"

    def add(content: dict[str, Any]) -> None:
        content["unet_state_dict"][name] = torch.zeros(64, 64)

    change(tmp_path, DIFFUSION_UNET, add, "ddpm-ct")
    change(tmp_path, DIFFUSION_UNET, lambda content: content["unet_state_dict"].update({"x.attn.out_proj.bias": torch.zeros(1)}))

    assert MaisiModels.load("ddpm-ct", root=tmp_path, network_config=ddpm).diffusion_unet
    with pytest.raises(EngineError, match=r"unexpected: x\.attn\.out_proj\.bias"):
        _ = MaisiModels.load("rflow-ct", root=tmp_path, network_config=rflow).diffusion_unet


class Bomb:
    """Pickles as a call."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/ctmr-bomb-went-off"),))


def test_files_that_would_run_code_are_refused_unrun(config: dict[str, Any], tmp_path: Path) -> None:
    write_checkpoints(tmp_path, "rflow-ct", config, netseed=1, networks=[AUTOENCODER])
    change(tmp_path, AUTOENCODER, lambda content: {**content, "bomb": Bomb()})

    with pytest.raises(EngineError, match="could run code"):
        _ = MaisiModels.load("rflow-ct", root=tmp_path, network_config=config).autoencoder
    assert not Path("/tmp/ctmr-bomb-went-off").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_files_that_are_no_checkpoints_are_refused(config: dict[str, Any], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "autoencoder_v1.pt").write_bytes(content)

    with pytest.raises(EngineError, match=r"autoencoder_v1\.pt: the checkpoint can't be read"):
        _ = MaisiModels.load("rflow-ct", root=tmp_path, network_config=config).autoencoder


@pytest.mark.parametrize("scale", [None, 0.0, float("nan"), "1", torch.ones(2)])
def test_impossible_latent_scales_are_refused(config: dict[str, Any], tmp_path: Path, scale: Any) -> None:
    write_checkpoints(tmp_path, "rflow-ct", config, netseed=1, networks=[DIFFUSION_UNET])
    change(tmp_path, DIFFUSION_UNET, lambda content: content.update(scale_factor=scale))

    with pytest.raises(EngineError, match="latent scale"):
        _ = MaisiModels.load("rflow-ct", root=tmp_path, network_config=config).scale_factor


def test_mr_variants_have_no_controlnet(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="has no controlnet"):
        _ = MaisiModels.load("rflow-mr", root=tmp_path, network_config=config).controlnet


def test_digests_are_those_of_the_files(config: dict[str, Any], tmp_path: Path) -> None:
    write_checkpoints(tmp_path, "rflow-ct", config, netseed=1, networks=[AUTOENCODER])
    path = tmp_path / "models" / "autoencoder_v1.pt"
    models = MaisiModels.load("rflow-ct", root=tmp_path, network_config=config)

    before = models.digests([AUTOENCODER])
    assert before == {"autoencoder_v1.pt": file_digest(path)}
    path.write_bytes(path.read_bytes() + b" ")
    assert models.digests([AUTOENCODER]) != before


def test_configurations_come_from_dictionaries_files_and_the_reference(config: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    path.write_text(json.dumps(config))

    assert MaisiModels.load("rflow-ct", root=tmp_path, network_config=path).config["diffusion_unet_def"]["in_channels"] == 4
    reference = MaisiModels.load("ddpm-ct", root=tmp_path).config
    assert reference["diffusion_unet_def"]["include_top_region_index_input"] is True
    assert reference["autoencoder_def"]["num_channels"] == [64, 128, 256]


@pytest.mark.parametrize(
    ("entry", "value", "named"),
    [
        ("_target_", "os.system", "not a class"),
        ("_target_", "$__import__('os')", "expressions"),
        ("in_channels", "@nowhere", "not there"),
        ("colour", 1, "unknown arguments"),
        ("norm_num_groups", 7, "refuses"),
    ],
)
def test_impossible_configurations_are_refused(
    config: dict[str, Any], tmp_path: Path, entry: str, value: object, named: str
) -> None:
    write_checkpoints(tmp_path, "rflow-ct", config, netseed=1, networks=[AUTOENCODER])
    config["autoencoder_def"][entry] = value

    with pytest.raises(EngineError, match=named):
        _ = MaisiModels.load("rflow-ct", root=tmp_path, network_config=config).autoencoder
