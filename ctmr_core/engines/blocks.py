"""The engine ``blocks``: bodies of a few boxes, one constant CT number per structure.

For measuring the factory and for tests of its plumbing, **not for training**: nothing in it looks like a patient. A small
volume takes a few milliseconds, so what remains of a run's time is the factory's own.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import numpy as np

from ctmr_core.anatomy.grid import Grid
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import Case
from ctmr_core.cases.seeds import body_rng
from ctmr_core.engines.base import Images
from ctmr_core.errors import EngineError

BODY = "generated:blocks"
AIR_HU = -1000
#: Structure -> CT number in HU: round figures in the range of each organ, with a body of fat around them.
HU = {"body": -80, "liver": 60, "spleen": 50, "stomach": 30, "right kidney": 35, "left kidney": 36, "aorta": 45}
#: CT numbers of the first and the last voxel of the body: the ends of the range are rare, as they are in a patient.
_ENDS_HU = (-120, 120)
_MARGIN = 1  # voxels of air around the body
_SEEDS = 5  # the case's seed adds 0 to 4 HU: different cases differ in every voxel, and no check minds


class BlocksEngine:
    """A trivial engine for measuring: boxes at places drawn from the body's seed, constant HU per structure plus the case's seed.

    ``engine_parameters`` may hold ``{"seconds": s}``: the time rendering takes at least, spent asleep.
    """

    name = "blocks"
    version = "1"  # raised whenever the bytes of any image change
    weights_digest = ""
    sequences = frozenset({"ct"})
    vocabularies = frozenset({"maisi"})
    bodies = frozenset({BODY})

    def __init__(self, device: str = "cpu", threads: int | None = None) -> None:
        del device, threads  # boxes need neither

    def validate(self, case: Case) -> None:
        """Refuse (``EngineError``) bodies, sequences, lesions and settings that boxes do not have."""
        where = f"case {case.case_id}, field"
        if case.body != BODY:
            raise EngineError(
                "the engine blocks renders its own bodies only", where=f"{where} body", found=case.body, allowed=BODY
            )
        if unknown := sorted(set(case.sequences) - self.sequences):
            raise EngineError("the engine blocks can't render this", where=f"{where} sequences", found=unknown[0], allowed="ct")
        if case.lesions or case.center:
            field = "lesions" if case.lesions else "center"
            raise EngineError(f"boxes have no {field}", where=f"{where} {field}", allowed="none")
        _seconds(case)

    def body(self, case: Case, attempt: int) -> tuple[LabelMap, list[dict[str, Any]]]:
        """Boxes of :data:`HU` in a box of body; where and how large they are depends on body_seed, grid and attempt."""
        vocabulary = load_vocabulary("maisi")
        voxels = np.zeros(case.size, vocabulary.dtype)
        inner = tuple(slice(_MARGIN, n - _MARGIN) for n in case.size)
        voxels[inner] = vocabulary.label("body").id
        rng = body_rng(case.body, case.body_seed, f"boxes/{attempt}")
        for name in list(HU)[1:]:
            sides = [max(2, int(n * share)) for n, share in zip(case.size, rng.uniform(0.2, 0.4, 3), strict=True)]
            corner = [
                int(rng.integers(_MARGIN, max(n - side - _MARGIN, _MARGIN) + 1)) for n, side in zip(case.size, sides, strict=True)
            ]
            box = tuple(slice(low, low + side) for low, side in zip(corner, sides, strict=True))
            voxels[box] = vocabulary.label(name).id
        grid = Grid.centred(case.size, case.spacing)
        return LabelMap(voxels, grid.affine, vocabulary), [{"body": BODY, "boxes": len(HU)}]

    def render(self, case: Case, label_map: LabelMap, attempt: int) -> Images:
        """``{"ct": int16 [x, y, z]}`` in HU."""
        del attempt
        time.sleep(_seconds(case))
        table = _table() + np.int16(case.seed % _SEEDS)
        image = table[label_map.voxels]
        for corner, value in zip((_MARGIN, -1 - _MARGIN), _ENDS_HU, strict=True):
            image[corner, corner, corner] = value
        return Images({"ct": image}, parameters={"ct": {"hu_offset": case.seed % _SEEDS}})

    def close(self) -> None:
        """Nothing is held between cases."""


@cache
def _table() -> np.ndarray:
    vocabulary = load_vocabulary("maisi")
    table = np.full(256, AIR_HU, np.int16)
    for name, value in HU.items():
        table[vocabulary.label(name).id] = value
    return table


def _seconds(case: Case) -> float:
    given = dict(case.engine_parameters)
    seconds = given.pop("seconds", 0.0)
    if given or isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 3600:
        raise EngineError(
            "the engine blocks has one setting",
            where=f"case {case.case_id}, field engine_parameters",
            found=case.engine_parameters,
            allowed='{"seconds": 0 to 3600}',
        )
    return float(seconds)
