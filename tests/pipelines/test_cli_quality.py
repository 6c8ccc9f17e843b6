"""``ctmr quality`` and ``ctmr curate``: from a finished dataset to verdicts, thresholds and a curated snapshot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ctmr_core.quality.policy import load_policy
from ctmr_core.store import Dataset
from pipelines.cli.main import app
from tests.assessment.made import made_heads, make_judged

STRICT = "policy: 1\nname: strict\nchecks:\n  hu_median: {skull_low: 2400}\n"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    _, verdicts = make_judged(tmp_path / "d", made_heads())
    assert all(verdict.accepted for verdict in verdicts.values())
    return tmp_path / "d"


def ctmr(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def ctmr_json(*arguments: object) -> dict:
    return json.loads(ctmr(*arguments, "--json"))


def test_a_dataset_is_judged_and_curated(dataset, tmp_path):
    policy = tmp_path / "strict.yaml"
    policy.write_text(STRICT)
    found = ctmr_json("quality", "run", dataset, "--policy", policy)
    assert (found["cases"], found["kept"], found["measured"]) == (3, 2, 0)  # one head has a CT, and its skull is no metal
    assert found["reasons"] == {"hu_median": 1}
    made = ctmr_json("curate", dataset, "--policy", policy, "--snapshot", "v1")
    assert (made["cases"], made["left_out"]) == (2, {"verdict": 1})
    assert list(Dataset.open(dataset, "v1")) == ["head-00", "head-02"]
    assert made["policy"] == load_policy(policy).digest
    assert "2 accepted, 1 not" in ctmr("quality", "run", dataset, "--policy", policy)


def test_options_of_curate_reach_the_selection(dataset):
    ctmr("quality", "run", dataset, "--policy", "default")
    where = "scores['overlap/mri_t1/dice'] > 0.5"
    made = ctmr_json(
        "curate", dataset, "--policy", "default", "--where", where, "--sequence", "mri_t1", "--split", "train", "--split", "val",
        "--balance", "sequences", "--per-stratum", "1", "--snapshot", "v2",
    )  # fmt: skip
    assert made["strata"] == {"ct+mri_t1": 1, "mri_t1": 1}
    text = ctmr("curate", dataset, "--policy", "default", "--sequence", "ct", "--snapshot", "v3")
    assert "v3: 1 cases" in text
    assert "left out  sequences  2" in text


def test_policies_are_listed_with_what_they_accepted(dataset):
    ctmr("quality", "run", dataset, "--policy", "maisi")
    rows = json.loads(ctmr("quality", "policies", dataset, "--json"))
    (applied,) = [row for row in rows if row["place"] == "dataset"]
    assert (applied["policy"]["name"], applied["cases"], applied["accepted_share"]) == ("maisi", 3, 1.0)
    assert {row["policy"]["name"] for row in rows if row["place"] == "built in"} >= {"default", "maisi"}


def test_thresholds_are_learned_from_a_dataset_and_pass_it(dataset, tmp_path):
    out = tmp_path / "ours.yaml"
    found = ctmr_json("quality", "calibrate", dataset, "--out", out, "--fewest", 3, "--percentiles", 0, 100, "--sigmas", 0)
    assert found["volumes"] == 3
    assert "mr_contrast.mri_t1_gm_over_wm_low" in found["learned"]
    assert "hu_median.skull_low" in found["kept_defaults"]
    assert ctmr_json("quality", "run", dataset, "--policy", out)["kept"] == 3


def test_mistakes_are_explained(dataset, tmp_path):
    assert "no such policy" in ctmr("quality", "run", dataset, "--policy", tmp_path / "none.yaml", code=1)
    assert "run `ctmr quality run`" in ctmr("curate", dataset, "--policy", "default", "--snapshot", "v1", code=1)
    assert "images come with their label maps" in ctmr("quality", "calibrate", "a.nii", "--out", tmp_path / "p.yaml", code=1)
    ctmr("curate", dataset, "--policy", "default", code=2)
