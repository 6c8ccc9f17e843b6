"""Magnetic resonance images from a label map: tissues -> signal equations -> texture, blur, coil field, noise.

The volume is worked through in slabs of planes that stay in the processor's cache; every step is one pass over a slab.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ctmr_core.anatomy.sequences import SKULL_STRIPPED
from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.engines.tissue.context import RenderContext
from ctmr_core.engines.tissue.mr_brain_mask import brain_mask, edge_weights
from ctmr_core.engines.tissue.mr_contrast import TissueSignals, tissue_signals
from ctmr_core.engines.tissue.mr_fields import CoilField, PointSpread, coil_field
from ctmr_core.engines.tissue.mr_parameters import MrParameters, draw
from ctmr_core.engines.tissue.mr_protocols import PROTOCOLS, Acquisition, draw_acquisition
from ctmr_core.engines.tissue.mr_relaxation import Relaxation, chemical_shift_of_fat, relaxation_at
from ctmr_core.engines.tissue.mr_susceptibility import GradientEchoField, gradient_echo_field
from ctmr_core.errors import EngineError

_STRIPPED = ("mri_t1", "mri_t2", "mri_flair", "mri_swi")  # the sequences with a skull-stripped name of their own
_SLAB_VOXELS = 1 << 19  # voxels worked on at a time: a few float32 copies fit a processor's cache
_COARSE_LIMIT = 1.6  # standard deviations of the coarse texture: lobes of fat and muscle have a most and a least
_COARSE_GAIN = 1.3

#: vocabulary -> (tissue, its signal in the image): the scale of the images.
SCALE = {"brain": ("cerebral_white_matter", 1000.0), "maisi": ("muscle", 300.0)}
#: (vocabulary, sequence) -> tissue whose signal ``noise_percent`` refers to, where it isn't the one of ``SCALE``.
NOISE_REFERENCE = {
    ("brain", "mri_t2"): "csf_ventricular",
    ("brain", "mri_pd"): "csf_ventricular",
    ("maisi", "mri_t2"): "spleen",
}


def supported(sequence: str, vocabulary: str) -> bool:
    """Whether ``sequence`` can be rendered from label maps of ``vocabulary``."""
    base, stripped = _base(sequence)
    return (vocabulary, base) in PROTOCOLS and (not stripped or (vocabulary == "brain" and base in _STRIPPED))


def supported_sequences(vocabulary: str | None = None) -> frozenset[str]:
    """Every MR sequence this engine renders, of one vocabulary or of any."""
    vocabularies = (vocabulary,) if vocabulary else tuple(SCALE)
    names = {base for _, base in PROTOCOLS} | {base + SKULL_STRIPPED for base in _STRIPPED}
    return frozenset(name for name in names if any(supported(name, each) for each in vocabularies))


def render_mr(
    context: RenderContext, sequence: str, parameters: MrParameters | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """The image of ``sequence``: int16 [x, y, z], 0..32767, and the record of what was drawn.

    White matter (heads) is near 1000, muscle (bodies) near 300, times a receiver gain of 0.9-1.1. A skull-stripped image
    is the same scan as the unstripped one, outside the brain mask exactly 0.
    Raises ``EngineError`` for a sequence that can't be rendered from this vocabulary.
    """
    vocabulary = context.label_map.vocabulary
    if not supported(sequence, vocabulary.name):
        raise EngineError(
            f"the tissue engine has no MR sequence of this name for {vocabulary.name} label maps",
            found=sequence,
            allowed=sorted(supported_sequences(vocabulary.name)),
        )
    if parameters is None:
        from ctmr_core.engines.tissue.parameters import read_parameters

        parameters = read_parameters(context.case.engine_parameters).mr
    base, stripped = _base(sequence)
    scan = _draw_scan(context, base, parameters)
    signals, relaxation, acquisition = scan
    rng = context.rng(f"receiver/{base}")
    scale_tissue, scale_value = SCALE[vocabulary.name]
    unit = scale_value * rng.uniform(0.9, 1.1) / _reference(signals, acquisition, relaxation, scale_tissue)
    noise_tissue = NOISE_REFERENCE.get((vocabulary.name, base), scale_tissue)
    sigma = acquisition.noise_percent / 100 * _reference(signals, acquisition, relaxation, noise_tissue) * unit
    psf_fwhm, gibbs = draw(parameters.psf_voxels, rng), draw(parameters.gibbs, rng)
    coil = coil_field(context.tissues, acquisition.inu_percent, vocabulary.name == "brain", rng)
    field = None
    if acquisition.kind == "swi":
        field = gradient_echo_field(
            context.tissues,
            relaxation.susceptibility,
            context.spacing,
            acquisition.field_strength,
            acquisition.te,
            context.threads,
        )
    mask = brain_mask(context.labels, context.tissues, vocabulary, context.spacing) if stripped else None
    image = _image(context, base, _scaled(signals, unit, parameters.texture), PointSpread.of(psf_fwhm, gibbs), coil, field, sigma, mask)
    record = acquisition.record() | {
        "psf_voxels": round(psf_fwhm, 3),
        "gibbs": round(gibbs, 3),
        "noise_sigma": round(sigma, 2),
        f"{scale_tissue}_signal": round(float(signals.mean[tissue_id(scale_tissue)] * unit), 1),
    }
    return image, record


def _base(sequence: str) -> tuple[str, bool]:
    stripped = sequence.endswith(SKULL_STRIPPED)
    return sequence.removesuffix(SKULL_STRIPPED), stripped


def _draw_scan(
    context: RenderContext, base: str, parameters: MrParameters
) -> tuple[TissueSignals, Relaxation, Acquisition]:
    """The subject's relaxation times, the same in all sequences of a case, and one acquisition of ``base``."""
    field_strength = draw(parameters.field_strength, context.rng("mr/field_strength"))
    relaxation = relaxation_at(field_strength, context.rng("mr/relaxation"))
    acquisition = draw_acquisition(
        base,
        context.label_map.vocabulary.name,
        parameters,
        field_strength,
        float(relaxation.t1[tissue_id("csf_ventricular")]),
        chemical_shift_of_fat(),
        context.rng(f"protocol/{base}"),
    )
    return tissue_signals(relaxation, acquisition), relaxation, acquisition


def _reference(signals: TissueSignals, acquisition: Acquisition, relaxation: Relaxation, tissue: str) -> float:
    """The signal of a reference tissue; never so small that an odd protocol divides by nothing."""
    del acquisition, relaxation
    return max(float(signals.mean[tissue_id(tissue)]), 1e-3 * float(signals.mean.max()), 1e-12)


def _scaled(signals: TissueSignals, unit: float, texture: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean, fine, coarse = signals.mean * unit, signals.fine * (unit * texture), signals.coarse * (unit * texture)
    return mean.astype(np.float32), fine.astype(np.float32), coarse.astype(np.float32)


def _image(
    context: RenderContext,
    base: str,
    tables: tuple[np.ndarray, np.ndarray, np.ndarray],
    psf: PointSpread,
    coil: CoilField,
    field: GradientEchoField | None,
    sigma: float,
    mask: torch.Tensor | None,
) -> np.ndarray:
    """The volume, slab by slab: int16 [x, y, z]."""
    tissues = context.tissues
    tensors = [torch.from_numpy(table).to(context.device) for table in tables]
    textured = bool(tables[1].any() or tables[2].any())
    fine, coarse = (context.band("fine"), context.band("coarse")) if textured else (None, None)
    real, imaginary = (context.normal(f"noise/{base}/{part}") for part in ("real", "imaginary"))
    nx, ny, nz = context.size
    planes = max(1, _SLAB_VOXELS // (ny * nz))
    image = np.empty((nx, ny, nz), np.int16)
    for start in range(0, nx, planes):
        stop = min(start + planes, nx)
        low, high = max(start - psf.reach, 0), min(stop + psf.reach, nx)
        window = slice(low, high)
        slab = _slab_signal(
            tissues[window], tensors, None if fine is None else fine[window], None if coarse is None else coarse[window]
        )
        slab = psf.blur(slab, 0)[start - low : stop - low]
        slab = psf.blur(psf.blur(slab, 1), 2)
        if field is not None:
            field.apply(slab, start, stop)
        slab *= coil.slab(start, stop)
        slab = rician(slab, real[start:stop], imaginary[start:stop], sigma)
        if mask is not None:
            slab *= edge_weights(mask, start, stop)
        image[start:stop] = slab.round_().clamp_(0, 32767).to(torch.int16).cpu().numpy()
    return image


def _slab_signal(
    tissues: torch.Tensor, tables: list[torch.Tensor], fine: torch.Tensor | None, coarse: torch.Tensor | None
) -> torch.Tensor:
    """Signal with texture, before any blur; new tensor float32."""
    index = tissues.reshape(-1).to(torch.int32)
    signal = torch.index_select(tables[0], 0, index).view(tissues.shape)
    if fine is not None and coarse is not None:
        signal += torch.index_select(tables[1], 0, index).view(tissues.shape).mul_(fine)
        lobes = (coarse * _COARSE_GAIN).clamp_(-_COARSE_LIMIT, _COARSE_LIMIT)
        signal += lobes.mul_(torch.index_select(tables[2], 0, index).view(tissues.shape))
        signal.clamp_(min=0)
    return signal


def rician(signal: torch.Tensor, real: torch.Tensor, imaginary: torch.Tensor, sigma: float) -> torch.Tensor:
    """The magnitude |signal + sigma real + i sigma imaginary|: Rician in tissue, Rayleigh in air; changes ``signal``.

    real, imaginary: standard normal noise of the same shape (left as it is).
    """
    if sigma <= 0:
        return signal.abs_()
    noise = real * sigma
    signal += noise
    signal *= signal
    torch.mul(imaginary, sigma, out=noise)
    noise *= noise
    signal += noise
    return signal.sqrt_()
