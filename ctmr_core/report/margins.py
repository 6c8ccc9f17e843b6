"""How near cases came to the thresholds: asked of the checks themselves, from scores, without a voxel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ctmr_core.cases.case import Case
from ctmr_core.quality import settings
from ctmr_core.quality.policy import Policy, checks_of

_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2)  # changes of one threshold that are tried
_WIDE = 10.0  # from this ratio of its ends on a range is a matter of factors, not of differences
_REACH = 40.0  # spreads from the median within which a threshold is looked for
_HALVINGS = 24

Scores = Mapping[str, Mapping[str, float]]  #: check -> score -> value


@dataclass(frozen=True)
class Borderline:
    """An accepted case that one threshold would have rejected, moved by ``share`` (of what: :func:`_scale`)."""

    case_id: str
    share: float
    check: str
    threshold: str
    reason: str


@dataclass(frozen=True)
class Spread:
    """Values of one score over cases, and where its check draws the line on either side of their median; None: nowhere near."""

    name: str
    values: np.ndarray
    low: float | None
    high: float | None

    @property
    def room(self) -> float:
        """Distance from the outermost value to the nearest line, over the spread of the values; smaller is nearer.

        Infinite for a score that is always the same: a histogram of it tells nothing.
        """
        lines = [line for line in (self.low, self.high) if line is not None]
        if not lines or not len(self.values):
            return math.inf
        spread = float(np.ptp(self.values))
        if spread < 1e-9:
            return math.inf
        return min(float(np.abs(self.values - line).min()) for line in lines) / spread


def borderline(cases: Iterable[tuple[Case, Scores]], policy: Policy | None = None) -> list[Borderline]:
    """Accepted cases within 20 % of a threshold, the nearest first; one entry for each case, its nearest."""
    policy = policy or Policy()
    checks = [check for check in checks_of(policy) if getattr(check, "decide", None) is not None]
    found = []
    for case, scores in cases:
        judged = policy.for_case(case)
        nearest: Borderline | None = None
        for check in checks:
            own = scores.get(check.name)
            if own is None or not settings.is_on(judged, check.name):
                continue
            limits = settings.thresholds(judged, check.name, getattr(check, "thresholds", {}))
            for name in limits:
                share = nearest.share if nearest else math.inf
                entry = _tightened(check, judged, own, limits, name, share)
                if entry is not None:
                    nearest = Borderline(case.case_id, entry[0], check.name, name, entry[1])
        if nearest is not None:
            found.append(nearest)
    return sorted(found, key=lambda entry: (entry.share, entry.case_id))


def _tightened(
    check: object, case: Case, own: Mapping[str, float], limits: Mapping[str, float], name: str, below: float
) -> tuple[float, str] | None:
    """The smallest change of one threshold, less than ``below``, that gives a reason there was none for."""
    decide = check.decide  # type: ignore[attr-defined]
    before = len(decide(case, own, limits))
    steps = [share for share in _STEPS if share < below]
    scale = _scale(limits, name)
    if not scale or not steps or not _more(decide, case, own, limits, name, steps[-1] * scale, before):
        return None
    for share in steps:
        reasons = _more(decide, case, own, limits, name, share * scale, before)
        if reasons:
            return share, reasons[0]
    return None


def _scale(limits: Mapping[str, float], name: str) -> float:
    """What a threshold's moves are shares of: the range it is an end of, or itself where that range spans orders of magnitude."""
    stem, _, end = name.rpartition("_")
    mine = limits[name]
    other = limits.get(f"{stem}_{'high' if end == 'low' else 'low'}") if end in ("low", "high") else None
    if other is None or (min(mine, other) > 0 and max(mine, other) > _WIDE * min(mine, other)):
        return abs(mine)
    return abs(other - mine)


def _more(
    decide: object, case: Case, own: Mapping[str, float], limits: Mapping[str, float], name: str, move: float, before: int
) -> list[str]:
    known = set(decide(case, own, limits)) if before else set()  # type: ignore[operator]
    for moved in (limits[name] - move, limits[name] + move):
        reasons = decide(case, own, {**limits, name: moved})  # type: ignore[operator]
        if len(reasons) > before:
            return [reason for reason in reasons if reason not in known]
    return []


def spreads(cases: list[tuple[Case, Scores]], shown: int, policy: Policy | None = None) -> list[Spread]:
    """The ``shown`` scores whose values come nearest to a line of their check, nearest first."""
    policy = policy or Policy()
    values: dict[tuple[str, str], list[float]] = {}
    first: dict[tuple[str, str], tuple[Case, Scores]] = {}
    for case, scores in cases:
        for check_name, own in scores.items():
            for name, value in own.items():
                if math.isfinite(value):
                    values.setdefault((check_name, name), []).append(value)
                    first.setdefault((check_name, name), (case, scores))
    checks = {check.name: check for check in checks_of(policy) if getattr(check, "decide", None) is not None}
    found = []
    for (check_name, name), given in sorted(values.items()):
        if check_name not in checks or name.endswith(("_voxels", "/voxels")):
            continue
        array = np.asarray(given)
        case, scores = first[check_name, name]
        judged = policy.for_case(case)
        limits = settings.thresholds(judged, check_name, getattr(checks[check_name], "thresholds", {}))
        low, high = (_line(checks[check_name], judged, scores[check_name], limits, name, array, side) for side in (-1, 1))
        found.append(Spread(f"{check_name}/{name}", array, low, high))
    near = [spread for spread in found if math.isfinite(spread.room)]
    return sorted(near, key=lambda spread: (spread.room, spread.name))[:shown]


def _line(
    check: object, case: Case, own: Mapping[str, float], limits: Mapping[str, float], name: str, values: np.ndarray, side: int
) -> float | None:
    """Where ``decide`` begins to give one more reason, going from the median of ``values`` to one side."""
    middle = float(np.median(values))
    reach = max(_REACH * max(float(np.ptp(values)), abs(middle)), 2 * max(map(abs, limits.values()), default=0.0), 1e-6)

    def reasons(value: float) -> int:
        return len(check.decide(case, {**own, name: value}, limits))  # type: ignore[attr-defined]

    before = reasons(middle)
    outside = next((step for step in np.geomspace(1e-6, 1, 40) * reach if reasons(middle + side * step) > before), None)
    if outside is None:
        return None
    inside, far = 0.0, float(outside)
    for _ in range(_HALVINGS):
        half = (inside + far) / 2
        inside, far = (inside, half) if reasons(middle + side * half) > before else (half, far)
    return middle + side * far
