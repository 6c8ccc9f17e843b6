"""The report of a small dataset, read back, and opened in a real browser where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ctmr_core.anatomy.grid import Grid
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.assessment.set_measures import SetOptions, keep_document, measure_set
from ctmr_core.cases.case import Case
from ctmr_core.cases.manifest import Manifest
from ctmr_core.quality.base import Candidate, CheckResult, Verdict
from ctmr_core.report import write_montage, write_report
from ctmr_core.report.judgement import judged_cases
from ctmr_core.store import (
    CommitRecord,
    Dataset,
    build_row,
    commit,
    create_snapshot,
    new_attempt_id,
    seal,
    volume_path,
    write_volume,
)

LIVER = {"ct/liver": 161.0, "ct/liver_voxels": 500.0}  # HU: the limit is 162
ACCEPTED = Verdict((CheckResult("finite", {"share": 1.0}), CheckResult("hu_median", LIVER)), ("finite@1", "hu_median@1"))
OTHER = Verdict((ACCEPTED.results[0], CheckResult("hu_median", {**LIVER, "ct/liver": 70.0})), ACCEPTED.checks)
REJECTED = Verdict((CheckResult("lesions", {"voxels": 0.0}, ("hepatic tumor is missing <b>&",)),))


def commit_case(dataset: Dataset, name: str, verdict: Verdict) -> tuple[str, str]:
    case = Case(case_id=name, body="parametric:torso", sequences=("ct",), size=(24, 20, 16), spacing=(4.0, 4.0, 5.0))
    voxels = np.zeros(case.size, np.uint8)
    voxels[4:20, 4:16, :], voxels[8:12, 8:12, 4:8] = 200, 26
    label_map = LabelMap(voxels, Grid.centred(case.size, case.spacing).affine, load_vocabulary("maisi"))
    images = {"ct": np.where(voxels > 0, 50, -1000).astype(np.int16)}
    census = Candidate(case, label_map, images).census
    row = build_row(case, label_map=label_map, census=census, verdict=verdict, timings={"render": 1.5})
    attempt_id = new_attempt_id()
    if verdict.accepted:
        stored = write_volume(dataset.storage, volume_path(name, attempt_id), images=images, label_map=label_map, attributes={})
        record = CommitRecord.accepted(name, case.key, attempt=0, attempt_id=attempt_id, stored=stored, row=row)
    else:
        record = CommitRecord.rejected(name, case.key, attempt=2, attempt_id=attempt_id, row=row)
    commit(dataset.storage, record)
    return name, case.key


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    made = Dataset.create(tmp_path / "data")
    seal(
        made.storage,
        "unit",
        [commit_case(made, f"case-{i}", verdict) for i, verdict in enumerate((ACCEPTED, OTHER, REJECTED, ACCEPTED))],
    )
    made.refresh()
    return made


def test_the_page_is_self_contained_and_tells_counts_reasons_and_cases(dataset: Dataset, tmp_path: Path) -> None:
    page = write_report(dataset, tmp_path / "report.html", sample=2).read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page), "nothing is loaded from elsewhere"
    assert re.search(r"<b>3</b><span>accepted</span>", page)
    assert re.search(r"<b>1</b><span>rejected</span>", page)
    assert "hepatic tumor is missing &lt;b&gt;&amp;" in page
    assert len(re.findall(r'<section class="case"', page)) == 2
    assert "data:image/png;base64," in page
    assert "hepatic tumor" in page


def test_the_page_tells_verdicts_borderline_cases_and_what_moved(dataset: Dataset, tmp_path: Path) -> None:
    create_snapshot(dataset, "before", cases=["case-0", "case-1"])
    page = write_report(dataset, tmp_path / "report.html", sample=1).read_text(encoding="utf-8")
    assert re.search(r'<td>lesions</td><td class="number">1</td><td class="number">1</td><td class="number">25.0%</td>', page)
    assert "hu_median.liver_high" in page
    assert "Scores nearest to their thresholds" in page
    assert page.count("<figcaption>") == 2
    assert "Since snapshot before" in page
    assert "From 2 to 3 cases" in page
    assert "The set as a whole" not in page, "it was never measured"
    keep_document(dataset, measure_set(dataset, SetOptions(measures=("duplicates",))))
    page = write_report(dataset, tmp_path / "report.html", sample=0).read_text(encoding="utf-8")
    assert "The set as a whole" in page
    assert "near-duplicates" in page


def test_scores_of_other_versions_of_a_check_are_not_asked_for_margins(tmp_path: Path) -> None:
    made = Dataset.create(tmp_path / "data")
    old = Verdict((CheckResult("lesions", {"ratio": 1.0}), CheckResult("hu_median", LIVER)), ("lesions@0", "hu_median@1"))
    seal(made.storage, "unit", [commit_case(made, "old", old)])
    made.refresh()
    ((_, scores),) = judged_cases(made)
    assert set(scores) == {"hu_median"}


def test_a_dataset_without_accepted_cases_has_a_page(tmp_path: Path) -> None:
    empty = Dataset.create(tmp_path / "empty", Manifest.from_cases([]).table.append_column("case_key", [[]]))
    assert "accepted" in write_report(empty, tmp_path / "empty.html").read_text(encoding="utf-8")


def test_a_montage_has_a_row_for_each_case(dataset: Dataset, tmp_path: Path) -> None:
    from PIL import Image

    one = Image.open(write_montage(dataset, ["case-0"], tmp_path / "one.png", height=64))
    two = Image.open(write_montage(dataset, ["case-0", "case-1"], tmp_path / "two.png", height=64))
    assert two.height > 1.8 * one.height
    assert two.width == one.width


def test_the_page_opens_in_a_browser(dataset: Dataset, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    path = write_report(dataset, tmp_path / "report.html")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    done = subprocess.run(
        [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert "Dataset data" in done.stdout
    assert done.stdout.count('<section class="case"') == 3
