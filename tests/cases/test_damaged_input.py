"""Whatever is typed into a recipe or a manifest, the answer is a refusal with a place and never a crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ctmr_core.cases.manifest import Manifest, read_manifest
from ctmr_core.cases.planner import plan
from ctmr_core.cases.recipe import load_recipe, parse_recipe, recipe_from_source
from ctmr_core.cases.recipe_source import parse_source
from ctmr_core.errors import CtmrError

EXAMPLES = (Path(__file__).resolve().parents[2] / "manifests" / "examples.csv").read_text(encoding="utf-8")
DEMO = (Path(__file__).resolve().parents[2] / "manifests" / "demo.yaml").read_text(encoding="utf-8")
DATA = YAML(typ="safe").load(DEMO)

quick = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
snippets = st.sampled_from(
    ["", " ", "\t", ":", ",", "[", "]", "{", "}", '"', "'", "#", "-", "\n", "null", "1e400", ".nan", "ü", "&a", "*a", "!!x"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["ct", "liver", "torso"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choose", "weights", "uniform", "low", "high", "label", "normal", "x"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)


def attempt(work: Callable[[], Manifest]) -> Manifest | CtmrError:
    try:
        return work()
    except CtmrError as error:
        return error


def is_sound(outcome: Manifest | CtmrError, place: str) -> bool:
    """A refusal that names its place, or a manifest whose cases all have the key they should."""
    if isinstance(outcome, CtmrError):
        return place in str(outcome.where)
    return [case.key for case in outcome.iter_cases()] == outcome.case_keys()


def places(node, path=()):
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def replaced(node, path, value):
    if not path:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[path[0]] = replaced(node[path[0]], path[1:], value)
    return copy


@quick
@given(st.integers(0, len(DEMO)), st.integers(0, 12), snippets)
def test_recipes_with_damaged_text_are_planned_or_refused(start, length, snippet):
    text = DEMO[:start] + snippet + DEMO[start + length :]
    outcome = attempt(lambda: plan(recipe_from_source(parse_source(text, "damaged.yaml"))))
    assert is_sound(outcome, "damaged.yaml")


@quick
@given(st.sampled_from(list(places(DATA))[1:]), values)
def test_recipes_with_any_value_anywhere_are_planned_or_refused(path, value):
    def planned() -> Manifest:
        recipe = parse_recipe(replaced(DATA, path, value))
        return plan(recipe.scaled_to(min(recipe.cases, 50)))

    assert is_sound(attempt(planned), "recipe")


@quick
@given(st.integers(0, len(EXAMPLES)), st.integers(0, 9), snippets)
def test_damaged_csv_is_read_or_refused(tmp_path, start, length, snippet):
    path = tmp_path / "m.csv"
    path.write_text(EXAMPLES[:start] + snippet + EXAMPLES[start + length :], encoding="utf-8")
    assert is_sound(attempt(lambda: read_manifest(path)), str(path))


@quick
@given(position=st.floats(0, 1), bit=st.integers(0, 7))
def test_damaged_parquet_is_read_or_refused(tmp_path, position, bit):
    path = tmp_path / "m.parquet"
    whole = tmp_path / "whole.parquet"
    if not whole.exists():
        (tmp_path / "r.yaml").write_text(DEMO)
        plan(load_recipe(tmp_path / "r.yaml")).write(whole)
    data = bytearray(whole.read_bytes())
    data[int(position * (len(data) - 1))] ^= 1 << bit
    path.write_bytes(data)
    assert is_sound(attempt(lambda: read_manifest(path)), str(path))


def test_the_fuzzed_recipe_is_a_good_one():
    assert parse_recipe(DATA).cases == 12
    with pytest.raises(CtmrError):
        parse_recipe(replaced(DATA, ("seed",), "x"))
