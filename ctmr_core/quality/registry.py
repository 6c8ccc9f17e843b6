"""Finding checks: the ones of this package, and any that other packages add under the entry-point group ``ctmr.checks``."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from ctmr_core.errors import CheckError
from ctmr_core.quality.alignment import AlignmentCheck, SequencesCheck
from ctmr_core.quality.base import Check
from ctmr_core.quality.components import ComponentsCheck
from ctmr_core.quality.continuity import ContinuityCheck
from ctmr_core.quality.geometry import GeometryCheck
from ctmr_core.quality.histogram import GapsCheck, HuSpreadCheck
from ctmr_core.quality.hu_median import HuMedianCheck
from ctmr_core.quality.intensity import ClippedCheck, ConstantCheck, FiniteCheck
from ctmr_core.quality.labels import LabelsCheck
from ctmr_core.quality.lesion_contrast import LesionContrastCheck
from ctmr_core.quality.lesions import LesionsCheck
from ctmr_core.quality.mr_contrast import MrContrastCheck
from ctmr_core.quality.neighbours import NeighboursCheck
from ctmr_core.quality.noise import NoiseCheck
from ctmr_core.quality.overlap import OverlapCheck
from ctmr_core.quality.sides import OrderCheck, SidesCheck
from ctmr_core.quality.surroundings import SurroundingsCheck
from ctmr_core.quality.truncation import TruncationCheck
from ctmr_core.quality.volumes import VolumesCheck

GROUP = "ctmr.checks"
_BUILT_IN: tuple[type[Check], ...] = (
    GeometryCheck,
    FiniteCheck,
    LabelsCheck,
    LesionsCheck,
    VolumesCheck,
    SidesCheck,
    OrderCheck,
    NeighboursCheck,
    ComponentsCheck,
    TruncationCheck,
    ConstantCheck,
    ClippedCheck,
    GapsCheck,
    HuMedianCheck,
    HuSpreadCheck,
    MrContrastCheck,
    LesionContrastCheck,
    NoiseCheck,
    ContinuityCheck,
    SurroundingsCheck,
    OverlapCheck,
    AlignmentCheck,
    SequencesCheck,
)


@cache
def load_checks() -> tuple[Check, ...]:
    """Every installed check: those of this package in the order they run, then those of other packages by name."""
    checks: list[Check] = [check() for check in _BUILT_IN]
    names = {check.name for check in checks}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        check = point.load()()
        if check.name in names:
            raise CheckError(
                "two checks have the same name", where=point.value, found=check.name, fix="uninstall one of the packages"
            )
        names.add(check.name)
        checks.append(check)
    return tuple(checks)


def check_names() -> list[str]:
    """The names of every installed check."""
    return sorted(check.name for check in load_checks())
