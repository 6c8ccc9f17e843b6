"""A short soak; ``make soak`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.__main__ import Soak, report


def test_two_storms_leave_the_same_dataset(tmp_path: Path) -> None:
    soak = Soak(tmp_path, seed=7, cases=4)
    weathers = [soak.storm(number, whole=False) for number in (1, 2)]
    assert [weather.differences for weather in weathers] == [[], []]
    assert report(weathers).row_count == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_storms_of_whole_runs_leave_the_same_dataset(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    weather = Soak(tmp_path, seed=7).storm(number, whole=True)
    assert weather.differences == [], weather.what
