"""Is it the volume that was asked for: sequences, size, spacing, orientation, data type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.settings import Thresholds


class GeometryCheck(ScoredCheck):
    """Every requested sequence is there, as int16, on the grid of the label map, which has the size and spacing asked for."""

    name = "geometry"
    gate = True
    #: mm by which the spacing may be off, a rounding of NIfTI's float32 header; degrees an axis may be tilted from RAS+.
    thresholds: ClassVar[Thresholds] = {"spacing_mm": 1e-3, "tilt_degrees": 45.0}

    def measure(self, candidate: Candidate) -> dict[str, float]:
        case, label_map = candidate.case, candidate.label_map
        direction = label_map.affine[:3, :3] / np.asarray(label_map.spacing)
        scores = {
            "spacing_off_mm": float(np.abs(np.subtract(label_map.spacing, case.spacing)).max()),
            "tilt_degrees": float(np.degrees(np.arccos(np.clip(np.diag(direction), -1.0, 1.0))).max()),
        }
        scores |= _numbered("size", label_map.size) | _numbered("spacing", label_map.spacing)
        for sequence in case.sequences:
            if sequence not in candidate.images:
                scores[f"{sequence}/missing"] = 1.0
        for sequence, image in candidate.images.items():
            if sequence not in case.sequences:
                scores[f"{sequence}/extra"] = 1.0
            if image.shape != label_map.size:
                scores |= _numbered(f"{sequence}/size", image.shape)
            if image.dtype != np.int16 and not np.issubdtype(image.dtype, np.floating):
                scores[f"{sequence}/type_{image.dtype}"] = 1.0
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        size, tilt = _taken(scores, "size"), scores["tilt_degrees"]
        reasons = []
        if size and size != case.size:
            reasons.append(f"the label map has {_text(size)} voxels; asked for {_text(case.size)}")
        if not scores["spacing_off_mm"] <= limits["spacing_mm"]:
            found = _taken(scores, "spacing")
            reasons.append(f"the spacing is {_text(found)} mm; asked for {_text(case.spacing)} mm")
        if not tilt < limits["tilt_degrees"]:
            reasons.append(f"an axis is {tilt:.0f} degrees off RAS+; allowed: below {limits['tilt_degrees']:g}")
        missing = [name.removesuffix("/missing") for name in scores if name.endswith("/missing")]
        extra = [name.removesuffix("/extra") for name in scores if name.endswith("/extra")]
        if missing:
            found_names = [name for name in case.sequences if name not in missing] + extra
            reasons.append(f"no image of {', '.join(missing)}; found {', '.join(found_names) or 'none'}")
        if extra:
            reasons.append(f"an image nobody asked for: {', '.join(extra)}; asked for {', '.join(case.sequences)}")
        for name in scores:
            sequence, _, what = name.partition("/")
            if what == "size_x":
                shape = _taken(scores, f"{sequence}/size")
                reasons.append(f"{sequence} has {_text(shape)} voxels; its label map has {_text(size)}")
            elif what.startswith("type_"):
                reasons.append(f"{sequence} is stored as {what.removeprefix('type_')}; allowed: int16")
        return reasons


def _numbered(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}_{axis}": float(value) for axis, value in zip("xyz", values, strict=False)}


def _taken(scores: Mapping[str, float], name: str) -> tuple[float, ...]:
    return tuple(scores[f"{name}_{axis}"] for axis in "xyz" if f"{name}_{axis}" in scores)


def _text(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)
