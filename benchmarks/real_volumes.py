"""Real scans and label maps as candidates: what the checks must accept."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.mapping import load_mapping
from ctmr_core.anatomy.templates.importing import import_template
from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.anatomy.templates.mask_folder import read_mask_folder
from ctmr_core.anatomy.templates.reading import read_scan
from ctmr_core.assessment.stored_scores import validated_case
from ctmr_core.cases.case import Case
from ctmr_core.cases.label_maps import build_label_map
from ctmr_core.cases.manifest_table import COLUMNS
from ctmr_core.engines import load_engine
from ctmr_core.exchange.importing import PairImport, import_pair
from ctmr_core.quality.base import Candidate
from ctmr_core.store import Dataset

HEADS = "brain_label_maps"  # FreeSurfer ids and head tissues, without images: rendered
Labels = Literal["as given", "with body", "none"]


@dataclass(frozen=True)
class Scan:
    """Files of one scan below the folder of its name. labels: a file, "" = a mask per structure, None = there are none.

    mapping: what the label ids mean, or YAML text that says so. region: what is in view.
    """

    image: str
    sequence: str
    region: str
    labels: str | None = None
    mapping: str = ""


TUMOUR = """vocabulary: brain
labels: {1: brain tumor necrosis, 2: brain tumor edema, 3: enhancing brain tumor}
"""
SCANS = {
    "ct_abdomen": Scan("ct.nii.gz", "ct", "abdomen", "labels_totalsegmentator_v2.nii.gz", "totalsegmentator_v2"),
    "ct_contrast_chest": Scan("ct.nii.gz", "ct_contrast", "chest", "", "totalsegmentator_v2"),
    "ct_lung": Scan("ct.mha", "ct", "chest"),
    "mr_abdomen": Scan("mr.nii.gz", "mri_t1", "abdomen", "labels_totalsegmentator_mr.nii.gz", "totalsegmentator_mr"),
    "t1_brain": Scan("t1.mgz", "mri_t1_skull_stripped", "head", "labels_freesurfer.mgz", "freesurfer"),
    "flair_tumor": Scan("flair.nii.gz", "mri_flair_skull_stripped", "head", "lesion.nii.gz", TUMOUR),
}


def volumes(folder: Path) -> Iterator[tuple[str, Callable[[], Candidate]]]:
    """(name, maker of the candidate) of every scan in ``folder``: imported with its labels as they are, with the body labelled
    around them, and without labels; and of every head as the tissue engine renders it in T1 and T2.

    Candidates are made while the generator is open.
    """
    with tempfile.TemporaryDirectory() as work:
        for name, scan in SCANS.items():
            if not (folder / name).is_dir():
                continue
            for labels in _kinds(scan):
                yield f"{name} {scan.sequence}, labels {labels}", partial(_scan, Path(work), folder / name, scan, labels)
        library = TemplateLibrary.open(Path(work) / "library", create=True)
        for path in sorted((folder / HEADS).glob("*.nii.gz")):
            yield f"rendered {path.name.removesuffix('.nii.gz')}", partial(_head, library, path)


def _kinds(scan: Scan) -> tuple[Labels, ...]:
    if scan.labels is None:
        return ("none",)
    return ("as given", "none") if scan.region == "head" else ("as given", "with body", "none")


def _scan(work: Path, place: Path, scan: Scan, labels: Labels) -> Candidate:
    """As ``ctmr import`` stores it, read back."""
    if labels == "none":
        return _unlabelled(place, scan)
    pair = PairImport(
        case_id=f"{place.name}-{labels.replace(' ', '-')}",
        images={scan.sequence: place / scan.image},
        labels=_label_file(work, place, scan),
        mapping=_mapping(work, place, scan),
        drop_unknown=True,
        envelope="auto" if labels == "with body" else "none",
    )
    dataset = Dataset.create(work / pair.case_id)
    import_pair(dataset, pair)
    case = validated_case(dataset.catalog.to_table(columns=list(COLUMNS)).to_pylist()[0])
    volume = dataset[pair.case_id]
    label_map = LabelMap(volume.labels.read(), volume.affine, volume.vocabulary)
    return Candidate(case, label_map, {name: image.read() for name, image in volume.images.items()})


def _unlabelled(place: Path, scan: Scan) -> Candidate:
    image = read_scan(place / scan.image)
    vocabulary = load_mapping("brain" if scan.region == "head" else "maisi").vocabulary
    label_map = LabelMap(np.zeros(image.voxels.shape, vocabulary.dtype), image.affine, vocabulary)
    case = _case(place.name, f"unlabelled:{scan.region}", (scan.sequence,), "", label_map.size, label_map.spacing)
    return Candidate(case, label_map, {scan.sequence: np.round(image.voxels).astype(np.int16)})


def _label_file(work: Path, place: Path, scan: Scan) -> Path:
    """The label map; masks become one."""
    if scan.labels:
        return place / scan.labels
    masks = work / f"{place.name}-masks"
    masks.mkdir(exist_ok=True)
    for mask in place.glob("mask_*.nii.gz"):
        shutil.copy(mask, masks / mask.name.removeprefix("mask_"))
    found = read_mask_folder(masks, load_mapping(scan.mapping), drop_unknown=True)
    nib.save(nib.Nifti1Image(found.voxels, found.affine), work / f"{place.name}.nii.gz")  # type: ignore[no-untyped-call]
    return work / f"{place.name}.nii.gz"


def _mapping(work: Path, place: Path, scan: Scan) -> str:
    """Name or file of the mapping."""
    if "\n" not in scan.mapping:
        return scan.mapping
    file = work / f"{place.name}.yaml"
    file.write_text(scan.mapping)
    return str(file)


def _head(library: TemplateLibrary, path: Path) -> Candidate:
    name = path.name.removesuffix(".nii.gz")
    import_template(path, library, template_id=name, mapping="freesurfer", licence="for research")
    case = _case(name, f"template:{name}", ("mri_t1", "mri_t2"), "head", (112, 128, 112), (2.0, 2.0, 2.0))
    label_map = build_label_map(case, library, 0)[0]
    return Candidate(case, label_map, load_engine("tissue").render(case, label_map, 0))


def _case(
    name: str, body: str, sequences: tuple[str, ...], center: str, size: tuple[int, ...], spacing: tuple[float, ...]
) -> Case:
    fields = {"sequences": sequences, "center": center, "size": tuple(size), "spacing": tuple(spacing)}
    return Case.model_validate({"case_id": name, "body": body, **fields})
