"""The ten sizes that steer the mask network, and the vectors that condition it.

A size is the normalized volume of a structure among the training cases, 0 (smallest) to 1 (largest); -1 means absent.
Slots and the rule of the nearest known vector are those of NVIDIA NV-Generate-CTMR (``prepare_anatomy_size_condition``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ctmr_core.engines.maisi.mask_behaviour import mask_behaviour
from ctmr_core.errors import EngineError

ABSENT = -1.0
SIZE_SLOTS: dict[str, int] = {
    "gallbladder": 10,
    "liver": 1,
    "stomach": 12,
    "pancreas": 4,
    "colon": 62,
    "lung tumor": 23,
    "pancreatic tumor": 24,
    "hepatic tumor": 26,
    "colon cancer primaries": 27,
    "bone lesion": 128,
}
"""Structure -> id in the maisi vocabulary, in slot order; the last five are tumours."""
N_SLOTS = len(SIZE_SLOTS)
FIRST_TUMOR_SLOT = 5
_NEAREST = 16  # known vectors a seed chooses from: about 1 % of the released 1,429


def check_sizes(sizes: Mapping[str, float]) -> dict[str, float]:
    """Sizes by structure, as asked for, in slot order; ``EngineError`` unless names and values make sense.

    At most one tumour may be present (the network was trained on one kind at a time).
    """
    for name, size in sizes.items():
        if name not in SIZE_SLOTS:
            raise EngineError("the size of this structure cannot be controlled", found=name, allowed=SIZE_SLOTS)
        if not (size == ABSENT or 0 <= size <= 1):
            raise EngineError("impossible size", where=name, found=size, allowed="0 to 1, or -1 for absent")
    tumours = [name for name in list(SIZE_SLOTS)[FIRST_TUMOR_SLOT:] if sizes.get(name, ABSENT) != ABSENT]
    if len(tumours) > 1:
        raise EngineError("only one kind of tumour at a time can be asked for", found=tumours, allowed="one, or none")
    return {name: float(sizes[name]) for name in SIZE_SLOTS if name in sizes}


def check_vector(vector: Sequence[float] | np.ndarray) -> np.ndarray:
    """A complete size vector as float64 [10] in slot order; ``EngineError`` unless every value is -1 or at least 0.

    Known vectors are normalized by percentiles, so a few values may lie beyond 1.
    """
    values = np.asarray(vector, np.float64)
    if values.shape != (N_SLOTS,):
        raise EngineError("a size vector has one value per structure", found=values.shape, allowed=list(SIZE_SLOTS))
    possible = (values == ABSENT) | ((values >= 0) & np.isfinite(values))
    if not possible.all():
        raise EngineError("impossible size", found=values[~possible].tolist(), allowed="0 to 1, or -1 for absent")
    return values


def read_known_sizes(path: Path) -> np.ndarray:
    """The size vectors of the training cases, float64 [n, 10] (``all_anatomy_size_conditions.json``)."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        vectors = np.array([entry["organ_size"] for entry in entries], np.float64)
    except OSError as error:
        raise EngineError("the known anatomy sizes cannot be read", where=str(path), found=str(error)) from error
    except (ValueError, TypeError, KeyError) as error:
        raise EngineError(
            "not a list of anatomy sizes",
            where=str(path),
            found=str(error),
            allowed='[{"organ_size": [10 numbers]}, ...]',
            fix="fetch all_anatomy_size_conditions.json again",
        ) from error
    if vectors.ndim != 2 or vectors.shape[1] != N_SLOTS or not np.isfinite(vectors).all():
        raise EngineError("not a list of anatomy sizes", where=str(path), found=vectors.shape, allowed="ten numbers per entry")
    return vectors


def condition_vector(
    sizes: Mapping[str, float], known: np.ndarray, rng: np.random.Generator | None = None, *, compat: bool = False
) -> np.ndarray:
    """A complete size vector, float64 [10], that has the sizes asked for and is plausible in the others.

    known: float64 [n, 10], see ``read_known_sizes``; none are needed where all ten sizes are asked for. The distance is the sum
    of absolute differences over the structures asked for, -1 being a value like any other. rng: chooses among the 16 nearest;
    None takes the nearest.
    compat: the first nearest, with its tumours.
    """
    asked = check_sizes(sizes)
    slots = [list(SIZE_SLOTS).index(name) for name in asked]
    values = np.array(list(asked.values()), np.float64)
    if not len(known) and len(asked) == N_SLOTS:
        return values
    if not len(known):
        raise EngineError(
            "no known anatomy sizes to complete the ones asked for",
            fix="fetch them (`ctmr models pull VARIANT --masks`), or give all ten sizes",
        )
    distance = np.abs(known[:, slots] - values).sum(axis=1)
    order = np.argsort(distance, kind="stable")
    rules = mask_behaviour(compat)
    place = 0 if rules.nearest_condition or rng is None else int(rng.integers(min(_NEAREST, len(order))))
    vector = known[int(order[place])].copy()
    if not rules.nearest_condition:
        vector[FIRST_TUMOR_SLOT:] = ABSENT
    vector[slots] = values
    return vector


def target_tumor(vector: Sequence[float] | np.ndarray) -> int | None:
    """Id of the tumour a size vector asks for: that of the last tumour slot that is not -1, None if all are."""
    present = [
        label
        for label, size in zip(SIZE_SLOTS.values(), check_vector(vector), strict=True)
        if size != ABSENT and label in _TUMOR_IDS
    ]
    return present[-1] if present else None


def absent_labels(vector: Sequence[float] | np.ndarray) -> tuple[int, ...]:
    """Ids of the structures that a size vector says are absent."""
    return tuple(label for label, size in zip(SIZE_SLOTS.values(), check_vector(vector), strict=True) if size == ABSENT)


_TUMOR_IDS = frozenset(list(SIZE_SLOTS.values())[FIRST_TUMOR_SLOT:])
