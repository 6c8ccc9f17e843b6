"""Checkpoints: written whole or not at all, read without running code, refused when they belong to another training."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ctmr_core.errors import LearningError

FORMAT = 1
_SHOWN = 12


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    task, identity, records: of the task. step: updates done. weights: module -> state dict to use: averaged where the training
    averages. training: what is needed to go on (raw modules, optimizers, loader, best score so far); None in ``best.pt``.
    scores: of the last validation.
    """

    task: str
    step: int
    identity: dict[str, Any]
    records: dict[str, Any]
    weights: dict[str, dict[str, Any]]
    scores: dict[str, float]
    training: dict[str, Any] | None = None


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write beside, flush to the disk, rename: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as stream:
            torch.save({"format": FORMAT, **checkpoint.__dict__}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except OSError as error:
        raise LearningError(
            f"the checkpoint cannot be written: {error.strerror}", where=str(path), fix="make room or choose another folder"
        ) from error
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_checkpoint(path: Path | str, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint with ``weights_only=True``: nothing in it is run. ``LearningError`` if it is none of this format."""
    path = Path(path)
    if not path.is_file():
        raise LearningError("there is no such checkpoint", where=str(path))
    try:
        document = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise LearningError(
            "the checkpoint cannot be read", where=str(path), found=str(error).splitlines()[0], fix="use another checkpoint"
        ) from error
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, Mapping) else type(document).__name__
        raise LearningError("not a checkpoint of this format", where=str(path), found=found, allowed=f"format {FORMAT}")
    return Checkpoint(**{name: value for name, value in document.items() if name != "format"})


def load_weights(
    module: torch.nn.Module, path: Path | str, name: str = "network", *, partly: bool = False
) -> tuple[list[str], list[str]]:
    """Start a module from weights in a file; gives the names of its tensors that were left as they were, and of those unused.

    path: a checkpoint of this project (``name`` is the module in it), a state dict of any other (``.pt``, ``.pth``; also below
    ``state_dict``, ``model`` or ``network``). partly: tensors of another shape or name are left as they are; otherwise a
    difference is refused.
    """
    state = _state_dict(Path(path), name)
    own = module.state_dict()
    fits = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    left, unused = [key for key in own if key not in fits], [key for key in state if key not in fits]
    if not fits or ((left or unused) and not partly):
        raise LearningError(
            "the weights are of another network",
            where=str(path),
            found=f"{len(unused)} tensors of the file fit nowhere: {', '.join(unused[:3])}",
            allowed=f"{len(left)} of the network would stay as they are: {', '.join(left[:3])}",
            fix="use the network they were trained for, or take over what fits (`partly: true`)" if fits else None,
        )
    module.load_state_dict(fits, strict=False)
    return left, unused


def refuse_differences(path: Path, checkpoint: Checkpoint, task: str, identity: Mapping[str, Any]) -> None:
    """``LearningError`` that lists every fact in which the checkpoint's training is another one."""
    there, here = _flat(checkpoint.identity), _flat(identity)
    differences = [
        f"{name}: {_text(there, name)} there, {_text(here, name)} here"
        for name in sorted({*there, *here})
        if there.get(name, "") != here.get(name, "")
    ]
    if checkpoint.task != task:
        differences.insert(0, f"task: {checkpoint.task} there, {task} here")
    if differences:
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise LearningError(
            "the checkpoint belongs to another training",
            where=str(path),
            found="; ".join(differences[:_SHOWN]) + more,
            fix="train into another folder, or start from its weights (`network.weights`)",
        )


def _state_dict(path: Path, name: str) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise LearningError("there is no such file with weights", where=str(path))
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise LearningError("the weights cannot be read", where=str(path), found=str(error).splitlines()[0]) from error
    if isinstance(document, Mapping) and document.get("format") == FORMAT and "weights" in document:
        if name not in document["weights"]:
            raise LearningError("the checkpoint lacks the module", where=str(path), found=name, allowed=list(document["weights"]))
        return dict(document["weights"][name])
    for key in ("state_dict", "model", "network"):
        if isinstance(document, Mapping) and isinstance(document.get(key), Mapping):
            document = document[key]
    if not isinstance(document, Mapping) or not all(isinstance(value, torch.Tensor) for value in document.values()):
        raise LearningError("the file holds no state dict", where=str(path), found=type(document).__name__)
    return {key.removeprefix("module."): value for key, value in document.items()}


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, list | tuple) and value and all(isinstance(one, Mapping) for one in value):
            for number, one in enumerate(value):
                flat.update(_flat(one, f"{name}[{number}]."))
        elif isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def _text(facts: Mapping[str, Any], name: str) -> str:
    return repr(facts[name]) if name in facts else "nothing"
