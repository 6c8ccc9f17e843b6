"""What a set should look like: shares of kinds and ranges of numbers, read from YAML.

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

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ctmr_core.errors import CheckError

CATEGORIES = ("body", "center", "engine", "lesion", "region", "sequence", "split", "vocabulary")
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NumberTarget(_Strict):
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
            raise ValueError("give low and/or high, or mean and sd, or quantiles")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("low is above high")
        if self.quantiles is not None:
            values = [self.quantiles[percent] for percent in sorted(self.quantiles)]
            if len(values) < 2 or values != sorted(values):
                raise ValueError("quantiles are two or more, and rise with the percentage")
        return self


class Targets(_Strict):
    """Targets of a set. shares: category -> value -> share; they are compared after scaling to a sum of 1."""

    tolerance: Share = 0.05
    shares: dict[str, dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]] = Field(default_factory=dict)
    numbers: dict[str, NumberTarget] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _categories_are_known(self) -> Targets:
        for what, shares in self.shares.items():
            if what not in CATEGORIES:
                raise ValueError(f"unknown category {what!r}; allowed: {', '.join(CATEGORIES)}")
            if sum(shares.values()) <= 0:
                raise ValueError(f"the shares of {what} are all 0")
        return self


def read_targets(path: Path) -> Targets:
    """The ``targets:`` block of a YAML file; ``CheckError`` that names file and field where it can't be used."""
    try:
        document: Any = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        raise CheckError("the targets can not be read", where=str(path), found=str(error).splitlines()[0]) from error
    if not isinstance(document, dict) or "targets" not in document:
        raise CheckError("the file has no targets", where=str(path), allowed="targets: {shares: {...}, numbers: {...}}")
    try:
        return Targets.model_validate(document["targets"] or {})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in ("targets", *first["loc"]))
        raise CheckError(first["msg"], where=f"{path}, field {field}", found=first.get("input")) from error
