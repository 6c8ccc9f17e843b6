"""The networks a training starts from, and the models folder that comes of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ctmr_core.engines.maisi.digests import Digests, hash_file, write_json
from ctmr_core.engines.maisi.hub import carry_licences, models_root
from ctmr_core.engines.maisi.identity import own_network_config
from ctmr_core.engines.maisi.memory import default_precision
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.network_config import reference_config, resolve
from ctmr_core.engines.maisi.networks import build_trainable
from ctmr_core.engines.maisi.released import PARTS, released_files
from ctmr_core.engines.maisi.weights import load_into, read_checkpoint
from ctmr_core.errors import LearningError
from ctmr_core.learning.maisi.settings import Base

RECORD = "training.json"


def base_root(config: Base) -> Path:
    """The folder with the weights."""
    return models_root(config.models)


def base_models(config: Base, *, device: str = "cpu") -> MaisiModels:
    """The networks of the base for inference, read when first used."""
    root = base_root(config)
    return MaisiModels.load(
        config.variant,
        root=root,
        network_config=config.network_config or own_network_config(config.variant, root),
        device=device,
        dtype=default_precision(torch.device(device)),
    )


def trainable(models: MaisiModels, network: str, *, seed: int, released: bool) -> torch.nn.Module:
    """A network in training mode on the CPU: with the base's weights, or with random ones drawn by ``seed``."""
    module = build_trainable(models.config, network, seed=seed)
    if released:
        load_into(module, read_checkpoint(models.path(network), network), torch.device("cpu"))
        for parameter in module.parameters():  # the file stays mapped otherwise
            parameter.data = parameter.data.clone()
            parameter.requires_grad_(True)
    return module


def refuse_folder(models: MaisiModels, network: str, out: Path) -> None:
    """``LearningError`` where ``out`` holds weights that a training must not replace: the base's own, or others."""
    if out.resolve() == models.root.resolve():
        raise LearningError(
            "a training does not overwrite the weights it starts from", where=str(out), fix="choose another folder"
        )
    name = f"models/{models.variant.files[network]}"
    if (out / name).exists():
        known = Digests(out).recorded(name)
        if known is None or not known.trained:
            raise LearningError(
                "there are weights that no training here has made", where=str(out / name), fix="choose another folder"
            )


def write_models(
    models: MaisiModels,
    network: str,
    content: Mapping[str, Any],
    out: Path,
    facts: Mapping[str, Any],
    *,
    origins: Sequence[str] = (),
) -> Path:
    """Make ``out`` a models folder of the variant in which ``network`` is the trained one: what engines and ``ctmr models`` take.

    content: the checkpoint in the released format. The other files are those of the base (hard links where that can be done).
    facts: JSON-able, for ``training.json``. origins: networks of the base that the weights come from. Licences are carried over:
    what is trained from weights stays under theirs, what is trained from nothing stands under none.
    """
    chosen = models.variant
    name = f"models/{chosen.files[network]}"
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(dict(content), partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    Digests(out).record(name, hash_file(path), trained=True)
    taken = _take_over(models.root, out, chosen.name, name)
    if models.config != resolve(reference_config(chosen.config)):
        write_json(out / f"network_{chosen.name}.json", models.config)
    sources = [f"models/{chosen.files[one]}" for one in origins]
    licences = carry_licences(chosen.name, models.root, out, trained={name: sources}, taken=taken)
    derived = bool(origins)
    write_json(out / RECORD, {**facts, "derived": derived, "file": name, "variant": chosen.name, "licences_of_weights": licences})
    return path


def read_record(out: Path) -> dict[str, Any]:
    """``training.json`` of a models folder that a training has made."""
    record: dict[str, Any] = json.loads((out / RECORD).read_text(encoding="utf-8"))
    return record


def _take_over(source: Path, target: Path, name: str, trained: str) -> list[str]:
    """The other files of the variant, with what is known of them; the paths of those that were not there yet."""
    taken = []
    for file in released_files(name, PARTS):
        places = (source / file.path, source / Path(file.path).name)
        found = next((place for place in places if place.is_file()), None)
        new = target / file.path
        if file.path == trained or found is None or new.exists():
            continue
        new.parent.mkdir(parents=True, exist_ok=True)
        try:
            new.hardlink_to(found.resolve())
        except OSError:  # another file system
            if file.part == "bank":
                continue
            shutil.copy2(found, new)
        taken.append(file.path)
        known = Digests(source).recorded(found.relative_to(source).as_posix())
        if known is not None:
            Digests(target).record(
                file.path, known.sha256, pulled=bool(known.pulled), revision=known.revision, trained=bool(known.trained)
            )
    return taken
