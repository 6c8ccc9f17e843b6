"""Refusing names MONAI does not have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ctmr_core.cases.problems import near
from ctmr_core.errors import LearningError


def no_such(what: str, where: str, name: str, names: Sequence[str], allowed: str | Iterable[str] | None = None) -> LearningError:
    """The error for ``name``, which is none of ``names``, with the one that was probably meant."""
    by_lower = {one.lower(): one for one in names}
    meant = near(name, by_lower)
    fix = f"did you mean {by_lower[meant]!r}?" if meant else None
    return LearningError(what, where=where, found=name, allowed=names if allowed is None else allowed, fix=fix)
