"""The protocols: which pulse sequence a scan runs and with which timing.

Ranges are those of published protocols: MPRAGE 2300/900/3/9 (ADNI 3), 3D spoiled gradient echo 20-25/4-6/25-30 (IXI,
OASIS era), FLAIR and dual-echo T2/PD after ADNI 2 and IXI, susceptibility-weighted imaging 28/20/15 (Haacke et al. 2004),
body imaging after the sequence parameters listed by the American College of Radiology.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


def protocol_names(sequence: str) -> list[str]:
    """The names of every protocol of ``sequence``, of heads and of bodies."""
    return sorted({protocol.name for (_, name), protocols in PROTOCOLS.items() if name == sequence for protocol in protocols})
