"""How far a set of volumes is from a reference: 2.5D Fréchet distance, KID, precision, recall, density and coverage.

Slices of a volume resemble each other, so everything that asks for independent samples goes by volumes: intervals draw
volumes again, not slices; KID takes the middle slice of each; precision and the like take one vector per volume.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ctmr_core.assessment.coverage import kernel_distance, precision_recall
from ctmr_core.assessment.features import FeatureExtractor
from ctmr_core.assessment.intervals import interval, kernel_spread, shares_spread
from ctmr_core.assessment.moments import Moments, frechet_distance, merged
from ctmr_core.assessment.slices import PLANES, SliceProtocol, plane_slices
from ctmr_core.assessment.streaming import Loaded

#: Volumes whose vectors are kept for KID, precision and coverage: the first of the set, which come in random order.
KEPT = 2000
_GROUPS = 20  # of volumes, kept apart for the intervals
_GROUP_BYTES = 1 << 29  # what they may take: fewer groups of features as wide as a ResNet's
_FEWEST_GROUPS = 4
_DRAWS = 30
_SLOW_WIDTH = 512  # features beyond which drawing 30 times takes minutes
_SLOW_DRAWS = 12
_SEED = 25
Vectors = dict[str, dict[str, np.ndarray]]  # sequence -> plane -> [slices, d]


@dataclass
class FeatureSet:
    """Features of one sequence of a set, added volume by volume; memory does not grow after the first :data:`KEPT`."""

    volumes: int = 0
    slices: int = 0
    _groups: dict[int, dict[str, Moments]] = field(default_factory=dict)
    _vectors: list[np.ndarray] = field(default_factory=list)  # float32 [3 * d] per volume
    _middles: list[np.ndarray] = field(default_factory=list)  # float32 [3, d] per volume

    def add(self, planes: dict[str, np.ndarray]) -> None:
        """One volume: plane -> [slices, d]."""
        width = next(iter(planes.values())).shape[1]
        group = self._groups.setdefault(self.volumes % _groups(width), {})
        for plane, rows in planes.items():
            if plane in group:
                group[plane].merge(Moments.of(rows))
            else:
                group[plane] = Moments.of(rows)
            self.slices += len(rows)
        self.volumes += 1
        if len(self._vectors) < KEPT:
            self._vectors.append(np.concatenate([planes[plane].mean(axis=0) for plane in PLANES]).astype(np.float32))
            self._middles.append(np.stack([planes[plane][len(planes[plane]) // 2] for plane in PLANES]).astype(np.float32))

    @property
    def groups(self) -> int:
        return len(self._groups)

    def moments(self, plane: str, times: Sequence[float] | None = None) -> Moments:
        """Of all volumes, or with every group as often as ``times`` says."""
        parts = [self._groups[number][plane] for number in sorted(self._groups)]
        return merged(parts, times if times is not None else [1.0] * len(parts))

    @property
    def vectors(self) -> np.ndarray:
        """float32 [volumes, 3 * d]: means over the slices of each plane, of the volumes that were kept."""
        return np.stack(self._vectors)

    def middles(self, plane: int) -> np.ndarray:
        """float32 [volumes, d]: the middle slice of one plane."""
        return np.stack([rows[plane] for rows in self._middles])


def _groups(width: int) -> int:
    return max(min(_GROUPS, _GROUP_BYTES // (len(PLANES) * width * width * 8)), 1)


def slice_features(volume: Loaded, extractor: FeatureExtractor, protocol: SliceProtocol) -> Vectors:
    """sequence -> plane -> float32 [slices, d] of one volume."""
    return {
        sequence: {
            plane: extractor.features(slices) for plane, slices in plane_slices(image, volume.spacing, sequence, protocol).items()
        }
        for sequence, image in volume.images.items()
    }


def compare(made: FeatureSet, reference: FeatureSet, draws: int | None = None) -> dict[str, Any]:
    """Distances of one sequence (see ``set_measures``): ``distance`` is the mean of three planes, low and high its 95 % interval.

    The interval is the distance -+ 1.96 times the spread of distances of sets whose groups of volumes were drawn again with
    replacement (Efron); null with fewer than four groups. With fewer slices than features the distance is too large.
    """
    planes = {plane: frechet_distance(made.moments(plane), reference.moments(plane)) for plane in PLANES}
    distance = float(np.mean(list(planes.values())))
    width = made.vectors.shape[1] // len(PLANES)
    spread = _spread(made, reference, draws or (_DRAWS if width <= _SLOW_WIDTH else _SLOW_DRAWS))
    rng = np.random.Generator(np.random.Philox(key=_SEED))
    middles = [(reference.middles(plane), made.middles(plane)) for plane in range(len(PLANES))]
    kernel = [kernel_distance(*pair, rng) for pair in middles]
    kid = float(np.mean([mean for mean, _ in kernel]))
    shares = precision_recall(reference.vectors, made.vectors)
    result = {
        "distance": distance,
        "low": None if spread is None else max(distance - 1.96 * spread, 0.0),
        "high": None if spread is None else distance + 1.96 * spread,
        "planes": planes,
        "kid": kid,
        "kid_sd": float(np.mean([sd for _, sd in kernel])),
        **shares,
        "intervals": _intervals(kid, middles, shares, reference, made),
        "volumes": made.volumes,
        "reference_volumes": reference.volumes,
        "slices": made.slices,
        "reference_slices": reference.slices,
        "enough": min(made.slices, reference.slices) // len(PLANES) > width,
    }
    return {name: value for name, value in result.items() if not (isinstance(value, float) and math.isnan(value))}


def _intervals(
    kid: float,
    middles: Sequence[tuple[np.ndarray, np.ndarray]],
    shares: dict[str, float],
    reference: FeatureSet,
    made: FeatureSet,
) -> dict[str, dict[str, float]]:
    """95 % intervals of KID, precision, recall, density and coverage; without those that too few volumes tell."""
    spread = kernel_spread(middles)
    found = {} if spread is None else {"kid": interval(kid, spread)}
    spreads = shares_spread(reference.vectors, made.vectors) if shares else {}
    tops = {"density": math.inf}
    return found | {name: interval(shares[name], sd, 0.0, tops.get(name, 1.0)) for name, sd in spreads.items()}


def _spread(made: FeatureSet, reference: FeatureSet, draws: int) -> float | None:
    if min(made.groups, reference.groups) < _FEWEST_GROUPS:
        return None
    rng = np.random.Generator(np.random.Philox(key=_SEED))
    found = []
    for _ in range(draws):
        times = [rng.multinomial(part.groups, [1 / part.groups] * part.groups).tolist() for part in (made, reference)]
        pairs = [(made.moments(plane, times[0]), reference.moments(plane, times[1])) for plane in PLANES]
        found.append(np.mean([frechet_distance(a, b, quick=True) for a, b in pairs]))
    return float(np.std(found, ddof=1))
