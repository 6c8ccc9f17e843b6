"""OME-Zarr 0.5 metadata of a volume.

A volume is one Zarr v3 group whose own ``multiscales`` list the first level of every sequence (``ct/0``), so that a viewer
pointed at the volume shows its images with the labels beside them. Every sequence is an image group of its own as well.
Axes carry the anatomical orientation of OME-Zarr RFC 4; the true affine, oblique or not, is in the NIfTI header array of
the NIfTI-Zarr convention and in the attributes under ``ctmr``.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.anatomy.vocabulary import Vocabulary

OME_VERSION = "0.5"
CT_WINDOW = (-160, 240)  # soft tissue, level 40 width 400: the usual abdominal window of radiology
CT_RANGE = (-1024, 3071)  # 12-bit CT numbers, DICOM rescale intercept -1024
MR_PERCENTILES = (1.0, 99.5)  # robust: without noise background and without the brightest vessels
_SAMPLE_STEP = 4  # the window needs no more than every 4th voxel per axis
AXES: tuple[dict[str, Any], ...] = tuple(
    {"name": name, "type": "space", "unit": "millimeter", "orientation": {"type": "anatomical", "value": direction}}
    for name, direction in (
        ("z", "inferior-to-superior"),
        ("y", "posterior-to-anterior"),
        ("x", "left-to-right"),
    )
)


def multiscale(name: str, path: str, affine: np.ndarray) -> dict[str, Any]:
    """One single-level ``multiscales`` entry: scale in mm, then the RAS+ position of voxel 0 in mm, both in [z, y, x] order."""
    scale = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
    origin = affine[:3, 3][::-1]
    return {
        "name": name,
        "axes": [dict(axis) for axis in AXES],
        "datasets": [
            {
                "path": path,
                "coordinateTransformations": [
                    {"type": "scale", "scale": [float(v) for v in scale]},
                    {"type": "translation", "translation": [float(v) for v in origin]},
                ],
            }
        ],
    }


def omero(sequence: str, image: np.ndarray) -> dict[str, Any]:
    """Rendering settings of one image: grey, with a window (CT in HU; MR between robust percentiles of the signal)."""
    if is_ct(sequence):
        (low, high), (start, end) = CT_RANGE, CT_WINDOW
    else:
        sample = image[::_SAMPLE_STEP, ::_SAMPLE_STEP, ::_SAMPLE_STEP]
        signal = sample[sample > 0]
        start, end = (int(v) for v in np.percentile(signal, MR_PERCENTILES)) if signal.size else (0, 1)
        low, high = 0, max(int(image.max()), 1)
    return {
        "channels": [
            {
                "label": sequence,
                "color": "FFFFFF",
                "active": True,
                "coefficient": 1,
                "family": "linear",
                "inverted": False,
                "window": {"min": low, "max": high, "start": start, "end": max(end, start + 1)},
            }
        ],
        "rdefs": {"model": "greyscale", "defaultT": 0, "defaultZ": image.shape[2] // 2},
    }


@lru_cache(maxsize=8)
def image_label(vocabulary: Vocabulary) -> str:
    """Names and colours of every label of the vocabulary, whether or not this volume has it: all volumes share one legend.

    JSON text, made once per vocabulary: it is half of a small volume's documents.
    """
    colors = [{"label-value": label.id, "rgba": [*label.rgb, 255]} for label in vocabulary]
    properties = [{"label-value": label.id, "name": label.name, "group": label.group} for label in vocabulary]
    return json.dumps(
        {
            "colors": [{"label-value": 0, "rgba": [0, 0, 0, 0]}, *colors],
            "properties": [{"label-value": 0, "name": "background"}, *properties],
            "source": {"image": "../../"},
        },
        separators=(",", ":"),
    )


@lru_cache(maxsize=16)
def nifti_header(size: tuple[int, ...], dtype: np.dtype, affine: bytes) -> bytes:
    """The 348 bytes of a little-endian NIfTI-1 header [x, y, z]: both sform and qform hold the affine (mm, RAS+).

    affine: the bytes of a 4x4 float64 array, C order. The images of a case share one header.
    """
    import nibabel as nib  # takes a third of a second, and readers need none

    matrix = np.frombuffer(affine, np.float64).reshape(4, 4)
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(dtype)
    header.set_data_shape(size)
    header.set_xyzt_units("mm")
    header.set_qform(matrix, code=1)
    header.set_sform(matrix, code=1)
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    return bytes(header.binaryblock)
