"""Segmenting images with a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from ctmr_core.anatomy.templates.reading import read_scan
from ctmr_core.errors import LearningError
from ctmr_core.learning.segmentation.config import SegmentationConfig
from ctmr_core.learning.segmentation.inference import segment_volume
from ctmr_core.learning.segmentation.networks import make_network
from ctmr_core.learning.training import ranks
from ctmr_core.learning.training.checkpoints import load_checkpoint, load_weights
from ctmr_core.learning.training.optimizing import Precision

#: What an exported bundle keeps of its training.
BUNDLE_RECORD = "configs/ctmr.json"


@dataclass(frozen=True, eq=False)
class TrainedSegmenter:
    """A network out of a checkpoint, and how it wants its images.

    classes: names by training id, ``background`` first. spacing: mm it was trained at.
    """

    network: torch.nn.Module
    config: SegmentationConfig
    spacing: tuple[float, float, float]
    device: torch.device

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return self.config.class_table.names

    def segment(
        self, images: Sequence[np.ndarray], spacing: tuple[float, float, float], sequences: Sequence[str] | None = None
    ) -> np.ndarray:
        """uint8 [x, y, z] training ids on the grid of the images.

        images: voxels [x, y, z] in RAS+ axis order, one for every channel: HU, or MR as it is. spacing: mm.
        sequences: what they are, default those of the configuration.
        """
        names = tuple(sequences or self.config.sequences)
        if len(images) != len(names) or len(names) != len(self.config.sequences):
            raise LearningError("the network wants other images", found=f"{len(images)} images", allowed=self.config.sequences)
        with Precision("auto", self.device).autocast():
            return segment_volume(
                self.network,
                list(zip(names, images, strict=True)),
                spacing,
                to=self.spacing,
                intensity=self.config.intensity,
                window=self.config.inference.window or self.config.patch,
                inference=self.config.inference,
                device=self.device,
            )


def load_segmenter(checkpoint: Path | str, device: str = "auto") -> TrainedSegmenter:
    """The network of ``best.pt`` or ``last.pt`` with its averaged weights, where the training averaged; or that of a bundle that
    :func:`~ctmr_core.learning.segmentation.bundle.export_bundle` wrote."""
    place = ranks.device_of(device)
    if is_bundle(checkpoint):
        return _of_bundle(Path(checkpoint), place)
    found = load_checkpoint(checkpoint)
    if found.task != "segmentation":
        raise LearningError("the checkpoint is of another task", where=str(checkpoint), found=found.task, allowed="segmentation")
    config = SegmentationConfig.model_validate(found.records["config"])
    network = _bare_network(config)
    network.load_state_dict(found.weights["network"])
    x, y, z = (float(mm) for mm in found.records["spacing"])
    return TrainedSegmenter(network.to(place).eval(), config, (x, y, z), place)


def is_bundle(place: Path | str) -> bool:
    """Whether it is the folder of an exported bundle."""
    return (Path(place) / BUNDLE_RECORD).is_file()


def _of_bundle(folder: Path, place: torch.device) -> TrainedSegmenter:
    try:
        record = json.loads((folder / BUNDLE_RECORD).read_text())
        config = SegmentationConfig.model_validate(record["config"])
        x, y, z = (float(mm) for mm in record["spacing"])
    except (ValueError, KeyError, TypeError) as error:
        raise LearningError(
            "the bundle's record of its training can't be read",
            where=str(folder / BUNDLE_RECORD),
            found=str(error),
            fix="export it again",
        ) from error
    network = _bare_network(config)
    load_weights(network, folder / "models" / "model.pt")
    return TrainedSegmenter(network.to(place).eval(), config, (x, y, z), place)


def _bare_network(config: SegmentationConfig) -> torch.nn.Module:
    bare = config.network.model_copy(update={"weights": None})
    return make_network(bare, len(config.sequences), len(config.class_table) + 1, config.patch, config.seed)


def segment(checkpoint: Path | str, image: Path | str | Sequence[Path | str], out: Path | str) -> Path:
    """Segment a scan (NIfTI, MGZ, NRRD, MetaImage; several for several channels) and write the label map as NIfTI: uint8
    training ids, RAS+ axis order, on the scan's grid."""
    return segment_file(load_segmenter(checkpoint), image, out)


def segment_file(segmenter: TrainedSegmenter, image: Path | str | Sequence[Path | str], out: Path | str) -> Path:
    """As :func:`segment`, with a network that is loaded: for many scans."""
    paths = [image] if isinstance(image, Path | str) else list(image)
    scans = [read_scan(path) for path in paths]
    labels = segmenter.segment([scan.voxels for scan in scans], scans[0].spacing)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, scans[0].affine), out)
    return out
