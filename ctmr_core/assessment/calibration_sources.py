"""Where thresholds are learned from: scans with label maps, datasets (of scans, or finished ones), template libraries."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.templates.importing import import_template
from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.anatomy.templates.reading import read_scan
from ctmr_core.anatomy.tissue_map import with_tissues
from ctmr_core.assessment import layout
from ctmr_core.assessment.calibration import ANATOMY_LIMITS, IMAGE_LIMITS, Limits, Scores
from ctmr_core.assessment.measuring import Task, measure_case, measured_between, stored_by_key
from ctmr_core.assessment.stored_scores import READ, Stored, grouped_scores, stored_rows, validated_case
from ctmr_core.cases.case import Case
from ctmr_core.errors import CheckError
from ctmr_core.quality.base import Candidate, ScoredCheck, versioned
from ctmr_core.quality.registry import load_checks
from ctmr_core.store.dataset import Dataset

IMPORTED = "import"  # what the catalog has as the engine of cases that `ctmr import` made of scans


def scores_of_scan(image: str | Path, labels: str | Path, mapping: str, sequence: str) -> Scores:
    """The scores of a real image with its label map (files of any format ``templates import`` reads, on one grid).

    mapping: ids of the label map to the vocabulary, see ``anatomy.mapping``. sequence: what the image is: ``ct``, ``mri_t1`` ...
    The label map is read and completed as a template is. Raises ``AnatomyError`` for files that do not fit.
    """
    with tempfile.TemporaryDirectory(prefix="ctmr-calibrate-") as folder:
        library = TemplateLibrary.open(Path(folder) / "library", create=True)
        import_template(
            labels, library, template_id="real", mapping=mapping, image=image, image_sequence=sequence, split_sides=True,
            drop_unknown=True,
        )  # fmt: skip
        label_map = with_tissues(library.get("real"))
    image_voxels = np.rint(read_scan(image).voxels).astype(np.int16)
    return _measured(Candidate(_case_of("real", label_map, sequence), label_map, {sequence: image_voxels}), IMAGE_LIMITS)


def scores_of_dataset(dataset: Dataset) -> Iterator[Scores]:
    """The scores of the accepted cases of a dataset; of its imported scans alone, where it has any.

    Stored scores are taken; voxels are read of cases the installed checks never judged, such as pairs imported without checks.
    ``CheckError`` for voxels that can't be read.
    """
    checks = _checks(IMAGE_LIMITS)
    later = layout.tables(dataset.storage, "measured")
    for rows in _batches(dataset):
        known = stored_by_key(measured_between(dataset.storage, later, rows))
        for row, stored in stored_rows(rows):
            joined = stored.joined(known[row["case_key"]]) if row["case_key"] in known else stored
            yield _all_scores(dataset, row, joined, checks)


def _batches(dataset: Dataset) -> Iterator[pa.Table]:
    """Some thousand catalog rows at a time."""
    engines = pc.unique(dataset.catalog.to_table(columns=["engine"])["engine"]).to_pylist()
    only = pads.field("engine") == IMPORTED if IMPORTED in engines else None
    for batch in dataset.catalog.scanner(columns=list(READ), filter=only, batch_readahead=4, fragment_readahead=1).to_batches():
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def _all_scores(dataset: Dataset, row: dict[str, Any], stored: Stored, checks: list[ScoredCheck]) -> Scores:
    case = validated_case(row)
    asked = [check for check in checks if check.applies(case)]
    missing = tuple(check.name for check in asked if versioned(check) not in stored.measured)
    scores = dict(stored.scores)
    if missing:
        found = measure_case(dataset.storage, asked, Task.of({**row, "missing": missing}))
        if found.problem:
            raise CheckError(
                "the voxels of a case can't be read", where=f"{dataset.uri}, case {case.case_id}", found=found.problem
            )
        column = pa.chunked_array([pa.array([list(found.scores.items())], pa.map_(pa.string(), pa.float64()))])
        scores |= next(iter(grouped_scores(column)))
    return {check.name: scores.get(check.name, {}) for check in asked}


def scores_of_library(library: TemplateLibrary) -> Iterator[Scores]:
    """The scores of anatomy of every label map of a template library; a library has no images."""
    for name in library.ids():
        label_map = library.get(name)
        yield _measured(Candidate(_case_of(name, label_map, "ct"), label_map, {}), ANATOMY_LIMITS)


def _measured(candidate: Candidate, limits: Limits) -> Scores:
    return {check.name: check.measure(candidate) for check in _checks(limits) if check.applies(candidate.case)}


def _checks(limits: Limits) -> list[ScoredCheck]:
    return [check for check in load_checks() if check.name in limits and isinstance(check, ScoredCheck)]


def _case_of(name: str, label_map: LabelMap, sequence: str) -> Case:
    return Case.model_construct(  # not validated: a scan may be finer or larger than a case
        case_id=name,
        body=f"template:{name}",
        sequences=(sequence,),
        size=label_map.size,
        spacing=label_map.spacing,
        center="",
        lesions=(),
        checks={},
    )
