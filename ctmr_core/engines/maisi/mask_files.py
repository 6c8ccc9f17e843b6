"""Label maps from NIfTI bytes, on other grids, and how often each was used."""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.resample import resample
from ctmr_core.engines.maisi.digests import write_json
from ctmr_core.errors import EngineError

Size = tuple[int, int, int]
Spacing = tuple[float, float, float]
_LARGEST_VOLUME = 2 << 30  # bytes: 512 x 512 x 768 voxels of 8 bytes are 1.6 GB
_SAME_MM = 1e-4  # spacings of NIfTI headers are float32


def read_nifti(content: bytes, name: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (uint8 [x, y, z], nearest RAS+ axes, C order) and affine (4x4 float64) of a NIfTI label map.

    name: tells ``.nii`` from ``.nii.gz``. where: for messages. Raises ``EngineError`` for damaged files, more or fewer
    than three axes, or values that are not whole numbers 0-255.
    """
    try:
        raw = _unzipped(content, where) if name.endswith(".gz") else content
        image = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_bytes(raw))
        values = np.asarray(image.dataobj)
    except (OSError, EOFError, zlib.error, ValueError, ImageFileError, HeaderDataError, WrapStructError) as error:
        raise EngineError("not a NIfTI label map", where=where, found=str(error)) from error
    values = values.reshape(values.shape[:3]) if values.ndim > 3 and set(values.shape[3:]) == {1} else values
    if values.ndim != 3:
        raise EngineError("label maps have 3 axes", where=where, found=values.shape)
    if values.dtype != np.uint8:
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= 255) or (values.dtype.kind == "f" and (values != np.rint(values)).any()):
            raise EngineError("labels must be whole numbers 0-255", where=where, found=(float(low), float(high)))
        values = values.astype(np.uint8)
    return np.ascontiguousarray(values), np.asarray(image.affine, np.float64)


def _unzipped(content: bytes, where: str) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
        raw = stream.read(_LARGEST_VOLUME + 1)
    if len(raw) > _LARGEST_VOLUME:
        raise EngineError("a label map is too large", where=where, allowed=f"{_LARGEST_VOLUME} bytes unpacked")
    return raw


def on_grid(label_map: LabelMap, size: Size, spacing: Spacing, *, compat: bool = False) -> np.ndarray:
    """The label map resampled about its middle, cut or padded with background: uint8 [x, y, z].

    size: voxels; spacing: mm. The same grid gives the same voxels. compat: nearest neighbour by MONAI's ``Spacing``, as in the
    reference; otherwise with smooth boundaries and no structure lost (``anatomy.resample``).
    """
    if label_map.size == tuple(size) and np.allclose(label_map.spacing, spacing, rtol=0, atol=_SAME_MM):
        return label_map.voxels
    if not compat:
        return resample(label_map, size, spacing).voxels
    import torch
    from monai.data import MetaTensor
    from monai.transforms import ResizeWithPadOrCrop
    from monai.transforms import Spacing as Respacing

    volume: Any = MetaTensor(
        torch.from_numpy(label_map.voxels[None].astype(np.float32)), affine=torch.from_numpy(label_map.affine)
    )
    volume = ResizeWithPadOrCrop(tuple(size))(Respacing(pixdim=tuple(spacing), mode="nearest")(volume))
    return np.ascontiguousarray(np.asarray(volume)[0].astype(np.uint8))


class UseCounter:
    """How often each label map of a bank was used, in a small JSON file that several processes may share.

    A file that was cut off can't come about: it is replaced whole, under a lock on ``<file>.lock``.
    """

    def __init__(self, file: Path) -> None:
        self.file = Path(file)

    def counts(self) -> dict[str, int]:
        """Path in the bank -> uses."""
        try:
            document = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise EngineError("the record of uses cannot be read", where=str(self.file), found=str(error)) from error
        if not isinstance(document, dict) or not all(isinstance(uses, int) for uses in document.values()):
            raise EngineError("the record of uses is damaged", where=str(self.file), allowed='{"path": uses, ...}')
        return document

    def add(self, path: str, uses: int = 1) -> int:
        """Count more uses of a label map; the new total."""
        with self._locked():
            counts = self.counts()
            counts[path] = counts.get(path, 0) + uses
            write_json(self.file, counts)
        return counts[path]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.with_name(self.file.name + ".lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(handle, fcntl.LOCK_UN)
