"""The four released MAISI variants: files, networks, limits, defaults and recommended fields of view.

Source: README, configs and docs/inference.md of NVIDIA NV-Generate-CTMR
(https://github.com/NVIDIA-Medtech/NV-Generate-CTMR, Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ctmr_core.anatomy.sequences import MODALITY_CODES
from ctmr_core.errors import EngineError

AUTOENCODER = "autoencoder"
DIFFUSION_UNET = "diffusion_unet"
CONTROLNET = "controlnet"
MASK_AUTOENCODER = "mask_generation_autoencoder"
MASK_DIFFUSION = "mask_generation_diffusion"
IMAGE_NETWORKS = (AUTOENCODER, DIFFUSION_UNET)
"""Networks, named as in the configuration (``<name>_def``)."""

LAST_CT_CODE = 7
"""Codes up to here (0, unknown, included) have the CT intensity range."""

REGIONS = ("head", "chest", "abdomen", "pelvis")
"""Order of the region one-hots."""
REGION_SYNONYMS = {"thorax": "chest", "lower": "pelvis"}


@dataclass(frozen=True)
class FieldOfView:
    """A field of view the weights saw in training: what, voxels, spacing in mm, share (CT) or number (MR) of scans."""

    name: str
    size: tuple[int, int, int] | None
    spacing: tuple[float, float, float] | None
    extent_mm: tuple[float, float, float]
    weight: float


def _ct(share: float, name: str, size: tuple[int, int, int], spacing: tuple[float, float, float]) -> FieldOfView:
    x, y, z = (round(n * s, 3) for n, s in zip(size, spacing, strict=True))
    return FieldOfView(name, size, spacing, (x, y, z), share)


def _mr(scans: int, name: str, extent_mm: tuple[float, float, float]) -> FieldOfView:
    return FieldOfView(name, None, None, extent_mm, scans)


CT_FIELDS_OF_VIEW = (
    _ct(58.55, "chest+abdomen", (512, 512, 128), (0.781, 0.781, 2.981)),
    _ct(38.35, "chest", (512, 512, 128), (0.684, 0.684, 2.422)),
    _ct(1.42, "chest+abdomen+lower", (512, 512, 256), (0.793, 0.793, 1.826)),
    _ct(0.61, "lower", (512, 512, 384), (0.839, 0.839, 0.728)),
    _ct(0.37, "abdomen+lower", (512, 512, 384), (0.808, 0.808, 0.729)),
    _ct(0.33, "head+chest+abdomen", (512, 512, 384), (0.977, 0.977, 2.103)),
    _ct(0.13, "abdomen", (512, 512, 128), (0.723, 0.723, 1.182)),
    _ct(0.13, "head+chest+abdomen+lower", (512, 512, 384), (1.367, 1.367, 4.603)),
    _ct(0.10, "head+chest", (512, 512, 128), (0.645, 0.645, 2.219)),
)
MR_FIELDS_OF_VIEW = (
    _mr(4659, "brain mri_t1", (160.0, 256.0, 256.0)),
    _mr(577, "brain mri_t2", (240.0, 240.0, 162.5)),
    _mr(152, "brain mri_flair", (199.9, 250.0, 250.0)),
    _mr(898, "prostate mri_t2", (170.0, 170.0, 90.0)),
    _mr(2162, "breast mri_t1", (174.0, 200.0, 200.0)),
    _mr(715, "abdomen mri_t1", (380.0, 308.8, 288.0)),
    _mr(78, "abdomen mri_t2", (350.0, 350.0, 245.6)),
)
MR_BRAIN_FIELDS_OF_VIEW = (
    _mr(98769, "axial mri_t1", (240.0, 240.0, 174.0)),
    _mr(142290, "sagittal mri_t1", (176.0, 250.0, 250.0)),
    _mr(80970, "coronal mri_t1", (240.0, 200.0, 240.0)),
    _mr(379, "axial mri_t2", (240.0, 240.0, 158.0)),
    _mr(1091, "sagittal mri_t2", (162.0, 240.0, 240.0)),
    _mr(250, "coronal mri_t2", (200.0, 180.0, 200.0)),
    _mr(59105, "axial mri_flair", (250.0, 250.0, 175.0)),
    _mr(118946, "sagittal mri_flair", (176.0, 250.0, 250.0)),
    _mr(58654, "coronal mri_flair", (250.0, 200.0, 250.0)),
    _mr(95805, "axial mri_swi", (230.0, 230.0, 145.0)),
    _mr(4, "sagittal mri_swi", (140.0, 230.0, 230.0)),
    _mr(9, "coronal mri_swi", (230.0, 155.0, 230.0)),
    _mr(77, "axial mri_mra", (220.0, 220.0, 158.0)),
    _mr(195, "sagittal mri_mra", (158.0, 250.0, 250.0)),
    _mr(21, "coronal mri_mra", (240.0, 179.0, 240.0)),
)

CT_CODES = frozenset({1, 2, 3})
MR_CODES = frozenset({0, 8, 9, 10, 11, 12, 13, 14, 15, 16})
MR_BRAIN_CODES = frozenset({9, 10, 11, 16, 20, 29, 30, 31, 32, 33})
_LICENCE_OPEN = "NVIDIA Open Model License"
_LICENCE_RESEARCH = "NVIDIA OneWay Noncommercial License (22 March 2022)"
_CT_MASK_FILES = {MASK_AUTOENCODER: "mask_generation_autoencoder.pt", MASK_DIFFUSION: "mask_generation_diffusion_unet.pt"}
_CT_REPOSITORY = "nvidia/NV-Generate-CT"


@dataclass(frozen=True)
class Variant:
    """One released variant.

    config: which reference network configuration (``rflow``, ``ddpm``). files: network -> released file name.
    repositories: network -> Hugging Face repository of the file. The latent scale (``scale_factor``: latent = encoder
    output x scale) comes from the diffusion U-Net's file, for masks from the mask diffusion U-Net's file.
    modalities: trained codes. max_size: voxels. spacing_mm: (lowest, highest) in the plane and along z.
    guidance: classifier-free guidance scale shipped for image-only sampling. steps: sampling steps.
    """

    name: str
    config: str
    files: dict[str, str]
    repositories: dict[str, str]
    licence: str
    modalities: frozenset[int]
    max_size: tuple[int, int, int]
    spacing_mm: tuple[tuple[float, float], tuple[float, float]]
    steps: int
    guidance: float
    fields_of_view: tuple[FieldOfView, ...] = field(repr=False)

    @property
    def is_ct(self) -> bool:
        """Whether it makes CT images (HU); the others make MR images (arbitrary units from 0)."""
        return self.modalities <= CT_CODES

    @property
    def makes_masks(self) -> bool:
        """Whether it can sample label maps and render images of them."""
        return MASK_DIFFUSION in self.files


VARIANTS = {
    "rflow-ct": Variant(
        name="rflow-ct",
        config="rflow",
        files={
            AUTOENCODER: "autoencoder_v1.pt",
            DIFFUSION_UNET: "diff_unet_3d_rflow-ct.pt",
            CONTROLNET: "controlnet_3d_rflow-ct.pt",
            **_CT_MASK_FILES,
        },
        repositories=dict.fromkeys((AUTOENCODER, DIFFUSION_UNET, CONTROLNET, MASK_AUTOENCODER, MASK_DIFFUSION), _CT_REPOSITORY),
        licence=_LICENCE_OPEN,
        modalities=CT_CODES,
        max_size=(512, 512, 768),
        spacing_mm=((0.5, 3.0), (0.5, 5.0)),
        steps=30,
        guidance=0.0,
        fields_of_view=CT_FIELDS_OF_VIEW,
    ),
    "ddpm-ct": Variant(
        name="ddpm-ct",
        config="ddpm",
        files={
            AUTOENCODER: "autoencoder_v1.pt",
            DIFFUSION_UNET: "diff_unet_3d_ddpm-ct.pt",
            CONTROLNET: "controlnet_3d_ddpm-ct.pt",
            **_CT_MASK_FILES,
        },
        repositories=dict.fromkeys((AUTOENCODER, DIFFUSION_UNET, CONTROLNET, MASK_AUTOENCODER, MASK_DIFFUSION), _CT_REPOSITORY),
        licence=_LICENCE_OPEN,
        modalities=CT_CODES,
        max_size=(512, 512, 768),
        spacing_mm=((0.5, 3.0), (0.5, 5.0)),
        steps=1000,
        guidance=0.0,
        fields_of_view=CT_FIELDS_OF_VIEW,
    ),
    "rflow-mr": Variant(
        name="rflow-mr",
        config="rflow",
        files={AUTOENCODER: "autoencoder_v2.pt", DIFFUSION_UNET: "diff_unet_3d_rflow-mr.pt"},
        repositories=dict.fromkeys(IMAGE_NETWORKS, "nvidia/NV-Generate-MR"),
        licence=_LICENCE_RESEARCH,
        modalities=MR_CODES,
        max_size=(512, 512, 128),
        spacing_mm=((0.4, 5.0), (0.4, 5.0)),
        steps=30,
        guidance=15.0,
        fields_of_view=MR_FIELDS_OF_VIEW,
    ),
    "rflow-mr-brain": Variant(
        name="rflow-mr-brain",
        config="rflow",
        files={AUTOENCODER: "autoencoder_v1.pt", DIFFUSION_UNET: "diff_unet_3d_rflow-mr-brain_v1.pt"},
        repositories={AUTOENCODER: _CT_REPOSITORY, DIFFUSION_UNET: "nvidia/NV-Generate-MR-Brain"},
        licence=_LICENCE_OPEN,
        modalities=MR_BRAIN_CODES,
        max_size=(512, 512, 256),
        spacing_mm=((0.4, 5.0), (0.4, 5.0)),
        steps=30,
        guidance=2.0,
        fields_of_view=MR_BRAIN_FIELDS_OF_VIEW,
    ),
}

MODALITY_ROWS = 128
CT_PLANE_SIZES = (256, 384, 512)
CT_DEPTHS = (128, 256, 384, 512, 640, 768)
CT_SMALLEST_PLANE_MM = 256.0
MR_SIZES_AT_DEPTH = {
    128: tuple((n, n) for n in (128, 256, 384, 512)),
    256: ((128, 256), (256, 128), (256, 256)),
}
"""Sizes the reference accepts: (x, y) by depth."""


def variant(name: str) -> Variant:
    """The variant of that name, or an ``EngineError``."""
    if name not in VARIANTS:
        raise EngineError("unknown MAISI variant", found=name, allowed=VARIANTS)
    return VARIANTS[name]


def check_limits(
    name: str, size: tuple[int, int, int], spacing: tuple[float, float, float], modality: int, *, compat: bool = False
) -> None:
    """Refuse (``EngineError``) a request outside of what the variant's weights were made for.

    size: voxels (x, y, z); spacing: mm. CT: the reference's table of sizes, equal x and y, at least 256 mm wide.
    MR: ``compat=True`` keeps the reference's table, which leaves out sizes its own documentation names (512 x 512 x 256);
    otherwise any multiple of 32 from 64 up to the documented maximum, and codes beyond 20 are checked too.
    """
    chosen = variant(name)
    if modality not in chosen.modalities:
        known = {code: label for label, code in MODALITY_CODES.items()}
        allowed = (f"{code} ({known[code]})" for code in sorted(chosen.modalities))
        raise EngineError(f"{name} was not trained on this modality code", found=modality, allowed=allowed)
    plane, depth = chosen.spacing_mm
    for axis, step, (low, high) in zip("xyz", spacing, (plane, plane, depth), strict=True):
        if not low <= step <= high:
            raise EngineError(f"spacing along {axis} is outside of {name}'s range", found=step, allowed=f"{low}-{high} mm")
    if chosen.is_ct:
        _check_ct(name, size, spacing)
    elif compat:
        if size[2] not in MR_SIZES_AT_DEPTH or size[:2] not in MR_SIZES_AT_DEPTH[size[2]]:
            allowed = (f"{x}x{y}x{z}" for z, planes in MR_SIZES_AT_DEPTH.items() for x, y in planes)
            raise EngineError(f"{name} does not make volumes of this size", found=size, allowed=allowed)
    elif any(n % 32 or not 64 <= n <= most for n, most in zip(size, chosen.max_size, strict=True)):
        raise EngineError(
            f"{name} does not make volumes of this size",
            found=size,
            allowed=f"multiples of 32 from 64 to {chosen.max_size}",
        )


def _check_ct(name: str, size: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    if size[0] != size[1] or size[0] not in CT_PLANE_SIZES or size[2] not in CT_DEPTHS:
        raise EngineError(
            f"{name} does not make volumes of this size",
            found=size,
            allowed=f"x = y in {CT_PLANE_SIZES}, z in {CT_DEPTHS}",
        )
    if spacing[0] != spacing[1]:
        raise EngineError(f"{name} needs equal spacing along x and y", found=spacing)
    if size[0] * spacing[0] < CT_SMALLEST_PLANE_MM:
        raise EngineError(
            f"the field of view is too narrow for {name}",
            found=f"{size[0] * spacing[0]:g} mm",
            allowed=f"at least {CT_SMALLEST_PLANE_MM:g} mm (384 mm advised for the trunk)",
            fix="raise the spacing or the size in x and y",
        )
