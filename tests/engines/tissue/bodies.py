"""A small made-up body and the real abdomen, for the tests of the tissue engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import Case


def make_case(label_map: LabelMap, sequences: tuple[str, ...] = ("ct",), seed: int = 0, **parameters: Any) -> Case:
    return Case(
        case_id="body",
        body="template:body",
        sequences=sequences,
        size=label_map.size,
        spacing=label_map.spacing,
        seed=seed,
        engine_parameters=parameters,
    )


def small_body(size: tuple[int, int, int] = (72, 56, 40), spacing: tuple[float, float, float] = (4.0, 4.0, 4.0)) -> LabelMap:
    """An elliptic trunk: fat around muscle, two lungs above a liver, a spleen, a kidney, an aorta and a vertebra."""
    vocabulary = load_vocabulary("maisi")
    x, y, z = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(size, spacing, strict=True)], indexing="ij")
    labels = np.zeros(size, np.uint8)
    tissues = np.zeros(size, np.uint8)

    def fill(where: np.ndarray, label: str, tissue: str) -> None:
        labels[where] = vocabulary.label(label).id
        tissues[where] = tissue_id(tissue)

    def ball(cx: float, cy: float, cz: float, rx: float, ry: float, rz: float) -> np.ndarray:
        return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 < 1

    fill((x / 130) ** 2 + (y / 95) ** 2 < 1, "body", "subcutaneous_fat")
    fill((x / 112) ** 2 + (y / 78) ** 2 < 1, "body", "muscle")
    fill(ball(60, 0, 55, 44, 60, 70), "right lung lower lobe", "lung_parenchyma")
    fill(ball(-60, 0, 55, 44, 60, 70), "left lung lower lobe", "lung_parenchyma")
    fill(ball(55, 10, -45, 45, 50, 32), "liver", "liver")
    fill(ball(-70, -20, -45, 25, 28, 25), "spleen", "spleen")
    fill(ball(-25, -35, -50, 16, 16, 24), "left kidney", "kidney_cortex")
    fill((x + 12) ** 2 + (y + 25) ** 2 < 12**2, "aorta", "arterial_blood")
    fill((np.abs(x) < 20) & (np.abs(y + 55) < 16), "vertebrae L1", "trabecular_bone")
    return LabelMap(labels, np.diag([*spacing, 1.0]), vocabulary, tissues)


def real_abdomen(folder: Path) -> tuple[LabelMap, np.ndarray]:
    """The real abdomen: its labels as a maisi label map inside a body envelope (no tissues), and its CT in HU [x, y, z]."""
    scan = nib.as_closest_canonical(nib.load(folder / "ct_abdomen" / "ct.nii.gz"))
    segmentation = nib.as_closest_canonical(nib.load(folder / "ct_abdomen" / "labels_totalsegmentator_v2.nii.gz"))
    mapping = json.loads((folder / "mapping" / "totalsegmentator_total_v2_to_maisi132.json").read_text())
    table = np.zeros(256, np.uint8)
    for source, target in mapping.items():
        table[int(source)] = target
    hu = np.asarray(scan.dataobj).astype(np.int16)
    labels = table[np.asarray(segmentation.dataobj).astype(np.int64)]
    body = ndimage.binary_opening(hu > -500, iterations=2)
    parts, _ = ndimage.label(body)
    body = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    body = np.stack([ndimage.binary_fill_holes(body[:, :, k]) for k in range(body.shape[2])], axis=2)
    labels[(labels == 0) & body] = 200
    return LabelMap(np.ascontiguousarray(labels), np.asarray(segmentation.affine, float), load_vocabulary("maisi")), hu


def neighbour_correlation(values: np.ndarray, mask: np.ndarray, axis: int) -> float:
    """Correlation of neighbours along ``axis`` inside ``mask``, after slow changes (a blur of 2 voxels) are taken off."""
    detail = values.astype(np.float32) - ndimage.gaussian_filter(values.astype(np.float32), 2)
    first = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
    second = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
    both = mask[first] & mask[second]
    return float(np.corrcoef(detail[first][both], detail[second][both])[0, 1])
