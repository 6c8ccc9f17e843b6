"""Slices as NVIDIA's FID 2.5D takes them (``scripts/compute_fid_2-5d_ct.py``), restated with MONAI's transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCrop, Compose, ScaleIntensityRange, Spacing, SpatialPad

from ctmr_core.assessment.features import NetworkFile
from ctmr_core.assessment.slices import SliceProtocol, plane_slices

SIZE = (40, 40, 40)


def reference_planes(image, spacing):
    """Plane -> slices of the middle 40 %, each plane stretched by its own smallest and largest value."""
    volume = MetaTensor(torch.from_numpy(image.astype(np.float32))[None], affine=torch.diag(torch.tensor([*spacing, 1.0])))
    prepare = Compose(
        [
            Spacing((1.0, 1.0, 1.0), mode="bilinear"),
            SpatialPad(SIZE, mode="constant", value=-1000),
            CenterSpatialCrop(SIZE),
            ScaleIntensityRange(-1000, 1000, -1000, 1000, clip=True),
        ]
    )
    values = torch.as_tensor(np.asarray(prepare(volume)))[0]
    planes = {}
    for plane, axis in (("xy", 2), ("yz", 0), ("zx", 1)):
        n = values.shape[axis]
        slices = torch.stack(torch.unbind(values, dim=axis)[int(0.3 * n) : int(0.7 * n)])
        planes[plane] = ((slices - slices.min()) / (slices.max() - slices.min())).numpy()
    return planes


@pytest.mark.parametrize("size", [(20, 24, 16), (32, 30, 28)], ids=["padded", "cropped"])
def test_planes_are_those_of_the_reference(size):
    image = np.random.default_rng(5).normal(-200, 700, size).astype(np.int16)
    found = plane_slices(image, (1.5, 1.5, 2.0), "ct", SliceProtocol((1.0, 1.0, 1.0), SIZE))
    for plane, slices in reference_planes(image, (1.5, 1.5, 2.0)).items():
        np.testing.assert_allclose(found[plane], slices, rtol=0, atol=1e-5, err_msg=plane)


def test_a_network_sees_three_channels_less_the_means_in_the_references_order(tmp_path):
    class Means(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images

    torch.jit.script(Means()).save(tmp_path / "means.pt")
    features = NetworkFile(tmp_path / "means.pt").features(np.full((2, 8, 8), 0.5, np.float32))
    np.testing.assert_allclose(features, [[0.5 - 0.406, 0.5 - 0.456, 0.5 - 0.485]] * 2, atol=1e-6)
