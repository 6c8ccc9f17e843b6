"""NIfTI files: every reader finds every voxel where it is."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from ctmr_core.exchange import export, load_exporter
from tests.exchange.exchange_maker import exchange_case, exchange_dataset, oblique_affine, straight_affine

LPS = np.array([-1.0, -1.0, 1.0])


@pytest.mark.parametrize("affine", [straight_affine(), oblique_affine()], ids=["straight", "oblique"])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_nibabel_and_simpleitk_agree_with_the_dataset(tmp_path: Path, affine: np.ndarray, suffix: str) -> None:
    dataset = exchange_dataset(tmp_path / "set", [exchange_case(0, sequences=("ct", "mri_t1"))], affine=affine)
    out = tmp_path / "out"
    export(dataset, load_exporter("nifti", {"suffix": suffix}), out)
    volume = dataset["case-0000"]
    files = {f"images/case-0000_{name}": np.asarray(volume.images[name]) for name in ("ct", "mri_t1")}
    files["labels/case-0000"] = np.asarray(volume.labels)
    for name, voxels in files.items():
        path = out / f"{name}.{suffix}"
        image = nib.load(path)
        assert isinstance(image, nib.Nifti1Image)
        assert image.get_data_dtype() == voxels.dtype
        assert np.array_equal(np.asanyarray(image.dataobj), voxels)
        assert np.allclose(image.affine, affine, atol=1e-4)
        assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert bytes(image.header["descrip"]).startswith(b"SYNTHETIC ctmr-factory case key ")
        read = sitk.ReadImage(str(path))
        for place in ((0, 0, 0), (19, 3, 11), (4, 23, 17)):
            world = (affine @ [*place, 1])[:3]
            assert np.allclose(read.TransformIndexToPhysicalPoint(place), LPS * world, atol=1e-3)
            assert read[place] == voxels[place]


def test_labels_are_explained(tmp_path: Path) -> None:
    import json

    dataset = exchange_dataset(tmp_path / "set", [exchange_case(0)])
    export(dataset, load_exporter("nifti"), tmp_path / "out")
    listed = json.loads((tmp_path / "out/labels_maisi.json").read_text())["labels"]
    assert {"id": 1, "name": "liver", "group": "organ", "color": dataset["case-0000"].vocabulary.label(1).color} in listed
