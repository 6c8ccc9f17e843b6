"""Making one case again, outside any run, and comparing it with what is committed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.assessment.layout import stored_segmenters
from ctmr_core.cases.case import Case
from ctmr_core.cases.manifest import Manifest
from ctmr_core.engines import load_engine
from ctmr_core.engines.bodies import label_map_of
from ctmr_core.errors import StoreError
from ctmr_core.exchange.importing import ENGINE as IMPORTED
from ctmr_core.quality.agreement import AgreementCheck, read_segmenters
from ctmr_core.quality.base import Candidate
from ctmr_core.quality.judge import judge, segmenters_asked
from ctmr_core.store import Dataset


@dataclass(frozen=True)
class Replay:
    """What came of it. ``differing``: array -> voxels that differ from the committed ones; None when nothing is committed."""

    case_id: str
    attempt: int
    accepted: bool
    reasons: tuple[str, ...]
    differing: dict[str, int] | None
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def identical(self) -> bool:
        return self.differing is not None and not any(self.differing.values())


def planned_case(dataset: Dataset, case_id: str) -> Case:
    """The case as the dataset's manifest has it."""
    manifest = dataset.manifest
    rows = None if manifest is None else manifest.filter(pc.equal(manifest["case_id"], case_id))
    if not rows:
        raise StoreError("the dataset's manifest has no such case", where=dataset.uri, found=case_id)
    return Manifest(rows.drop_columns("case_key"), dataset.uri).case(0)


def replay(
    dataset: Dataset, case_id: str, library: TemplateLibrary | None, attempt: int | None = None, device: str = "cpu"
) -> Replay:
    """Make ``case_id`` once more: the committed attempt, or ``attempt`` (default 0 where nothing is committed).

    ``CheckError`` when the case is judged by a segmenter whose file is not where it was.
    """
    case = planned_case(dataset, case_id)
    if case.engine == IMPORTED:
        raise StoreError(
            "the case was imported, not made: it can not be made again",
            where=dataset.uri,
            found=case_id,
            fix="`ctmr verify` compares its voxels with their digests; `ctmr import` says whether files are the same",
        )
    committed = dataset.row(case_id) if case_id in dataset else None
    number = attempt if attempt is not None else int(committed["attempt"]) if committed else 0
    engine = load_engine(case.engine, device=device, threads=1)
    try:
        label_map, body = label_map_of(case, library, engine, number)
        images = engine.render(case, label_map, number)
    finally:
        engine.close()
    verdict = judge(Candidate(case, label_map, images), agreement=_agreement(dataset, case))
    differing = None
    if committed is not None and number == committed["attempt"]:
        volume = dataset[case_id]
        differing = {name: int(np.count_nonzero(np.asarray(volume.images[name]) != image)) for name, image in images.items()}
        differing["labels"] = int(np.count_nonzero(np.asarray(volume.labels) != label_map.voxels))
    return Replay(case_id, number, verdict.accepted, verdict.reasons, differing, {"images": images.parameters, **body})


def _agreement(dataset: Dataset, case: Case) -> AgreementCheck | None:
    """The segmenters the case asks for, as the dataset keeps them."""
    asked = segmenters_asked(case)
    text = stored_segmenters(dataset.storage, asked) if asked else ""
    return read_segmenters(text) if text else None
