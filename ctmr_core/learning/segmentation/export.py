"""A trained network as TorchScript, and as a segmenter of a quality policy."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.anatomy.vocabulary import DTYPES, load_vocabulary
from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets.classes import Classes, ids_of
from ctmr_core.learning.segmentation.config import SegmentationConfig
from ctmr_core.learning.segmentation.networks import all_scores
from ctmr_core.learning.segmentation.predict import TrainedSegmenter, load_segmenter

#: What ``window: percentiles`` of a policy means.
_POLICY_PERCENTILES = (1.0, 99.0)


class _FirstScores(torch.nn.Module):
    """The finest scores of a network, whatever else it gives."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return all_scores(self.network(image))[0]


def export_torchscript(checkpoint: Path | str, out: Path | str) -> dict[str, Any]:
    """Write the network of a checkpoint as TorchScript; gives the entry of ``segmenters`` in a quality policy that runs it.

    The file takes float32 [1, channels, x, y, z], scaled as ``intensity`` of the configuration says, of the size of the window,
    and gives scores [1, classes, x, y, z]. The entry is JSON-able: name, source, sha256, mapping, sequences, spacing, window,
    roi and overlap. A policy takes percentiles of MR over the whole image, with the air around the body.

    Raises ``LearningError`` for networks that can't be traced, and for those a policy can't feed: of several channels, or with
    an MR scaling other than the percentiles 1 and 99.
    """
    segmenter = load_segmenter(checkpoint, "cpu")
    entry = policy_entry(segmenter, str(checkpoint))
    out = Path(out)
    write_script(segmenter, out)
    return {**entry, "source": str(out), "sha256": hashlib.sha256(out.read_bytes()).hexdigest()}


def write_script(segmenter: TrainedSegmenter, out: Path) -> None:
    """The network as TorchScript, traced with a window of noise; ``LearningError`` for networks that can't be traced."""
    config = segmenter.config
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            example = torch.rand(1, len(config.sequences), *window_of(config))
            script = torch.jit.trace(_FirstScores(segmenter.network), example, check_trace=False)
    except (RuntimeError, TypeError) as error:
        raise LearningError(
            "the network can't be written as TorchScript", where=config.network.name, found=str(error).splitlines()[0]
        ) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    torch.jit.save(script, str(beside))  # type: ignore[no-untyped-call]
    beside.replace(out)


def policy_entry(segmenter: TrainedSegmenter, where: str) -> dict[str, Any]:
    """The entry of ``segmenters`` but for source and digest; ``LearningError`` for networks a policy can't feed."""
    config = segmenter.config
    if len(config.sequences) != 1:
        raise LearningError("a segmenter of a policy takes one image", where=where, found=list(config.sequences))
    sequences = trained_sequences(config)
    return {
        "name": config.name,
        "mapping": dict(enumerate(label_names(config.class_table), start=1)),
        "sequences": sequences,
        "spacing": list(segmenter.spacing),
        "window": _window(where, sequences, config.intensity),
        "roi": list(window_of(config)),
        "overlap": config.inference.overlap,
    }


def window_of(config: SegmentationConfig) -> tuple[int, int, int]:
    """Voxels [x, y, z] a network sees at a time."""
    return config.inference.window or config.patch


def trained_sequences(config: SegmentationConfig) -> list[str]:
    """Sequences it was trained on, of the configuration and of its sources."""
    return sorted({*config.sequences, *(name for source in config.sources for name in source.sequences or ())})


def _window(where: str, sequences: list[str], intensity: Any) -> list[float] | str:
    kinds = {is_ct(name) for name in sequences}
    if kinds == {True}:
        return list(intensity.ct_window)
    if kinds == {False} and intensity.mr == "percentiles" and intensity.mr_percentiles == _POLICY_PERCENTILES:
        return "percentiles"
    raise LearningError(
        "a policy can't scale the images as the training did",
        where=where,
        found=f"{', '.join(sequences)}, {intensity.mr} {intensity.mr_percentiles}",
        allowed="CT alone, or MR alone with percentiles [1, 99]",
    )


def label_names(classes: Classes) -> list[list[str]]:
    """Labels of every class, groups spelled out."""
    vocabularies = [load_vocabulary(name) for name in DTYPES]
    return [
        list(dict.fromkeys(one.label(number).name for label in labels for one in vocabularies for number in ids_of(one, label)))
        for labels in classes.members.values()
    ]
