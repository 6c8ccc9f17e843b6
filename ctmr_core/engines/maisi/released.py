"""What NVIDIA has released of MAISI on the Hugging Face hub: repositories, files, digests and licences.

Repositories, paths and commits are those of NVIDIA's NV-Generate-CTMR (``scripts/download_model_data.py``); SHA-256 digests are
those the hub shows for the files of October 2025. Where none is known (None), the first pull decides and is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ctmr_core.engines.maisi.variants import MASK_AUTOENCODER, MASK_DIFFUSION, variant

Part = Literal["image", "masks", "bank"]
#: image: label map or nothing -> image. masks: the networks that draw label maps. bank: NVIDIA's bank of label maps.
PARTS: tuple[Part, ...] = ("image", "masks", "bank")

_MASK_NETWORKS = (MASK_AUTOENCODER, MASK_DIFFUSION)
CT, MR, MR_BRAIN = "nvidia/NV-Generate-CT", "nvidia/NV-Generate-MR", "nvidia/NV-Generate-MR-Brain"


@dataclass(frozen=True)
class Licence:
    """Under what terms weights may be used. ``restricted``: must be accepted before they are fetched."""

    name: str
    url: str
    summary: str
    restricted: bool


OPEN_MODEL = Licence(
    "NVIDIA Open Model License",
    "https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license/",
    "Commercial use and derivative models are allowed; NVIDIA claims no ownership of what the model makes.",
    restricted=False,
)
NON_COMMERCIAL = Licence(
    "NVIDIA OneWay Noncommercial License (22 March 2022)",
    "https://developer.download.nvidia.com/licenses/NVIDIA-OneWay-Noncommercial-License-22Mar2022.pdf",
    "Research and evaluation only: neither the weights nor what they make may be used commercially.",
    restricted=True,
)


@dataclass(frozen=True)
class Repository:
    """A repository on the hub, pinned to ``revision`` (a commit, or ``main`` where no commit is known)."""

    name: str
    revision: str
    licence: Licence


REPOSITORIES = {
    CT: Repository(CT, "48a68e95c77a095870e3374f5b2cca1dd211f317", OPEN_MODEL),
    MR: Repository(MR, "main", NON_COMMERCIAL),
    MR_BRAIN: Repository(MR_BRAIN, "ef9759bf221265b2704569cdeeac20bbf03b62ee", OPEN_MODEL),
}


@dataclass(frozen=True)
class ReleasedFile:
    """A file of a variant. ``path`` is the same in the repository and below the models folder; ``sha256`` hex or None."""

    repository: str
    path: str
    part: Part
    sha256: str | None = None

    @property
    def licence(self) -> Licence:
        return REPOSITORIES[self.repository].licence


#: The digests that are published: path -> SHA-256 hex.
SHA256 = {
    "models/autoencoder_v1.pt": "1f8a7a056d0ebc00486edc43c26768bf1c12eaa6df9dd172e34598003be95eb3",
    "models/mask_generation_autoencoder.pt": "539175f6ede3cb1e6f01bfd6347cd446d601cf4a508fc632a1e36362b1428a5d",
    "models/mask_generation_diffusion_unet.pt": "b7d668b1356e9b94b8269decadf8f8116dc4ee2d365580d05349b4ddf6739155",
    "models/diff_unet_3d_rflow-ct.pt": "cfc1ec59782f5ac7c0d22dd501654732109a971b93cbaa6607c4106a7f29066f",
    "models/controlnet_3d_rflow-ct.pt": "2f16d7a6b4d6a22d5ba9278e59fd51f9a17a45244f0f256946c34a762cc12914",
    "datasets/all_masks_flexible_size_and_spacing_4000.zip": "ce59e0e7e232c13bfc53c403df0ad22afc711d8e0601750b0a4a8e4d0f648ace",
}
#: Files beside the networks: variant -> (path, part). The list of candidates of ddpm-ct goes with the bank of 4000.
_DATA: dict[str, tuple[tuple[str, Part], ...]] = {
    "rflow-ct": (
        ("datasets/all_anatomy_size_conditions.json", "masks"),
        ("datasets/all_masks_flexible_size_and_spacing_4000.zip", "bank"),
        ("datasets/candidate_masks_flexible_size_and_spacing_4000.json", "bank"),
    ),
    "ddpm-ct": (
        ("datasets/all_anatomy_size_conditions.json", "masks"),
        ("datasets/all_masks_flexible_size_and_spacing_4000.zip", "bank"),
        ("datasets/candidate_masks_flexible_size_and_spacing_3000.json", "bank"),
    ),
}


def image_paths(name: str) -> dict[str, str]:
    """Network -> path below the models folder, of the networks that make images."""
    return {network: f"models/{file}" for network, file in variant(name).files.items() if network not in _MASK_NETWORKS}


def released_files(name: str, parts: Sequence[Part] = ("image",)) -> tuple[ReleasedFile, ...]:
    """The files of ``parts`` of a variant; ``EngineError`` for an unknown variant."""
    chosen = variant(name)
    files = [
        ReleasedFile(chosen.repositories[network], f"models/{file}", "masks" if network in _MASK_NETWORKS else "image")
        for network, file in chosen.files.items()
    ]
    files += [ReleasedFile(CT, path, part) for path, part in _DATA.get(name, ())]
    return tuple(replace(file, sha256=SHA256.get(file.path)) for file in files if file.part in parts)


def licences_of(name: str) -> tuple[Licence, ...]:
    """The licences of everything a variant is made of, each once."""
    return tuple(dict.fromkeys(file.licence for file in released_files(name, PARTS)))
