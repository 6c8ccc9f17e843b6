"""Thresholds learned from real scans: what a user's own volumes (``calibration_sources``) score decides what synthetic ones may.

As NVIDIA's MAISI did for its seven HU ranges: a low limit is the smaller of a low percentile and the centre minus some sigma, a
high one the greater of a high percentile and the centre plus as many. Centre and sigma are the median and 1.4826 times the median
absolute deviation, which a few odd scans do not move (MAISI: mean and standard deviation).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ctmr_core.anatomy.sequences import SKULL_STRIPPED, is_ct
from ctmr_core.errors import CheckError
from ctmr_core.quality.base import ScoredCheck
from ctmr_core.quality.histogram import upper_limit_of
from ctmr_core.quality.overlap import lower_limit_of
from ctmr_core.quality.policy import Policy
from ctmr_core.quality.registry import load_checks

Scores = Mapping[str, Mapping[str, float]]  #: check -> score -> value, of one volume
Pair = tuple[str | None, str | None]  #: threshold that is a low limit, threshold that is a high one
FEWEST = 10  # volumes: with fewer, a percentile is just the most extreme scan
_SIGNIFICANT = 4  # digits that are written


@dataclass(frozen=True)
class Learned:
    """A policy of learned thresholds. volumes: read. observations: "check.threshold" -> values it was learned from.
    kept: "check.threshold" -> values, of thresholds seen too seldom, that keep their defaults.
    """

    policy: Policy
    volumes: int
    observations: dict[str, int]
    kept: dict[str, int]


def calibrate(
    volumes: Iterable[Scores],
    percentiles: tuple[float, float] = (0.5, 99.5),
    sigmas: float = 6.0,
    fewest: int = FEWEST,
    name: str = "calibrated",
    origin: str = "",
) -> Learned:
    """Learn thresholds from the scores of real volumes.

    percentiles, sigmas: how far limits reach, see above. fewest: values a threshold is learned from at least. origin: where the
    volumes come from, for the policy's description. Raises ``CheckError`` when there are no volumes or the numbers make no sense.
    """
    low, high = percentiles
    if not (0 <= low < high <= 100) or sigmas < 0 or fewest < 1:
        found = (low, high, sigmas, fewest)
        raise CheckError("limits can't be learned so", found=found, allowed="0 <= low < high <= 100, sigmas >= 0, fewest >= 1")
    values: dict[tuple[str, str, str], list[float]] = {}
    read = 0
    for scores in volumes:
        read += 1
        for check in load_checks():
            limits = LIMITS.get(check.name)
            if limits is None or not isinstance(check, ScoredCheck):
                continue
            own = scores.get(check.name, {})
            for score, value in own.items():
                for side, threshold in zip(("low", "high"), limits(score, own, check.thresholds), strict=True):
                    if threshold is not None and threshold in check.thresholds:
                        off = abs(value) if check.name in _EITHER_WAY else value
                        values.setdefault((check.name, threshold, side), []).append(float(off))
    if not read:
        raise CheckError("there is nothing to learn from", allowed="at least one volume")
    checks: dict[str, bool | dict[str, float]] = {}
    seen, seldom = {}, {}
    for (check_name, threshold, side), found_values in sorted(values.items()):
        label = f"{check_name}.{threshold}"
        if len(found_values) < fewest:
            seldom[label] = len(found_values)
            continue
        seen[label] = len(found_values)
        own_limits = checks.setdefault(check_name, {})
        assert isinstance(own_limits, dict)  # noqa: S101 - made above
        own_limits[threshold] = _limit(np.asarray(found_values), side, percentiles, sigmas)
    counted = ", ".join(f"{label} {count}" for label, count in seen.items()) or "none"
    today = dt.datetime.now(dt.UTC).date().isoformat()
    description = (
        f"Learned on {today} from {read} real volumes{f' ({origin})' if origin else ''}: low = min(percentile {low:g}, "
        f"median - {sigmas:g} sigma), high = max(percentile {high:g}, median + {sigmas:g} sigma), sigma = 1.4826 times the "
        f"median absolute deviation. Values per threshold: {counted}. "
        f"Thresholds with fewer than {fewest} values keep their defaults."
    )
    return Learned(Policy(name=name, description=description, checks=checks), read, seen, seldom)


def _limit(values: np.ndarray, side: str, percentiles: tuple[float, float], sigmas: float) -> float:
    center = float(np.median(values))
    reach = sigmas * 1.4826 * float(np.median(np.abs(values - center)))
    if side == "low":
        return _rounded(min(float(np.percentile(values, percentiles[0])), center - reach), np.floor)
    return _rounded(max(float(np.percentile(values, percentiles[1])), center + reach), np.ceil)


def _rounded(value: float, outwards: Callable[[float], float]) -> float:
    """Few digits for people, rounded away from the values so that none of them falls outside."""
    if value == 0:
        return 0.0
    scale = 10.0 ** (_SIGNIFICANT - 1 - int(np.floor(np.log10(abs(value)))))
    return float(outwards(value * scale) / scale)


def _hu_median(score: str, own: Mapping[str, float], defaults: Mapping[str, float]) -> Pair:
    group = score.partition("/")[2]
    counted = own.get(f"{score}_voxels", 0.0) >= defaults["voxels"]
    return (f"{group}_low", f"{group}_high") if counted else (None, None)


def _hu_spread(score: str, own: Mapping[str, float], defaults: Mapping[str, float]) -> Pair:
    group = score.partition("/")[2]
    counted = own.get(f"{score}_voxels", 0.0) >= defaults["voxels"]
    return ("low", upper_limit_of(group)) if counted else (None, None)


def _mr_contrast(score: str, *unused: object) -> Pair:
    del unused
    sequence, _, classes = score.partition("/")
    contrast = f"{sequence.removesuffix(SKULL_STRIPPED)}_{classes}"
    return f"{contrast}_low", f"{contrast}_high"


def _noise(score: str, *unused: object) -> Pair:
    del unused
    sequence, _, what = score.partition("/")
    kind = "lag1" if what.startswith("lag1") else "ct" if is_ct(sequence) else "mr"
    return f"{kind}_low", f"{kind}_high"


def _overlap(score: str, *unused: object) -> Pair:
    del unused
    return lower_limit_of(score.partition("/")[0]), None


def _constant(score: str, *unused: object) -> Pair:
    del unused
    if not score.endswith("/range"):
        return None, None
    return ("ct_range" if is_ct(score.partition("/")[0]) else "mr_range"), None


def _named_high(score: str, *unused: object) -> Pair:
    del unused
    return None, score.rpartition("/")[2]


def _volumes(score: str, *unused: object) -> Pair:
    del score, unused
    return None, "far"


def _components(score: str, *unused: object) -> Pair:
    del unused
    return (None, "hole_share") if score == "hole_share" else ("largest_share", None)


Limits = Mapping[str, Callable[[str, Mapping[str, float], Mapping[str, float]], Pair]]
#: check -> which thresholds a score is measured against, of checks whose thresholds are ranges that scanners and protocols move.
IMAGE_LIMITS: Limits = {
    "hu_median": _hu_median,
    "hu_spread": _hu_spread,
    "mr_contrast": _mr_contrast,
    "noise": _noise,
    "overlap": _overlap,
    "constant": _constant,
    "clipped": _named_high,
    "gaps": _named_high,
}
#: The same of anatomy, which depends on who is segmented (children, patients, how finely). What is so in everybody (sides, order,
#: neighbours) is not learned.
ANATOMY_LIMITS: Limits = {"volumes": _volumes, "components": _components}
LIMITS: Limits = {**IMAGE_LIMITS, **ANATOMY_LIMITS}
_EITHER_WAY = frozenset({"volumes"})  # scores that are as far off below 0 as above
