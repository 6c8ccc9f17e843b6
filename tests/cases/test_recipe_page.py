"""What the pages on recipes and checks say is so."""

from __future__ import annotations

import re
from pathlib import Path

from ctmr_core.anatomy.lesions.sites import LESIONS
from ctmr_core.cases.manifest_table import COLUMNS
from ctmr_core.cases.recipe import Group, Recipe, recipe_from_source
from ctmr_core.cases.recipe_source import parse_source
from ctmr_core.quality.registry import load_checks

DOCS = Path(__file__).resolve().parents[2] / "docs"
RECIPES = (DOCS / "recipes.md").read_text(encoding="utf-8")
QUALITY = (DOCS / "quality.md").read_text(encoding="utf-8")


def test_the_recipe_on_the_page_is_valid():
    text = re.search(r"```yaml\n(.*?)```", RECIPES, re.DOTALL).group(1)
    assert recipe_from_source(parse_source(text, "page")).cases == 600


def test_every_field_column_and_lesion_is_on_the_page():
    for name in (*Recipe.model_fields, *Group.model_fields, *COLUMNS):
        assert f"`{name}`" in RECIPES, name
    for name in (*LESIONS["maisi"], *LESIONS["brain"]):
        assert f"`{name}`" in RECIPES, name


def test_every_check_and_its_thresholds_are_on_the_page():
    for check in load_checks():
        assert f"`{check.name}`" in QUALITY, check.name
        if check.name not in ("hu_median", "mr_contrast"):
            for name, value in check.thresholds.items():
                assert f"`{name}` {value:g}" in QUALITY, name
