"""A policy: which checks decide, under which thresholds and with which weights. Data, not code.

::

    policy: 1
    name: strict livers
    checks:
      hu_median: {liver_low: 20, liver_high: 140}
      overlap: false
    weights: {noise: 0}      # scored and reported, does not reject
    tolerance: 0             # weight of failed checks a case may have and still be accepted

Every verdict names the policy it was given under by :attr:`Policy.digest`, which covers the thresholds in force (the
defaults of the checks included), so that a change of defaults is a change of policy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ctmr_core.cases.case import Case
from ctmr_core.errors import CheckError
from ctmr_core.quality import settings
from ctmr_core.quality.agreement import AgreementCheck, Segmenter
from ctmr_core.quality.base import Check, CheckResult
from ctmr_core.quality.registry import load_checks

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Policy(BaseModel):
    """Settings of checks, as in a recipe (``false``, ``true`` or thresholds); weights (1 where none is given); tolerance.

    A check with weight 0 gives advice: its reasons are kept and never reject. ``tolerance``: summed weight of failed checks up
    to which a case is accepted; a failed gate (geometry, finite, labels) always rejects. segmenters: networks whose
    segmentation of the images is compared with the label map, see ``quality.agreement``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Literal[1] = 1
    name: Annotated[str, Field(min_length=1, max_length=80)] = "default"
    description: str = ""
    checks: dict[str, bool | dict[str, float]] = Field(default_factory=dict)
    weights: dict[str, Weight] = Field(default_factory=dict)
    tolerance: Weight = 0.0
    segmenters: tuple[Segmenter, ...] = ()

    @field_validator("segmenters")
    @classmethod
    def _names_are_unique(cls, segmenters: tuple[Segmenter, ...]) -> tuple[Segmenter, ...]:
        names = [segmenter.name for segmenter in segmenters]
        if len(set(names)) != len(names):
            raise ValueError(f"two segmenters have the same name: {', '.join(names)}")
        return segmenters

    def for_case(self, case: Case) -> Case:
        """The case with this policy's settings laid over its own."""
        merged = dict(case.checks)
        for name, given in self.checks.items():
            own = merged.get(name)
            both = isinstance(own, Mapping) and isinstance(given, Mapping)
            merged[name] = {**own, **given} if both else given  # type: ignore[dict-item]
        return case.model_copy(update={"checks": merged})

    def weight(self, check: str) -> float:
        return self.weights.get(check, 1.0)

    def accepts(self, results: Iterable[CheckResult]) -> bool:
        """Whether the failed checks weigh no more than the tolerance, and no gate among them."""
        failed = [result.check for result in results if not result.passed]
        return not (gates() & set(failed)) and sum(self.weight(name) for name in failed) <= self.tolerance

    def score(self, results: Iterable[CheckResult]) -> float:
        """Share of the weight of the checks that passed, 0..1; 1 when nothing with a weight applied."""
        weights = [(self.weight(result.check), result.passed) for result in results]
        total = sum(weight for weight, _ in weights)
        return sum(weight for weight, passed in weights if passed) / total if total else 1.0

    @cached_property
    def digest(self) -> str:
        """SHA-256 hex over the thresholds in force of every installed check, weights and tolerance."""
        return _digest(self, {})

    def digest_for(self, case: Case) -> str:
        """The digest of this policy laid over the settings of ``case``."""
        return _digest(self, self.for_case(case).checks)


def _digest(policy: Policy, checks: Mapping[str, Any]) -> str:
    segmenters = [segmenter.identity for segmenter in policy.segmenters]
    document = json.dumps([policy.checks, checks, policy.weights, policy.tolerance, segmenters], sort_keys=True)
    return _digest_of(document, load_checks())


@cache
def _digest_of(document: str, installed: tuple[Check, ...]) -> str:
    laid, own, weights, tolerance, segmenters = json.loads(document)
    parts = [_in_force({**laid, **own}, installed), weights, tolerance, *([segmenters] if segmenters else [])]
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _in_force(given: Mapping[str, Any], installed: Iterable[Check]) -> dict[str, Any]:
    """check -> false, or [version, threshold -> value], of every installed check."""
    force: dict[str, Any] = {}
    for check in installed:
        own = given.get(check.name, True)
        limits = {**getattr(check, "thresholds", {}), **(own if isinstance(own, Mapping) else {})}
        version = getattr(check, "version", "1")
        force[check.name] = False if own is False else [version, {name: float(value) for name, value in limits.items()}]
    return force


def checks_of(policy: Policy) -> tuple[Check, ...]:
    """Every installed check, and the one that runs the policy's segmenters."""
    return (*load_checks(), AgreementCheck(policy.segmenters)) if policy.segmenters else load_checks()


def document_of(policy: Policy) -> dict[str, Any]:
    """The policy with its digest and every threshold in force, as JSON-able values."""
    return {
        "policy": policy.model_dump(mode="json"),
        "digest": policy.digest,
        "in_force": _in_force(policy.checks, load_checks()),
    }


@cache
def gates() -> frozenset[str]:
    """The checks whose failure ends the judging."""
    return frozenset(check.name for check in load_checks() if getattr(check, "gate", False))


def built_in_policies() -> list[str]:
    """Names of the policies that come with the project."""
    folder = resources.files("ctmr_core.quality") / "policies"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_policy(source: str | Path) -> Policy:
    """A policy from a YAML file, or a built-in one by name. ``CheckError`` names file and field of what is wrong."""
    path = Path(source)
    if str(source) in built_in_policies():
        text = (resources.files("ctmr_core.quality") / "policies" / f"{source}.yaml").read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckError(
                "there is no such policy",
                where=str(path),
                found=str(error),
                allowed=["a YAML file", *built_in_policies()],
            ) from error
    policy = parse_policy(text, str(source))
    placed = tuple(segmenter.beside(path.parent) for segmenter in policy.segmenters)
    return policy.model_copy(update={"segmenters": placed})


def parse_policy(text: str, name: str) -> Policy:
    """The policy in ``text`` (YAML 1.2); ``name`` is what errors call it."""
    try:
        document = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise CheckError("this is not valid YAML", where=name, found=str(error).splitlines()[0]) from error
    if not isinstance(document, Mapping):
        raise CheckError("a policy is a mapping", where=name, found=document, allowed=list(Policy.model_fields))
    try:
        policy = Policy.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CheckError(
            first["msg"], where=f"{name}, field {place}", found=first["input"], allowed=list(Policy.model_fields)
        ) from error
    checks = {check.name: getattr(check, "thresholds", {}) for check in load_checks()}
    try:
        settings.validate(policy.checks, checks)
    except CheckError as error:
        raise error.located(name) from error
    weighable = {*checks, *([AgreementCheck.name] if policy.segmenters else [])}
    unknown = sorted(set(policy.weights) - weighable)
    if unknown:
        raise CheckError("a weight of an unknown check", where=f"{name}, field weights", found=unknown, allowed=sorted(weighable))
    return policy


def write_policy(policy: Policy, path: Path) -> None:
    """Write the policy as YAML; ``load_policy`` reads it back equal."""
    writer = YAML()
    writer.width = 130
    document = policy.model_dump(mode="json", exclude_defaults=False)
    with path.open("w", encoding="utf-8") as stream:
        writer.dump(document, stream)
