"""Small datasets of cases that were really made and judged, for tests of what is done with them afterwards."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.cases.case import Case
from ctmr_core.engines import load_engine
from ctmr_core.engines.bodies import label_map_of
from ctmr_core.quality.base import Candidate, Verdict
from ctmr_core.quality.judge import judge
from ctmr_core.store import CommitRecord, Dataset, build_row, commit, new_attempt_id, seal, volume_path, write_volume
from tests.store.store_maker import manifest_of


def head_case(number: int, **changes: object) -> Case:
    fields = {
        "case_id": f"head-{number:02d}",
        "body": "parametric:head",
        "body_seed": number,
        "sequences": ("ct", "mri_t1") if number % 2 else ("mri_t1",),
        "size": (40, 44, 40),
        "spacing": (5.0, 5.0, 5.0),
        "split": "val" if number % 3 == 0 else "train",
    }
    return Case(**{**fields, **changes})


def make_candidate(case: Case) -> Candidate:
    engine = load_engine(case.engine, device="cpu", threads=1)
    label_map, _ = label_map_of(case, None, engine, 0)
    return Candidate(case, label_map, engine.render(case, label_map, 0))


@cache
def made_heads() -> list[Candidate]:
    """Three coarse heads with their images, made once per test run."""
    return [make_candidate(head_case(number)) for number in range(3)]


def commit_candidate(dataset: Dataset, candidate: Candidate, *, published: bool = True, judged: bool = True) -> Verdict:
    """Commit it as accepted (``published``) or rejected, whatever its verdict; ``judged``: with what the verdict found."""
    case, verdict = candidate.case, judge(candidate)
    row = build_row(case, label_map=candidate.label_map, census=candidate.census, verdict=verdict if judged else None)
    name = new_attempt_id()
    if published:
        stored_map = LabelMap(candidate.label_map.voxels, candidate.label_map.affine, candidate.label_map.vocabulary)
        stored = write_volume(
            dataset.storage,
            volume_path(case.case_id, name),
            images=candidate.images,
            label_map=stored_map,
            attributes={"case_id": case.case_id, "case_key": case.key},
        )
        record = CommitRecord.accepted(case.case_id, case.key, attempt=0, attempt_id=name, stored=stored, row=row)
    else:
        record = CommitRecord.rejected(case.case_id, case.key, attempt=0, attempt_id=name, row=row)
    commit(dataset.storage, record)
    return verdict


def make_judged(
    uri: Path | str, candidates: list[Candidate], rejected: tuple[int, ...] = (), unjudged: tuple[int, ...] = ()
) -> tuple[Dataset, dict[str, Verdict]]:
    """A sealed dataset of the candidates, and the verdicts they were committed with."""
    dataset = Dataset.create(uri, manifest_of([candidate.case for candidate in candidates]))
    verdicts = {
        candidate.case.case_id: commit_candidate(dataset, candidate, published=i not in rejected, judged=i not in unjudged)
        for i, candidate in enumerate(candidates)
    }
    seal(dataset.storage, "unit-0", [(candidate.case.case_id, candidate.case.key) for candidate in candidates])
    dataset.refresh()
    return dataset, verdicts
