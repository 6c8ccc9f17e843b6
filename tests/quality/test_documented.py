"""docs/quality.md names every check, and the thresholds it has with the defaults it has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ctmr_core.quality.registry import _BUILT_IN

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "quality.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("check", _BUILT_IN, ids=lambda check: check.name)
def test_the_page_has_the_check_and_its_thresholds(check):
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{check.name}` |")]
    own = {} if check.name in ("hu_median", "mr_contrast") else check.thresholds  # these have tables of their own
    assert len(rows) == (1 if check.name == "finite" else 2)
    found = dict(re.findall(r"`(\w+)` (-?[\d.]+)", rows[-1]))
    assert {name: float(value) for name, value in found.items() if name in own} == own, "docs/quality.md, Thresholds"
