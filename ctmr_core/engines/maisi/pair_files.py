"""A label map that nobody drew and its CT, to files: from sizes of organs and tumours, or from NVIDIA's bank of label maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctmr_core.anatomy.grid import Grid
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.engines.maisi.anatomy_sizes import check_sizes, read_known_sizes
from ctmr_core.engines.maisi.drawn_bodies import KNOWN_SIZES, bank_files
from ctmr_core.engines.maisi.hub import file_states, licences_in, missing_weights, models_root
from ctmr_core.engines.maisi.identity import own_network_config, weights_digest
from ctmr_core.engines.maisi.mask_bank import MaskBank
from ctmr_core.engines.maisi.mask_files import UseCounter
from ctmr_core.engines.maisi.memory import default_precision
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.paired import Accept, sample_pair
from ctmr_core.engines.maisi.released import Part
from ctmr_core.engines.maisi.single import stem_of, write_volume
from ctmr_core.engines.maisi.variants import check_limits, variant
from ctmr_core.engines.maisi.volume import device_named, one_thread
from ctmr_core.errors import EngineError


@dataclass(frozen=True)
class PairRequest:
    """What ``pair_to_files`` makes. size: voxels; spacing: mm.

    sizes: structure -> 0-1 or -1 (absent), for a label map drawn by the networks; empty: one of the bank, varied.
    anatomy: structures that must be there. regions: that must be in view (bank). bank: folder of the bank's index and
    label maps, default ``datasets`` of the models folder. attempts: pairs drawn at most until one is accepted. uses: JSON
    file that counts how often each label map of the bank was taken.
    """

    variant: str
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    sizes: Mapping[str, float] = field(default_factory=dict)
    anatomy: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    bank: Path | None = None
    uses: Path | None = None
    seed: int = 0
    attempts: int = 3
    steps: int | None = None
    guidance: float = 0.0
    compat: bool = False
    limits: bool = True
    device: str = "cpu"
    models: Path | None = None
    network_config: Path | None = None


def pair_to_files(request: PairRequest, out: Path, accept: Accept | None = None) -> tuple[list[Path], dict[str, Any]]:
    """Write the CT ``out``, its label map ``<out>_labels.nii.gz`` (ids of the maisi vocabulary) and ``<out>.json``.

    accept: image [x, y, z] and label map -> reasons to draw again. The last pair is written, marked in the record, when none is
    accepted. Raises ``EngineError`` for what can't be made and for missing weights.
    """
    stem_of(out)
    chosen = variant(request.variant)
    if not chosen.makes_masks:
        raise EngineError(f"{chosen.name} draws no label maps", found=chosen.name, allowed="rflow-ct, ddpm-ct")
    if request.limits:
        check_limits(chosen.name, request.size, request.spacing, 1, compat=request.compat)
    sizes = check_sizes(request.sizes)
    root = models_root(request.models)
    config = request.network_config or own_network_config(chosen.name, root)
    parts: tuple[Part, ...] = ("image", "masks") if sizes else ("image",)
    networks = [state for state in file_states(chosen.name, root, parts) if state.file.path.endswith(".pt")]
    missing = missing_weights(chosen.name, root, networks)
    if missing is not None:
        raise missing
    models = MaisiModels.load(
        chosen.name,
        root=root,
        network_config=config,
        device=request.device,
        dtype=default_precision(device_named(request.device)),
    )
    known = root / "datasets" / KNOWN_SIZES
    origins: tuple[Part, ...] = parts if sizes or request.bank else ("image", "bank")
    try:
        with one_thread(models.device):
            pair = sample_pair(
                models,
                size=request.size,
                spacing=request.spacing,
                anatomy_sizes=sizes or None,
                known_sizes=read_known_sizes(known) if sizes and known.is_file() else None,
                bank=None if sizes else MaskBank(*bank_files(chosen.name, request.bank or root / "datasets")),
                anatomy=request.anatomy,
                regions=request.regions,
                steps=request.steps,
                guidance=request.guidance,
                seed=request.seed,
                attempts=request.attempts,
                accept=accept,
                uses=UseCounter(request.uses) if request.uses else None,
                compat=request.compat,
            )
    finally:
        models.close()
    grid = Grid.centred(request.size, request.spacing)
    record = {
        **pair.record,
        "variant": chosen.name,
        "mode": "compat" if request.compat else "fixed",
        "size": list(request.size),
        "spacing": list(request.spacing),
        "seed": request.seed,
        "weights": weights_digest(chosen.name, root, config),
        "licences": list(licences_in(chosen.name, root, origins)),
    }
    label_map = LabelMap(pair.mask, grid.affine, load_vocabulary("maisi"))
    return write_volume(out, pair.image, grid.affine, record, label_map), record
