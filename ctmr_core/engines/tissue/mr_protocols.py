"""The protocols: which pulse sequence a scan runs and with which timing.

Ranges are those of published protocols: MPRAGE 2300/900/3/9 (ADNI 3), 3D spoiled gradient echo 20-25/4-6/25-30 (IXI,
OASIS era), FLAIR and dual-echo T2/PD after ADNI 2 and IXI, susceptibility-weighted imaging 28/20/15 (Haacke et al. 2004),
body imaging after the sequence parameters listed by the American College of Radiology.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ctmr_core.engines.tissue.mr_parameters import MrParameters, ProtocolSettings, draw
from ctmr_core.engines.tissue.mr_signals import PROTON_MHZ_PER_TESLA, null_time
from ctmr_core.errors import EngineError

Kind = Literal["spin_echo", "spoiled_gre", "mprage", "flair", "swi"]
Range = tuple[float, float]


@dataclass(frozen=True)
class Protocol:
    """One way to acquire a sequence. Times in ms, angles in degrees, ``weight`` relative to the others of the sequence.

    ti: in ms; for ``flair`` relative to the time that nulls cerebrospinal fluid (which real scans miss by a little).
    te: in ms; for ``te_in_phase`` the echo is put where water and fat are in phase; for ``swi`` it is the echo time at 3 T.
    noise: default percent of the reference tissue. inu: default percent.
    """

    name: str
    kind: Kind
    tr: Range
    te: Range
    ti: Range = (0.0, 0.0)
    flip: Range = (90.0, 90.0)
    weight: float = 1.0
    te_in_phase: bool = False
    noise: Range = (1.0, 4.0)
    inu: Range = (10.0, 35.0)


#: (vocabulary, sequence) -> protocols. T2 and PD noise is given in percent of the bright cerebrospinal fluid.
PROTOCOLS: dict[tuple[str, str], tuple[Protocol, ...]] = {
    ("brain", "mri_t1"): (
        Protocol("mprage", "mprage", (2100, 2500), (2.5, 4.0), (880, 1000), (8, 10), weight=0.8),
        Protocol("spoiled_gre", "spoiled_gre", (19, 25), (4.0, 6.0), flip=(25, 30), weight=0.2),
    ),
    ("brain", "mri_t2"): (Protocol("tse", "spin_echo", (4000, 6000), (80, 110), noise=(0.4, 1.4)),),
    ("brain", "mri_pd"): (Protocol("tse", "spin_echo", (2500, 3500), (15, 35), noise=(0.8, 2.5)),),
    ("brain", "mri_flair"): (Protocol("tse", "flair", (8500, 10500), (90, 130), ti=(0.9, 1.02), noise=(1.5, 4.0)),),
    ("brain", "mri_swi"): (Protocol("gre", "swi", (27, 32), (18, 22), flip=(13, 17), noise=(1.0, 3.0)),),
    ("maisi", "mri_t1"): (
        Protocol("spoiled_gre", "spoiled_gre", (100, 180), (2.3, 4.6), flip=(65, 80), te_in_phase=True, inu=(20, 50)),
        Protocol("tse", "spin_echo", (500, 750), (8, 14), weight=0.5, inu=(20, 50)),
    ),
    ("maisi", "mri_t2"): (Protocol("tse", "spin_echo", (3000, 5500), (75, 105), noise=(1.5, 5.0), inu=(20, 50)),),
    ("maisi", "mri_pd"): (Protocol("tse", "spin_echo", (2500, 3500), (15, 35), noise=(1.0, 3.0), inu=(20, 50)),),
}


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


def protocol_names(sequence: str) -> list[str]:
    """The names of every protocol of ``sequence``, of heads and of bodies."""
    return sorted({protocol.name for (_, name), protocols in PROTOCOLS.items() if name == sequence for protocol in protocols})


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
