"""The production line of one worker: what overlaps, in which order, and what it says it is doing."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import Case
from ctmr_core.cases.manifest import Manifest
from ctmr_core.errors import StoreError
from ctmr_core.store import Dataset
from pipelines.factory.activity import Activity, Turns
from pipelines.factory.production import Workshop
from pipelines.factory.watcher import Watcher
from pipelines.factory.work import ActorSettings, CaseOutcome, WorkUnit, lanes
from tests.pipelines.blocks import NO_ANATOMY, blocks_case

PATIENCE = 60.0


class Stages(Watcher):
    """Holds the finishing of one case until another has been rendered."""

    def __init__(self, held: str, until: str, stage: str = "check") -> None:
        self.held, self.until, self.held_in = held, until, stage
        self.rendered = threading.Event()
        self.waited_in_vain = False

    def stage(self, case: Case, attempt: int, stage: str, seconds: float) -> None:
        if (case.case_id, stage) == (self.until, "render"):
            self.rendered.set()
        if (case.case_id, stage) == (self.held, self.held_in):
            self.waited_in_vain = not self.rendered.wait(PATIENCE)


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    Dataset.create(tmp_path / "out", None)
    return str(tmp_path / "out")


def two_units(dataset: str, watcher: Watcher, units: list[WorkUnit]) -> list[str]:
    workshop = Workshop(ActorSettings(dataset), watcher=watcher)
    with ThreadPoolExecutor(2) as calls:
        futures = [calls.submit(workshop.make_unit, unit, threading.Event(), turn) for turn, unit in enumerate(units)]
        reports = [future.result(PATIENCE) for future in futures]
    workshop.close()
    assert [report.unit_id for report in reports] == [unit.id for unit in units]
    return [outcome.status for report in reports for outcome in report.outcomes]


def test_the_last_case_of_a_unit_is_finished_while_the_next_unit_is_rendered(dataset: str) -> None:
    units = [WorkUnit((blocks_case(0), blocks_case(1))), WorkUnit((blocks_case(2), blocks_case(3)))]
    watcher = Stages(held="case-001", until="case-002")
    assert two_units(dataset, watcher, units) == ["accepted"] * 4
    assert not watcher.waited_in_vain


def test_inside_a_unit_a_case_is_finished_while_the_next_is_rendered(dataset: str) -> None:
    watcher = Stages(held="case-000", until="case-001")
    assert two_units(dataset, watcher, [WorkUnit((blocks_case(0), blocks_case(1)))]) == ["accepted"] * 2
    assert not watcher.waited_in_vain


def test_small_volumes_wait_for_the_disk_together_and_large_ones_do_not(dataset: str) -> None:
    stages = Stages(held="case-000", until="case-005", stage="write")
    workshop = Workshop(ActorSettings(dataset=dataset), watcher=stages)
    workshop.make_unit(WorkUnit(tuple(blocks_case(i) for i in range(6))), threading.Event())
    workshop.close()
    assert not stages.waited_in_vain
    assert [lanes(blocks_case(0, size=(side, side, side))) for side in (16, 128, 144, 512)] == [6, 6, 5, 2]


def test_a_rejected_last_case_gets_its_next_attempts_between_the_cases_of_the_next_unit(dataset: str) -> None:
    bad = blocks_case(1, checks={**NO_ANATOMY, "constant": {"ct_range": 5000.0}}, max_attempts=3)
    order: list[tuple[str, int]] = []

    class Order(Watcher):
        def stage(self, case: Case, attempt: int, stage: str, seconds: float) -> None:
            if stage == "render":
                order.append((case.case_id, attempt))

    units = [WorkUnit((blocks_case(0), bad)), WorkUnit(tuple(blocks_case(i) for i in range(2, 6)))]
    assert two_units(dataset, Order(), units) == ["accepted", "rejected", *["accepted"] * 4]
    assert [case_id for case_id, attempt in order if attempt == 0] == [f"case-{i:03d}" for i in range(6)]
    assert [attempt for case_id, attempt in order if case_id == bad.case_id] == [0, 1, 2]


def test_units_render_in_the_order_of_their_turns_whoever_asks_first() -> None:
    turns, seen = Turns(), []

    def render(turn: int) -> None:
        with turns.taken(turn):
            seen.append(turn)

    late = threading.Thread(target=render, args=(1,))
    late.start()
    late.join(0.2)
    assert late.is_alive()
    render(0)
    late.join(PATIENCE)
    assert seen == [0, 1]


def test_a_worker_tells_which_attempt_has_been_under_way_longest() -> None:
    activity = Activity()
    activity.begin_unit("unit")
    activity.enter("first", "body", 0)
    activity.enter("first", "render", 0)
    activity.enter("second", "body", 0)
    status = activity.status()
    assert (status.case_id, status.stage, status.oldest_case) == ("second", "body", "first")
    assert status.oldest_seconds >= status.seconds
    assert status.peak_bytes >= status.rss_bytes > 1_000_000
    activity.leave("first")
    activity.decide("unit", CaseOutcome("first", "accepted", 1, 0.1))
    assert activity.status().finished == {"unit": {"accepted": 1}}
    activity.leave("second")
    activity.end_unit("unit")
    assert (activity.status().stage, activity.status().finished) == ("idle", {})


def test_a_worker_without_the_dataset_or_the_templates_says_so(tmp_path: Path, dataset: str) -> None:
    with pytest.raises(StoreError, match=r"the dataset can't be reached from[\s\S]*every node"):
        Workshop(ActorSettings(str(tmp_path / "elsewhere")))
    with pytest.raises(StoreError, match=r"the template library can't be reached from[\s\S]*every node"):
        Workshop(ActorSettings(dataset, library=str(tmp_path / "templates")))
    with pytest.raises(StoreError, match="another dataset under this name"):
        Workshop(ActorSettings(dataset, lock_token="of a run elsewhere"))


def test_the_licence_of_a_template_is_kept_with_its_cases(tmp_path: Path, dataset: str) -> None:
    library = TemplateLibrary.open(tmp_path / "templates", create=True)
    voxels = np.zeros((16, 16, 16), np.uint8)
    voxels[2:14, 2:14, 2:6], voxels[2:14, 2:14, 6:10], voxels[2:14, 2:14, 10:14] = 1, 3, 200
    label_map = LabelMap(voxels, np.diag([4.0, 4.0, 4.0, 1.0]), load_vocabulary("maisi"))
    digest = library.add("scan", label_map, licence="CC-BY-4.0").digest
    case = blocks_case(0, body="template:scan", template_digest=digest, engine="tissue")
    workshop = Workshop(ActorSettings(dataset, library=str(tmp_path / "templates")))
    report = workshop.make_unit(WorkUnit((case,)), threading.Event())
    workshop.close()
    assert [outcome.status for outcome in report.outcomes] == ["accepted"], report
    row = Dataset.open(dataset).row("case-000")
    assert row["licences"] == ["CC-BY-4.0"]


def test_a_manifest_is_turned_into_cases_without_keeping_them(tmp_path: Path) -> None:
    """Only the positions of the cases to do are kept between their making."""
    from pipelines.flows.options import GenerateOptions
    from pipelines.flows.preparation import prepare

    Manifest.from_cases([blocks_case(i) for i in range(50)]).write(tmp_path / "cases.parquet")
    settings = GenerateOptions(manifest=str(tmp_path / "cases.parquet"), dataset=str(tmp_path / "out"))
    with prepare(settings) as backlog:
        workshop = Workshop(ActorSettings(settings.dataset))
        workshop.make_unit(WorkUnit(tuple(case for case in backlog.cases() if case.body_seed % 7 == 0)), threading.Event())
        workshop.close()
    with prepare(settings) as backlog:
        assert [case.body_seed for case in backlog.cases()] == [i for i in range(50) if i % 7]
        assert (backlog.to_do, backlog.done) == (42, 8)
        assert not any(isinstance(value, list | tuple) and len(value) > 5 for value in vars(backlog).values())


def test_a_case_that_ran_out_of_memory_is_made_again_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(name: str, plan: dict[str, object] | None = None) -> tuple[CaseOutcome, str | None]:
        monkeypatch.delenv("CTMR_FAULTS", raising=False)
        if plan is not None:
            drill = tmp_path / f"{name}.json"
            drill.write_text(json.dumps({"case-000": plan}), encoding="utf-8")
            monkeypatch.setenv("CTMR_FAULTS", str(drill))
        dataset = Dataset.create(tmp_path / name, None)
        workshop = Workshop(ActorSettings(dataset.uri))
        (outcome,) = workshop.make_unit(WorkUnit((blocks_case(0, max_attempts=2),)), threading.Event()).outcomes
        workshop.close()
        dataset.refresh()
        digests = dataset.catalog.to_table(columns=["content_digest"])["content_digest"].to_pylist()
        return outcome, digests[0] if digests else None

    calm, digest = made("calm")
    for stage in ("render", "commit"):
        starved, same = made(f"starved-{stage}", {"0": f"memory@{stage}", "once": True})
        assert (starved.status, starved.attempts, same) == ("accepted", calm.attempts, digest)
    hungry, none = made("hungry", {"*": "memory@render"})
    assert (hungry.status, hungry.attempts, none) == ("failed", 2, None)
    assert hungry.reason.startswith("MemoryError")
