"""A trained network as a MONAI bundle: a folder that ``python -m monai.bundle run`` runs, and a segmenter of policies."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from ctmr_core.errors import LearningError
from ctmr_core.learning.segmentation.bundle_inference import inference_document
from ctmr_core.learning.segmentation.bundle_texts import LOGGING, data_licence, licence_note, metadata, readme
from ctmr_core.learning.segmentation.config import SegmentationConfig
from ctmr_core.learning.segmentation.export import policy_entry, write_script
from ctmr_core.learning.segmentation.predict import BUNDLE_RECORD, TrainedSegmenter, load_segmenter
from ctmr_core.learning.training.checkpoints import load_checkpoint
from ctmr_core.quality.segmenters import Segmenter, content_digest


def export_bundle(
    checkpoint: Path | str, out: Path | str, *, licence: str = "", authors: str = "", version: str = "1.0.0"
) -> dict[str, Any] | None:
    """Write the network of a checkpoint as a MONAI bundle into the new folder ``out``; gives the entry of ``segmenters`` in a
    quality policy that runs it, None for networks a policy can't feed (:func:`~.export.export_torchscript` says why).

    licence: of the weights, an SPDX name or address. authors: of the network. version: of the bundle. The bundle has no paths of
    this machine in it: of datasets, recipes and weights only the last part of the name.

    Raises ``LearningError`` when ``out`` is there already, and for networks that can't be traced or give several outputs.
    """
    out = Path(out)
    if out.exists():
        raise LearningError("there is something here already", where=str(out), fix="export into a new folder")
    segmenter, found = load_segmenter(checkpoint, "cpu"), load_checkpoint(checkpoint)
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        _write(beside, segmenter, {**found.records, "scores": found.scores, "step": found.step}, licence, authors, version)
        beside.replace(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    try:
        entry = policy_entry(segmenter, str(checkpoint))
    except LearningError:
        return None
    entry["source"] = str(out)
    return {**entry, "sha256": content_digest(Segmenter.model_validate(entry))}


def _write(folder: Path, segmenter: TrainedSegmenter, records: dict[str, Any], licence: str, authors: str, version: str) -> None:
    for name in ("configs", "docs", "models"):
        (folder / name).mkdir(parents=True)
    inference = inference_document(segmenter)
    torch.save({key: value.cpu() for key, value in segmenter.network.state_dict().items()}, folder / "models" / "model.pt")
    write_script(segmenter, folder / "models" / "model.ts")
    sources = [_named(source) for source in records["sources"]]
    documents = {
        "configs/inference.json": inference,
        "configs/metadata.json": metadata(segmenter, records, sources, authors, version),
        BUNDLE_RECORD: {
            "config": _portable(segmenter.config),
            "spacing": list(segmenter.spacing),
            "sources": sources,
            **{key: records[key] for key in ("classes", "versions", "scores", "step")},
        },
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=4) + "\n")
    texts = {
        "configs/logging.conf": LOGGING,
        "LICENSE": licence_note(segmenter.config.name, licence),
        "docs/README.md": readme(segmenter, records, sources, licence),
        "docs/data_license.txt": data_licence(sources),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)


def _portable(config: SegmentationConfig) -> dict[str, Any]:
    """The configuration without paths of this machine, and without what it was validated on."""
    document = config.model_dump(mode="json", exclude={"validation", "best_by"})
    document["network"] |= {"weights": None, "partly": False}
    document["sources"] = [_named(source) for source in document["sources"]]
    return document


def _named(source: dict[str, Any]) -> dict[str, Any]:
    """A source with the last part of its paths alone."""
    found = dict(source)
    for key in ("dataset", "recipe", "mapping"):
        if found.get(key):
            found[key] = Path(str(found[key]).rstrip("/")).name
    if isinstance(found.get("scans"), str | list):
        found["scans"] = "scans.json"
    if found.get("library"):
        found["library"] = None
    return found
