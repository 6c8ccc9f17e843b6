"""CT: Hounsfield units of the tissues, their texture, the blur of the scanner and its noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ctmr_core.cases.seeds import normal_noise
from ctmr_core.engines.tissue.context import RenderContext
from ctmr_core.engines.tissue.ct_anatomy import paint, population_tables
from ctmr_core.engines.tissue.ct_parameters import CtParameters, Kernel, Phase
from ctmr_core.engines.tissue.ct_table import HuDraw, draw_hu
from ctmr_core.engines.tissue.ct_template import fit_to_template, template_intensities, template_noise
from ctmr_core.engines.tissue.noise import correlated_noise, noise_profile, water_equivalent_diameter
from ctmr_core.engines.tissue.psf import blur, fwhm_to_sigma
from ctmr_core.engines.tissue.textures import upsample

HU_RANGE = (-1024, 3071)  # 12 bit
#: Kernel -> in-plane resolution (FWHM, mm), roll-off of the noise spectrum (1/mm), noise relative to the standard kernel.
KERNELS: dict[Kernel, tuple[float, float, float]] = {
    "soft": (1.2, 0.35, 0.8),
    "standard": (0.9, 0.45, 1.0),
    "sharp": (0.6, 0.60, 1.4),
}
_KERNEL_ODDS: dict[Kernel, float] = {"soft": 0.3, "standard": 0.5, "sharp": 0.2}
_ARTERIAL_ODDS = 0.35
#: Variance in voxels squared of a box of one voxel: averaging over the voxel. Surfaces are cut at voxel faces, wherever in
#: the voxel they lay: the scanner's own blur is taken for at least as much again, so that oblique surfaces show no steps.
_VOXEL_BOX = 1.0 / 12.0
_NOISE_AT_30CM = 11.0  # HU, measured in the liver of a routine abdominal scan with 3 mm voxels
_NOISE_BODY = (8.0, 25.0)
_NOISE_HEAD = (2.0, 5.0)
_HEAD_MM = 200.0  # water-equivalent diameter below which a slice is a head
_NOISE_PER_MM = 0.0075  # exponent per mm of diameter: half of what water takes, the tube current makes up for a part of the rest


@dataclass(frozen=True)
class CtScan:
    """What one CT scan was drawn to be: contrast phase, kernel, slice thickness (mm) and the size of the noise draw."""

    phase: Phase
    kernel: Kernel
    slice_thickness: float
    noise_draw: float


def draw_scan(context: RenderContext, sequence: str) -> CtScan:
    """The scan of ``sequence``: what ``CtParameters`` leaves open is drawn from a stream of its own."""
    settings = context.parameters.ct
    rng = context.rng(f"scan/{sequence}")
    arterial = rng.random() < _ARTERIAL_ODDS
    kernel = rng.choice(np.array(list(_KERNEL_ODDS)), p=list(_KERNEL_ODDS.values()))
    noise_draw = float(np.exp(np.clip(rng.normal(0.0, 0.15), -0.3, 0.3)))
    phase: Phase = "native"
    if sequence == "ct_contrast":
        phase = settings.phase or ("arterial" if arterial else "portal")
    return CtScan(
        phase=phase,
        kernel=settings.kernel or str(kernel),  # type: ignore[arg-type]
        slice_thickness=max(settings.slice_thickness or 0.0, context.spacing[2]),
        noise_draw=noise_draw,
    )


def render_ct(context: RenderContext, sequence: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The CT ``sequence`` of the case: int16 HU [x, y, z] in -1024..3071, and the record of what was drawn."""
    settings = context.parameters.ct
    scan = draw_scan(context, sequence)
    draw = draw_hu(scan.phase, context.rng("ct/subject"), context.rng("ct/scanner"))
    tables = population_tables(context, draw)
    sigmas = blur_sigmas(scan, context.spacing)
    hu = blur(paint(context, tables), sigmas)
    level = noise_level(hu, context.spacing, settings, scan)
    measured = template_intensities(context, sequence)
    if measured:
        level = template_noise(measured, level)
        hu = fit_to_template(context, tables, measured, level, sigmas, hu)
    add_noise(hu, context, sequence, settings, scan, level)
    return quantise(hu), {**record(scan, settings, draw, level), "intensities": "template" if measured else "population"}


def blur_sigmas(scan: CtScan, spacing: tuple[float, float, float]) -> tuple[float, float, float]:
    """Standard deviations in voxels of the scanner's blur: voxel and kernel in-plane, voxel or slice (a box) along z."""
    in_plane = fwhm_to_sigma(KERNELS[scan.kernel][0])
    thickness = scan.slice_thickness / spacing[2]
    x, y = (float(np.sqrt(_VOXEL_BOX + max((in_plane / mm) ** 2, _VOXEL_BOX))) for mm in spacing[:2])
    return (x, y, float(np.sqrt(_VOXEL_BOX * (thickness**2 + 1.0))))


def noise_level(hu: torch.Tensor, spacing: tuple[float, float, float], settings: CtParameters, scan: CtScan) -> float:
    """Mean standard deviation in HU of the noise in the body: it grows with girth, and as 1/sqrt(dose and slice thickness)."""
    if settings.noise is not None:
        return settings.noise / float(np.sqrt(settings.dose))
    diameter = water_equivalent_diameter(hu, spacing)
    level = _NOISE_AT_30CM * np.exp(_NOISE_PER_MM * (diameter - 300.0)) * scan.noise_draw
    level *= KERNELS[scan.kernel][2] * (3.0 / scan.slice_thickness) ** 0.35
    low, high = _NOISE_HEAD if diameter < _HEAD_MM else _NOISE_BODY
    return float(np.clip(level, low, high) / np.sqrt(settings.dose))


def add_noise(
    hu: torch.Tensor, context: RenderContext, sequence: str, settings: CtParameters, scan: CtScan, level: float
) -> None:
    """Add the scanner's noise to ``hu`` in place; ``level`` is its mean standard deviation in the body (HU)."""
    profile = upsample(noise_profile(hu, context.spacing).to(hu.device), context.size)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return normal_noise(shape, context.case.key, context.attempt, f"tissue/noise/{sequence}", context.threads)

    overlap = 0.5 * (1.0 - context.spacing[2] / scan.slice_thickness)
    noise = correlated_noise(
        context.size, context.spacing, KERNELS[scan.kernel][1], lag_z=0.15 + overlap, draw=draw, threads=context.threads
    ).to(hu.device)
    noise.mul_(profile)
    if settings.air_noise < 1.0:
        share = np.ones((context.code.rows, context.code.columns), np.float32)
        share[:, 0] = settings.air_noise
        noise.mul_(context.code.gather(share))
    hu.add_(noise.mul_(level))


def quantise(hu: torch.Tensor) -> np.ndarray:
    """``hu`` rounded to int16 within ``HU_RANGE``; works in place."""
    quantised: np.ndarray = hu.round_().clamp_(*HU_RANGE).to(torch.int16).to("cpu").numpy()
    return quantised


def record(scan: CtScan, settings: CtParameters, draw: HuDraw, level: float) -> dict[str, Any]:
    """What was drawn, for the catalog."""
    return {
        "phase": scan.phase,
        "kernel": scan.kernel,
        "fwhm_mm": KERNELS[scan.kernel][0],
        "slice_thickness_mm": round(scan.slice_thickness, 4),
        "dose": settings.dose,
        "noise_hu": round(level, 3),
        "scanner_offset_hu": round(draw.offset, 3),
        "scanner_gain": round(draw.gain, 5),
    }
