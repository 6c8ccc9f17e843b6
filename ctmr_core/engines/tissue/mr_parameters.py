"""What a recipe can set on the MR sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from ctmr_core.anatomy.sequences import SKULL_STRIPPED
from ctmr_core.engines.tissue.mr_protocols import protocol_names


def _within(low: float, high: float, unit: str) -> Callable[[Any], Any]:
    def check(value: float | tuple[float, float]) -> float | tuple[float, float]:
        first, last = value if isinstance(value, tuple) else (value, value)
        if not low <= first <= last <= high:
            raise ValueError(f"must be a number or a rising pair within {low:g}..{high:g} {unit}".rstrip())
        return value

    return check


_Number = Annotated[float, Field(allow_inf_nan=False)]
_NumberOrRange = _Number | tuple[_Number, _Number]
Milliseconds = Annotated[_NumberOrRange, AfterValidator(_within(0.1, 20000, "ms"))]
Degrees = Annotated[_NumberOrRange, AfterValidator(_within(1, 180, "degrees"))]
Tesla = Annotated[_NumberOrRange, AfterValidator(_within(0.5, 7, "T"))]
NoisePercent = Annotated[_NumberOrRange, AfterValidator(_within(0, 50, "%"))]
InuPercent = Annotated[_NumberOrRange, AfterValidator(_within(0, 150, "%"))]
Voxels = Annotated[_NumberOrRange, AfterValidator(_within(0.5, 4, "voxels"))]

#: The sequences whose protocol can be set; a skull-stripped image is the same scan, stripped.
PROTOCOL_SEQUENCES = ("mri_t1", "mri_t2", "mri_flair", "mri_pd", "mri_swi")


class ProtocolSettings(BaseModel):
    """Timing of one sequence. A number fixes, a pair [low, high] is drawn from evenly, None takes the protocol's own range.

    name: one of the protocols of the sequence (``mr_protocols.PROTOCOLS``); None draws one.
    tr, te, ti: repetition, echo and inversion time in ms. flip: excitation angle in degrees.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    tr: Milliseconds | None = None
    te: Milliseconds | None = None
    ti: Milliseconds | None = None
    flip: Degrees | None = None


class MrParameters(BaseModel):
    """Settings of the MR sequences; a number fixes, a pair [low, high] is drawn from evenly, None takes the protocol's range.

    field_strength: T; one draw for all sequences of a case.
    protocols: sequence name (without ``_skull_stripped``) -> timing.
    noise_percent: standard deviation of the noise of each receive channel in percent of the signal of the reference tissue
        (BrainWeb's convention: white matter for T1, FLAIR and SWI, cerebrospinal fluid for T2 and PD; in bodies muscle for
        T1 and PD, spleen for T2).
    inu_percent: peak-to-peak intensity non-uniformity; 20 is a coil field of 0.90..1.10 over the body (BrainWeb).
    psf_voxels: full width at half maximum of the point spread function in voxels, partial volume included.
    gibbs: depth of the truncation ringing, 0 = none, 1 = a side lobe of 5 %.
    fat_suppression: spectral fat saturation.
    texture: scale of the texture inside tissues; 0 = flat tissues.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    field_strength: Tesla = (1.5, 3.0)
    protocols: dict[str, ProtocolSettings] = Field(default_factory=dict)
    noise_percent: NoisePercent | None = None
    inu_percent: InuPercent | None = None
    psf_voxels: Voxels = (1.35, 1.65)
    gibbs: Annotated[_NumberOrRange, AfterValidator(_within(0, 2, ""))] = (0.0, 0.6)
    fat_suppression: bool = False
    texture: Annotated[float, Field(ge=0, le=3)] = 1.0

    @field_validator("protocols")
    @classmethod
    def _sequences_have_protocols(cls, protocols: dict[str, ProtocolSettings]) -> dict[str, ProtocolSettings]:
        for sequence, settings in protocols.items():
            if sequence not in PROTOCOL_SEQUENCES:
                hint = f"; {SKULL_STRIPPED} images share the protocol" if sequence.endswith(SKULL_STRIPPED) else ""
                raise ValueError(f"unknown sequence {sequence!r}; allowed: {', '.join(PROTOCOL_SEQUENCES)}{hint}")
            if settings.name is not None and settings.name not in protocol_names(sequence):
                allowed = ", ".join(protocol_names(sequence))
                raise ValueError(f"{sequence} has no protocol {settings.name!r}; allowed: {allowed}")
        return protocols


def draw(value: _NumberOrRange, rng: np.random.Generator) -> float:
    """``value`` itself, or an even draw from the pair; always takes one number from ``rng``."""
    low, high = value if isinstance(value, tuple) else (value, value)
    return float(low + (high - low) * rng.random())
