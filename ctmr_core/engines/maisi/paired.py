"""A label map and the CT image of it: from the bank or from sizes, checked, and drawn again where the check fails."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, cast

import numpy as np
import torch

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.engines.maisi.anatomy_sizes import ABSENT, N_SLOTS, SIZE_SLOTS, check_vector, condition_vector
from ctmr_core.engines.maisi.mask_bank import MaskBank, Match, Request, label_ids, region_index
from ctmr_core.engines.maisi.mask_files import UseCounter, on_grid
from ctmr_core.engines.maisi.mask_sampling import MASK_SPACING, MASK_STEPS, missing_labels, name_of, sample_mask
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.sampling import sample_image_from_mask
from ctmr_core.engines.maisi.tumor_augmentation import augment_mask
from ctmr_core.errors import EngineError

Accept = Callable[[np.ndarray, np.ndarray], list[str]]
"""Image and label map -> reasons to refuse them; none: accepted."""
Sizes = Mapping[str, float] | Sequence[float]
_NEAREST = 5  # candidates of another size or spacing that are as good as each other, as in the reference
_SPARE_TRIES = 2  # candidates read beyond the list, per attempt, before giving up


@dataclass(frozen=True)
class Pair:
    """A label map and its image, both [x, y, z] on the same grid, axes RAS+.

    image: HU, int16 (float32 with compat). mask: uint8, ids of the maisi vocabulary, the map the image was conditioned on.
    record: JSON-able; ``accepted`` (bool), ``reasons`` (why not), ``attempts`` (what each one used and why it was refused).
    """

    image: np.ndarray
    mask: np.ndarray
    record: dict[str, Any]

    @property
    def accepted(self) -> bool:
        return bool(self.record["accepted"])


@dataclass(frozen=True)
class _Draw:
    """Random numbers of one attempt. torch: for the networks; numpy: for the rest; integer: for the reference's transforms."""

    torch: torch.Generator
    numpy: np.random.Generator
    integer: int


_Drawn = tuple[_Draw, np.ndarray, dict[str, Any]]
"""Random numbers for the image, label map on the grid of the request, note for the record."""


@dataclass
class _Source:
    """Label maps one after another, with a record of where each came from."""

    masks: Iterator[_Drawn]
    name: str
    notes: list[dict[str, Any]] = field(default_factory=list)


def sample_pair(
    models: MaisiModels,
    *,
    size: Sequence[int],
    spacing: Sequence[float],
    anatomy_sizes: Sizes | None = None,
    bank: MaskBank | None = None,
    known_sizes: np.ndarray | None = None,
    anatomy: Iterable[int | str] = (),
    regions: Iterable[str] = (),
    modality: int = 1,
    steps: int | None = None,
    mask_steps: int = MASK_STEPS,
    guidance: float = 0.0,
    seed: int = 0,
    attempts: int = 3,
    accept: Accept | None = None,
    uses: UseCounter | None = None,
    decode_window: Sequence[int] = (48, 48, 48),
    decode_overlap: float = 0.6666,
    mask_latent_shape: Sequence[int] | None = None,
    compat: bool = False,
) -> Pair:
    """A label map and the image of it.

    size: voxels [x, y, z]; spacing: mm. Exactly one of ``anatomy_sizes`` (ten sizes, or some by name, completed from
    ``known_sizes``) and ``bank`` says where the label map comes from. anatomy: structures (names or ids) that must be
    there. regions: that must be in view (bank only). steps, mask_steps: of image and label map. guidance:
    classifier-free guidance scale. seed: integer, of this case alone. attempts: pairs drawn at most until ``accept`` has
    no reason to refuse one; without such a callable every pair is accepted. Label maps of the bank are varied
    (``augment_mask``); ``uses`` counts how often each was used. decode_window, decode_overlap: of both decoders, in latent
    voxels. compat: the reference's random streams and computations (one attempt for label maps from sizes, which the
    reference never repeats).

    The last pair is returned, marked, where none was accepted. Raises ``EngineError`` for impossible requests, and where
    no label map shows what was asked for.
    """
    if (anatomy_sizes is None) == (bank is None):  # both or neither
        raise EngineError("a label map comes either from sizes or from a bank", allowed="anatomy_sizes or bank")
    if attempts < 1:
        raise EngineError("impossible number of attempts", found=attempts, allowed="1 or more")
    request = Request(_triple(size, int), _triple(spacing, float), label_ids(anatomy), tuple(regions))
    for region in request.regions:
        region_index(region)
    draws = _draws(seed, attempts, compat=compat)
    if anatomy_sizes is None:
        source = _from_bank(cast("MaskBank", bank), request, draws, compat=compat)
    else:
        source = _from_sizes(
            models,
            anatomy_sizes,
            known_sizes,
            request,
            draws[:1] if compat else draws,
            steps=mask_steps,
            latent_shape=mask_latent_shape,
            window=(decode_window, decode_overlap),
            compat=compat,
        )
    tried: list[dict[str, Any]] = []
    pair: Pair | None = None
    for draw, mask, note in source.masks:
        image = sample_image_from_mask(
            models,
            mask,
            spacing=request.spacing,
            modality=modality,
            steps=steps,
            guidance=guidance,
            seed=draw.torch,
            decode_window=decode_window,
            decode_overlap=decode_overlap,
            compat=compat,
        )
        if not compat:
            image = np.rint(image, out=image).astype(np.int16)
        reasons = list(accept(image, mask)) if accept is not None else []
        tried.append({**note, "reasons": reasons})
        record = {
            "source": source.name,
            "accepted": not reasons,
            "reasons": reasons,
            "attempts": tried,
            "skipped": source.notes,
        }
        pair = Pair(image, mask, record)
        if not reasons:
            break
    if pair is None:
        raise _nothing_found(request, source)
    if uses is not None and "path" in tried[-1]:
        uses.add(tried[-1]["path"])
    return pair


def _from_bank(bank: MaskBank, request: Request, draws: list[_Draw], *, compat: bool) -> _Source:
    """Varied label maps of the bank. Candidates that lose a structure on the way are left out, and noted."""
    matches = bank.matches(request, compat=compat)
    if not matches:
        structures = [name_of(label) for label in request.anatomy]
        raise EngineError(
            "no label map of the bank fits",
            where=str(bank.index),
            found=f"{request.size} voxels of {request.spacing} mm, {structures}, {list(request.regions)}",
            fix="ask for fewer structures or regions, another field of view, or draw the label map from sizes",
        )
    ordered = _ordered(matches, draws[0], compat=compat)
    notes: list[dict[str, Any]] = []

    def masks() -> Iterator[_Drawn]:
        remaining = iter(draws)
        draw = next(remaining, None)
        for match in islice(cycle(ordered), len(ordered) + _SPARE_TRIES * len(draws)):
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

    return _Source(masks(), "bank", notes)


def _ordered(matches: list[Match], draw: _Draw, *, compat: bool) -> list[Match]:
    """Candidates in the order to try: exact ones shuffled; of others the nearest few shuffled, then the rest by score."""
    few = len(matches) if matches[0].exact else _NEAREST
    if compat:
        nearest = matches[:few]
        random.Random(draw.integer).shuffle(nearest)  # noqa: S311  (the stream of the reference)
        return nearest
    return [*(matches[index] for index in draw.numpy.permutation(min(few, len(matches)))), *matches[few:]]


def _from_sizes(
    models: MaisiModels,
    sizes: Sizes,
    known: np.ndarray | None,
    request: Request,
    draws: list[_Draw],
    *,
    steps: int,
    latent_shape: Sequence[int] | None,
    window: tuple[Sequence[int], float],
    compat: bool,
) -> _Source:
    """Label maps drawn by the mask network, each from its own seed and size vector."""
    required = [*request.anatomy]
    if isinstance(sizes, Mapping):
        required += [SIZE_SLOTS[name] for name, size in sizes.items() if name in SIZE_SLOTS and size != ABSENT]
    notes: list[dict[str, Any]] = []

    def masks() -> Iterator[_Drawn]:
        for number, draw in enumerate(draws):
            vector = _vector(sizes, known, draw.numpy, compat=compat)
            note = {"sizes": [float(size) for size in vector]}
            try:
                drawn = sample_mask(
                    models,
                    vector,
                    steps=steps,
                    seed=draw.torch,
                    latent_shape=latent_shape,
                    decode_window=window[0],
                    decode_overlap=window[1],
                    attempts=1,
                    required=required,
                    compat=compat,
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
            yield draw, mask, note

    return _Source(masks(), "sizes", notes)


def _vector(sizes: Sizes, known: np.ndarray | None, rng: np.random.Generator, *, compat: bool) -> np.ndarray:
    if isinstance(sizes, Mapping):
        table = np.empty((0, N_SLOTS)) if known is None else known
        return condition_vector(sizes, table, rng, compat=compat)
    return check_vector(sizes)


def _draws(seed: int, attempts: int, *, compat: bool) -> list[_Draw]:
    """One set of generators per attempt. The reference has one torch stream for all and one integer for every augmentation."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise EngineError("impossible seed", found=seed, allowed="an integer >= 0")
    shared = torch.Generator().manual_seed(int(seed) % 2**32)
    draws = []
    for attempt in range(attempts):
        rng = np.random.default_rng([int(seed), attempt])
        own = shared if compat else torch.Generator().manual_seed(int(rng.integers(2**63)))
        draws.append(_Draw(own, rng, int(seed)))
    return draws


def _triple(values: Sequence[Any], kind: type) -> Any:
    if len(values) != 3:
        raise EngineError("size and spacing have one value per axis", found=tuple(values), allowed="[x, y, z]")
    return tuple(kind(value) for value in values)


def _nothing_found(request: Request, source: _Source) -> EngineError:
    return EngineError(
        "no label map shows what was asked for",
        found=[note.get("why") for note in source.notes],
        allowed=[name_of(label) for label in request.anatomy],
        fix="ask for fewer structures, a larger field of view, or more attempts",
    )
