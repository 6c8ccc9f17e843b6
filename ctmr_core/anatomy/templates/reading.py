"""Reading volumes that other tools wrote: NIfTI, MGZ, NRRD and MetaImage, always handed out in RAS+ axis order."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import HeaderDataError, SpatialImage

from ctmr_core.errors import AnatomyError

NIBABEL_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")
SIMPLEITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
SUFFIXES = NIBABEL_SUFFIXES + SIMPLEITK_SUFFIXES
WHOLE_TOLERANCE = 1e-3  # floats this near a whole number are a label id that passed through a scaled header


@dataclass(frozen=True, eq=False)
class Scan:
    """A volume as read: ``voxels`` [x, y, z] in RAS+ axis order, ``affine`` 4x4 float64, voxel index -> RAS+ mm.

    orientation_known: False where the header does not say which way the axes run (NIfTI with sform and qform code 0);
        the axes are then taken as left, anterior, superior, as nibabel does.
    The affine is rounded to 1e-6 mm (headers keep float32), may be oblique, and never flips or permutes axes.
    """

    voxels: np.ndarray
    affine: np.ndarray
    orientation_known: bool = True

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm per voxel along each axis."""
        x, y, z = (float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0))
        return (x, y, z)


def is_readable_name(path: Path) -> bool:
    """Whether the file name ends like a format that can be read."""
    return path.name.lower().endswith(SUFFIXES)


def scan_stem(path: Path) -> str:
    """The file name without its suffix (``.nii.gz`` counts as one)."""
    name = path.name
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem


def read_scan(path: str | Path) -> Scan:
    """Read an image: voxels as stored (scaling applied), in RAS+ axis order.

    Raises ``AnatomyError`` for unknown formats, unreadable or truncated files, anything that is not a 3-D scalar
    volume, and geometry without a positive finite spacing.
    """
    path = Path(path)
    if not path.is_file():
        raise AnatomyError("there is no such file", where=str(path))
    if path.name.lower().endswith(NIBABEL_SUFFIXES):
        voxels, affine, known = _read_nibabel(path)
    elif path.name.lower().endswith(SIMPLEITK_SUFFIXES):
        (voxels, affine), known = _read_simpleitk(path), True
    else:
        raise AnatomyError("cannot read this kind of file", where=str(path), found=path.suffix, allowed=SUFFIXES)
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3 or voxels.dtype.fields is not None:
        raise AnatomyError(
            "not a 3-D volume of one value per voxel", where=str(path), found=voxels.shape, fix="save one 3-D volume per file"
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (spacing > 1e-6).all() or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise AnatomyError(
            "the header has no usable geometry: spacing must be positive and the axes independent",
            where=str(path),
            found=[round(float(mm), 6) for mm in spacing],
            fix="repair the affine (NIfTI sform/qform) of the file",
        )
    orientation = io_orientation(affine)
    canonical = affine @ inv_ornt_aff(orientation, voxels.shape)
    return Scan(apply_orientation(voxels, orientation), np.round(canonical, 6) + 0.0, known)


def read_label_scan(path: str | Path) -> Scan:
    """Read a label map in its own ids: like ``read_scan``, voxels in the smallest unsigned integer dtype.

    Also refuses values that are not whole numbers (the first one and its voxel are named), negative ids and empty maps.
    """
    scan = read_scan(path)
    voxels = scan.voxels
    if not np.issubdtype(voxels.dtype, np.integer):
        voxels = _whole_numbers(voxels, str(path))
    lowest, highest = int(voxels.min(initial=0)), int(voxels.max(initial=0))
    if lowest < 0:
        raise AnatomyError("label ids cannot be negative", where=_place(path, voxels < 0), found=lowest)
    if highest == 0:
        raise AnatomyError("the label map is empty: every voxel is 0", where=str(path))
    return Scan(voxels.astype(np.min_scalar_type(highest), copy=False), scan.affine, scan.orientation_known)


def _whole_numbers(voxels: np.ndarray, where: str) -> np.ndarray:
    if not np.issubdtype(voxels.dtype, np.floating):
        raise AnatomyError("label values must be whole numbers", where=where, found=str(voxels.dtype))
    whole = np.rint(voxels)
    with np.errstate(invalid="ignore"):
        bad = ~(np.abs(voxels - whole) <= WHOLE_TOLERANCE)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise AnatomyError(
            f"not a label map: {int(bad.sum())} voxels are not whole numbers",
            where=f"{where}, voxel {place} (RAS order)",
            found=float(voxels[place]),
            fix="give the segmentation, not the image; resample label maps with nearest neighbour",
        )
    return whole.astype(np.int64 if np.abs(whole).max() > 2**31 - 1 else np.int32)


def _place(path: str | Path, bad: np.ndarray) -> str:
    x, y, z = (int(i) for i in np.argwhere(bad)[0])
    return f"{path}, voxel ({x}, {y}, {z}) (RAS order)"


def _read_nibabel(path: Path) -> tuple[np.ndarray, np.ndarray, bool]:
    try:
        image = nib.load(path)
        if not isinstance(image, SpatialImage):
            raise ImageFileError(f"{type(image).__name__} holds no volume")
        voxels = np.asanyarray(image.dataobj)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error, OverflowError, MemoryError) as error:
        raise AnatomyError(f"cannot read the file, it is damaged or not what its name says: {error}", where=str(path)) from error
    known = not isinstance(image, nib.Nifti1Pair) or bool(image.header["sform_code"] or image.header["qform_code"])
    return voxels, np.asarray(image.affine, np.float64), known


def _read_simpleitk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise AnatomyError("cannot read the file, it is damaged or not what its name says", where=str(path)) from error
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() != 3:
        size = (*image.GetSize(), image.GetNumberOfComponentsPerPixel())
        raise AnatomyError(
            "not a 3-D volume of one value per voxel", where=str(path), found=size, fix="save one 3-D volume per file"
        )
    lps_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), lps_to_ras @ affine
