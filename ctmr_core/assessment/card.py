"""The card of a dataset: what it is, where it comes from, what it is for and what it lacks, for people and for machines.

``README.md`` is Markdown with the front matter that dataset hubs read. ``croissant.json`` is Croissant 1.0 (JSON-LD, MLCommons)
over ``cases.parquet``, one row per case, written beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctmr_core import __version__
from ctmr_core.assessment.catalog_summary import CatalogSummary, summarise
from ctmr_core.assessment.set_measures import read_documents, set_digest
from ctmr_core.assessment.verdicts import policies_applied, read_verdicts, share_accepted
from ctmr_core.store import Dataset
from ctmr_core.store.catalog import read_parts

README = "README.md"
CROISSANT = "croissant.json"
TABLE = "cases.parquet"
_SHOWN = 40  # values of a kind listed by name
_COLUMNS = {
    "case_id": "Name of the case.",
    "case_key": "SHA-256 hex of all that decides the case.",
    "split": "train, val or test; a body is never in two.",
    "body": "Kind of body.",
    "body_identity": "The body itself.",
    "sequence_set": "Its images, joined by +.",
    "center": "What the field of view is centred on.",
    "engine_identity": "What rendered the images.",
    "vocabulary": "What the label ids mean.",
    "volume": "Folder of the OME-Zarr group, below the dataset.",
    "content_digest": "SHA-256 hex over all files of the volume.",
}
#: What no engine or body of this factory has; a card must say so.
LIMITS = (
    "Every image is synthetic. Accuracy measured on it says nothing about accuracy in patients.",
    (
        "Parametric bodies are built from shapes: no peristalsis, no small branches of vessels, no variants (accessory "
        "organs, situs inversus, transplants), no implants, no surgery."
    ),
    (
        "Lesions are deformed balls with a rim and a texture: no infiltration, no shift of surrounding tissue, no patterns of "
        "calcification, no enhancement over time."
    ),
    "Artefacts are those that the engine models. Metal, motion of single organs and vendor reconstructions are not among them.",
    "No sex, age or ethnicity is recorded, because no body has any: fairness can't be studied with these data.",
    "Labels are the truth of the body from which the image was made, not what an expert would draw on the image.",
)


@dataclass(frozen=True)
class Facts:
    """What the card tells. counts: status -> cases of the whole dataset. failed: check -> rejected cases it failed."""

    name: str
    digest: str
    snapshot: str
    summary: CatalogSummary
    bytes: int
    counts: dict[str, int]
    failed: dict[str, int]
    provenance: dict[str, list[str]]
    licences: list[str]
    policies: list[dict[str, Any]] = field(default_factory=list)
    measures: dict[str, Any] | None = None
    measured_here: bool = False


def gather(dataset: Dataset) -> Facts:
    """Everything the card tells of a dataset, or of the snapshot it was opened at; reads the catalog, no voxel."""
    size, provenance, licences = _origins(dataset)
    counts, failed = _outcomes(dataset)
    digest = set_digest(dataset)
    measures, here = _measures(dataset, digest)
    return Facts(
        name=dataset.uri.rstrip("/").rpartition("/")[2],
        digest=digest,
        snapshot=dataset.snapshot.name if dataset.snapshot else "",
        summary=summarise(dataset),
        bytes=size,
        counts=counts,
        failed=failed,
        provenance=provenance,
        licences=licences,
        policies=_policies(dataset),
        measures=measures,
        measured_here=here,
    )


def card(dataset: Dataset, facts: Facts | None = None) -> str:
    """The card as Markdown, for ``create_snapshot(card=...)`` and ``README.md``."""
    facts = facts or gather(dataset)
    summary = facts.summary
    state = f"Snapshot `{facts.snapshot}`. " if facts.snapshot else ""
    lines = [
        *_front_matter(facts),
        f"# {facts.name}",
        "",
        (
            f"{summary.cases:,} labelled synthetic CT and MR volumes of {summary.bodies:,} bodies, {facts.bytes / 1e9:,.2f} GB. "
            f"{state}Digest `{facts.digest}`."
        ),
        "",
        "No voxel is a measurement of a patient. Made and checked by ctmr-factory.",
        "",
        "## Intended use",
        "",
        "- Training and pre-training of segmentation, detection and synthesis networks, together with or before real scans.",
        "- Tests of pipelines that must run on known truth: volumes, lesions and left and right are exact.",
        "",
        "Not for diagnosis, for clinical validation, or as evidence of how a network performs in patients.",
        "",
        "## What is in it",
        "",
        *_contents(summary),
        "## How it was checked",
        "",
        *_quality(facts),
        "## Near-duplicates",
        "",
        *_duplicates(facts),
        "## Known limits",
        "",
        *(f"- {line}" for line in LIMITS),
        "",
        "## Provenance",
        "",
        *_table(
            ("what", "value"), [(name, ", ".join(f"`{value}`" for value in found)) for name, found in facts.provenance.items()]
        ),
        "",
        "## Licences",
        "",
        *([f"- {licence}" for licence in facts.licences] or ["Nothing with a licence of its own went into it."]),
        "",
        "## How to load it",
        "",
        *_loading(facts),
    ]
    return "\n".join(lines) + "\n"


def croissant(dataset: Dataset, facts: Facts, table_digest: str) -> dict[str, Any]:
    """Croissant 1.0 metadata (JSON-LD). table_digest: SHA-256 hex of ``cases.parquet``, which lies beside it."""
    columns = [
        {
            "@type": "cr:Field",
            "@id": f"cases/{name}",
            "name": name,
            "description": text,
            "dataType": "sc:Text",
            "source": {"fileObject": {"@id": "case-table"}, "extract": {"column": name}},
        }
        for name, text in _COLUMNS.items()
    ]
    file = {
        "@type": "cr:FileObject",
        "@id": "case-table",
        "name": "case-table",
        "description": "One row per case. Its volume is an OME-Zarr group below the dataset.",
        "contentUrl": TABLE,
        "encodingFormat": "application/x-parquet",
        "sha256": table_digest,
    }
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": facts.name,
        "description": f"{facts.summary.cases:,} labelled synthetic CT and MR volumes of {facts.summary.bodies:,} bodies.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "url": dataset.uri,
        "version": "1.0.0",
        "citeAs": f"{facts.name}, cases {facts.digest}",
        "license": facts.licences or ["unspecified"],
        "creator": {"@type": "sc:Organization", "name": "ctmr-factory"},
        "keywords": ["synthetic", "medical imaging", *sorted(facts.summary.categories.get("sequence", {}))],
        "distribution": [file],
        "recordSet": [
            {"@type": "cr:RecordSet", "@id": "cases", "name": "cases", "description": "The cases.", "field": columns},
        ],
    }


def write_card(dataset: Dataset, folder: Path) -> list[Path]:
    """Write ``README.md``, ``croissant.json`` and ``cases.parquet``; their paths."""
    facts = gather(dataset)
    folder.mkdir(parents=True, exist_ok=True)
    columns = {field.name for field in dataset.catalog.schema}
    rows = dataset.catalog.to_table(columns=[name for name in _COLUMNS if name in columns]).sort_by("case_id")
    pq.write_table(rows, folder / TABLE, compression="zstd")
    digest = hashlib.sha256((folder / TABLE).read_bytes()).hexdigest()
    document = croissant(dataset, facts, digest)
    (folder / CROISSANT).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / README).write_text(card(dataset, facts), encoding="utf-8")
    return [folder / name for name in (README, CROISSANT, TABLE)]


def _origins(dataset: Dataset) -> tuple[int, dict[str, list[str]], list[str]]:
    """Bytes of the volumes; what -> values of engines, weights and libraries; licences of what went in."""
    found: dict[str, set[str]] = defaultdict(set)
    licences: set[str] = set()
    size = 0
    columns = ["bytes", "engine_identity", "engine_version", "weights_digest", "template_digest", "licences", "versions"]
    for batch in dataset.catalog.to_batches(columns=columns):
        size += int(pc.sum(batch["bytes"]).as_py() or 0)
        for name in ("engine_identity", "engine_version", "weights_digest"):
            found[name.replace("_", " ")].update(value for value in pc.unique(batch[name]).to_pylist() if value)
        templates = {value for value in pc.unique(batch["template_digest"]).to_pylist() if value}
        found["templates"].update(templates)
        licences.update(value for value in pc.unique(pc.list_flatten(batch["licences"])).to_pylist() if value)
        pairs = pc.list_flatten(batch["versions"].cast(pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))))
        named = pc.binary_join_element_wise(pc.struct_field(pairs, "key"), pc.struct_field(pairs, "value"), " ")
        found["libraries"].update(value for value in pc.unique(named).to_pylist() if value)
    templates = found.pop("templates", set())
    told = {name: sorted(values) for name, values in found.items() if values}
    if templates:
        told["templates"] = [f"{len(templates):,} label maps"]
    told["card written by"] = [f"ctmr-factory {__version__}"]
    return size, told, sorted(licences)


def _outcomes(dataset: Dataset) -> tuple[dict[str, int], dict[str, int]]:
    """status -> cases, and check -> rejected cases it failed, of the whole dataset (a snapshot has accepted cases only)."""
    table = read_parts(dataset.storage, ["case_key", "status", "reasons"], dataset.parts)
    counts = {pair["values"]: pair["counts"] for pair in pc.value_counts(table["status"]).to_pylist()}
    rejected = table.filter(pc.equal(table["status"], "rejected"))
    failed: Counter[str] = Counter()
    for reasons in rejected["reasons"].to_pylist():
        failed.update({reason.partition(":")[0] for reason in reasons or ()})
    return {str(name): int(count) for name, count in counts.items()}, dict(failed.most_common())


def _policies(dataset: Dataset) -> list[dict[str, Any]]:
    found = []
    for document in policies_applied(dataset.storage):
        share = share_accepted(read_verdicts(dataset, document["digest"]))
        found.append({"name": document["policy"]["name"], "digest": document["digest"], "accepted": share})
    return found


def _measures(dataset: Dataset, digest: str) -> tuple[dict[str, Any] | None, bool]:
    """The newest measures of this very set, else of another state of it."""
    documents = read_documents(dataset)
    own = [document for document in documents if document.get("cases_digest") == digest]
    return next(iter(own or documents), None), bool(own)


def _front_matter(facts: Facts) -> list[str]:
    low = next((size for size in (10**3, 10**4, 10**5, 10**6) if facts.summary.cases < size), 10**7)
    names = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
    return [
        "---",
        f"pretty_name: {json.dumps(facts.name)}",
        "task_categories: [image-segmentation]",
        "tags: [medical, synthetic, ct, mri, croissant]",
        f"size_categories: [{names[low]}]",
        "---",
        "",
    ]


def _contents(summary: CatalogSummary) -> list[str]:
    lines: list[str] = []
    for what in ("sequence", "region", "lesion", "split", "body", "engine", "vocabulary"):
        counts = summary.categories.get(what, {})
        if not counts:
            continue
        rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        lines += [
            *_table((what, "cases"), [(name or "not set", f"{count:,}") for name, count in rows[:_SHOWN]], numbers=(1,)),
            "",
        ]
        if len(rows) > _SHOWN:
            lines += [f"and {len(rows) - _SHOWN:,} more.", ""]
    return lines


def _quality(facts: Facts) -> list[str]:
    judged = facts.counts.get("accepted", 0) + facts.counts.get("rejected", 0)
    rejected = facts.counts.get("rejected", 0)
    lines = [
        (
            "Every attempt at a case is judged before it is published; a failed one is made again with new random draws. "
            f"Of {judged:,} cases {rejected:,} ({rejected / max(judged, 1):.1%}) failed every attempt and are left out."
        ),
        "",
    ]
    if facts.failed:
        lines += [*_table(("check", "rejected cases"), [(f"`{n}`", f"{c:,}") for n, c in facts.failed.items()], numbers=(1,)), ""]
    if facts.policies:
        rows = [(entry["name"], f"`{entry['digest'][:16]}`", f"{entry['accepted']:.1%}") for entry in facts.policies]
        lines += ["Judged again since:", "", *_table(("policy", "digest", "accepted"), rows, numbers=(2,)), ""]
    return lines


def _duplicates(facts: Facts) -> list[str]:
    found = ((facts.measures or {}).get("measures") or {}).get("duplicates")
    if not found:
        return ["Not measured; `ctmr quality set` does.", ""]
    counts = [(kind, f"{count:,}") for kind, count in found.get("counts", {}).items()]
    state = "" if facts.measured_here else " Measured on another state of the dataset."
    return [
        f"Pairs that are alike among {found.get('cases', 0):,} cases.{state}",
        "",
        *_table(("kind", "pairs"), counts, (1,)),
        "",
    ]


def _loading(facts: Facts) -> list[str]:
    at = f', snapshot="{facts.snapshot}"' if facts.snapshot else ""
    return [
        "```python",
        "from ctmr_core.store import Dataset",
        "",
        f'dataset = Dataset.open("{facts.name}"{at})',
        "volume = dataset[next(iter(dataset))]",
        "volume.images, volume.labels, volume.spacing  # int16 [x, y, z] per sequence, label ids, mm",
        "```",
        "",
        "Volumes are OME-Zarr groups; `ctmr export` writes NIfTI and other formats.",
    ]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], numbers: Iterable[int] = ()) -> list[str]:
    head, right = list(head), set(numbers)
    rule = "|".join("---:" if column in right else "---" for column in range(len(head)))
    return [f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)]


_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
