"""Magnetic resonance images from a label map: tissues -> signal equations -> texture, blur, coil field, noise.

The volume is worked through in slabs of planes that stay in the processor's cache; every step is one pass over a slab.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ctmr_core.anatomy.sequences import SKULL_STRIPPED
from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.engines.tissue.context import RenderContext
from ctmr_core.engines.tissue.mr_acquisition import Acquisition, draw_acquisition
from ctmr_core.engines.tissue.mr_boundaries import soft_boundaries
from ctmr_core.engines.tissue.mr_brain_mask import brain_mask, edge_weights
from ctmr_core.engines.tissue.mr_contrast import TissueSignals, tissue_signals
from ctmr_core.engines.tissue.mr_fields import CoilField, PointSpread, coil_field
from ctmr_core.engines.tissue.mr_parameters import MrParameters, draw
from ctmr_core.engines.tissue.mr_protocols import PROTOCOLS
from ctmr_core.engines.tissue.mr_relaxation import Relaxation, chemical_shift_of_fat, relaxation_at
from ctmr_core.engines.tissue.mr_susceptibility import GradientEchoField, gradient_echo_field
from ctmr_core.errors import EngineError

_STRIPPED = ("mri_t1", "mri_t2", "mri_flair", "mri_swi")  # the sequences with a skull-stripped name of their own
_SLAB_VOXELS = 1 << 19  # voxels worked on at a time: a few float32 copies fit a processor's cache
_SEPTUM_RAGGED = 0.4  # of the fine texture in the place of a sheet: real sheets wind and are broken
_SEPTUM_HALF_WIDTH = 0.3  # of a sheet of fat, in standard deviations of the coarse texture: its zero surface is the sheet

Tables = tuple[np.ndarray, ...]

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


def render_mr(context: RenderContext, sequence: str, parameters: MrParameters | None = None) -> tuple[np.ndarray, dict[str, Any]]:
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
    relaxation, acquisition = _draw_scan(context, base, parameters)
    signals = tissue_signals(relaxation, acquisition)
    rng = context.rng(f"receiver/{base}")
    scale_tissue, scale_value = SCALE[vocabulary.name]
    unit = scale_value * rng.uniform(0.9, 1.1) / _signal_of(signals, scale_tissue)
    noise_tissue = NOISE_REFERENCE.get((vocabulary.name, base), scale_tissue)
    sigma = acquisition.noise_percent / 100 * _signal_of(signals, noise_tissue) * unit
    psf_fwhm, gibbs = draw(parameters.psf_voxels, rng), draw(parameters.gibbs, rng)
    receiver = _Receiver(
        PointSpread.of(psf_fwhm, gibbs),
        coil_field(context.tissues, acquisition.inu_percent, vocabulary.name == "brain", rng),
        sigma,
        _field_shift(context, relaxation, acquisition) if acquisition.kind == "swi" else None,
        brain_mask(context.labels, context.tissues, vocabulary, context.spacing) if stripped else None,
    )
    image = _image(context, base, _scaled(signals, unit, parameters.texture), receiver)
    return image, acquisition.record() | {
        "psf_voxels": round(psf_fwhm, 3),
        "gibbs": round(gibbs, 3),
        "noise_sigma": round(sigma, 2),
        f"{scale_tissue}_signal": round(_signal_of(signals, scale_tissue) * unit, 1),
    }


@dataclass(frozen=True, eq=False)
class _Receiver:
    """What turns the signal of the body into an image; ``sigma`` in image units, ``mask`` only for skull stripping."""

    psf: PointSpread
    coil: CoilField
    sigma: float
    field: GradientEchoField | None
    mask: torch.Tensor | None


def _base(sequence: str) -> tuple[str, bool]:
    stripped = sequence.endswith(SKULL_STRIPPED)
    return sequence.removesuffix(SKULL_STRIPPED), stripped


def _draw_scan(context: RenderContext, base: str, parameters: MrParameters) -> tuple[Relaxation, Acquisition]:
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
    return relaxation, acquisition


def _field_shift(context: RenderContext, relaxation: Relaxation, acquisition: Acquisition) -> GradientEchoField:
    return gradient_echo_field(
        context.tissues,
        relaxation.susceptibility,
        context.spacing,
        acquisition.field_strength,
        acquisition.te,
        context.threads,
    )


def _signal_of(signals: TissueSignals, tissue: str) -> float:
    """The signal of a reference tissue; never so small that an odd protocol divides by nothing."""
    return max(float(signals.mean[tissue_id(tissue)]), 1e-3 * float(signals.mean.max()), 1e-12)


def _scaled(signals: TissueSignals, unit: float, texture: float) -> Tables:
    """Signal tables in image units, float32: mean, fine, coarse, septa."""
    varying = [(table * (unit * texture)).astype(np.float32) for table in (signals.fine, signals.coarse, signals.septa)]
    return ((signals.mean * unit).astype(np.float32), *varying)


def _image(context: RenderContext, base: str, tables: Tables, receiver: _Receiver) -> np.ndarray:
    """The volume, slab by slab: int16 [x, y, z]."""
    tissues = context.tissues
    tensors = [torch.from_numpy(table).to(context.device) for table in tables]
    textured = any(bool(table.any()) for table in tables[1:])
    fine, coarse = (context.band("fine"), context.band("coarse")) if textured else (None, None)
    real, imaginary = (context.normal(f"noise/{base}/{part}") for part in ("real", "imaginary"))
    boundaries = soft_boundaries(tissues, tensors[0], context.spacing) if textured else None
    nx, ny, nz = context.size
    planes = max(1, _SLAB_VOXELS // (ny * nz))
    image = np.empty((nx, ny, nz), np.int16)
    for start in range(0, nx, planes):
        stop = min(start + planes, nx)
        low, high = max(start - receiver.psf.reach, 0), min(stop + receiver.psf.reach, nx)
        window = slice(low, high)
        slab = _slab_signal(
            tissues[window], tensors, None if fine is None else fine[window], None if coarse is None else coarse[window]
        )
        if boundaries is not None:
            boundaries.apply(slab, low)
        slab = receiver.psf.blur(slab, 0)[start - low : stop - low]
        slab = receiver.psf.blur(receiver.psf.blur(slab, 1), 2)
        if receiver.field is not None:
            receiver.field.apply(slab, start, stop)
        slab *= receiver.coil.slab(start, stop)
        slab = rician(slab, real[start:stop], imaginary[start:stop], receiver.sigma)
        if receiver.mask is not None:
            slab *= edge_weights(receiver.mask, start, stop)
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
        signal += torch.index_select(tables[2], 0, index).view(tissues.shape).mul_(coarse)
        sheet = (fine * _SEPTUM_RAGGED).add_(coarse).abs_().mul_(-1.0 / _SEPTUM_HALF_WIDTH).add_(1.0).clamp_(min=0.0)
        signal += sheet.mul_(torch.index_select(tables[3], 0, index).view(tissues.shape))
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
