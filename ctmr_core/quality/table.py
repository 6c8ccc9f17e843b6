"""The patient table: which cases ask for one, and where it lies."""

from __future__ import annotations

import numpy as np

from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate

#: mm from the back of the body: how far forward the rim of a table's trough can reach; whatever lies further back is table.
_RIM_MM = 50.0


def table_of(candidate: Candidate, body: np.ndarray, region: tuple[slice, slice, slice]) -> np.ndarray:
    """Where the table is that the case asks for, if any: behind the back (bool, broadcasts against ``body``).

    body: bool on the grid of ``region`` of the label map.
    """
    if not asks_for_table(candidate.case) or not body.any():
        return np.zeros((1, 1, 1), bool)
    back = int(np.flatnonzero(body.any(axis=(0, 2)))[0])
    step = candidate.label_map.spacing[1] * (region[1].step or 1)
    return np.asarray(np.arange(body.shape[1]) < back + _RIM_MM / step)[None, :, None]


def asks_for_table(case: Case) -> bool:
    """Whether the case's settings ask for the patient table."""
    ct = case.engine_parameters.get("ct")
    return isinstance(ct, dict) and ct.get("couch") is True
