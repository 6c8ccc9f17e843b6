"""What a MONAI bundle says of itself: ``metadata.json``, README, licences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version as version_of
from typing import Any

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.learning.segmentation.export import trained_sequences, window_of
from ctmr_core.learning.segmentation.predict import TrainedSegmenter

#: The schema MONAI's model zoo names in its bundles since MONAI 1.4.
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
INTENDED_USE = "Research. Trained on synthetic images; not for diagnosis."
_MIXED_USE = "Research. Not for diagnosis."
_NEEDED = ("nibabel", "scipy")
_IGNITE = "0.5.0"  # the oldest release that MONAI 1.5 runs an evaluator with

#: ``configs/logging.conf``: what the evaluator says goes to the terminal (Python's logging.config.fileConfig).
LOGGING = """\
[loggers]
keys = root

[handlers]
keys = terminal

[formatters]
keys = line

[logger_root]
level = INFO
handlers = terminal

[handler_terminal]
class = StreamHandler
level = INFO
formatter = line
args = (sys.stdout,)

[formatter_line]
format = %(asctime)s - %(name)s - %(levelname)s - %(message)s
"""

Record = Mapping[str, Any]


def metadata(
    segmenter: TrainedSegmenter, records: Record, sources: Sequence[Record], authors: str, version: str
) -> dict[str, Any]:
    """``metadata.json`` as the MONAI bundle specification wants it. records: of the checkpoint, with its scores."""
    config = segmenter.config
    ours = version_of("ctmr-factory")
    synthetic = is_synthetic(sources)
    window = list(window_of(config))
    channels = {str(number): name for number, name in enumerate(config.sequences)}
    ct = all(is_ct(name) for name in trained_sequences(config))
    scaled = {"value_range": [] if not ct and config.intensity.mr == "zscore" else [0, 1]}
    common = {"type": "image", "spatial_shape": window, "dtype": "float32", "is_patch_data": True}
    return {
        "schema": SCHEMA,
        "version": version,
        "changelog": {version: f"exported by ctmr-factory {ours}"},
        "name": config.name,
        "monai_version": version_of("monai"),
        "pytorch_version": version_of("torch").split("+")[0],
        "numpy_version": version_of("numpy"),
        "required_packages_version": {**{name: version_of(name) for name in _NEEDED}, "pytorch-ignite": _IGNITE},
        "task": f"Segmentation of {', '.join(segmenter.classes[1:])}",
        "description": config.description
        or f"{config.network.name} that segments {', '.join(segmenter.classes[1:])} in {' + '.join(config.sequences)} images",
        "authors": authors or "not stated",
        "copyright": "see LICENSE",
        "data_source": " ".join(source_lines(sources)),
        "data_type": "nibabel",
        "image_classes": f"{' + '.join(config.sequences)}, {_scaling_text(segmenter, ct)}",
        "label_classes": _class_text(segmenter),
        "pred_classes": f"{len(segmenter.classes)} channels of scores, the largest is the class: {_class_text(segmenter)}",
        "eval_metrics": {name: value for name, value in records["scores"].items() if not math.isnan(value)},
        "intended_use": INTENDED_USE if synthetic else _MIXED_USE,
        "network_data_format": {
            "inputs": {
                "image": {
                    **common,
                    "format": "hounsfield" if ct else "magnitude",
                    "modality": "CT" if ct else "MR",
                    "num_channels": len(channels),
                    **scaled,
                    "channel_def": channels,
                }
            },
            "outputs": {
                "pred": {
                    **common,
                    "format": "segmentation",
                    "num_channels": len(segmenter.classes),
                    "value_range": [],
                    "channel_def": {str(number): name for number, name in enumerate(segmenter.classes)},
                }
            },
        },
    }


def readme(segmenter: TrainedSegmenter, records: Record, sources: Sequence[Record], licence: str) -> str:
    """How to run it, and what it was trained on."""
    config = segmenter.config
    scores = [f"| {name} | {value:.4f} |" for name, value in records["scores"].items()]
    return "\n".join(
        [
            f"# {config.name}",
            "",
            *([config.description, ""] if config.description else []),
            f"{INTENDED_USE if is_synthetic(sources) else _MIXED_USE} Licence: {licence or 'not stated'}.",
            "",
            f"Input: {' + '.join(config.sequences)}. Output: {_class_text(segmenter)}.",
            f"{config.network.name}, spacing {' x '.join(f'{mm:g}' for mm in segmenter.spacing)} mm, {records['step']} updates.",
            "",
            "```",
            "pip install monai nibabel scipy pytorch-ignite fire",
            "python -m monai.bundle run --config_file configs/inference.json --dataset_dir images --output_dir labels",
            "```",
            "",
            "## Training data",
            "",
            *(f"* {line}" for line in source_lines(sources)),
            "",
            *(["## Scores", "", "| | |", "|---|---|", *scores, ""] if scores else []),
        ]
    )


def licence_note(name: str, licence: str) -> str:
    """The file ``LICENSE``."""
    stated = (
        f"The weights are licensed under: {licence}."
        if licence
        else "No licence of the weights was stated when they were exported."
    )
    return f"{name}\n\n{stated}\n\nWhat they were trained on has licences of its own: docs/data_license.txt.\n"


def data_licence(sources: Sequence[Record]) -> str:
    """The file ``docs/data_license.txt``."""
    return "\n".join(["Training data", "", *source_lines(sources), ""])


def source_lines(sources: Sequence[Record]) -> list[str]:
    """A sentence for every source: what it is, how it is known again, which licences its templates have."""
    return [_sentence(source) for source in sources]


def is_synthetic(sources: Sequence[Record]) -> bool:
    """Whether no image of a person was trained on."""
    return all("scans" not in source and not source.get("imported") for source in sources)


def _sentence(source: Record) -> str:
    if "scans" in source:
        return f"{source['scans']} scans; their licences are not recorded."
    if "recipe" in source:
        return f"Synthetic volumes rendered from {source['recipe']}, {source['cases']} cases."
    imported = source.get("imported", 0)
    kind = f"{source['cases'] - imported} synthetic volumes" + (f" and {imported} imported scans" if imported else "")
    place = f"dataset {source['dataset']}" + (f", snapshot {source['snapshot']}" if source.get("snapshot") else "")
    digest = f"snapshot SHA-256 {source['digest']}" if source.get("digest") else f"case list SHA-256 {source['cases_digest']}"
    licences = source.get("licences")
    if licences is None:
        said = "licences of templates and scans were not recorded"
    else:
        said = f"licences of templates and scans: {', '.join(licences)}" if licences else "made without templates"
    return f"{kind} of {place} ({digest}); {said}."


def _class_text(segmenter: TrainedSegmenter) -> str:
    return ", ".join(f"{number} {name}" for number, name in enumerate(segmenter.classes))


def _scaling_text(segmenter: TrainedSegmenter, ct: bool) -> str:
    intensity = segmenter.config.intensity
    if ct:
        return f"{intensity.ct_window[0]:g} to {intensity.ct_window[1]:g} HU scaled to [0, 1]"
    if intensity.mr == "zscore":
        return "voxels above 0 scaled to mean 0 and standard deviation 1"
    low, high = intensity.mr_percentiles
    return f"percentiles {low:g} and {high:g} of the voxels above 0 scaled to [0, 1]"
