"""The signal of every tissue in one scan, and how it varies inside the tissue."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.engines.tissue import mr_signals
from ctmr_core.engines.tissue.mr_acquisition import Acquisition
from ctmr_core.engines.tissue.mr_relaxation import Relaxation

_FAT_LEFT = 0.08  # of the fat signal after spectral saturation: field inhomogeneity and olefinic protons
_FAT_ECHO_TRAIN = 1.35  # apparent T2 of fat in turbo spin echo: J-coupling is undone (Henkelman et al. 1992)
_WASHOUT_MS = 12.0  # echo time after which freely flowing blood has left its refocusing pulse (spin-echo flow void)
_STEP = 0.05  # relative change of the water content for the derivative


@dataclass(frozen=True, eq=False)
class TissueSignals:
    """One value per tissue id, float64 [tissues], arbitrary units.

    mean: signal. fine, coarse: change of the signal per standard deviation of the body's fine and coarse texture; signed,
    so that a moister spot is darker on T1 and brighter on T2, in every sequence of the case at the same place. septa: change
    of the signal inside the sheets of fat between strands and lobules.
    """

    mean: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray
    septa: np.ndarray


def tissue_signals(relaxation: Relaxation, acquisition: Acquisition) -> TissueSignals:
    """The signals of all tissues in ``acquisition``."""
    fat = tissue_id("subcutaneous_fat")
    water = _signal(relaxation, acquisition)
    fraction = relaxation.fat_fraction
    fat_signal = np.where(fraction > 0, water[fat], 0.0)
    if acquisition.fat_suppression:
        fat_signal = fat_signal * _FAT_LEFT
        water = np.where(np.arange(len(water)) == fat, water * _FAT_LEFT, water)
    mean = (1 - fraction) * water + fraction * fat_signal

    moister = replace(
        relaxation,
        t1=relaxation.t1 * (1 + _STEP),
        t2=relaxation.t2 * (1 + _STEP),
        t2star=relaxation.t2star * (1 + _STEP),
        pd=relaxation.pd * (1 + _STEP / 3),
    )
    change = (_signal(moister, acquisition) - _signal(relaxation, acquisition)) / _STEP * (1 - fraction)
    # Where T1 and T2 cancel (PD weighting) tissue would be flat: keep at least half of the tabled variation.
    change = np.where(np.abs(change) < 0.5 * mean, np.where(change < 0, -0.5, 0.5) * mean, change)
    fine = change * relaxation.texture / 100
    coarse = change * relaxation.variation / 100
    septa = (fat_signal - water) * relaxation.fat_variation
    return TissueSignals(mean, fine, coarse, septa)


def _signal(relaxation: Relaxation, acquisition: Acquisition) -> np.ndarray:
    """Of the water part of every tissue (and of fat itself), with flow, float64 [tissues]."""
    tr, te, ti, flip = acquisition.tr, acquisition.te, acquisition.ti, acquisition.flip
    t1, t2star, flow = relaxation.t1, relaxation.t2star, relaxation.flow
    if acquisition.kind in ("spin_echo", "flair"):
        t2 = np.where(relaxation.fat_fraction > 0.5, relaxation.t2 * _FAT_ECHO_TRAIN, relaxation.t2)
        if acquisition.kind == "spin_echo":
            signal = mr_signals.spin_echo(t1, t2, tr, te)
        else:
            signal = mr_signals.inversion_spin_echo(t1, t2, tr, te, ti)
        return relaxation.pd * signal * np.exp(-flow * te / _WASHOUT_MS)
    if acquisition.kind == "mprage":
        signal = mr_signals.mprage(t1, t2star, tr, te, ti, flip)
    else:
        signal = mr_signals.spoiled_gre(t1, t2star, tr, te, flip)
    # Inflow: spins that have not been excited before carry the full magnetisation; a quarter of them stays fresh in 3D.
    fresh = np.sin(np.deg2rad(flip)) * np.exp(-te / np.where(t2star > 0, t2star, np.inf)) * (t2star > 0)
    share = 0.25 * flow
    return relaxation.pd * ((1 - share) * signal + share * np.maximum(fresh, signal))
