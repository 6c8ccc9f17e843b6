"""Is it the volume that was asked for: sequences, size, spacing, orientation, data type."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, CheckResult
from ctmr_core.quality.settings import Thresholds, thresholds


class GeometryCheck:
    """Every requested sequence is there, as int16, on the grid of the label map, which has the size and spacing asked for."""

    name = "geometry"
    gate = True
    #: mm by which the spacing may be off, a rounding of NIfTI's float32 header; degrees an axis may be tilted from RAS+.
    thresholds: ClassVar[Thresholds] = {"spacing_mm": 1e-3, "tilt_degrees": 45.0}

    def applies(self, case: Case) -> bool:
        del case
        return True

    def run(self, candidate: Candidate) -> CheckResult:
        case, label_map = candidate.case, candidate.label_map
        limits = thresholds(case, self.name, self.thresholds)
        off = float(np.abs(np.subtract(label_map.spacing, case.spacing)).max())
        direction = label_map.affine[:3, :3] / np.asarray(label_map.spacing)
        tilt = float(np.degrees(np.arccos(np.clip(np.diag(direction), -1.0, 1.0))).max())
        reasons = []
        if label_map.size != case.size:
            reasons.append(f"the label map has {_text(label_map.size)} voxels; asked for {_text(case.size)}")
        if not off <= limits["spacing_mm"]:
            reasons.append(f"the spacing is {_text(label_map.spacing)} mm; asked for {_text(case.spacing)} mm")
        if not tilt < limits["tilt_degrees"]:
            reasons.append(f"an axis is {tilt:.0f} degrees off RAS+; allowed: below {limits['tilt_degrees']:g}")
        missing = [sequence for sequence in case.sequences if sequence not in candidate.images]
        extra = [sequence for sequence in candidate.images if sequence not in case.sequences]
        if missing:
            reasons.append(f"no image of {', '.join(missing)}; found {', '.join(candidate.images) or 'none'}")
        if extra:
            reasons.append(f"an image nobody asked for: {', '.join(extra)}; asked for {', '.join(case.sequences)}")
        for sequence, image in candidate.images.items():
            if image.shape != label_map.size:
                reasons.append(f"{sequence} has {_text(image.shape)} voxels; its label map has {_text(label_map.size)}")
            if image.dtype != np.int16 and not np.issubdtype(image.dtype, np.floating):
                reasons.append(f"{sequence} is stored as {image.dtype}; allowed: int16")
        return CheckResult(self.name, {"spacing_off_mm": off, "tilt_degrees": tilt}, tuple(reasons))


def _text(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)
