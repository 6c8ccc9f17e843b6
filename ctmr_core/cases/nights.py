"""What one night adds to a dataset: new cases of a recipe, or the next part of one big plan."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from ctmr_core.cases.case import Case
from ctmr_core.cases.manifest import Manifest
from ctmr_core.cases.planner import plan
from ctmr_core.cases.recipe import Recipe
from ctmr_core.errors import RecipeError

if TYPE_CHECKING:
    from ctmr_core.anatomy.templates.library import TemplateLibrary

NightMode = Literal["grow", "slice"]
_LONGEST_GROUP = 63  # with -20261122 and -0000000 behind it, a case id has 80 characters


def plan_night(
    recipe: Recipe,
    night: dt.date,
    number: int,
    mode: NightMode = "grow",
    per_night: int | None = None,
    library: TemplateLibrary | None = None,
    engine_identity: Callable[[str], str] | None = None,
    validators: Sequence[Callable[[Case], None]] = (),
) -> Manifest:
    """The cases of one night, the same for the same arguments.

    ``grow``: the whole recipe (or ``per_night`` cases of it) with the date in case ids and draws, so every night is new:
    ``<group>-<YYYYMMDD>-0000000``. Templates keep their split from night to night, and the splits of new bodies take up the
    remainders of the nights before. ``slice``: cases ``number * per_night`` to ``(number + 1) * per_night`` of the recipe's one
    plan, groups mixed in proportion; fewer, or none, when the plan is used up.

    number: nights that were planned before this one. Other arguments: as for ``planner.plan``.
    """
    if number < 0:
        raise RecipeError("nights are counted from 0", found=number)
    if mode == "slice":
        if per_night is None:
            raise RecipeError("a part of a plan has a size", allowed="cases per night", fix="give --per-night")
        return _part(plan(recipe, library, engine_identity, validators), number, per_night)
    tonight = recipe.scaled_to(per_night) if per_night else recipe
    return plan(dated(tonight, night), library, engine_identity, validators, earlier_sets=number)


def dated(recipe: Recipe, night: dt.date) -> Recipe:
    """The recipe with the date in its groups' names: other case ids and other draws, the same splits of templates."""
    for index, group in enumerate(recipe.groups):
        if len(group.name) > _LONGEST_GROUP:
            raise RecipeError(
                "the name of the group leaves no room for a date",
                where=recipe.where("groups", index, "name"),
                found=group.name,
                allowed=f"up to {_LONGEST_GROUP} characters",
            )
    groups = tuple(group.model_copy(update={"name": f"{group.name}-{night:%Y%m%d}"}) for group in recipe.groups)
    return recipe.model_copy(update={"groups": groups})


def _part(manifest: Manifest, number: int, size: int) -> Manifest:
    """Part ``number`` of the manifest, in its order. Every part holds the groups in the proportions of the whole."""
    ids = manifest.table["case_id"].to_pandas()
    group = ids.str.rsplit("-", n=1).str[0]
    place = (group.groupby(group).cumcount() + 0.5) / group.groupby(group).transform("size")
    order = np.argsort(place.to_numpy(), kind="stable")
    rows = np.sort(order[number * size : (number + 1) * size])
    return replace(manifest, table=manifest.table.take(pa.array(rows, pa.int64())))
