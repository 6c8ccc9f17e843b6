"""Label maps for images: of the bank, varied, or drawn by the mask network. Each with its random numbers and a note."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.engines.maisi.anatomy_sizes import ABSENT, N_SLOTS, SIZE_SLOTS, check_vector, condition_vector
from ctmr_core.engines.maisi.decoder import REFERENCE_WINDOW, Decoder
from ctmr_core.engines.maisi.mask_bank import MaskBank, Match, Request
from ctmr_core.engines.maisi.mask_files import on_grid
from ctmr_core.engines.maisi.mask_sampling import MASK_SPACING, MASK_STEPS, missing_labels, name_of, sample_mask
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.tumor_augmentation import augment_mask
from ctmr_core.errors import EngineError

Sizes = Mapping[str, float] | Sequence[float]
_NEAREST = 5  # candidates of another size or spacing that are as good as each other, as in the reference
_SPARE_TRIES = 2  # candidates read beyond the list, per attempt, before giving up


@dataclass(frozen=True)
class Draw:
    """Random numbers of one attempt. torch: for the networks; numpy: for the rest; integer: for the reference's transforms."""

    torch: torch.Generator
    numpy: np.random.Generator
    integer: int

    @classmethod
    def of(cls, rng: np.random.Generator) -> Draw:
        """Everything from one generator."""
        return cls(torch.Generator().manual_seed(int(rng.integers(2**63))), rng, int(rng.integers(2**32)))


Drawn = tuple[Draw, np.ndarray, dict[str, Any]]
"""Random numbers for the image, label map (uint8 [x, y, z] on the grid of the request), note for the record."""


@dataclass
class MaskSource:
    """Label maps one after another. notes: the ones that were left out, and why."""

    masks: Iterator[Drawn]
    name: str
    request: Request
    notes: list[dict[str, Any]] = field(default_factory=list)

    def nothing_found(self) -> EngineError:
        """What to raise when there was no label map at all."""
        return EngineError(
            "no label map shows what was asked for",
            found=[note.get("why") for note in self.notes],
            allowed=[name_of(label) for label in self.request.anatomy],
            fix="ask for fewer structures, a larger field of view, or more attempts",
        )


def from_bank(
    bank: MaskBank,
    request: Request,
    draws: Sequence[Draw],
    *,
    order: np.random.Generator | None = None,
    first: int = 0,
    compat: bool = False,
) -> MaskSource:
    """Varied label maps of the bank, at most one per draw. Candidates that lose a structure on the way are left out, and noted.

    order: decides which candidate comes first (default: the first draw); first: how many of that order to pass over.
    Raises ``EngineError`` where no candidate fits.
    """
    matches = bank_matches(bank, request, compat=compat)
    ordered = _ordered(matches, draws[0].numpy if order is None else order, draws[0].integer, compat=compat)
    notes: list[dict[str, Any]] = []

    def masks() -> Iterator[Drawn]:
        remaining = iter(draws)
        draw = next(remaining, None)
        start = first % len(ordered)
        for match in islice(cycle(ordered), start, start + len(ordered) + _SPARE_TRIES * len(draws)):
            if draw is None:
                return
            path = match.candidate.path
            note: dict[str, Any] = {"path": path, "score": round(match.score, 6)}
            mask = on_grid(bank.read(match.candidate), request.size, request.spacing, compat=compat)
            try:
                mask, done = augment_mask(mask, draw.integer if compat else draw.numpy, compat=compat)
            except EngineError as error:
                notes.append({**note, "why": error.what})
                continue
            lost = missing_labels(mask, request.anatomy)
            if lost:
                notes.append({**note, "why": "lost " + ", ".join(name_of(label) for label in lost)})
                continue
            yield draw, mask, {**note, "augmentation": [step.as_dict() for step in done]}
            draw = next(remaining, None)

    return MaskSource(masks(), "bank", request, notes)


def bank_matches(bank: MaskBank, request: Request, *, compat: bool = False) -> list[Match]:
    """The candidates for a request, at least one; ``EngineError`` where there is none."""
    matches = bank.matches(request, compat=compat)
    if matches:
        return matches
    structures = [name_of(label) for label in request.anatomy]
    raise EngineError(
        "no label map of the bank fits",
        where=str(bank.index),
        found=f"{request.size} voxels of {request.spacing} mm, {structures}, {list(request.regions)}; {len(bank)} label maps",
        fix="ask for fewer structures or regions, another field of view, or draw the label map from sizes",
    )


def _ordered(matches: list[Match], rng: np.random.Generator, integer: int, *, compat: bool) -> list[Match]:
    """Candidates in the order to try: exact ones shuffled; of others the nearest few shuffled, then the rest by score."""
    few = len(matches) if matches[0].exact else _NEAREST
    if compat:
        nearest = matches[:few]
        random.Random(integer).shuffle(nearest)  # noqa: S311  (the stream of the reference)
        return nearest
    return [*(matches[index] for index in rng.permutation(min(few, len(matches)))), *matches[few:]]


@dataclass(frozen=True)
class MaskSettings:
    """How label maps are drawn. latent_shape: None as configured. window: latent voxels and overlap; None by free memory."""

    steps: int = MASK_STEPS
    latent_shape: Sequence[int] | None = None
    window: tuple[Sequence[int], float] | None = None


def from_sizes(
    models: MaisiModels,
    sizes: Sizes,
    known: np.ndarray | None,
    request: Request,
    draws: Sequence[Draw],
    settings: MaskSettings,
    *,
    compat: bool = False,
) -> MaskSource:
    """Label maps drawn by the mask network, each from its own seed and size vector; those that lack a structure are noted.

    sizes: ten, or some by name, completed from ``known``. Raises ``EngineError`` when not even the last draw shows them.
    """
    required = [*request.anatomy]
    if isinstance(sizes, Mapping):
        required += [SIZE_SLOTS[name] for name, size in sizes.items() if name in SIZE_SLOTS and size != ABSENT]
    window = settings.window or (REFERENCE_WINDOW if compat else None)
    notes: list[dict[str, Any]] = []

    def masks() -> Iterator[Drawn]:
        for number, draw in enumerate(draws):
            vector = _vector(sizes, known, draw.numpy, compat=compat)
            shape = settings.latent_shape or models.config["mask_generation_latent_shape"]
            decoder = Decoder(models, [4 * int(n) for n in shape[1:]], window, masks=True)
            note: dict[str, Any] = {"sizes": [float(size) for size in vector]}
            try:
                drawn = sample_mask(
                    models,
                    vector,
                    steps=settings.steps,
                    seed=draw.torch,
                    latent_shape=settings.latent_shape,
                    attempts=1,
                    required=required,
                    compat=compat,
                    decoder=decoder,
                )
            except EngineError as error:
                if number + 1 == len(draws) and len(notes) == number:
                    raise
                notes.append({**note, "why": error.what, "found": error.found})
                continue
            label_map = LabelMap(drawn, np.diag([*MASK_SPACING, 1.0]), load_vocabulary("maisi"))
            mask = on_grid(label_map, request.size, request.spacing, compat=compat)
            lost = missing_labels(mask, required) if mask is not drawn else []
            if lost:
                notes.append({**note, "why": "lost " + ", ".join(name_of(label) for label in lost)})
                continue
            yield draw, mask, {**note, "mask": {"steps": settings.steps, **decoder.record()}}

    return MaskSource(masks(), "sizes", request, notes)


def _vector(sizes: Sizes, known: np.ndarray | None, rng: np.random.Generator, *, compat: bool) -> np.ndarray:
    if isinstance(sizes, Mapping):
        table = np.empty((0, N_SLOTS)) if known is None else known
        return condition_vector(sizes, table, rng, compat=compat)
    return check_vector(sizes)
