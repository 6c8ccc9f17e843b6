"""The policy a recipe names: its checks become settings of the recipe's groups before anything is planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctmr_core.cases.problems import near
from ctmr_core.cases.recipe import Recipe
from ctmr_core.errors import CtmrError, RecipeError
from ctmr_core.quality.agreement import AgreementCheck, read_segmenters, written_segmenters
from ctmr_core.quality.policy import Policy, built_in_policies, load_policy
from ctmr_core.quality.registry import check_names

#: What the manifest calls the segmenters it carries along.
SEGMENTERS = "segmenters"


def with_policy(recipe: Recipe) -> Recipe:
    """The recipe with its policy's checks laid under those of each group, and no policy to resolve any more.

    The policy is a built-in one or a file beside the recipe. Whether an attempt is made again is decided case by case by all
    checks that are on, so weights and a tolerance are refused (``RecipeError``): they belong to `ctmr quality run`. Segmenters
    become the setting ``agreement`` of every group that does not switch it off: their digest; they themselves go along in the
    manifest, pinned to their files. Refused as well are targets for scores that no installed check gives.
    """
    _refuse_unknown_scores(recipe)
    if recipe.policy is None:
        return recipe
    policy = _load(recipe, recipe.policy)
    _refuse_what_judges_later(recipe, policy)
    laid, carried = _checks_of(recipe, policy)
    groups = tuple(group.model_copy(update={"checks": _laid(laid, group.checks)}) for group in recipe.groups)
    resolved = recipe.model_copy(update={"groups": groups, "policy": None}).carrying(carried)
    source = recipe.source
    if source is not None:  # another policy is another recipe: the digest says so
        text = f"{source.text}# policy {policy.name}, {policy.digest}\n" if source.text else ""
        resolved._source = replace(source, text=text)
    return resolved


def _refuse_unknown_scores(recipe: Recipe) -> None:
    known = {*check_names(), AgreementCheck.name}
    for name in recipe.targets.numbers if recipe.targets is not None else ():
        start, _, rest = name.partition("/")
        check = rest.partition("/")[0]
        if start == "score" and check not in known:
            meant = near(check, known)
            raise RecipeError(
                "a target for a score of an unknown check",
                where=recipe.where("targets", "numbers", name),
                found=check,
                allowed=sorted(known),
                fix=f"did you mean {meant!r}?" if meant else None,
            )


def _load(recipe: Recipe, name: str) -> Policy:
    path = Path(name)
    source = recipe.source
    if name not in built_in_policies() and not path.is_absolute() and source is not None:
        path = Path(source.name).parent / path
    try:
        return load_policy(name if name in built_in_policies() else path)
    except CtmrError as error:
        raise RecipeError(
            error.what, where=f"{recipe.where('policy')}, {error.where}", found=error.found, allowed=error.allowed, fix=error.fix
        ) from error


def _refuse_what_judges_later(recipe: Recipe, policy: Policy) -> None:
    for field, given in (("weights", policy.weights), ("tolerance", policy.tolerance)):
        if given:
            raise RecipeError(
                f"a recipe takes the checks and segmenters of a policy, and this one has {field} too",
                where=recipe.where("policy"),
                found=recipe.policy,
                allowed="a policy with checks and segmenters only",
                fix="name a policy without them here, and apply the whole one with `ctmr quality run` when the dataset is made",
            )


def _checks_of(recipe: Recipe, policy: Policy) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings of checks to be laid under those of the groups, and what the manifest carries along."""
    if not policy.segmenters:
        return dict(policy.checks), {}
    try:
        text = written_segmenters(policy.segmenters)
        digest = read_segmenters(text).digest
    except CtmrError as error:
        raise RecipeError(
            error.what, where=f"{recipe.where('policy')}, {error.where}", found=error.found, allowed=error.allowed, fix=error.fix
        ) from error
    return {**policy.checks, AgreementCheck.name: digest}, {SEGMENTERS: text}


def _laid(policy: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What the group says counts, threshold by threshold."""
    merged = dict(policy)
    for name, given in own.items():
        base = merged.get(name)
        if name == AgreementCheck.name and given is True and base is not None:
            continue  # which segmenters, the policy says
        merged[name] = {**base, **given} if isinstance(base, Mapping) and isinstance(given, Mapping) else given
    return merged
