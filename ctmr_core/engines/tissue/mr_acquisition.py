"""Drawing one scan of a sequence: its protocol, timing, noise and non-uniformity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ctmr_core.engines.tissue.mr_parameters import MrParameters, ProtocolSettings, draw
from ctmr_core.engines.tissue.mr_protocols import PROTOCOLS, Kind, Protocol
from ctmr_core.engines.tissue.mr_signals import PROTON_MHZ_PER_TESLA, null_time
from ctmr_core.errors import EngineError


@dataclass(frozen=True)
class Acquisition:
    """One drawn scan: field strength in T, times in ms, flip angle in degrees, noise and non-uniformity in percent."""

    protocol: str
    kind: Kind
    field_strength: float
    tr: float
    te: float
    ti: float
    flip: float
    noise_percent: float
    inu_percent: float
    fat_suppression: bool

    def record(self) -> dict[str, Any]:
        """The acquisition for the case's record; times the pulse sequence doesn't have are left out."""
        record: dict[str, Any] = {
            "protocol": self.protocol,
            "pulse_sequence": self.kind,
            "field_strength_t": round(self.field_strength, 3),
            "tr_ms": round(self.tr, 2),
            "te_ms": round(self.te, 2),
        }
        if self.kind in ("mprage", "flair"):
            record["ti_ms"] = round(self.ti, 1)
        if self.kind in ("mprage", "spoiled_gre", "swi"):
            record["flip_deg"] = round(self.flip, 2)
        return record | {
            "noise_percent": round(self.noise_percent, 3),
            "inu_percent": round(self.inu_percent, 2),
            "fat_suppression": self.fat_suppression,
        }


def draw_acquisition(
    sequence: str,
    vocabulary: str,
    parameters: MrParameters,
    field_strength: float,
    csf_t1: float,
    chemical_shift_ppm: float,
    rng: np.random.Generator,
) -> Acquisition:
    """One scan of ``sequence``, within the protocol's ranges or those of ``parameters``.

    csf_t1: T1 of cerebrospinal fluid in ms, which FLAIR nulls. chemical_shift_ppm: of fat against water.
    """
    settings = parameters.protocols.get(sequence, ProtocolSettings())
    protocol = _choose(PROTOCOLS[vocabulary, sequence], settings.name, sequence, rng)
    tr, te, ti, flip = (draw(range_, rng) for range_ in (protocol.tr, protocol.te, protocol.ti, protocol.flip))
    if protocol.kind == "swi":  # the phase goes with field strength x echo time: long echoes at low field
        rest = tr - te
        te *= 3.0 / field_strength
        tr = te + rest
    if protocol.te_in_phase:
        period = 1000.0 / (chemical_shift_ppm * PROTON_MHZ_PER_TESLA * field_strength)
        te = period * max(1.0, round(te / period))
    tr, te, flip = (
        drawn if value is None else draw(value, rng)
        for drawn, value in ((tr, settings.tr), (te, settings.te), (flip, settings.flip))
    )
    if settings.ti is not None:
        ti = draw(settings.ti, rng)
    elif protocol.kind == "flair":
        ti *= null_time(csf_t1, tr)
    noise = draw(protocol.noise if parameters.noise_percent is None else parameters.noise_percent, rng)
    inu = draw(protocol.inu if parameters.inu_percent is None else parameters.inu_percent, rng)
    return Acquisition(protocol.name, protocol.kind, field_strength, tr, te, ti, flip, noise, inu, parameters.fat_suppression)


def _choose(protocols: tuple[Protocol, ...], name: str | None, sequence: str, rng: np.random.Generator) -> Protocol:
    weights = np.array([protocol.weight for protocol in protocols])
    chosen = protocols[int(rng.choice(len(protocols), p=weights / weights.sum()))]
    if name is None:
        return chosen
    for protocol in protocols:
        if protocol.name == name:
            return protocol
    raise EngineError(
        f"{sequence} of this kind of body has no such protocol",
        where=f"engine_parameters, field mr.protocols.{sequence}.name",
        found=name,
        allowed=[protocol.name for protocol in protocols],
    )
