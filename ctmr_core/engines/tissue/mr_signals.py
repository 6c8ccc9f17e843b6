"""The signal equations: what a tissue looks like in a pulse sequence.

All functions work on arrays (one value per tissue) and return magnitudes relative to a proton density of 1. Times in ms,
angles in degrees. Derivations: Bernstein, King, Zhou, "Handbook of MRI Pulse Sequences" (2004).
"""

from __future__ import annotations

import numpy as np

PROTON_MHZ_PER_TESLA = 42.577  # gyromagnetic ratio of the proton / 2 pi, CODATA


def spin_echo(t1: np.ndarray, t2: np.ndarray, tr: float, te: float) -> np.ndarray:
    """Spin echo, and turbo spin echo at its effective echo time: (1 - 2 e^{-(TR - TE/2)/T1} + e^{-TR/T1}) e^{-TE/T2}."""
    longitudinal = 1 - 2 * _decay(tr - te / 2, t1) + _decay(tr, t1)
    return np.abs(longitudinal) * _decay(te, t2)


def inversion_spin_echo(t1: np.ndarray, t2: np.ndarray, tr: float, te: float, ti: float) -> np.ndarray:
    """Inversion recovery spin echo: |1 - 2 e^{-TI/T1} + 2 e^{-(TR - TE/2)/T1} - e^{-TR/T1}| e^{-TE/T2}."""
    longitudinal = 1 - 2 * _decay(ti, t1) + 2 * _decay(tr - te / 2, t1) - _decay(tr, t1)
    return np.abs(longitudinal) * _decay(te, t2)


def null_time(t1: float, tr: float) -> float:
    """The inversion time that nulls a tissue of this T1: T1 ln(2 / (1 + e^{-TR/T1})), ms."""
    return float(t1 * np.log(2.0 / (1.0 + np.exp(-tr / t1))))


def spoiled_gre(t1: np.ndarray, t2star: np.ndarray, tr: float, te: float, flip: float) -> np.ndarray:
    """Spoiled gradient echo in the steady state (Ernst): sin a (1 - E1) / (1 - E1 cos a) e^{-TE/T2*}."""
    angle = np.deg2rad(flip)
    e1 = _decay(tr, t1)
    return np.sin(angle) * (1 - e1) / (1 - e1 * np.cos(angle)) * _decay(te, t2star)


def mprage(
    t1: np.ndarray,
    t2star: np.ndarray,
    tr: float,
    te: float,
    ti: float,
    flip: float,
    pulses: int = 160,
    echo_spacing: float = 7.5,
) -> np.ndarray:
    """MPRAGE: inversion, a train of small-angle pulses centred on TI, recovery; iterated to its steady state.

    tr: from inversion to inversion. ti: from the inversion to the middle of the train. The train is shortened where it
    doesn't fit between inversion and the next one.
    """
    room = 2 * min(ti, tr - ti)
    pulses = max(2, min(pulses, int(room / echo_spacing)))
    angle = np.deg2rad(flip)
    before = ti - pulses / 2 * echo_spacing
    after = tr - before - pulses * echo_spacing
    e_before, e_train, e_after = _decay(before, t1), _decay(echo_spacing, t1), _decay(after, t1)
    # One pulse and its recovery: m -> m cos(a) E + (1 - E); n of them in a row are again of the form gain m + offset.
    gain = np.cos(angle) * e_train
    fixed_point = (1 - e_train) / (1 - gain)
    m = np.ones_like(np.asarray(t1, float))
    centre = m
    for _ in range(12):
        m = 1 - (1 + m) * e_before
        centre = fixed_point + (m - fixed_point) * gain ** (pulses // 2)
        m = fixed_point + (m - fixed_point) * gain**pulses
        m = 1 - (1 - m) * e_after
    return np.abs(centre) * np.sin(angle) * _decay(te, t2star)


def _decay(time: float, constant: np.ndarray) -> np.ndarray:
    """e^{-time / constant}, 0 where the constant is 0 (no protons)."""
    constant = np.asarray(constant, float)
    safe = np.where(constant > 0, constant, 1.0)
    return np.where(constant > 0, np.exp(-max(time, 0.0) / safe), 0.0)
