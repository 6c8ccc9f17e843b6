"""Which bodies a group of a recipe draws from: parametric kinds and templates that match a query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.problems import near
from ctmr_core.cases.recipe import Recipe, TemplateQuery
from ctmr_core.errors import RecipeError

PARAMETRIC_VOCABULARY = {"torso": "maisi", "head": "brain"}


class TemplateRow(Protocol):
    """What the planner needs to know of a template."""

    @property
    def id(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def vocabulary(self) -> str: ...
    @property
    def regions(self) -> Sequence[str]: ...
    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def tumor_free(self) -> bool: ...


class TemplateRows(Protocol):
    """A template library, as far as the planner reads it."""

    def rows(self) -> Iterable[TemplateRow]: ...


@dataclass(frozen=True)
class BodyPool:
    """The bodies of one source. A parametric pool is endless: ``names`` is its one kind, each body a new seed.

    names: bodies as cases name them (``parametric:head``, ``template:<id>``). digests: per name.
    vocabularies: of all its label maps. labels: names of lesions and structures are looked up in them.
    """

    names: tuple[str, ...]
    digests: tuple[str, ...]
    vocabularies: tuple[str, ...]
    weight: float
    parametric: bool


def body_pools(recipe: Recipe, group: int, library: TemplateRows | None) -> list[BodyPool]:
    """The pools of one group; ``RecipeError`` where a template query finds nothing."""
    pools = []
    for index, source in enumerate(recipe.groups[group].bodies):
        where = recipe.where("groups", group, "bodies", *((index,) if _is_written_as_list(recipe, group) else ()))
        if source.parametric is not None:
            vocabulary = PARAMETRIC_VOCABULARY[source.parametric]
            pools.append(BodyPool((f"parametric:{source.parametric}",), ("",), (vocabulary,), source.weight, True))
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
                tuple(sorted({row.vocabulary for row in rows})),
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
    wishes = [
        *((f"id in {', '.join(query.ids)}", lambda row: row.id in query.ids) for _ in range(bool(query.ids))),
        *(
            (f"vocabulary {query.vocabulary}", lambda row: row.vocabulary == query.vocabulary)
            for _ in range(query.vocabulary is not None)
        ),
        *((f"region {name}", lambda row, name=name: name in row.regions) for name in query.regions),
        *((f"label {name}", lambda row, name=name: name in row.labels) for name in query.labels),
        *(
            ("tumor free" if query.tumor_free else "with a lesion", lambda row: row.tumor_free == query.tumor_free)
            for _ in range(query.tumor_free is not None)
        ),
    ]
    found = [row for row in rows if all(holds(row) for _, holds in wishes)]
    if found:
        return found
    nearest = max(rows, key=lambda row: (sum(holds(row) for _, holds in wishes), row.id))
    lacking = "; ".join(name for name, holds in wishes if not holds(nearest))
    raise RecipeError(
        "no template matches",
        where=where,
        found=f"{len(rows)} templates; the nearest, {nearest.id}, lacks: {lacking}",
        allowed="; ".join(name for name, _ in wishes),
        fix="ask for less, or import templates that show this; `ctmr templates list` shows what there is",
    )


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
    from ctmr_core.anatomy.regions import REGIONS

    for name in query.regions:
        if name not in REGIONS:
            raise RecipeError("unknown region", where=where, found=name, allowed=REGIONS)
