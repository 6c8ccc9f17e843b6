"""The ``tissue`` engine: every sequence of a case from one label map by the physics of the scanners."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.sequences import SKULL_STRIPPED, is_ct
from ctmr_core.cases.case import Case
from ctmr_core.engines.base import Images
from ctmr_core.engines.tissue.context import RenderContext
from ctmr_core.engines.tissue.ct import render_ct
from ctmr_core.engines.tissue.mr import render_mr, supported, supported_sequences
from ctmr_core.engines.tissue.parameters import read_parameters
from ctmr_core.errors import EngineError

CT_SEQUENCES = ("ct", "ct_wo_contrast", "ct_contrast")
MR_SEQUENCES = ("mri_t1", "mri_t2", "mri_flair", "mri_pd", "mri_swi")
STRIPPED_SEQUENCES = tuple(f"{name}{SKULL_STRIPPED}" for name in ("mri_t1", "mri_t2", "mri_flair", "mri_swi"))
#: What the label maps of parametric bodies are written in; a template's is known when it is read.
_BODY_VOCABULARY = {"parametric:torso": "maisi", "parametric:head": "brain"}


class TissueEngine:
    """Renders CT and MR from tissues; no weights, runs on a CPU.

    device: where volumes are computed ("cpu", "cuda"); noise is drawn on the CPU everywhere. threads: CPU threads for
    this process; None leaves torch's own choice. Neither the number of threads nor of processes changes the bytes.
    """

    name = "tissue"
    version = "4"  # raised whenever the bytes of any image or label map change
    weights_digest = ""
    sequences = frozenset((*CT_SEQUENCES, *MR_SEQUENCES, *STRIPPED_SEQUENCES))
    vocabularies = frozenset(("maisi", "brain"))

    def __init__(self, device: str = "cpu", threads: int | None = None) -> None:
        try:
            self.device = torch.device(device)
        except RuntimeError as error:
            raise EngineError("unknown device", found=device, allowed="cpu, cuda, cuda:<n>") from error
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise EngineError("no CUDA device is available", found=device, allowed="cpu", fix="render on the CPU")
        if threads is not None:
            if threads < 1:
                raise EngineError("threads must be at least 1", found=threads)
            torch.set_num_threads(threads)
        self.threads = threads

    def validate(self, case: Case) -> None:
        """Refuse (``EngineError``) sequences this engine has no physics for and settings it doesn't know."""
        unknown = [sequence for sequence in case.sequences if sequence not in self.sequences]
        if unknown:
            raise EngineError(
                "the tissue engine can't render this sequence",
                where=f"case {case.case_id}, field sequences",
                found=unknown[0],
                allowed=sorted(self.sequences),
            )
        if case.unlabelled_region is not None:
            raise EngineError(
                "the tissue engine renders label maps; an unlabelled body has none",
                where=f"case {case.case_id}, field body",
                found=case.body,
                allowed="parametric:<kind>, template:<template id>",
            )
        vocabulary = _BODY_VOCABULARY.get(case.body)
        if vocabulary:
            _refuse_unsupported(case, vocabulary)
        try:
            read_parameters(case.engine_parameters)
        except EngineError as error:
            raise error.located(f"case {case.case_id}") from error

    def render(self, case: Case, label_map: LabelMap, attempt: int) -> Images:
        """All sequences of ``case``: int16 [x, y, z] on the grid of ``label_map``; CT in HU, MR in arbitrary units >= 0."""
        self.validate(case)
        if label_map.vocabulary.name not in self.vocabularies:
            raise EngineError(
                "the tissue engine can't read this vocabulary", found=label_map.vocabulary.name, allowed=sorted(self.vocabularies)
            )
        _refuse_unsupported(case, label_map.vocabulary.name)
        with torch.inference_mode():
            context = RenderContext(case, label_map, attempt, self.device, self.threads)
            images = Images()
            for sequence in case.sequences:
                images[sequence], images.parameters[sequence] = _render(context, sequence)
        return images

    def close(self) -> None:
        """Nothing is held between cases."""


def _refuse_unsupported(case: Case, vocabulary: str) -> None:
    """Refuse the MR sequences that make no sense for this part of the body, before anything is rendered."""
    for sequence in case.sequences:
        if not is_ct(sequence) and not supported(sequence, vocabulary):
            raise EngineError(
                f"the tissue engine doesn't render this sequence from {vocabulary} label maps",
                where=f"case {case.case_id}, field sequences",
                found=sequence,
                allowed=sorted({*CT_SEQUENCES, *supported_sequences(vocabulary)}),
            )


def _render(context: RenderContext, sequence: str) -> tuple[np.ndarray, dict[str, Any]]:
    if is_ct(sequence):
        return render_ct(context, sequence)
    return render_mr(context, sequence)
