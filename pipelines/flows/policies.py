"""The policy a recipe names: its checks become settings of the recipe's groups before anything is planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctmr_core.cases.recipe import Recipe
from ctmr_core.errors import CtmrError, RecipeError
from ctmr_core.quality.policy import Policy, built_in_policies, load_policy


def with_policy(recipe: Recipe) -> Recipe:
    """The recipe with its policy's checks laid under those of each group, and no policy to resolve any more.

    The policy is a built-in one or a file beside the recipe. Whether an attempt is made again is decided case by case by all
    checks that are on, so weights, a tolerance and segmenters are refused (``RecipeError``): they belong to `ctmr quality run`.
    """
    if recipe.policy is None:
        return recipe
    policy = _load(recipe, recipe.policy)
    _refuse_more_than_checks(recipe, policy)
    groups = tuple(group.model_copy(update={"checks": _laid(policy.checks, group.checks)}) for group in recipe.groups)
    resolved = recipe.model_copy(update={"groups": groups, "policy": None})
    source = recipe.source
    if source is not None:  # another policy is another recipe: the digest says so
        text = f"{source.text}# policy {policy.name}, {policy.digest}\n" if source.text else ""
        resolved._source = replace(source, text=text)
    return resolved


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


def _refuse_more_than_checks(recipe: Recipe, policy: Policy) -> None:
    for field, given in (("weights", policy.weights), ("tolerance", policy.tolerance), ("segmenters", policy.segmenters)):
        if given:
            raise RecipeError(
                f"a recipe takes the checks of a policy, and this one has {field} too",
                where=recipe.where("policy"),
                found=recipe.policy,
                allowed="a policy with checks only",
                fix="name a policy without them here, and apply the whole one with `ctmr quality run` when the dataset is made",
            )


def _laid(policy: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What the group says counts, threshold by threshold."""
    merged = dict(policy)
    for name, given in own.items():
        base = merged.get(name)
        merged[name] = {**base, **given} if isinstance(base, Mapping) and isinstance(given, Mapping) else given
    return merged
