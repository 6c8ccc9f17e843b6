"""A policy made ready to judge many cases from their scores: thresholds are laid out once per kind of case, not per case."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ctmr_core.cases.case import Case, Lesion
from ctmr_core.cases.manifest_table import COLUMNS
from ctmr_core.quality import settings
from ctmr_core.quality.base import Check, CheckResult, Verdict, versioned
from ctmr_core.quality.policy import Policy, checks_of

#: Columns of the catalog that judging from scores reads.
READ = (*COLUMNS, "case_key", "status", "attempt", "volume", "scores", "reasons", "judged")
Grouped = dict[str, dict[str, float]]  #: check -> score -> value
_SETTINGS_KEPT = 4096


@dataclass(frozen=True, eq=False)
class _Rule:
    check: Check
    name: str
    version: str
    limits: Mapping[str, float]
    gate: bool


@dataclass(frozen=True, eq=False)
class _Laid:
    """The policy over the settings of some cases."""

    settings: dict[str, Any]
    digest: str
    rules: tuple[_Rule, ...]


@dataclass(frozen=True)
class Stored:
    """What is known of a case without its voxels.

    measured: ``"<check>@<version>"``. reasons: those of its last verdict, needed for checks whose reasons don't follow from
    scores.
    """

    scores: Grouped
    measured: frozenset[str]
    reasons: tuple[str, ...] = ()

    def joined(self, later: Stored) -> Stored:
        """With what was measured later; the later counts."""
        names = {name.partition("@")[0] for name in later.measured}
        kept = {check: own for check, own in self.scores.items() if check not in names}
        measured = frozenset(name for name in self.measured if name.partition("@")[0] not in names)
        reasons = tuple(reason for reason in self.reasons if reason.partition(":")[0] not in names)
        return Stored({**kept, **later.scores}, measured | later.measured, reasons + later.reasons)


class ScoreJudge:
    """Judges cases from what is stored of them."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.checks = checks_of(policy)
        self._laid: dict[str, _Laid] = {}

    def judge(self, row: Mapping[str, Any], stored: Stored) -> tuple[Verdict, list[str]]:
        """The verdict on a catalog row, and the names of the checks it would need that were not measured in this version."""
        laid = self._laid_over(row["checks"])
        case = _case(row, laid.settings)
        results, ran, missing = [], [], []
        for rule in laid.rules:
            if not rule.check.applies(case):
                continue
            if rule.version not in stored.measured:
                missing.append(rule.name)
                continue
            result = CheckResult(rule.name, stored.scores.get(rule.name, {}), tuple(_reasons(rule, case, stored)))
            results.append(result)
            ran.append(rule.version)
            if rule.gate and result.reasons:
                break
        return Verdict(tuple(results), tuple(ran), laid.digest), missing

    def _laid_over(self, text: str) -> _Laid:
        if text not in self._laid:
            if len(self._laid) >= _SETTINGS_KEPT:
                self._laid.clear()
            self._laid[text] = self._lay(json.loads(text))
        return self._laid[text]

    def _lay(self, own: dict[str, Any]) -> _Laid:
        case = self.policy.for_case(Case.model_construct(checks=own))
        rules = tuple(
            _Rule(
                check,
                check.name,
                versioned(check),
                settings.thresholds(case, check.name, getattr(check, "thresholds", {})),
                bool(getattr(check, "gate", False)),
            )
            for check in self.checks
            if settings.is_on(case, check.name)
        )
        return _Laid(case.checks, self.policy.digest_for(Case.model_construct(checks=own)), rules)


def _reasons(rule: _Rule, case: Case, stored: Stored) -> Iterable[str]:
    decide = getattr(rule.check, "decide", None)
    if decide is not None:
        found: Iterable[str] = decide(case, stored.scores.get(rule.name, {}), rule.limits)
        return found
    prefix = f"{rule.name}: "
    return [reason.removeprefix(prefix) for reason in stored.reasons if reason.startswith(prefix)]


def _case(row: Mapping[str, Any], checks: dict[str, Any]) -> Case:
    """The case of a row that was validated when it was committed."""
    return Case.model_construct(
        **{
            **{name: row[name] for name in COLUMNS},
            "sequences": tuple(row["sequences"]),
            "size": tuple(row["size"]),
            "spacing": tuple(row["spacing"]),
            "pose": tuple(row["pose"] or ()),
            "lesions": tuple(Lesion.model_construct(**lesion) for lesion in row["lesions"] or ()),
            "checks": checks,
        }
    )


def validated_case(row: Mapping[str, Any]) -> Case:
    """The case of a catalog row."""
    fields = {name: row[name] for name in COLUMNS}
    for name in ("engine_parameters", "checks"):
        fields[name] = json.loads(fields[name])
    return Case(**fields)


def stored_rows(table: pa.Table) -> Iterator[tuple[dict[str, Any], Stored]]:
    """Every row of a catalog table of :data:`READ`, with what is stored of it. Rows of releases that did not note which checks
    ran count as unmeasured; of rejected ones, of which there are no voxels, the checks that left scores count.
    """
    rows = table.drop_columns(["scores"]).to_pylist()
    for row, scores in zip(rows, grouped_scores(table["scores"]), strict=True):
        judged: Collection[str] | None = row["judged"]
        if judged is None:
            judged = _of_old(scores) if row["status"] == "rejected" else ()
        yield row, Stored(scores, frozenset(judged), tuple(row["reasons"] or ()))


def _of_old(scores: Grouped) -> list[str]:
    from ctmr_core.quality.registry import load_checks

    return [versioned(check) for check in load_checks() if check.name in scores]


def grouped_scores(column: pa.ChunkedArray) -> Iterator[Grouped]:
    """``"<check>/<score>"`` -> value of every row, by check. Names are taken apart once per distinct name, not per row."""
    for chunk in column.chunks:
        offsets = np.asarray(chunk.offsets)
        if len(chunk.keys) == 0:
            yield from ({} for _ in range(len(chunk)))
            continue
        encoded = chunk.keys.dictionary_encode()
        names = [tuple(name.split("/", 1)) for name in encoded.dictionary.to_pylist()]
        index = encoded.indices.to_pylist()
        values = chunk.items.to_pylist()
        for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            grouped: Grouped = {}
            for place in range(start, stop):
                check, score = names[index[place]]
                if check in grouped:
                    grouped[check][score] = values[place]
                else:
                    grouped[check] = {score: values[place]}
            yield grouped
