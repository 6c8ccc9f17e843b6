"""Which bodies a group of a recipe draws from: parametric kinds and templates that match a query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ctmr_core.anatomy.regions import REGIONS
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import UNLABELLED_REGIONS
from ctmr_core.cases.problems import near
from ctmr_core.cases.recipe import Recipe, TemplateQuery
from ctmr_core.errors import RecipeError

if TYPE_CHECKING:  # reading templates takes imaging libraries; planning parametric bodies does not
    from ctmr_core.anatomy.templates.library import TemplateLibrary, TemplateRow

PARAMETRIC_VOCABULARY = {"torso": "maisi", "head": "brain"}


@dataclass(frozen=True)
class BodyPool:
    """The bodies of one source. All pools but templates are endless: ``names`` is the one kind, each body a new seed.

    names: bodies as cases name them (``parametric:head``, ``template:<id>``). digests: per name.
    vocabularies: per name ("" for generated bodies: only their engine knows). labels: per name, the label ids in the map
    (empty but for templates). parametric: an endless pool.
    """

    names: tuple[str, ...]
    digests: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    vocabularies: tuple[str, ...]
    weight: float
    parametric: bool


def body_pools(recipe: Recipe, group: int, library: TemplateLibrary | None) -> list[BodyPool]:
    """The pools of one group; ``RecipeError`` where a template query finds nothing."""
    pools = []
    for index, source in enumerate(recipe.groups[group].bodies):
        where = recipe.where("groups", group, "bodies", *((index,) if _is_written_as_list(recipe, group) else ()))
        if source.parametric is not None:
            vocabulary = PARAMETRIC_VOCABULARY[source.parametric]
            pools.append(BodyPool((f"parametric:{source.parametric}",), ("",), ((),), (vocabulary,), source.weight, True))
            continue
        if source.unlabelled is not None:
            vocabulary = UNLABELLED_REGIONS[source.unlabelled]
            pools.append(BodyPool((f"unlabelled:{source.unlabelled}",), ("",), ((),), (vocabulary,), source.weight, True))
            continue
        if source.generated is not None:
            pools.append(BodyPool((f"generated:{source.generated}",), ("",), ((),), ("",), source.weight, True))
            continue
        assert source.templates is not None  # noqa: S101 - the recipe made sure
        if library is None:
            raise RecipeError(
                "the recipe asks for templates, and no template library was given",
                where=where,
                found=source.templates.library,
                fix="give --library, or import templates with `ctmr templates import`",
            )
        rows = sorted(_matching(source.templates, list(library.rows()), where), key=lambda row: row.id)
        pools.append(
            BodyPool(
                tuple(f"template:{row.id}" for row in rows),
                tuple(row.digest for row in rows),
                tuple(row.labels for row in rows),
                tuple(row.vocabulary for row in rows),
                source.weight,
                False,
            )
        )
    if sum(pool.weight for pool in pools) <= 0:
        raise RecipeError(
            "the weights of the bodies are all 0", where=recipe.where("groups", group, "bodies"), allowed="one above 0"
        )
    return [pool for pool in pools if pool.weight > 0]


def _is_written_as_list(recipe: Recipe, group: int) -> bool:
    source = recipe.source
    return source is None or isinstance(source.data["groups"][group]["bodies"], list)


def _matching(query: TemplateQuery, rows: list[TemplateRow], where: str) -> list[TemplateRow]:
    if not rows:
        raise RecipeError(
            "the template library is empty", where=where, found=query.library, fix="import templates with `ctmr templates import`"
        )
    _refuse_unknown_names(query, rows, where)
    wishes = _wishes(query)
    found = [row for row in rows if all(holds(row) for _, holds in wishes)]
    if found:
        return found
    nearest = min(rows, key=lambda row: (sum(not holds(row) for _, holds in wishes), row.id))
    lacking = "; ".join(name for name, holds in wishes if not holds(nearest))
    raise RecipeError(
        "no template matches",
        where=where,
        found=f"{len(rows)} templates; the nearest, {nearest.id}, lacks: {lacking}",
        allowed="; ".join(name for name, _ in wishes),
        fix="ask for less, or import templates that show this; `ctmr templates list` shows what there is",
    )


def _wishes(query: TemplateQuery) -> list[tuple[str, Callable[[TemplateRow], bool]]]:
    """What a template must fulfil, each with its name."""
    wishes: list[tuple[str, Callable[[TemplateRow], bool]]] = []
    if query.ids:
        wishes.append((f"id in {', '.join(query.ids)}", lambda row: row.id in query.ids))
    if query.vocabulary is not None:
        wishes.append((f"vocabulary {query.vocabulary}", lambda row: row.vocabulary == query.vocabulary))
    wishes += [(f"region {region}", partial(_shows_region, region=region)) for region in query.regions]
    wishes += [(f"label {label}", partial(_shows_label, label=label)) for label in query.labels]
    if query.tumor_free is not None:
        wishes.append(("tumor free" if query.tumor_free else "with a tumor", lambda row: row.has_tumor != query.tumor_free))
    return wishes


def _shows_region(row: TemplateRow, region: str) -> bool:
    return region in row.regions


def _shows_label(row: TemplateRow, label: str) -> bool:
    vocabulary = load_vocabulary(row.vocabulary)
    return label in vocabulary and vocabulary.label(label).id in row.labels


def _refuse_unknown_names(query: TemplateQuery, rows: list[TemplateRow], where: str) -> None:
    ids = {row.id for row in rows}
    for name in query.ids:
        if name not in ids:
            meant = near(name, sorted(ids))
            fix = f"did you mean {meant!r}?" if meant else "see `ctmr templates list`"
            raise RecipeError("the library has no such template", where=where, found=name, allowed=f"{len(ids)} ids", fix=fix)
    known = {label.name for name in PARAMETRIC_VOCABULARY.values() for label in load_vocabulary(name)}
    for name in query.labels:
        if name not in known:
            meant = near(name, sorted(known))
            raise RecipeError(
                "no vocabulary has such a label", where=where, found=name, fix=f"did you mean {meant!r}?" if meant else None
            )
    for name in query.regions:
        if name not in REGIONS:
            raise RecipeError("unknown region", where=where, found=name, allowed=REGIONS)
