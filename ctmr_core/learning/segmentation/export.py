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
from ctmr_core.learning.segmentation.networks import all_scores
from ctmr_core.learning.segmentation.predict import load_segmenter

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
    config = segmenter.config
    window = config.inference.window or config.patch
    if len(config.sequences) != 1:
        raise LearningError("a segmenter of a policy takes one image", where=str(checkpoint), found=list(config.sequences))
    sequences = sorted({*config.sequences, *(name for source in config.sources for name in source.sequences or ())})
    scaling = _window(checkpoint, sequences, config.intensity)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            example = torch.rand(1, 1, *window)
            script = torch.jit.trace(_FirstScores(segmenter.network), example, check_trace=False)
    except (RuntimeError, TypeError) as error:
        raise LearningError(
            "the network can't be written as TorchScript", where=config.network.name, found=str(error).splitlines()[0]
        ) from error
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    torch.jit.save(script, str(beside))  # type: ignore[no-untyped-call]
    beside.replace(out)
    return {
        "name": config.name,
        "source": str(out),
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "mapping": dict(enumerate(_label_names(config.class_table), start=1)),
        "sequences": sequences,
        "spacing": list(segmenter.spacing),
        "window": scaling,
        "roi": list(window),
        "overlap": config.inference.overlap,
    }


def _window(checkpoint: Path | str, sequences: list[str], intensity: Any) -> list[float] | str:
    kinds = {is_ct(name) for name in sequences}
    if kinds == {True}:
        return list(intensity.ct_window)
    if kinds == {False} and intensity.mr == "percentiles" and intensity.mr_percentiles == _POLICY_PERCENTILES:
        return "percentiles"
    raise LearningError(
        "a policy can't scale the images as the training did",
        where=str(checkpoint),
        found=f"{', '.join(sequences)}, {intensity.mr} {intensity.mr_percentiles}",
        allowed="CT alone, or MR alone with percentiles [1, 99]",
    )


def _label_names(classes: Classes) -> list[list[str]]:
    """Labels of every class, groups spelled out."""
    vocabularies = [load_vocabulary(name) for name in DTYPES]
    return [
        list(dict.fromkeys(one.label(number).name for label in labels for one in vocabularies for number in ids_of(one, label)))
        for labels in classes.members.values()
    ]
