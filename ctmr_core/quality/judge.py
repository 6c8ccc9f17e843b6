"""The verdict on one attempt: every check that applies, scores and reasons together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ctmr_core.cases.case import Case
from ctmr_core.errors import CheckError
from ctmr_core.quality import settings
from ctmr_core.quality.agreement import AgreementCheck
from ctmr_core.quality.base import Candidate, Check, Verdict, versioned
from ctmr_core.quality.policy import Policy
from ctmr_core.quality.registry import load_checks

_DIGEST = re.compile(r"[0-9a-f]{64}")


def judge(candidate: Candidate, checks: Sequence[Check] | None = None, agreement: AgreementCheck | None = None) -> Verdict:
    """Run ``checks`` (default: all installed ones that the case has not switched off) on one attempt.

    A check with a true attribute ``gate`` that fails ends the judging: what the others would say of a volume of the wrong
    shape, or of one without anatomy, helps nobody. agreement: runs the segmenters of cases that ask for some; ``CheckError`` when
    it is missing, or runs others than the case asks for.
    """
    policy = Policy()
    asked = load_checks() if checks is None else checks
    if checks is None and (segmenting := agreement_for(candidate.case, agreement)) is not None:
        asked = (*asked, segmenting)
        policy = Policy(segmenters=tuple(segmenting.segmenters.values()))
    results, ran = [], []
    for check in asked:
        if not settings.is_on(candidate.case, check.name) or not check.applies(candidate.case):
            continue
        result = check.run(candidate)
        results.append(result)
        ran.append(versioned(check))
        if getattr(check, "gate", False) and not result.passed:
            break
    digest = policy.digest_for(candidate.case) if checks is None else ""  # some checks are no policy
    return Verdict(tuple(results), tuple(ran), digest)


def segmenters_asked(case: Case) -> str | None:
    """Digest of the segmenters the case is judged by, see ``AgreementCheck.digest``; None for most cases."""
    asked = case.checks.get(AgreementCheck.name)
    return asked if isinstance(asked, str) else None


def agreement_for(case: Case, agreement: AgreementCheck | None) -> AgreementCheck | None:
    """``agreement`` where the case asks for it, None where it asks for none; ``CheckError`` where it asks for others."""
    asked = segmenters_asked(case)
    if asked is None:
        return None
    if agreement is None or agreement.digest != asked:
        raise CheckError(
            "the case is judged by segmenters that are not at hand",
            where=f"case {case.case_id}, field checks.{AgreementCheck.name}",
            found="none" if agreement is None else f"those of digest {agreement.digest[:12]}",
            allowed=f"those of digest {asked[:12]}",
            fix="plan the recipe again with its policy and its networks, and make cases from the Parquet manifest it gives",
        )
    return agreement


def validate_checks(case_checks: Mapping[str, Any]) -> None:
    """Refuse (``CheckError``) settings of a case that name unknown checks or thresholds, or impossible values."""
    given = dict(case_checks)
    asked = given.pop(AgreementCheck.name, False)
    if asked is not False and not (isinstance(asked, str) and _DIGEST.fullmatch(asked)):
        raise CheckError(
            "segmenters are named by a policy",
            where=f"checks.{AgreementCheck.name}",
            found=asked,
            allowed="false, or what `ctmr plan` writes for a recipe whose policy has segmenters",
        )
    settings.validate(given, {check.name: getattr(check, "thresholds", {}) for check in load_checks()})
