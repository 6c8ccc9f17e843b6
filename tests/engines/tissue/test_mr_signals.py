"""The signal equations against their closed forms and against a step-by-step simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctmr_core.engines.tissue import mr_signals

T1 = np.array([600.0, 1400.0, 4000.0])
T2 = np.array([70.0, 90.0, 1200.0])


def test_a_long_repetition_time_leaves_only_the_echo_decay():
    assert mr_signals.spin_echo(T1, T2, tr=1e6, te=90.0) == pytest.approx(np.exp(-90.0 / T2))


def test_tissue_without_protons_gives_no_signal():
    zero = np.zeros(1)
    assert mr_signals.spin_echo(zero, zero, 3000, 90) == 0
    assert mr_signals.spoiled_gre(zero, zero, 20, 5, 25) == 0
    assert mr_signals.mprage(zero, zero, 2300, 3, 900, 9) == 0


def test_the_ernst_angle_gives_the_brightest_spoiled_gradient_echo():
    ernst = float(np.rad2deg(np.arccos(np.exp(-20.0 / 600.0))))
    best, below, above = (mr_signals.spoiled_gre(T1[:1], T2[:1], 20.0, 2.0, ernst + step)[0] for step in (0.0, -3.0, 3.0))
    assert best > max(below, above)


@pytest.mark.parametrize(("t1", "expected"), [(4163.0, 2432.0), (2569.0, 1705.0)])
def test_null_times_of_cerebrospinal_fluid_at_3_and_1_5_tesla(t1, expected):
    assert mr_signals.null_time(t1, 9000.0) == pytest.approx(expected, abs=2.0)


@given(st.floats(200, 5000), st.floats(3000, 12000))
def test_the_null_time_nulls_a_spin_inversion(t1, tr):
    ti = mr_signals.null_time(t1, tr)
    # At an echo time of nothing the inversion recovery of spins left alone until TR is (1 - 2 e^-TI/T1 + e^-TR/T1).
    signal = mr_signals.inversion_spin_echo(np.array([t1]), np.array([1e9]), tr, 1e-9, ti)
    assert signal[0] == pytest.approx(0.0, abs=1e-6)


def test_mprage_agrees_with_a_pulse_by_pulse_simulation():
    tr, ti, flip, pulses, spacing = 2300.0, 900.0, 9.0, 160, 7.5
    cosine, sine = np.cos(np.deg2rad(flip)), np.sin(np.deg2rad(flip))
    for t1 in T1:

        def relax(m, time, t1=t1):
            return 1 + (m - 1) * np.exp(-time / t1)

        m, centre = 1.0, 0.0
        for _ in range(20):
            m = relax(-m, ti - pulses / 2 * spacing)
            for pulse in range(pulses):
                if pulse == pulses // 2:
                    centre = m
                m = relax(m * cosine, spacing)
            m = relax(m, tr - ti - pulses / 2 * spacing)
        expected = abs(centre) * sine * np.exp(-3.0 / 60.0)
        assert mr_signals.mprage(np.array([t1]), np.array([60.0]), tr, 3.0, ti, flip)[0] == pytest.approx(expected, rel=1e-6)


@given(st.floats(0.5, 60), st.floats(10, 8000), st.floats(1, 90))
def test_signals_stay_between_nothing_and_the_proton_density(te, tr, flip):
    for signal in (
        mr_signals.spin_echo(T1, T2, max(tr, te), te),
        mr_signals.spoiled_gre(T1, T2, tr, te, flip),
        mr_signals.mprage(T1, T2, max(tr, 500.0), te, 0.4 * max(tr, 500.0), flip),
    ):
        assert np.all((signal >= 0) & (signal <= 1))
