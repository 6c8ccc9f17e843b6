"""Real scans and label maps as candidates: what the checks must accept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ctmr_core.anatomy.templates.importing import import_template
from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.anatomy.templates.reading import read_scan
from ctmr_core.cases.case import Case
from ctmr_core.cases.label_maps import build_label_map
from ctmr_core.engines import load_engine
from ctmr_core.quality.base import Candidate

#: folder -> (image, labels, mapping, sequence, centre of view)
SCANS = {
    "ct_abdomen": ("ct.nii.gz", "labels_totalsegmentator_v2.nii.gz", "totalsegmentator_v2", "ct", "abdomen"),
    "t1_brain": ("t1.mgz", "labels_freesurfer.mgz", "freesurfer", "mri_t1_skull_stripped", "head"),
}
HEADS = "brain_label_maps"  # FreeSurfer ids and head tissues, without images: rendered


def volumes(folder: Path) -> Iterator[tuple[str, Callable[[], Candidate]]]:
    """(name, maker of the candidate) of every scan in ``folder``, and of every head as the tissue engine renders it in T1 and T2.

    Candidates are made while the generator is open.
    """
    with TemporaryDirectory() as work:
        library = TemplateLibrary.open(Path(work), create=True)
        for name in SCANS:
            yield f"real {name}", partial(_scan, library, folder / name, name)
        for path in sorted((folder / HEADS).glob("*.nii.gz")):
            yield f"rendered {path.name.removesuffix('.nii.gz')}", partial(_head, library, path)


def _scan(library: TemplateLibrary, place: Path, name: str) -> Candidate:
    image, labels, mapping, sequence, center = SCANS[name]
    with_image = place / image if sequence == "ct" else None
    import_template(place / labels, library, template_id=name, mapping=mapping, image=with_image, licence="for research")
    label_map = library.get(name)
    case = _case(name, (sequence,), center, label_map.size, label_map.spacing)
    return Candidate(case, label_map, {sequence: np.round(read_scan(place / image).voxels).astype(np.int16)})


def _head(library: TemplateLibrary, path: Path) -> Candidate:
    name = path.name.removesuffix(".nii.gz")
    import_template(path, library, template_id=name, mapping="freesurfer", licence="for research")
    case = _case(name, ("mri_t1", "mri_t2"), "head", (112, 128, 112), (2.0, 2.0, 2.0))
    label_map = build_label_map(case, library, 0)[0]
    return Candidate(case, label_map, load_engine("tissue").render(case, label_map, 0))


def _case(name: str, sequences: tuple[str, ...], center: str, size: tuple[int, ...], spacing: tuple[float, ...]) -> Case:
    fields = {"sequences": sequences, "center": center, "size": tuple(size), "spacing": tuple(spacing)}
    return Case.model_validate({"case_id": name, "body": f"template:{name}", **fields})
