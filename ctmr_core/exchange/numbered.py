"""What formats for training share: one list of labels by number, and the same channels in every case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.exchange.base import ExportCase, ExportPlan
from ctmr_core.exchange.label_tables import LabelTable, Numbering, label_table
from ctmr_core.exchange.nifti import NiftiExporter
from ctmr_core.exchange.planning import one_sequence_set, one_vocabulary


class NumberedExporter(NiftiExporter):
    """NIfTI files with labels in the numbers of one table; ``channels`` are the sequences that all cases have."""

    table: LabelTable
    channels: tuple[str, ...]

    def number(self, plan: ExportPlan, numbering: Numbering, wanted: Iterable[str] = ()) -> Mapping[str, Any]:
        """Find labels and channels; the facts that decide the files. wanted: names of labels or groups to keep; default all.

        ``ExchangeError`` when cases have several vocabularies, or images that others lack.
        """
        vocabulary = load_vocabulary(one_vocabulary(plan, self.name))
        self.channels = one_sequence_set(plan, self.name)
        self.table = label_table(vocabulary, plan.label_ids[vocabulary.name], numbering, wanted)
        return {"numbers": sorted(self.table.numbers.items()), "channels": self.channels}

    def exported_labels(self, case: ExportCase) -> np.ndarray:
        """In the numbers of the table."""
        return self.table.apply(case.labels())


def channel_name(sequence: str) -> str:
    """``CT`` for every kind of CT, by which nnU-Net and MONAI know it; otherwise the sequence."""
    return "CT" if is_ct(sequence) else sequence
