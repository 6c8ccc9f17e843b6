"""Do the edges of the labels lie on the edges of the image, and the sequences of a case on each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from scipy import fft, ndimage

from ctmr_core.anatomy.sequences import SKULL_STRIPPED
from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.settings import Thresholds
from ctmr_core.quality.structures import shows_anatomy

_REACH = 5  # voxels to either side that are tried
_FACES = 60_000  # faces between labels that are looked at per axis
_FEWEST = 400  # faces an axis needs to be judged
_AXES = "xyz"
#: Along the main field, the fields of air, bone and veins reach beyond them and blank or move their edges.
_UNEVEN_SEQUENCES, _MAIN_FIELD = ("mri_swi", "mri_mra"), "z"
#: Without shift such an image steps across faces as much as at the best place, to a thousandth; shifted by a voxel, 2 % less.
_AS_GOOD = 0.985


class AlignmentCheck(ScoredCheck):
    """Shift of the image against its labels along each axis, in voxels: where the mean step of the image across the faces between
    different labels is largest. 0 when they belong together. Susceptibility images are not asked along the main field, and
    along the others only where another place is clearly better.
    """

    name = "alignment"
    version = "3"
    #: Rendered bodies and public scans with drawn or network labels lie within 0.1; a shift by a voxel is seen as 0.9 or more.
    #: Susceptibility moves and erases edges beside air, by one to two voxels of thick slices.
    thresholds: ClassVar[Thresholds] = {"voxels": 0.75, "swi_voxels": 2.0}

    def applies(self, case: Case) -> bool:
        return shows_anatomy(case)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        scores: dict[str, float] = {}
        for axis, name in enumerate(_AXES):
            faces = _faces(candidate.label_map.voxels, axis)
            if faces is None:
                continue
            for sequence, image in candidate.images.items():
                uneven = sequence.startswith(_UNEVEN_SEQUENCES)
                if not (uneven and name == _MAIN_FIELD) and not sequence.endswith(SKULL_STRIPPED):
                    scores[f"{sequence}/shift_{name}"] = _best_shift(image, faces, axis, _AS_GOOD if uneven else 1.0)
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        reasons = []
        for name, shift in scores.items():
            sequence = name.partition("/")[0]
            allowed = limits["swi_voxels" if sequence.startswith("mri_swi") else "voxels"]
            if abs(shift) > allowed:
                reasons.append(f"{sequence} lies {shift:+.1f} voxels beside its labels along {name[-1]}; allowed: {allowed:g}")
        return reasons


class SequencesCheck(ScoredCheck):
    """Shift of each sequence of a case against its first, in voxels, by phase correlation of edge strength."""

    name = "sequences"
    thresholds: ClassVar[Thresholds] = {"voxels": 2.0}

    def applies(self, case: Case) -> bool:
        return len(case.sequences) > 1

    def measure(self, candidate: Candidate) -> dict[str, float]:
        names = [name for name in candidate.images if not name.endswith(SKULL_STRIPPED)]
        if len(names) < 2:
            return {}
        strides = [max(1, -(-n // 96)) for n in candidate.label_map.size]
        region = tuple(slice(None, None, step) for step in strides)
        first = _edges(candidate.images[names[0]][region])
        scores = {}
        for name in names[1:]:
            shift = _phase_shift(first, _edges(candidate.images[name][region])) * np.asarray(strides)
            scores[f"{name}/shift"] = float(np.abs(shift).max())
            scores[f"{name}/coarse"] = float(max(strides))
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        reasons = []
        for name, shift in scores.items():
            sequence, _, what = name.partition("/")
            if what == "shift" and shift > max(limits["voxels"], scores.get(f"{sequence}/coarse", 1.0)):
                reasons.append(f"{sequence} lies {shift:.0f} voxels beside the first sequence; allowed: {limits['voxels']:g}")
        return reasons


def _faces(voxels: np.ndarray, axis: int) -> tuple[np.ndarray, ...] | None:
    """Indices [x], [y], [z] of voxels whose next one along ``axis`` has another label, away from the volume's ends."""
    if voxels.shape[axis] < 2 * _REACH + 4:
        return None
    turned = np.moveaxis(voxels, axis, 0)
    stride = max(1, int((voxels.size / 4_000_000) ** 0.5))
    inner = turned[_REACH + 1 : -_REACH - 1, ::stride, ::stride]
    place = np.flatnonzero(inner[:-1] != inner[1:])
    if len(place) < _FEWEST:
        return None
    place = place[:: max(1, len(place) // _FACES)]
    a, b, c = np.unravel_index(place, (inner.shape[0] - 1, *inner.shape[1:]))
    found = [a + _REACH + 1, b * stride, c * stride]
    found.insert(axis, found.pop(0))
    return tuple(found)


def _best_shift(image: np.ndarray, faces: tuple[np.ndarray, ...], axis: int, as_good: float) -> float:
    """The shift (voxels, refined by a parabola) at which the image's steps across the faces are largest; 0 where those without
    shift are larger than ``as_good`` times these.
    """
    limit = max(2.0 * float(np.abs(np.diff(image[tuple(faces)].astype(np.float32))).mean()), 1.0)
    strength = []
    for shift in range(-_REACH, _REACH + 1):
        near, far = list(faces), list(faces)
        near[axis], far[axis] = faces[axis] + shift, faces[axis] + shift + 1
        step = np.abs(np.subtract(image[tuple(far)], image[tuple(near)], dtype=np.float32))
        strength.append(float(np.minimum(step, limit).mean()))
    best = int(np.argmax(strength))
    if strength[_REACH] > as_good * strength[best]:
        return 0.0
    if best in (0, len(strength) - 1):
        return float(best - _REACH)
    below, at, above = strength[best - 1 : best + 2]
    curve = below - 2 * at + above
    return best - _REACH + (0.5 * (below - above) / curve if curve < 0 else 0.0)


def _edges(image: np.ndarray) -> np.ndarray:
    """Gradient magnitude (float32), its greatest values limited, faded out towards the volume's faces."""
    smooth = ndimage.gaussian_filter(image.astype(np.float32), 1.0)
    strength = np.sqrt(sum(np.gradient(smooth, axis=axis) ** 2 for axis in range(3)))
    np.minimum(strength, np.percentile(strength, 95) + 1e-6, out=strength)
    strength -= strength.mean()
    for axis, n in enumerate(strength.shape):
        shape = [1, 1, 1]
        shape[axis] = n
        strength *= np.hanning(n + 2)[1:-1].reshape(shape)
    return np.asarray(strength, np.float32)


def _phase_shift(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whole voxels [x, y, z] by which ``second`` is shifted against ``first``."""
    cross = fft.rfftn(first) * np.conj(fft.rfftn(second))
    cross /= np.abs(cross) + 1e-9 * np.abs(cross).max()
    surface = fft.irfftn(cross, first.shape)
    peak = np.array(np.unravel_index(int(np.argmax(surface)), surface.shape))
    size = np.array(surface.shape)
    return np.where(peak > size // 2, peak - size, peak)
