"""From recipe to manifest: every case decided, a million in seconds, the same rows on any machine."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ctmr_core.cases.bodies import BodyPool, body_pools
from ctmr_core.cases.case import SCHEMA_VERSION, Case
from ctmr_core.cases.distributions import Choice, Number, apportion, exact_choice
from ctmr_core.cases.feasibility import refuse_unrenderable
from ctmr_core.cases.manifest import META_DIGEST, META_LIBRARY, META_PLANNER, META_RECIPE, META_SCHEMA, META_TARGETS, Manifest
from ctmr_core.cases.manifest_table import LESION_TYPE, SCHEMA, canonical_json, iter_rows
from ctmr_core.cases.recipe import SPLITS, Group, Recipe, load_recipe
from ctmr_core.cases.seeds import recipe_rng
from ctmr_core.errors import CtmrError, RecipeError

if TYPE_CHECKING:
    from ctmr_core.anatomy.templates.library import TemplateLibrary

PLANNER_VERSION = 1  # raised whenever the same recipe would give other rows

Validator = Callable[[Case], None]
_SAMPLED_ROWS = 64  # rows of each group that are built as cases and shown to the validators


def plan(
    recipe: Recipe,
    library: TemplateLibrary | None = None,
    engine_identity: Callable[[str], str] | None = None,
    validators: Sequence[Validator] = (),
    earlier_sets: int = 0,
) -> Manifest:
    """Decide every case of ``recipe``.

    library: where its templates are (opened from the recipe's own ``library`` when None and needed).
    engine_identity: engine name -> what enters the case key; left empty (and filled at generation) when None.
    validators: refuse a case by raising ``CtmrError``; called on a sample that covers every combination of choices.
    earlier_sets: sets as large as this one that were planned before it: its splits take up their remainders, so that 20
        sets of 4 bodies split 9:1 have 8 bodies in the smaller part, and not none.
    """
    if recipe.policy is not None:
        raise RecipeError(
            "the policy of the recipe was not resolved",
            where=recipe.where("policy"),
            found=recipe.policy,
            fix="plan with `ctmr plan`, or lay it under the groups first (pipelines.flows.policies.with_policy)",
        )
    if library is None:
        library = _open_library(recipe)
    pools = [body_pools(recipe, index, library) for index in range(len(recipe.groups))]
    refuse_unrenderable(recipe, pools)
    splits = _Splits(recipe, pools, earlier_sets)
    tables = []
    for index, group in enumerate(recipe.groups):
        table = _plan_group(recipe, group, pools[index], splits, engine_identity)
        _validate_sample(recipe, index, table, validators)
        tables.append(table)
    source = recipe.source
    text = source.text if source and source.text else canonical_json(source.data if source else {})
    metadata = {
        META_SCHEMA: str(SCHEMA_VERSION),
        META_PLANNER: str(PLANNER_VERSION),
        META_RECIPE: text,
        META_DIGEST: source.digest if source else "",
        META_LIBRARY: next(iter(_libraries(recipe)), ""),
        **{f"ctmr.{name}".encode(): text for name, text in recipe.carried.items()},
    }
    if recipe.targets is not None:
        metadata[META_TARGETS] = canonical_json(recipe.targets.model_dump(mode="json", exclude_none=True))
    table = pa.concat_tables(tables).replace_schema_metadata({key: value.encode() for key, value in sorted(metadata.items())})
    return Manifest(table, source.name if source else recipe.name)


def plan_to_file(
    recipe_path: Path | str,
    out: Path | str,
    library: TemplateLibrary | None = None,
    engine_identity: Callable[[str], str] | None = None,
    validators: Sequence[Validator] = (),
) -> Manifest:
    """``plan`` the recipe in a file and write the manifest (Parquet) to ``out``."""
    manifest = plan(load_recipe(recipe_path), library, engine_identity, validators)
    manifest.write(out)
    return manifest


def _libraries(recipe: Recipe) -> dict[str, str]:
    """Library folder -> place in the recipe that names it."""
    named: dict[str, str] = {}
    for index, group in enumerate(recipe.groups):
        for body in group.bodies:
            if body.templates is not None:
                named.setdefault(body.templates.library, recipe.where("groups", index, "bodies"))
    return named


def _open_library(recipe: Recipe) -> TemplateLibrary | None:
    named = _libraries(recipe)
    if not named:
        return None
    if len(named) > 1:
        raise RecipeError(
            "a recipe draws on one template library", where=list(named.values())[1], found=list(named), fix="merge the libraries"
        )
    path, where = next(iter(named.items()))
    from ctmr_core.anatomy.templates.library import TemplateLibrary

    try:
        return TemplateLibrary.open(path)
    except CtmrError as error:
        raise RecipeError(
            f"the template library cannot be opened: {error.what}", where=where, found=path, fix=error.fix
        ) from error


class _Splits:
    """Split of every body. All cases of a body, and of a template in all groups, share one; counts are exact where they can be.

    Groups are served in order, each so that the totals so far come as near to the shares as whole bodies allow.
    """

    def __init__(self, recipe: Recipe, pools: Sequence[Sequence[BodyPool]], earlier_sets: int) -> None:
        self._seed = recipe.seed
        self._shares = np.array([recipe.splits.get(name, 0.0) for name in SPLITS])
        earlier = earlier_sets * sum(_new_bodies(group, pools[index]) for index, group in enumerate(recipe.groups))
        self._assigned = apportion(self._shares, earlier) if earlier else np.zeros(len(SPLITS), np.int64)
        names = sorted({name for group in pools for pool in group if not pool.parametric for name in pool.names})
        drawn = exact_choice(self._shares, len(names), recipe_rng(recipe.seed, "", "template splits"))
        self._templates = dict(zip(names, drawn.tolist(), strict=True))

    def of_templates(self, names: Sequence[str]) -> np.ndarray:
        return np.array([self._templates[name] for name in names], np.int64)

    def of_new_bodies(self, group: str, count: int) -> np.ndarray:
        target = self._shares * (self._assigned.sum() + count) - self._assigned
        target = np.where(self._shares > 0, np.maximum(target, 0.0), 0.0)
        counts = apportion(target, count) if count else np.zeros(len(SPLITS), np.int64)
        self._assigned += counts
        return recipe_rng(self._seed, group, "splits").permutation(np.repeat(np.arange(len(SPLITS)), counts))


def _new_bodies(group: Group, pools: Sequence[BodyPool]) -> int:
    """Bodies of the group that are no templates."""
    shares = apportion([pool.weight for pool in pools], -(-group.cases // group.cases_per_body))
    return int(sum(count for pool, count in zip(pools, shares, strict=True) if pool.parametric))


def _plan_group(
    recipe: Recipe, group: Group, pools: Sequence[BodyPool], splits: _Splits, engine_identity: Callable[[str], str] | None
) -> pa.Table:
    n = group.cases

    def rng(field: str) -> np.random.Generator:
        return recipe_rng(recipe.seed, group.name, field)

    body, body_seed, split, digest = _draw_bodies(group, pools, splits, rng)
    of_case = np.arange(n) // group.cases_per_body
    spacing = group.spacing.draw(n, rng("spacing"))
    identity = engine_identity(group.engine) if engine_identity else ""
    columns = {
        "case_id": pa.array([f"{group.name}-{index:07d}" for index in range(n)], pa.string()),
        "body": body.take(pa.array(of_case)),
        "body_seed": pa.array(body_seed[of_case]),
        "split": pa.array(SPLITS, pa.string()).take(pa.array(split[of_case])),
        "sequences": _draw_options(group.sequences, n, rng("sequences"), pa.list_(pa.string())),
        "size": _draw_options(group.size, n, rng("size"), pa.list_(pa.int32())),
        "spacing": pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * 3), pa.array(spacing.ravel())),
        "center": _draw_options(group.center, n, rng("center"), pa.string()),
        "lesions": _draw_lesions(group, n, rng),
        "deformation": _draw_deformation(group, pools, body, of_case, rng("deformation")),
        "pose": _draw_pose(group, len(body), of_case, rng),
        "engine": _repeated(group.engine, n),
        "engine_parameters": _draw_parameters(group.engine_parameters, n, rng),
        "checks": _repeated(canonical_json(group.checks), n),
        "max_attempts": pa.array(np.full(n, group.max_attempts or recipe.max_attempts, np.int32)),
        "seed": pa.array(np.zeros(n, np.int64)),
        "template_digest": digest.take(pa.array(of_case)),
        "engine_identity": _repeated(identity, n),
    }
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _draw_bodies(
    group: Group, pools: Sequence[BodyPool], splits: _Splits, rng: Callable[[str], np.random.Generator]
) -> tuple[pa.Array, np.ndarray, np.ndarray, pa.Array]:
    """Per body: name, seed (int64), split (index into SPLITS) and template digest."""
    count = -(-group.cases // group.cases_per_body)
    pool_of = exact_choice([pool.weight for pool in pools], count, rng("bodies"))
    first_name = np.cumsum([0, *(len(pool.names) for pool in pools)])
    name_of = np.zeros(count, np.int64)
    split = np.zeros(count, np.int64)
    for index, pool in enumerate(pools):
        here = np.flatnonzero(pool_of == index)
        if pool.parametric:
            name_of[here] = first_name[index]
            split[here] = splits.of_new_bodies(f"{group.name}/{index}", len(here))
        else:
            # Every template equally often; the ones that come up once more are chosen by the seed, not by their ids.
            stream = rng(f"templates/{index}")
            order = stream.permutation(len(pool.names))
            chosen = order[np.arange(len(here)) % len(pool.names)]
            chosen = stream.permutation(chosen)
            name_of[here] = first_name[index] + chosen
            split[here] = splits.of_templates(pool.names)[chosen]
    seeds = rng("body_seed").integers(0, 2**63 - 1, count, dtype=np.int64)
    names = pa.array([name for pool in pools for name in pool.names], pa.string())
    digests = pa.array([digest for pool in pools for digest in pool.digests], pa.string())
    taken = pa.array(name_of)
    return names.take(taken), seeds, split, digests.take(taken)


def _repeated(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), count)


def _draw_options(choice: Choice[Any], count: int, rng: np.random.Generator, kind: pa.DataType) -> pa.Array:
    options = [list(option) if isinstance(option, tuple) else option for option in choice.options]
    return pa.array(options, kind).take(pa.array(choice.draw_options(count, rng)))


def _draw_deformation(
    group: Group, pools: Sequence[BodyPool], body: pa.Array, of_case: np.ndarray, rng: np.random.Generator
) -> pa.Array:
    """Per body, so that cases of one body share it; 0 for parametric bodies, which have their own variation."""
    values = group.deformation.draw(len(body), rng)
    parametric = [pool.names[0] for pool in pools if pool.parametric]
    if parametric:
        import pyarrow.compute as pc

        values = np.where(pc.is_in(body, pa.array(parametric, pa.string())).to_numpy(zero_copy_only=False), 0.0, values)
    return pa.array(values[of_case])


def _draw_pose(group: Group, bodies: int, of_case: np.ndarray, rng: Callable[[str], np.random.Generator]) -> pa.Array:
    """Per body, so that cases of one body lie alike; empty where nothing is turned."""
    if not group.pose.turns:
        return pa.ListArray.from_arrays(pa.array(np.zeros(len(of_case) + 1, np.int32)), pa.array([], pa.float64()))
    values = (
        np.stack([number.draw(bodies, rng(f"pose/{name}")) for name, number in group.pose.angles.items()], axis=1)[of_case] + 0.0
    )
    posed = values.any(axis=1)
    offsets = np.concatenate([[0], 3 * np.cumsum(posed)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[posed].ravel()))


def _draw_lesions(group: Group, count: int, rng: Callable[[str], np.random.Generator]) -> pa.Array:
    lesions = group.lesions
    per_case = np.zeros(count, np.int64)
    if lesions is None:
        return pa.ListArray.from_arrays(pa.array(np.zeros(count + 1, np.int32)), pa.array([], LESION_TYPE))
    affected = count
    if lesions.exact is not None:
        affected = lesions.exact
    elif lesions.probability is not None:
        affected = int(apportion([lesions.probability, 1 - lesions.probability], count)[0])
    chosen = np.sort(rng("lesions/cases").permutation(count)[:affected])
    if lesions.every is not None:
        per_case[chosen] = len(lesions.every)
        kind_of = np.tile(np.arange(len(lesions.every)), affected)
    else:
        per_case[chosen] = np.asarray(lesions.count.options)[lesions.count.draw_options(affected, rng("lesions/count"))]
        kind_of = exact_choice(lesions.weights or [1.0] * len(lesions.kinds), int(per_case.sum()), rng("lesions/kinds"))
    diameters = np.zeros(len(kind_of))
    for index, kind in enumerate(lesions.kinds):
        here = kind_of == index
        diameters[here] = kind.diameter.draw(int(here.sum()), rng(f"lesions/diameter/{index}"), decimals=1)
    labels = pa.array([kind.label for kind in lesions.kinds], pa.string()).take(pa.array(kind_of))
    values = pa.StructArray.from_arrays([labels, pa.array(diameters)], fields=list(LESION_TYPE))
    offsets = np.concatenate([[0], np.cumsum(per_case)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _draw_parameters(tree: dict[str, Any], count: int, rng: Callable[[str], np.random.Generator]) -> pa.Array:
    """The JSON of every case: the text of the tree, cut at its distributions, with drawn values in the cuts."""
    leaves: list[tuple[str, Number | Choice[Any]]] = []

    def marked(node: Any, path: str) -> Any:
        if isinstance(node, Choice):
            leaves.append((path, node))
            return f"\0{len(leaves) - 1}\0"
        if isinstance(node, dict):
            return {key: marked(value, f"{path}/{key}") for key, value in sorted(node.items())}
        if isinstance(node, list):
            return [marked(value, f"{path}/{index}") for index, value in enumerate(node)]
        return node

    text = canonical_json(marked(tree, ""))
    if not leaves:
        return _repeated(text, count)
    pieces = text.split('"\\u0000')  # as JSON writes the mark; canonical_json orders the leaves as they were met
    parts: list[Any] = [itertools.repeat(pieces[0], count)]
    for piece in pieces[1:]:
        index, _, rest = piece.partition('\\u0000"')
        path, leaf = leaves[int(index)]
        parts += [_leaf_texts(leaf, count, rng(f"engine_parameters{path}")), itertools.repeat(rest, count)]
    return pa.array(["".join(row) for row in zip(*parts, strict=True)], pa.string())


def _leaf_texts(leaf: Number | Choice[Any], count: int, rng: np.random.Generator) -> list[str]:
    if leaf.options:
        texts = [canonical_json(option) for option in leaf.options]
        return [texts[index] for index in leaf.draw_options(count, rng).tolist()]
    assert isinstance(leaf, Number)  # noqa: S101 - only numbers are continuous
    return [json.dumps(value) for value in leaf.draw(count, rng, decimals=4).tolist()]


def _validate_sample(recipe: Recipe, index: int, table: pa.Table, validators: Sequence[Validator]) -> None:
    """Build a spread of rows as cases: what the vectors say must be what ``Case`` accepts, and what the engine can render."""
    rows = np.unique(np.linspace(0, table.num_rows - 1, min(_SAMPLED_ROWS, table.num_rows)).astype(np.int64))
    rows = np.union1d(rows, _first_of_each(table, "sequences"))
    sample = table.take(pa.array(rows))
    for cells in iter_rows(sample, 0, sample.num_rows):
        case = Case(**cells)
        for validate in validators:
            try:
                validate(case)
            except CtmrError as error:
                raise RecipeError(
                    error.what, where=recipe.where("groups", index), found=error.found, allowed=error.allowed, fix=error.fix
                ) from error


def _first_of_each(table: pa.Table, column: str) -> np.ndarray:
    """The first row of each distinct value of a list column."""
    seen: dict[tuple[str, ...], int] = {}
    for row, value in enumerate(table[column].slice(0, 10_000).to_pylist()):
        seen.setdefault(tuple(value), row)
    return np.fromiter(seen.values(), np.int64)
