"""Every row of docs/maisi.md is held by tests that are there, and the few things that no other test holds."""

from __future__ import annotations

import re
import tomllib

import pytest

from ctmr_core.engines.maisi.variants import VARIANTS
from ctmr_core.quality.hu_median import GROUPS
from tests.conftest import REPOSITORY
from tests.engines.maisi.documented_rows import ROWS

PAGE = (REPOSITORY / "docs" / "maisi.md").read_text(encoding="utf-8")


def documented():
    cells = [line.split("|")[1] for line in PAGE.splitlines() if re.match(r"\| [FB]\d", line)]
    return [row.strip() for cell in cells for row in cell.split(",")]


def test_the_page_has_every_row_once():
    assert sorted(documented()) == sorted(ROWS)
    assert set(ROWS) == {f"F{n}" for n in range(1, 33)} | {f"B{n}" for n in range(1, 36)}
    assert "not yet" not in PAGE


@pytest.mark.parametrize("row", list(ROWS))
def test_every_row_names_tests_that_are_there(row):
    for name in ROWS[row]:
        file, _, test = name.partition("::")
        assert re.search(rf"^def {test}\(", (REPOSITORY / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE), name


def test_all_five_lobes_are_checked():
    assert GROUPS["maisi"]["lung"] == (28, 29, 30, 31, 32)


def test_rectified_flow_takes_30_steps_unless_told():
    assert {name: chosen.steps for name, chosen in VARIANTS.items()} == {
        "rflow-ct": 30,
        "ddpm-ct": 1000,
        "rflow-mr": 30,
        "rflow-mr-brain": 30,
    }


def test_guidance_is_as_shipped():
    assert (VARIANTS["rflow-mr"].guidance, VARIANTS["rflow-mr-brain"].guidance, VARIANTS["rflow-ct"].guidance) == (15, 2, 0)


def test_numpy_2_is_required():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[<>=\[]", line)[0]: line for line in project["dependencies"]}
    assert wanted["numpy"].startswith("numpy>=2")
    assert wanted["monai"].startswith("monai>=1.5.2"), "the first releases have no rectified flow"


def test_the_pages_python_compiles_and_its_links_lead_somewhere():
    for example in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        compile(example, "docs/maisi.md", "exec")
    for link in re.findall(r"\]\(([^)#]+)", PAGE):
        assert link.startswith("https://") or (REPOSITORY / "docs" / link).exists(), link
    for path in re.findall(r"`((?:ctmr_core|benchmarks|manifests)/[\w/.]+)`", PAGE):
        assert (REPOSITORY / path).exists(), path
