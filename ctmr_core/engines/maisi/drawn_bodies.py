"""Label maps that the CT variants make for their own cases: ``generated:mask`` and ``generated:bank``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ctmr_core.anatomy.grid import Grid
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.lesions.sites import LESIONS
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import Case
from ctmr_core.cases.label_maps import with_lesions
from ctmr_core.cases.seeds import body_rng
from ctmr_core.engines.maisi.anatomy_sizes import check_sizes, check_vector, read_known_sizes
from ctmr_core.engines.maisi.digests import Digests, combined_digest
from ctmr_core.engines.maisi.hub import file_states, missing_weights
from ctmr_core.engines.maisi.mask_bank import MaskBank, Request, label_ids, split
from ctmr_core.engines.maisi.mask_sampling import MASK_STEPS
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.pair_masks import Draw, MaskSettings, MaskSource, bank_matches, from_bank, from_sizes
from ctmr_core.engines.maisi.parameters import BANK_BODY, MASK_BODY, MaisiParameters
from ctmr_core.engines.maisi.released import released_files
from ctmr_core.errors import AnatomyError, EngineError

BODIES = frozenset((MASK_BODY, BANK_BODY))
KNOWN_SIZES = "all_anatomy_size_conditions.json"


class BodyMaker:
    """What one variant's label maps are made with: the mask networks and the known sizes, or a bank, below ``root``.

    bank: folder of the bank's index and label maps, default ``datasets`` of ``root``.
    """

    def __init__(self, name: str, root: Path, bank: Path | None = None) -> None:
        self._name = name
        self._root = root
        self._bank_folder = bank or root / "datasets"
        self._digests: dict[str, str] = {}
        self._parts: dict[tuple[tuple[str, float], ...], dict[str, MaskBank]] = {}

    def validate(self, case: Case, parameters: MaisiParameters) -> None:
        """Refuse (``EngineError``) what no label map can show, before any is made."""
        for field in ("center", "deformation", "pose"):
            if getattr(case, field):
                raise EngineError(
                    f"a generated body can't have a {field}",
                    where=f"field {field}",
                    found=getattr(case, field),
                    fix="leave it out; in_view asks for regions of the bank" if field == "center" else "leave it out",
                )
        known = LESIONS["maisi"]
        for index, lesion in enumerate(case.lesions):
            if lesion.label not in known:
                raise EngineError(
                    "bodies cannot have this lesion", where=f"field lesions[{index}].label", found=lesion.label, allowed=known
                )
        if case.body == MASK_BODY:
            _refuse_sizes(parameters)
            self._refuse_missing_networks()
            if isinstance(parameters.anatomy_sizes, Mapping):
                _ = self._known
        else:
            bank_matches(self._part(case, parameters), _request(case, parameters), compat=parameters.compat)

    def body(
        self, case: Case, attempt: int, models: MaisiModels, parameters: MaisiParameters
    ) -> tuple[LabelMap, list[dict[str, Any]]]:
        """The label map (uint8 [x, y, z] on the grid of the case) and records: of the body, then of the lesions of the case.

        Depends on (body, body_seed, attempt), the settings and the grid; attempts of a bank body take turns among candidates.
        """
        draw = Draw.of(body_rng(case.body, case.body_seed, f"maisi/{attempt}"))
        request = _request(case, parameters)
        compat = parameters.compat
        source: MaskSource
        if case.body == MASK_BODY:
            window = (parameters.decode.window, parameters.decode.overlap) if parameters.decode else None
            settings = MaskSettings(parameters.mask_steps or MASK_STEPS, None, window)
            sizes = parameters.anatomy_sizes
            assert sizes is not None  # noqa: S101 - validated
            known = self._known if isinstance(sizes, Mapping) else None
            source = from_sizes(models, sizes, known, request, [draw], settings, compat=compat)
        else:
            order = body_rng(case.body, case.body_seed, "maisi/order")
            part = self._part(case, parameters)
            source = from_bank(part, request, [draw], order=order, first=attempt, compat=compat)
        drawn = next(source.masks, None)
        if drawn is None:
            raise source.nothing_found()
        _, voxels, note = drawn
        record = {"body": case.body, "made_of": self.digest(case.body), **note, "skipped": source.notes}
        label_map = LabelMap(voxels, Grid.centred(case.size, case.spacing).affine, load_vocabulary("maisi"))
        label_map, lesions = with_lesions(case, label_map, attempt)
        return label_map, [record, *lesions]

    def digest(self, body: str) -> str:
        """SHA-256 hex over the files that label maps of this kind are made of; "" while one is missing."""
        if body not in self._digests:
            paths = self._files_of(body)
            if not paths:
                return ""
            self._digests[body] = combined_digest({path.name: self._digest_of(path) for path in paths})
        return self._digests[body]

    def _files_of(self, body: str) -> list[Path]:
        if body == MASK_BODY:
            states = file_states(self._name, self._root, ("masks",))
            if any(state.status == "missing" for state in states if state.file.path.endswith(".pt")):
                return []
            return [state.path for state in states if state.status != "missing"]
        try:
            return list(bank_files(self._name, self._bank_folder))
        except EngineError:
            return []

    def _digest_of(self, path: Path) -> str:
        if path.is_dir():
            return "folder"  # an unpacked bank of hundreds of gigabytes is known by its index alone
        base = self._root if path.is_relative_to(self._root) else path.parent
        return Digests(base).hashed(path.relative_to(base).as_posix()).sha256

    def _refuse_missing_networks(self) -> None:
        states = [state for state in file_states(self._name, self._root, ("masks",)) if state.file.path.endswith(".pt")]
        missing = missing_weights(self._name, self._root, states)
        if missing is not None:
            missing.fix = f"ctmr models pull {self._name} --masks --root {self._root}"
            raise missing.located("field body")

    @cached_property
    def _known(self) -> np.ndarray:
        path = self._root / "datasets" / KNOWN_SIZES
        if not path.is_file():
            raise EngineError(
                "the sizes to complete the ones asked for are not there",
                where="engine_parameters.anatomy_sizes",
                found=str(path),
                fix=f"ctmr models pull {self._name} --masks, or give all ten sizes as a list",
            )
        return read_known_sizes(path)

    @cached_property
    def _bank(self) -> MaskBank:
        return MaskBank(*bank_files(self._name, self._bank_folder))

    def _part(self, case: Case, parameters: MaisiParameters) -> MaskBank:
        """The label maps that cases of this split may use: no label map is in two splits."""
        shares = tuple(parameters.bank_splits.items())
        if shares not in self._parts:
            parts = split(self._bank.candidates, dict(shares))
            self._parts[shares] = {str(name): self._bank.only(candidates) for name, candidates in parts.items()}
        part = self._parts[shares].get(case.split)
        if part is None or not len(part):
            raise EngineError(
                f"the bank has no label maps for split {case.split}",
                where="engine_parameters.bank_splits",
                found=dict(parameters.bank_splits),
                allowed=f"shares that give it some of {len(self._bank)} label maps",
            )
        return part


def bank_files(name: str, folder: Path) -> tuple[Path, Path]:
    """Index and label maps (zip, or the folder it was unpacked to) of a variant's bank in ``folder``."""
    files = {Path(file.path).suffix: Path(file.path).name for file in released_files(name, ("bank",))}
    index, archive = folder / files[".json"], folder / files[".zip"]
    unpacked = archive.with_suffix("")
    if not index.is_file() or not (archive.is_file() or unpacked.is_dir()):
        raise EngineError(
            "the bank of label maps is not there",
            where=str(folder),
            allowed=f"{index.name} and {archive.name} (or the folder {unpacked.name})",
            fix=f"ctmr models pull {name} --bank, or ask for sizes of organs, which needs no bank",
        )
    return index, unpacked if unpacked.is_dir() else archive


def _request(case: Case, parameters: MaisiParameters) -> Request:
    try:
        anatomy = label_ids(parameters.anatomy)
    except AnatomyError as error:
        raise EngineError(
            error.what, where="engine_parameters.anatomy", found=list(parameters.anatomy), allowed=error.allowed, fix=error.fix
        ) from error
    return Request(case.size, case.spacing, anatomy, parameters.in_view)


def _refuse_sizes(parameters: MaisiParameters) -> None:
    where, sizes = "engine_parameters.anatomy_sizes", parameters.anatomy_sizes
    if sizes is None:
        raise EngineError(
            "the sizes of organs are missing",
            where=where,
            allowed="ten numbers, or some by name: {liver: 0.7, hepatic tumor: 0.3}",
        )
    try:
        _ = check_sizes(sizes) if isinstance(sizes, Mapping) else check_vector(sizes)
    except EngineError as error:
        raise error.located(where) from error
