"""The tissues a body is made of: what the physics engine gives signal to.

A *label* says which structure a voxel belongs to; a *tissue* says what it is made of. One structure may hold
several tissues (a vertebra: cortical shell and trabecular core; label 200 "body": skin, fat and muscle).
The table is ``data/tissues.csv``; every engine table (HU, relaxation times) is keyed by tissue name.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

from ctmr_core.errors import AnatomyError


@dataclass(frozen=True)
class Tissue:
    """One tissue: ``id`` (uint8), ``name`` and ``kind`` (gas, fat, soft, fluid, blood, bone, lung, brain, lesion)."""

    id: int
    name: str
    kind: str


@cache
def tissues() -> tuple[Tissue, ...]:
    """All tissues, ordered by id; ``tissues()[i].id == i``."""
    source = resources.files("ctmr_core.anatomy.data").joinpath("tissues.csv")
    rows = csv.DictReader(source.read_text(encoding="utf-8").splitlines())
    table = tuple(Tissue(int(row["id"]), row["name"], row["kind"]) for row in rows)
    if [tissue.id for tissue in table] != list(range(len(table))):
        raise AnatomyError("tissue ids must count up from 0 without gaps", where=str(source))
    return table


@cache
def _ids_by_name() -> dict[str, int]:
    return {tissue.name: tissue.id for tissue in tissues()}


def tissue_id(name: str) -> int:
    """The uint8 id of the tissue ``name``."""
    try:
        return _ids_by_name()[name]
    except KeyError:
        raise AnatomyError("unknown tissue", found=name, allowed=sorted(_ids_by_name())) from None
