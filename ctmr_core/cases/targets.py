"""What a finished set should look like: shares of kinds and ranges of numbers, as the ``targets:`` section of a recipe.

::

    targets:
      tolerance: 0.05                       # how far shares may be off in all (total variation, 0..1)
      shares:
        sequence: {ct: 0.5, mri_t1: 0.5}    # or split, body, engine, region, center, lesion, vocabulary
        split: {train: 0.8, val: 0.1, test: 0.1}
      numbers:
        volume_ml/liver: {low: 800, high: 2600, share: 0.95}   # at least 95 % of the cases between
        score/hu_median/ct/liver: {mean: 55, sd: 12}           # a normal distribution
        spacing_z_mm: {quantiles: {5: 1.0, 50: 2.5, 95: 5.0}}  # a distribution by its percentiles
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ctmr_core.anatomy.regions import REGIONS
from ctmr_core.anatomy.sequences import MODALITY_CODES
from ctmr_core.anatomy.vocabulary import DTYPES, load_vocabulary
from ctmr_core.cases.distributions import Strict
from ctmr_core.cases.problems import near

#: Category -> the values it can have; None where any is possible.
CATEGORIES: Mapping[str, tuple[str, ...] | None] = {
    "body": None,
    "center": None,
    "engine": None,
    "lesion": None,
    "region": REGIONS,
    "sequence": tuple(MODALITY_CODES),
    "split": ("train", "val", "test"),
    "vocabulary": tuple(DTYPES),
}
#: Numbers every case has, and beginnings of those that follow from labels, lesions and scores.
NUMBERS = ("attempt", "deformation_mm", "labels", "lesions", "spacing_x_mm", "spacing_z_mm")
NUMBERS_OF = {"volume_ml": "label", "lesion_mm": "lesion", "score": "check>/<score"}
_MANY = 20  # names an error lists
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class NumberTarget(Strict):
    """One of: low and/or high with the ``share`` of cases that must lie between; mean and sd; quantiles (percent -> value).

    distance: greatest Wasserstein distance allowed, in standard deviations of the target.
    """

    low: Finite | None = None
    high: Finite | None = None
    share: Share = 0.95
    mean: Finite | None = None
    sd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    quantiles: dict[Annotated[float, Field(ge=0, le=100)], Finite] | None = None
    distance: Annotated[float, Field(gt=0)] = 0.25

    @model_validator(mode="after")
    def _one_kind(self) -> NumberTarget:
        given = [self.low is not None or self.high is not None, self.mean is not None, self.quantiles is not None]
        if sum(given) != 1 or (self.mean is None) != (self.sd is None):
            raise ValueError("a target is one of several kinds; allowed: low and/or high, or mean and sd, or quantiles")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("low is above high; allowed: low at most high")
        if self.quantiles is not None:
            values = [self.quantiles[percent] for percent in sorted(self.quantiles)]
            if len(values) < 2 or values != sorted(values):
                raise ValueError("the quantiles make no distribution; allowed: two or more that rise with the percentage")
        return self


class Targets(Strict):
    """Targets of a set. shares: category -> value -> share; they are compared after scaling to a sum of 1.

    numbers: what is counted of every case, of each label (``volume_ml/<label>``) and lesion (``lesion_mm/<lesion>``), and scores
    of checks (``score/<check>/<score>``).
    """

    tolerance: Share = 0.05
    shares: dict[str, dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]] = Field(default_factory=dict)
    numbers: dict[str, NumberTarget] = Field(default_factory=dict)

    @field_validator("shares")
    @classmethod
    def _kinds_are_known(cls, given: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for what, shares in given.items():
            if what not in CATEGORIES:
                raise _unknown("unknown category", [what], what, CATEGORIES)
            known = _lesions() if what == "lesion" else CATEGORIES[what]
            for value in shares if known is not None else ():
                if value not in known:  # type: ignore[operator]
                    raise _unknown(f"unknown {what}", [what, value], value, known or ())
            if sum(shares.values()) <= 0:
                raise ValueError(f"the shares of {what} are all 0; allowed: at least one above 0")
        return given

    @field_validator("numbers")
    @classmethod
    def _numbers_are_known(cls, given: dict[str, NumberTarget]) -> dict[str, NumberTarget]:
        for name in given:
            start, _, rest = name.partition("/")
            if name in NUMBERS or (start == "score" and rest):
                continue
            if start in NUMBERS_OF and rest:
                known = _labels() if start == "volume_ml" else _lesions()
                if rest not in known:
                    raise _unknown(f"unknown {NUMBERS_OF[start]}", [name], rest, known)
                continue
            allowed = [*NUMBERS, *(f"{start}/<{what}>" for start, what in NUMBERS_OF.items())]
            raise _unknown("unknown number", [name], name, allowed)
        return given


def _unknown(what: str, path: list[str], found: str, known: Iterable[str]) -> PydanticCustomError:
    names = list(known)
    meant = near(found, names)
    listed = ", ".join(names[:_MANY]) + (" ..." if len(names) > _MANY else "")
    fix = f"did you mean {meant!r}?" if meant else ""
    return PydanticCustomError(
        "unknown_target",
        "the name is not known",
        {"path": path, "what": what, "found": found, "allowed": listed, "fix": fix},
    )


@cache
def _labels() -> tuple[str, ...]:
    return tuple(label.name for name in DTYPES for label in load_vocabulary(name))


@cache
def _lesions() -> tuple[str, ...]:
    return ("none", *(label.name for name in DTYPES for label in load_vocabulary(name) if label.group == "lesion"))
