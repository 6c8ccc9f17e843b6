"""What a set is compared with: another dataset, a folder of scans, or a template library."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ctmr_core.anatomy.sequences import MODALITY_CODES
from ctmr_core.anatomy.templates.library import INDEX, TemplateLibrary
from ctmr_core.assessment.streaming import DatasetVolumes, Loaded, Volumes
from ctmr_core.errors import StoreError
from ctmr_core.store import Dataset
from ctmr_core.store.layout import DATASET

_SCANS = (".nii", ".nii.gz")


class FolderVolumes:
    """NIfTI scans below a folder; the sequence of each is the name of its folder, or else ``sequence``. Order: by hash."""

    def __init__(self, folder: Path, sequence: str | None, sample: int | None = None) -> None:
        self._files: dict[str, tuple[Path, str]] = {}
        for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name.endswith(_SCANS)):
            named = file.parent.name if file.parent.name in MODALITY_CODES else sequence
            if named is None:
                raise StoreError(
                    "it does not say which sequence a scan is",
                    where=str(file),
                    fix="put the scans into folders named after their sequence (ct, mri_t1, ...), or give the sequence",
                )
            self._files[file.relative_to(folder).as_posix()] = (file, named)
        if not self._files:
            raise StoreError("the reference folder has no scans", where=str(folder), allowed="*.nii, *.nii.gz")
        self._names = _shuffled(self._files, sample)

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def load(self, name: str, sequences: Sequence[str] | None = None, labels: bool = True) -> Loaded:
        import nibabel as nib
        from nibabel.filebasedimages import ImageFileError

        del labels
        file, sequence = self._files[name]
        try:
            scan = nib.as_closest_canonical(nib.load(file))  # type: ignore[arg-type]
            voxels = np.asanyarray(scan.dataobj)  # type: ignore[attr-defined]
        except (ImageFileError, OSError, EOFError, ValueError) as error:
            raise StoreError("a reference scan can not be read", where=str(file), found=str(error)) from error
        if voxels.ndim != 3:
            raise StoreError("a reference scan has 3 axes", where=str(file), found=voxels.shape)
        x, y, z = (float(step) for step in nib.affines.voxel_sizes(scan.affine))  # type: ignore[attr-defined]
        wanted = sequences is None or sequence in sequences
        return Loaded(name, {sequence: np.asarray(voxels, np.float32)} if wanted else {}, None, None, (x, y, z))


class TemplateVolumes:
    """The label maps of a template library; they have no images."""

    def __init__(self, folder: Path, sample: int | None = None) -> None:
        self._library = TemplateLibrary.open(folder)
        self._names = _shuffled(self._library.ids(), sample)

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def load(self, name: str, sequences: Sequence[str] | None = None, labels: bool = True) -> Loaded:
        del sequences
        found = self._library.get(name)
        return Loaded(name, {}, found.voxels if labels else None, found.vocabulary, found.spacing)


def open_reference(place: str, sequences: Sequence[str], sample: int | None = None) -> Volumes:
    """The reference at a path or URI. sequences: of the set; scans that don't name their own are taken for the only one.

    sample: at most so many volumes. ``StoreError`` when there is nothing to compare with.
    """
    folder = Path(place).expanduser()
    if "://" in place or (folder / DATASET).is_file():
        return DatasetVolumes(Dataset.open(place), sample)
    if not folder.is_dir():
        raise StoreError("there is no reference here", found=place, allowed="a dataset, a folder of scans, a template library")
    if (folder / INDEX).is_file():
        return TemplateVolumes(folder, sample)
    return FolderVolumes(folder, sequences[0] if len(sequences) == 1 else None, sample)


def _shuffled(names: Sequence[str] | dict[str, tuple[Path, str]], sample: int | None) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:sample]
