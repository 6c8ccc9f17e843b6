"""``intensities: template``: CT whose labels have the median and spread measured in the template's own image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from ctmr_core.anatomy.label_map import LabelIntensity
from ctmr_core.engines.tissue.context import RenderContext
from ctmr_core.engines.tissue.ct_anatomy import HuTables, paint
from ctmr_core.engines.tissue.psf import blur

_FEWEST_VOXELS = 30  # labels smaller than this keep the population's HU
_HU_LOW, _HU_BINS = -1100, 4400  # 1 HU bins of the histograms medians are read from
_KEPT_CONTRAST = (0.15, 2.0)  # how far the contrast of the tissues inside one label may be scaled
_GRAIN_LEFT = 0.6  # share of the grain's variance that the blur leaves, roughly; the rounds correct it
_CALM_SHARE = 0.85  # the noise is kept below this share of the calmest labels' spread


def template_intensities(context: RenderContext, sequence: str) -> Mapping[int, LabelIntensity]:
    """What was measured for ``sequence`` in the template's image; empty when it isn't asked for or wasn't measured.

    ``ct`` and ``ct_wo_contrast`` stand in for each other.
    """
    if context.parameters.intensities != "template":
        return {}
    measured = context.label_map.intensities
    native = ("ct", "ct_wo_contrast")
    names = (sequence, *native) if sequence in native else (sequence,)
    return next((measured[name] for name in names if measured.get(name)), {})


def template_noise(measured: Mapping[int, LabelIntensity], level: float) -> float:
    """``level`` (HU), lowered where the template's own labels are calmer than that."""
    spreads = [value.spread for value in measured.values() if value.spread > 0]
    return min(level, _CALM_SHARE * float(np.quantile(spreads, 0.05))) if spreads else level


def fit_to_template(
    context: RenderContext,
    tables: HuTables,
    measured: Mapping[int, LabelIntensity],
    level: float,
    sigmas: tuple[float, float, float],
    hu: torch.Tensor,
) -> torch.Tensor:
    """HU after the scanner's blur, before its noise, whose labels have the measured medians and spreads.

    Starting from ``hu`` (the population's image), mean, contrast and texture of every measured label are corrected by
    what the rendered image lacks, a few times over. level: standard deviation of the noise still to come.
    """
    labels = context.labels.view(-1).to(torch.int64)
    counts = torch.bincount(labels, minlength=context.code.rows).to("cpu").numpy()
    ids = np.array([label for label in sorted(measured) if label < len(counts) and counts[label] >= _FEWEST_VOXELS], np.int64)
    if not len(ids):
        return hu
    target = np.array([measured[int(label)].median for label in ids])
    wanted = np.maximum(np.array([measured[int(label)].spread for label in ids]) ** 2 - level**2, 4.0)
    pivot, _ = _medians_and_variances(hu, labels, context.code.rows, ids, level)
    shift = target - pivot
    contrast = np.ones(len(ids))
    grain = np.zeros(len(ids))
    for turn in ("contrast", "contrast", "grain", "grain", "grain", "shift", "shift", "last"):
        adjusted = _adjusted(tables, ids, pivot, shift, contrast, grain)
        hu = blur(paint(context, adjusted), sigmas)
        if turn == "last":
            break
        median, variance = _medians_and_variances(hu, labels, context.code.rows, ids, level)
        shift += target - median
        if turn == "shift":
            continue
        # What a label is built of comes first, grain makes up for the rest.
        grain_variance = grain**2 + (wanted - variance) / _GRAIN_LEFT
        scaled = (grain_variance < 0) | (turn == "contrast")
        contrast = np.where(scaled, contrast * np.sqrt(wanted / np.maximum(variance, 1.0)), contrast)
        contrast = np.clip(contrast, *_KEPT_CONTRAST)
        grain = np.where(scaled, 0.0, np.sqrt(np.maximum(grain_variance, 0.0)))
    return hu


def _adjusted(
    tables: HuTables, ids: np.ndarray, pivot: np.ndarray, shift: np.ndarray, contrast: np.ndarray, grain: np.ndarray
) -> HuTables:
    """``tables`` with the rows of ``ids`` scaled about ``pivot`` by ``contrast``, moved by ``shift`` and grained."""
    mean, cortical = tables.mean.copy(), tables.cortical.copy()
    fine, coarse = tables.fine.copy(), tables.coarse.copy()
    column = contrast[:, None]
    mean[ids] = pivot[:, None] + (mean[ids] - pivot[:, None]) * column + shift[:, None]
    cortical[ids] = pivot + (cortical[ids] - pivot) * contrast + shift
    fine[ids] = np.sqrt((fine[ids] * column) ** 2 + 0.5 * grain[:, None] ** 2)
    coarse[ids] = np.sqrt((coarse[ids] * column) ** 2 + 0.5 * grain[:, None] ** 2)
    return replace(tables, mean=mean, cortical=cortical, fine=fine, coarse=coarse)


def _medians_and_variances(
    hu: torch.Tensor, labels: torch.Tensor, rows: int, ids: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Median (to 1 HU) under noise of standard deviation ``level`` and variance without it, per label of ``ids``; float64.

    One histogram per label; the noise is put on it by convolution.
    """
    bins = hu.view(-1).round().sub_(_HU_LOW).clamp_(0, _HU_BINS - 1).to(torch.int64)
    bins.add_(labels, alpha=_HU_BINS)
    histogram = torch.bincount(bins, minlength=rows * _HU_BINS).to("cpu").numpy().reshape(rows, _HU_BINS)[ids]
    value = np.arange(_HU_BINS, dtype=np.float64) + _HU_LOW
    count = histogram.sum(axis=1, dtype=np.float64)
    noisy = gaussian_filter1d(histogram.astype(np.float64), level, axis=1) if level > 0 else histogram
    median = value[np.argmax(np.cumsum(noisy, axis=1) * 2 >= noisy.sum(axis=1, keepdims=True), axis=1)]
    mean = histogram @ value / count
    return median, histogram @ value**2 / count - mean**2
