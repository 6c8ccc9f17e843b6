"""The verdict on one attempt: every check that applies, scores and reasons together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ctmr_core.quality import settings
from ctmr_core.quality.base import Candidate, Check, Verdict, versioned
from ctmr_core.quality.policy import Policy
from ctmr_core.quality.registry import load_checks


def judge(candidate: Candidate, checks: Sequence[Check] | None = None) -> Verdict:
    """Run ``checks`` (default: all installed ones that the case has not switched off) on one attempt.

    A check with a true attribute ``gate`` that fails ends the judging: what the others would say of a volume of the wrong
    shape, or of one without anatomy, helps nobody.
    """
    results, ran = [], []
    for check in load_checks() if checks is None else checks:
        if not settings.is_on(candidate.case, check.name) or not check.applies(candidate.case):
            continue
        result = check.run(candidate)
        results.append(result)
        ran.append(versioned(check))
        if getattr(check, "gate", False) and not result.passed:
            break
    digest = Policy().digest_for(candidate.case) if checks is None else ""  # some checks are no policy
    return Verdict(tuple(results), tuple(ran), digest)


def validate_checks(case_checks: Mapping[str, Any]) -> None:
    """Refuse (``CheckError``) settings of a case that name unknown checks or thresholds, or impossible values."""
    settings.validate(case_checks, {check.name: getattr(check, "thresholds", {}) for check in load_checks()})
