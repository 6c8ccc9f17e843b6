"""Makes the pictures of the documentation that stand beside real scans.

    python docs/pictures.py DATA docs/images

DATA holds ct_abdomen/, t1_brain/ and brain_label_maps/ (see docs/templates.md).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from nibabel.processing import resample_from_to
from PIL import Image

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.templates.importing import import_template
from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.anatomy.templates.reading import read_scan
from ctmr_core.cases.case import Case
from ctmr_core.cases.label_maps import build_label_map
from ctmr_core.engines import load_engine
from ctmr_core.report.montage import row_of, stack
from ctmr_core.report.slices import PLANES, cut, pixel_size, to_picture, window_of

HEIGHT = 250


def render(library: TemplateLibrary, case: Case) -> tuple[dict[str, np.ndarray], LabelMap]:
    label_map, _ = build_label_map(case, library, 0)
    return dict(load_engine(case.engine, threads=2).render(case, label_map, 0)), label_map


def on_grid_of(label_map: LabelMap, path: Path) -> np.ndarray:
    """The scan at ``path`` on the grid of ``label_map``, so that both are cut at the same place."""
    return np.asarray(resample_from_to(nibabel.load(path), (label_map.size, label_map.affine), order=1).dataobj)


def planes(
    sequence: str, image: np.ndarray, spacing: tuple[float, float, float], at: tuple[float, float, float]
) -> list[Image.Image]:
    window = window_of(sequence, image)
    pictures = []
    for plane, axis in zip(PLANES, (2, 1, 0), strict=True):
        grey = window.apply(cut(image, plane, int(image.shape[axis] * at[axis])))
        pictures.append(to_picture(np.repeat(grey[..., None], 3, axis=2), pixel_size(plane, spacing), HEIGHT))
    return pictures


def ct_beside_real(data: Path, library: TemplateLibrary, out: Path) -> None:
    folder = data / "ct_abdomen"
    labels, image = folder / "labels_totalsegmentator_v2.nii.gz", folder / "ct.nii.gz"
    row = import_template(labels, library, template_id="abdomen", mapping="totalsegmentator_v2", image=image)
    real = read_scan(image).voxels
    same = {"body": "template:abdomen", "sequences": ("ct",), "size": row.size, "spacing": row.spacing}
    fine = {"size": (256, 208, 224), "spacing": (1.5, 1.5, 1.5)}
    at = (0.5, 0.55, 0.55)
    rows = [row_of(planes("ct", real, row.spacing, at), "real scan, 3 mm, native")]
    for caption, changes in (
        ("rendered from its labels, 3 mm, the template's own intensities", {"engine_parameters": {"intensities": "template"}}),
        ("rendered from its labels, 3 mm, another patient's intensities", {}),
        ("rendered from its labels at 1.5 mm, portal venous contrast", fine | {"sequences": ("ct_contrast",)}),
    ):
        case = Case.model_validate({"case_id": "ct"} | same | changes)
        ((sequence, rendered),) = render(library, case)[0].items()
        rows.append(row_of(planes(sequence, rendered, case.spacing, at), caption))
    stack(rows).save(out / "ct_beside_real.png", optimize=True)


def mr_beside_real(data: Path, library: TemplateLibrary, out: Path) -> None:
    import_template(data / "t1_brain" / "labels_freesurfer.mgz", library, template_id="subject", mapping="freesurfer")
    import_template(data / "brain_label_maps" / "training_seg_03.nii.gz", library, template_id="head", mapping="freesurfer")
    at = (0.47, 0.5, 0.52)
    size, spacing = (256, 256, 256), (1.0, 1.0, 1.0)
    case = Case(case_id="t1", body="template:subject", sequences=("mri_t1_skull_stripped",), size=size, spacing=spacing)
    rendered, label_map = render(library, case)
    real = on_grid_of(label_map, data / "t1_brain" / "t1.mgz")
    rows = [
        row_of(planes("mri_t1", real, spacing, at), "real T1, skull-stripped, 1 mm"),
        row_of(planes("mri_t1", rendered["mri_t1_skull_stripped"], spacing, at), "T1 rendered from its labels"),
    ]
    sequences = ("mri_t1", "mri_t2", "mri_flair", "mri_swi")
    head = Case(case_id="head", body="template:head", sequences=sequences, size=(192, 224, 192), spacing=spacing, center="head")
    images, _ = render(library, head)
    axial = [planes(sequence, image, spacing, (0.5, 0.5, 0.55))[0] for sequence, image in images.items()]
    rows.append(row_of(axial, "T1, T2, FLAIR and SWI rendered from one whole-head label map, 1 mm"))
    stack(rows).save(out / "mr_beside_real.png", optimize=True)


def main() -> None:
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        library = TemplateLibrary.open(folder, create=True)
        ct_beside_real(data, library, out)
        mr_beside_real(data, library, out)


if __name__ == "__main__":
    main()
