"""A label map and the CT image of it: from the bank or from sizes, checked, and drawn again where the check fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from ctmr_core.engines.maisi.decoder import REFERENCE_WINDOW, Decoder
from ctmr_core.engines.maisi.mask_bank import MaskBank, Request, label_ids, region_index
from ctmr_core.engines.maisi.mask_files import UseCounter
from ctmr_core.engines.maisi.mask_sampling import MASK_STEPS
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.pair_masks import Draw, MaskSettings, Sizes, from_bank, from_sizes
from ctmr_core.engines.maisi.sampling import sample_image_from_mask
from ctmr_core.errors import EngineError

Accept = Callable[[np.ndarray, np.ndarray], list[str]]
"""Image and label map -> reasons to refuse them; none: accepted."""


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
    decode_window: Sequence[int] | None = None,
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
    voxels; None: by the memory that is free (compat: 48 and 0.6666, as the reference). compat: the reference's random streams
    and computations (one attempt for label maps from sizes, which the reference never repeats).

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
    window = (decode_window, decode_overlap) if decode_window is not None else REFERENCE_WINDOW if compat else None
    if anatomy_sizes is None:
        source = from_bank(cast("MaskBank", bank), request, draws, compat=compat)
    else:
        settings = MaskSettings(mask_steps, mask_latent_shape, window)
        wanted = draws[:1] if compat else draws
        source = from_sizes(models, anatomy_sizes, known_sizes, request, wanted, settings, compat=compat)
    tried: list[dict[str, Any]] = []
    pair: Pair | None = None
    for draw, mask, note in source.masks:
        decoder = Decoder(models, request.size, window)
        image = sample_image_from_mask(
            models,
            mask,
            spacing=request.spacing,
            modality=modality,
            steps=steps,
            guidance=guidance,
            seed=draw.torch,
            compat=compat,
            decoder=decoder,
        )
        if not compat:
            image = np.rint(image, out=image).astype(np.int16)
        reasons = list(accept(image, mask)) if accept is not None else []
        tried.append({**note, **decoder.record(), "reasons": reasons})
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
        raise source.nothing_found()
    if uses is not None and "path" in tried[-1]:
        uses.add(tried[-1]["path"])
    return pair


def _draws(seed: int, attempts: int, *, compat: bool) -> list[Draw]:
    """One set of generators per attempt. The reference has one torch stream for all and one integer for every augmentation."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise EngineError("impossible seed", found=seed, allowed="an integer >= 0")
    shared = torch.Generator().manual_seed(int(seed) % 2**32)
    draws = []
    for attempt in range(attempts):
        rng = np.random.default_rng([int(seed), attempt])
        own = shared if compat else torch.Generator().manual_seed(int(rng.integers(2**63)))
        draws.append(Draw(own, rng, int(seed)))
    return draws


def _triple(values: Sequence[Any], kind: type) -> Any:
    if len(values) != 3:
        raise EngineError("size and spacing have one value per axis", found=tuple(values), allowed="[x, y, z]")
    return tuple(kind(value) for value in values)
