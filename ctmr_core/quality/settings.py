"""Thresholds of checks: defaults of the check, overridden by ``case.checks``, validated before any work.

``case.checks`` maps check names to ``false`` (switched off), ``true`` (on, the default) or thresholds::

    {"hu_median": {"liver_low": 20, "liver_high": 140}, "overlap": false}
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ctmr_core.cases.case import Case
from ctmr_core.errors import CheckError

Thresholds = Mapping[str, float]


def is_on(case: Case, check: str) -> bool:
    """Whether the check runs for this case; only ``false`` switches it off."""
    return case.checks.get(check, True) is not False


def thresholds(case: Case, check: str, defaults: Thresholds) -> dict[str, float]:
    """The thresholds in force: ``defaults``, overridden by what the case says."""
    given = case.checks.get(check, True)
    return {**defaults, **given} if isinstance(given, Mapping) else dict(defaults)


def validate(settings: Mapping[str, Any], checks: Mapping[str, Thresholds]) -> None:
    """``CheckError`` for unknown checks and thresholds, values that are no numbers, and a low above its high.

    checks: name -> default thresholds of every installed check.
    """
    for name, given in settings.items():
        where = f"checks.{name}"
        if name not in checks:
            raise CheckError("unknown check", where="checks", found=name, allowed=sorted(checks), fix=_meant(name, checks))
        if isinstance(given, bool):
            continue
        if not isinstance(given, Mapping):
            raise CheckError("a check is set by true, false or its thresholds", where=where, found=given, allowed=checks[name])
        for threshold, value in given.items():
            if threshold not in checks[name]:
                fix = _meant(threshold, checks[name])
                raise CheckError("unknown threshold", where=where, found=threshold, allowed=checks[name] or "none", fix=fix)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise CheckError("a threshold is a number", where=f"{where}.{threshold}", found=value, allowed="a finite number")
        _refuse_empty_ranges(where, {**checks[name], **given})


def _refuse_empty_ranges(where: str, values: Thresholds) -> None:
    for threshold, low in values.items():
        high = values.get(f"{threshold.removesuffix('_low')}_high", math.inf) if threshold.endswith("_low") else math.inf
        if low > high:
            raise CheckError("low is above high", where=f"{where}.{threshold}", found=low, allowed=f"at most {high:g}")


def _meant(name: object, names: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(str(name).lower(), list(names), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else None
