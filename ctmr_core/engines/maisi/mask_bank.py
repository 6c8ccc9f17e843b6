"""A bank of label maps: an index in JSON, the label maps as NIfTI files in a zip or a folder.

The index has the structure of NVIDIA's ``candidate_masks_flexible_size_and_spacing_*.json``; filters and the score of the nearest
match are those of NV-Generate-CTMR (``scripts/find_masks.py``). Label maps are read one at a time: the released bank holds
5,164 of them, 867 GB unpacked.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.engines.maisi.mask_behaviour import mask_behaviour
from ctmr_core.engines.maisi.mask_files import read_nifti
from ctmr_core.engines.maisi.mask_postprocessing import TUMOR_HOSTS
from ctmr_core.engines.maisi.variants import REGION_SYNONYMS, REGIONS
from ctmr_core.errors import EngineError

Size = tuple[int, int, int]
Spacing = tuple[float, float, float]
_MUCH_SMALLER = 128  # voxels: candidates that much shorter along an axis are left out
_LARGEST_FILE = 2 << 30  # bytes of an unpacked member: 512 x 512 x 768 voxels of 8 bytes are 1.6 GB


class _Entry(BaseModel):
    """One entry of the index as it is written."""

    model_config = ConfigDict(extra="ignore")

    pseudo_label_filename: str
    label_list: list[int]
    dim: tuple[int, int, int]
    spacing: tuple[float, float, float]
    top_region_index: tuple[int, int, int, int] | None = None
    bottom_region_index: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Candidate:
    """A label map of the bank.

    path: inside of the zip or folder, ``/`` between parts. labels: ids it shows. size: voxels; spacing: mm.
    span: first and last region it shows, as indices into ``variants.REGIONS``; None where the index doesn't say.
    """

    path: str
    labels: frozenset[int]
    size: Size
    spacing: Spacing
    span: tuple[int, int] | None


@dataclass(frozen=True)
class Request:
    """What a label map has to be like.

    size: voxels [x, y, z]; spacing: mm. anatomy: ids that must be there. regions: names that must be in view
    (head, chest or thorax, abdomen, pelvis or lower). Tumours that are not in ``anatomy`` must not be there.
    """

    size: Size
    spacing: Spacing
    anatomy: tuple[int, ...] = ()
    regions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Match:
    """A candidate that fits a request. score: 0 for the same size and spacing, else the distance from it."""

    candidate: Candidate
    score: float

    @property
    def exact(self) -> bool:
        return self.score == 0


class MaskBank:
    """Label maps listed in ``index`` (JSON) and stored in ``source`` (a zip or a folder).

    A file is looked up by its path in the index, directly or below the one folder the zip or folder consists of.
    Raises ``EngineError`` for an index that can't be read or paths that lead elsewhere.
    """

    def __init__(self, index: Path, source: Path) -> None:
        self.index = Path(index)
        self.source = Path(source)
        if not self.source.exists():
            raise EngineError("the mask bank is not there", where=str(self.source), fix="fetch the bank, or give its place")
        self.candidates = _read_index(self.index)

    def __len__(self) -> int:
        return len(self.candidates)

    def __getstate__(self) -> dict[str, Any]:
        return {"index": self.index, "source": self.source, "candidates": self.candidates}

    def only(self, candidates: Iterable[Candidate]) -> MaskBank:
        """The same bank with these candidates alone, for example one part of a ``split``."""
        part = copy.copy(self)
        part.candidates = tuple(candidates)
        return part

    def matches(self, request: Request, *, at_least: int = 1, compat: bool = False) -> list[Match]:
        """Candidates for a request: those of exactly its size and spacing, then, if they are fewer than ``at_least``, the others.

        The nearest come first; equals stay in the order of the index. The reference tries the first max(2 x at_least, 5).
        """
        fitting = [entry for entry in self.candidates if _fits(entry, request, strict=not mask_behaviour(compat).unlimited_span)]
        exact = [Match(entry, 0.0) for entry in fitting if entry.size == request.size and entry.spacing == request.spacing]
        if len(exact) >= at_least:
            return exact
        near = [
            Match(entry, _score(entry, request))
            for entry in fitting
            if all(n > wanted - _MUCH_SMALLER for n, wanted in zip(entry.size, request.size, strict=True))
        ]
        near.sort(key=lambda match: match.score)
        return near

    def read(self, candidate: Candidate) -> LabelMap:
        """The label map of a candidate, axes turned to RAS+, uint8. Raises ``EngineError`` for a damaged file."""
        where = f"{self.source}:{candidate.path}"
        return LabelMap(*read_nifti(self._bytes(candidate.path), candidate.path, where), load_vocabulary("maisi"))

    def _bytes(self, path: str) -> bytes:
        if self._archive is None:
            file = self._file(path)
            if file.stat().st_size > _LARGEST_FILE:
                raise EngineError("a label map of the bank is too large", where=str(file), allowed=f"{_LARGEST_FILE} bytes")
            return file.read_bytes()
        name = self._members.get(path)
        if name is None:
            raise EngineError("the bank lacks a label map of its index", where=str(self.source), found=path)
        if self._archive.getinfo(name).file_size > _LARGEST_FILE:
            raise EngineError(
                "a label map of the bank is too large", where=f"{self.source}:{name}", allowed=f"{_LARGEST_FILE} bytes"
            )
        try:
            return self._archive.read(name)
        except (zipfile.BadZipFile, OSError, RuntimeError) as error:
            raise EngineError("a label map of the bank is damaged", where=f"{self.source}:{name}", found=str(error)) from error

    def _file(self, path: str) -> Path:
        root = self.source.resolve()
        inner = [folder for folder in sorted(root.iterdir()) if folder.is_dir()]
        for base in (root, *(inner if len(inner) == 1 else [])):
            file = base.joinpath(*PurePosixPath(path).parts).resolve()
            if file.is_file():
                if not file.is_relative_to(root):
                    raise EngineError("a path of the mask bank leads out of its folder", where=str(self.source), found=path)
                return file
        raise EngineError("the bank lacks a label map of its index", where=str(self.source), found=path)

    @cached_property
    def _archive(self) -> zipfile.ZipFile | None:
        if self.source.is_dir():
            return None
        try:
            return zipfile.ZipFile(self.source)
        except (zipfile.BadZipFile, OSError) as error:
            raise EngineError("the mask bank is no zip archive", where=str(self.source), found=str(error)) from error

    @cached_property
    def _members(self) -> dict[str, str]:
        """Path in the index -> name in the zip; the archive's one top folder may be left out."""
        names = [] if self._archive is None else [name for name in self._archive.namelist() if not name.endswith("/")]
        tops = {name.split("/", 1)[0] for name in names}
        members = {name: name for name in names}
        if len(tops) == 1:
            members.update({name.split("/", 1)[1]: name for name in names if "/" in name})
        return members


def split(candidates: Iterable[Candidate], shares: Mapping[str, float], seed: int = 0) -> dict[str, tuple[Candidate, ...]]:
    """Candidates by part (``{"train": 0.8, "test": 0.2}``), so that no label map is in two parts.

    The part follows from the seed and the candidate's path alone: it stays the same when the bank grows.
    """
    if not shares or any(share < 0 for share in shares.values()) or not np.isclose(sum(shares.values()), 1):
        raise EngineError("the shares of a split must add up to 1", found=dict(shares))
    names, bounds = list(shares), np.cumsum(list(shares.values()))
    parts: dict[str, list[Candidate]] = {name: [] for name in names}
    for candidate in candidates:
        place = int(np.searchsorted(bounds, _fraction(candidate.path, seed), side="right"))
        parts[names[min(place, len(names) - 1)]].append(candidate)
    return {name: tuple(part) for name, part in parts.items()}


def label_ids(anatomy: Iterable[int | str]) -> tuple[int, ...]:
    """Ids of structures given by id or name, each once; ``AnatomyError`` for unknown ones."""
    vocabulary = load_vocabulary("maisi")
    return tuple(dict.fromkeys(vocabulary.label(key).id for key in anatomy))


def region_index(region: str) -> int:
    """Place of a region in ``variants.REGIONS``; ``EngineError`` for an unknown one."""
    name = REGION_SYNONYMS.get(region, region)
    if name not in REGIONS:
        raise EngineError("unknown body region", found=region, allowed=[*REGIONS, *REGION_SYNONYMS])
    return REGIONS.index(name)


def _fraction(path: str, seed: int) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}|{path}".encode()).digest()[:8], "little") / 2**64


def _fits(entry: Candidate, request: Request, *, strict: bool) -> bool:
    if not entry.labels.issuperset(request.anatomy):
        return False
    if any(tumour in entry.labels and tumour not in request.anatomy for tumour in TUMOR_HOSTS):
        return False
    if not request.regions:
        return True
    if entry.span is None:
        return not strict
    return all(entry.span[0] <= region_index(region) <= entry.span[1] for region in request.regions)


def _score(entry: Candidate, request: Request) -> float:
    """Sum over the axes of field-of-view difference (cm), size difference / 100 and spacing difference (mm)."""
    total = 0.0
    for n, step, wanted_n, wanted_step in zip(entry.size, entry.spacing, request.size, request.spacing, strict=True):
        total += abs(n * step - wanted_n * wanted_step) / 10 + abs(n - wanted_n) / 100 + abs(step - wanted_step)
    return total


def _read_index(index: Path) -> tuple[Candidate, ...]:
    try:
        entries = TypeAdapter(list[_Entry]).validate_python(json.loads(index.read_text(encoding="utf-8")))
    except OSError as error:
        raise EngineError("the index of the mask bank cannot be read", where=str(index), found=str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ", ".join(str(part) for part in first["loc"])
        raise EngineError(
            "an entry of the mask bank's index is damaged",
            where=f"{index}, entry {place}",
            found=first["input"],
            allowed=first["msg"],
        ) from error
    except ValueError as error:
        raise EngineError("the index of the mask bank is no JSON", where=str(index), found=str(error)) from error
    return tuple(_candidate(entry, f"{index}, entry {number}") for number, entry in enumerate(entries))


def _candidate(entry: _Entry, where: str) -> Candidate:
    if any(n < 1 for n in entry.dim) or any(not np.isfinite(mm) or mm <= 0 for mm in entry.spacing):
        raise EngineError("impossible size or spacing", where=where, found=(entry.dim, entry.spacing))
    span = None
    if entry.top_region_index is not None and entry.bottom_region_index is not None:
        span = (_hot(entry.top_region_index, where), _hot(entry.bottom_region_index, where))
    return Candidate(safe_path(entry.pseudo_label_filename, where), frozenset(entry.label_list), entry.dim, entry.spacing, span)


def _hot(one_hot: Sequence[int], where: str) -> int:
    if sorted(one_hot) != [0, 0, 0, 1]:
        raise EngineError("not a region one-hot", where=where, found=tuple(one_hot), allowed="four numbers, one of them 1")
    return list(one_hot).index(1)


def safe_path(name: str, where: str) -> str:
    """A path of the index without ``./``; ``EngineError`` for one that is absolute or leads out of the bank."""
    path = PurePosixPath(name)
    if (
        path.is_absolute()
        or ".." in path.parts
        or not path.parts
        or "\\" in name
        or "\0" in name
        or re.match(r"^[A-Za-z]:", name)
        or not name.endswith((".nii", ".nii.gz"))
    ):
        raise EngineError(
            "impossible path of a label map", where=where, found=name, allowed="a NIfTI file below the folder of the bank"
        )
    return path.as_posix()
