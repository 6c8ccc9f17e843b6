"""Measures of a whole set, kept with the dataset as ``quality/set-<digest>.json``.

One JSON document, sorted keys, no NaN (what can't be told is null or left out)::

    {"kind": "ctmr-set-measures", "schema": 1,
     "digest": "<12 hex>",                 # of what was measured and how: the same set and settings give the same file
     "made_at": "<ISO 8601, UTC>", "written_by": "ctmr-factory 0.1.0",
     "dataset": "<uri>", "snapshot": "<name, or empty>",
     "cases": 12, "cases_digest": "<64 hex, as of a snapshot>",
     "settings": {"measures": [...], "sample": 2000, "reference": "", "features": "<digest>", "targets": {...}, ...},
     "measures": {
       "profile":    {"cases": n, "bodies": n, "exact": true,       # exact: quantiles of all cases, else of a sample
                      "categories": {"sequence": {"ct": 7, ...}, "split": ..., "body": ..., "engine": ..., "region": ...,
                                     "center": ..., "lesion": ..., "vocabulary": ...},
                      "numbers": {"volume_ml/liver": {"count", "mean", "sd", "min", "p5", "p25", "p50", "p75", "p95", "max"},
                                  "score/hu_median/ct/liver": ..., "lesion_mm/hepatic tumor": ..., "spacing_z_mm": ...},
                      "targets": [{"target", "passed": bool, "line": "<one sentence>", "distance", ...}]},
       "duplicates": {"cases": n, "table": "quality/duplicates-<digest>.parquet",
                      "reference": n, "alarms": {"image": 0.99, "labels": {"brain": 0.6, ...}},
                      "counts": {"exact": n, "image": n, "labels": n, "reference-image": n, "reference-labels": n},
                      "relatives": {"pairs": n, "cases": n}, # the same body, as planned: no duplicates
                      "nearest": {"labels": {"p50", "p95", "max"}, ...},
                      "worst": [{"case_id", "other", "kind", "similarity"}, ... at most 20]},
       "frechet":    {"<sequence>": {"distance": x, "low": x, "high": x, "planes": {"xy", "yz", "zx"},
                                     "kid": x, "kid_sd": x, "precision", "recall", "density", "coverage",
                                     "intervals": {"kid": {"low", "high"}, "precision": ...},   # 95 %, jackknife over volumes
                                     "volumes": n, "reference_volumes": n, "slices": n, "reference_slices": n,
                                     "enough": bool},        # more slices of each plane than features
                      "features": {"name", "digest", "note"}},
       "diversity":  {"<sequence>": {"pairs": n, "ms_ssim": {"mean", "low", "high", "sd", "p5", "p50", "p95"}},
                      "labels": {"pairs": n, "agreement": {...}, "dice": {...}},
                      "reference": {"<sequence>": ...}}},    # the same of the reference, when there is one
     "skipped": {"frechet": "no --reference was given"},            # measure -> why
     "verdict": {"passed": bool, "lines": ["<one sentence>", ...]}}
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctmr_core.assessment import layout
from ctmr_core.assessment.diversity import diversity
from ctmr_core.assessment.duplicates import DuplicateSearch, Thumbnails, keep, small
from ctmr_core.assessment.features import FeatureExtractor, FilterBank, NetworkFile
from ctmr_core.assessment.frechet import FeatureSet, Vectors, compare, slice_features
from ctmr_core.assessment.profile import profile
from ctmr_core.assessment.reference import open_reference
from ctmr_core.assessment.slices import SliceProtocol
from ctmr_core.assessment.streaming import DatasetVolumes, Volumes, mapped
from ctmr_core.cases.targets import Targets
from ctmr_core.errors import CheckError
from ctmr_core.store import Dataset
from ctmr_core.store.storage import checked_name, json_bytes, read_json

KIND, SCHEMA_VERSION = "ctmr-set-measures", 1
MEASURES = ("profile", "duplicates", "frechet", "diversity")
#: Volumes whose voxels are read, unless all are asked for.
SAMPLE = 2000
_BANK_SLICES = 16  # of a plane and volume, for the filter bank; a network gets all of the middle
_DIGITS = 12


@dataclass(frozen=True)
class SetOptions:
    """What to measure. sample: volumes read, of the set and of the reference; None = all (the profile is of all anyway).

    reference: a dataset, folder of scans or template library; network: a TorchScript file, else the filter bank.
    pairs: for the diversity. workers: threads; the result does not depend on them.
    """

    measures: tuple[str, ...] = MEASURES
    sample: int | None = SAMPLE
    reference: str = ""
    network: str = ""
    targets: Targets | None = None
    protocol: SliceProtocol = field(default_factory=SliceProtocol)
    pairs: int = 100
    workers: int = 2

    def __post_init__(self) -> None:
        if unknown := [name for name in self.measures if name not in MEASURES]:
            raise CheckError("there is no such measure", found=unknown[0], allowed=MEASURES)


def measure_set(dataset: Dataset, options: SetOptions) -> dict[str, Any]:
    """Measure a dataset, or the snapshot it was opened at; the document described above. Pairs that are alike are kept."""
    run = _Run(dataset, options)
    results: dict[str, Any] = {}
    if "profile" in options.measures:
        results["profile"] = profile(dataset, options.targets)
    if {"duplicates", "frechet"} & set(options.measures):
        results.update(run.read_once())
    if "diversity" in options.measures:
        results["diversity"] = run.diversity()
    whole = set_digest(dataset)
    settings = run.settings()
    identity = json_bytes({"cases": whole, "settings": settings, "schema": SCHEMA_VERSION})
    return _finite(
        {
            "kind": KIND,
            "schema": SCHEMA_VERSION,
            "digest": hashlib.sha256(identity).hexdigest()[:_DIGITS],
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "written_by": f"ctmr-factory {version('ctmr-factory')}",
            "dataset": dataset.uri,
            "snapshot": dataset.snapshot.name if dataset.snapshot else "",
            "cases": len(dataset),
            "cases_digest": whole,
            "settings": settings,
            "measures": results,
            "skipped": run.skipped,
            "verdict": _verdict(results),
        }
    )


def keep_document(dataset: Dataset, document: dict[str, Any]) -> str:
    """Write the document into the dataset; its name. One that is there already stays: it says the same."""
    name = checked_name(layout.QUALITY, f"set-{document['digest']}.json")
    dataset.storage.create(name, json_bytes(document))
    return name


def read_documents(dataset: Dataset) -> list[dict[str, Any]]:
    """Every kept document, newest first."""
    names = [entry.name for entry in dataset.storage.list(layout.QUALITY) if entry.name.startswith(f"{layout.QUALITY}/set-")]
    found = [read_json(dataset.storage, name) for name in names if name.endswith(".json")]
    return sorted(found, key=lambda document: (document["made_at"], document["digest"]), reverse=True)


def set_digest(dataset: Dataset) -> str:
    """SHA-256 hex of the (case_id, case_key, content_digest) of all accepted cases: that of a snapshot of them."""
    if dataset.snapshot is not None:
        return dataset.snapshot.digest
    names = ["case_id", "case_key", "content_digest"]
    rows = dataset.catalog.to_table(columns=names).sort_by("case_id")
    sha = hashlib.sha256()
    lines = pc.binary_join_element_wise(*(rows[name].cast(pa.string()) for name in names), " ")
    for chunk in lines.chunks:
        sha.update("".join(f"{line}\n" for line in chunk.to_pylist()).encode())
    return sha.hexdigest()


@dataclass
class _Read:
    name: str
    small: tuple[str, Thumbnails, str] | None
    vectors: Vectors


class _Run:
    """One measuring: what is opened once, and why something was left out."""

    def __init__(self, dataset: Dataset, options: SetOptions) -> None:
        self.dataset = dataset
        self.options = options
        self.skipped: dict[str, str] = {}
        self.volumes = DatasetVolumes(dataset, options.sample)
        self.reference: Volumes | None = None
        if options.reference:
            rows = dataset.catalog.to_table(columns=["sequences"])
            sequences = sorted(pc.unique(pc.list_flatten(rows["sequences"])).to_pylist())
            self.reference = open_reference(options.reference, sequences, options.sample)
        self.extractor: FeatureExtractor | None = None
        if "frechet" in options.measures:
            if self.reference is None:
                self.skipped["frechet"] = "no reference was given"
            else:
                self.extractor = NetworkFile(Path(options.network)) if options.network else FilterBank()

    @property
    def protocol(self) -> SliceProtocol:
        given = self.options.protocol
        if self.options.network or given.slices is not None:
            return given
        return SliceProtocol(given.spacing, given.size, given.middle, _BANK_SLICES)

    def settings(self) -> dict[str, Any]:
        """What the result depends on beside the cases."""
        options = self.options
        names = "\n".join(self.reference.names) if self.reference else ""
        return {
            "measures": list(options.measures),
            "sample": options.sample,
            "reference": options.reference,
            "reference_names": hashlib.sha256(names.encode()).hexdigest()[:_DIGITS] if names else "",
            "features": self.extractor.digest if self.extractor else "",
            "protocol": self.protocol.describe(),
            "pairs": options.pairs,
            "targets": options.targets.model_dump(mode="json", exclude_none=True) if options.targets else {},
        }

    def read_once(self) -> dict[str, Any]:
        """Duplicates and distances: every volume is read once for both."""
        alike = DuplicateSearch(self.dataset, self.volumes.names) if "duplicates" in self.options.measures else None
        made: dict[str, FeatureSet] = {}
        reference: dict[str, FeatureSet] = {}
        try:
            for volumes, sets in ((self.volumes, made), (self.reference, reference)):
                if volumes is None:
                    continue
                for read in mapped(partial(self._read, volumes, alike is not None), volumes.names, self.options.workers):
                    if alike is not None and read.small is not None:
                        (alike.add if sets is made else alike.add_reference)(*read.small)
                    for sequence, planes in read.vectors.items():
                        sets.setdefault(sequence, FeatureSet()).add(planes)
            results: dict[str, Any] = {}
            if alike is not None:
                table, summary = alike.finished()
                results["duplicates"] = {**summary, "table": keep(self.dataset, table)}
        finally:
            if alike is not None:
                alike.close()
        if self.extractor is not None:
            results["frechet"] = self._distances(made, reference)
        return results

    def _read(self, volumes: Volumes, thumbnails: bool, name: str) -> _Read:
        loaded = volumes.load(name, labels=thumbnails)
        vectors = slice_features(loaded, self.extractor, self.protocol) if self.extractor is not None else {}
        return _Read(name, small(loaded) if thumbnails else None, vectors)

    def _distances(self, made: dict[str, FeatureSet], reference: dict[str, FeatureSet]) -> dict[str, Any]:
        assert self.extractor is not None  # noqa: S101
        both = sorted(made.keys() & reference.keys())
        if not both:
            here, there = ", ".join(sorted(made)), ", ".join(sorted(reference)) or "no images"
            self.skipped["frechet"] = f"no sequence in common: the set has {here}, the reference {there}"
        found: dict[str, Any] = {sequence: compare(made[sequence], reference[sequence]) for sequence in both}
        features = {"name": self.extractor.name, "digest": self.extractor.digest, "note": self.extractor.note}
        return {**found, "features": features}

    def diversity(self) -> dict[str, Any]:
        """Of the set, and of the reference when there is one."""
        rows = self.dataset.catalog.to_table(columns=["case_id", "body_identity"])
        rows = rows.filter(pc.is_in(rows["case_id"], value_set=pa.array(self.volumes.names, pa.string())))
        persons = dict(zip(rows["case_id"].to_pylist(), rows["body_identity"].to_pylist(), strict=True))
        found = diversity(self.volumes, self.options.pairs, persons, workers=self.options.workers)
        if not found:
            self.skipped["diversity"] = "there are not two persons to compare"
        if self.reference is not None:
            found["reference"] = diversity(self.reference, self.options.pairs, workers=self.options.workers)
        return found


def _verdict(results: dict[str, Any]) -> dict[str, Any]:
    lines = [finding["line"] for finding in results.get("profile", {}).get("targets", []) if not finding["passed"]]
    for kind, count in results.get("duplicates", {}).get("counts", {}).items():
        if count:
            lines.append(f"{count:,} pair{'s are' if count > 1 else ' is'} alike ({kind})")
    return {"passed": not lines, "lines": lines}


def _finite(value: Any) -> Any:
    """The document with null for numbers that are not finite, and Python's own numbers."""
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
