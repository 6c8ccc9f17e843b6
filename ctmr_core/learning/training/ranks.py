"""One training in several processes: who writes, and how numbers come together. In a single process nothing happens."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ctmr_core.errors import LearningError


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process among :func:`ranks`, from 0."""
    return dist.get_rank() if _several() else 0


def ranks() -> int:
    """Processes that train together: the size of the process group, 1 without one."""
    return dist.get_world_size() if _several() else 1


def device_of(asked: str) -> torch.device:
    """``auto``: the GPU of this rank (``LOCAL_RANK``, or the current one), the CPU where there is none."""
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise LearningError("there is no CUDA device", found=asked, allowed="auto, cpu")
    if asked not in {"auto", "cuda"}:
        return torch.device(asked)
    local = os.environ.get("LOCAL_RANK")
    number = int(local) % torch.cuda.device_count() if local is not None else torch.cuda.current_device()
    return torch.device("cuda", number)


def wrapped(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The module, with gradients averaged over the ranks where there are several and it has any."""
    if not _several() or not any(parameter.requires_grad for parameter in module.parameters()):
        return module
    return DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)


def unsynchronized(module: torch.nn.Module) -> AbstractContextManager[Any]:
    """Within it the gradients of a wrapped module stay on their rank; the next backward pass outside exchanges them."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def on_any(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` is set on any rank."""
    if not _several():
        return flag
    value = torch.tensor([float(flag)], device=_place(device))
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())


def averaged(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Means over the ranks, which all have the same names."""
    if not _several() or not values:
        return dict(values)
    names = sorted(values)
    numbers = torch.tensor([values[name] for name in names], dtype=torch.float64, device=_place(device))
    dist.all_reduce(numbers)
    return dict(zip(names, (numbers / ranks()).tolist(), strict=True))


def gathered(rows: list[Any]) -> list[Any]:
    """The rows of all ranks, rank by rank, on every rank. Rows are pickled: they come from this program."""
    if not _several():
        return rows
    parts: list[Any] = [None] * ranks()
    dist.all_gather_object(parts, rows)
    return [row for part in parts for row in part]


def barrier() -> None:
    """Wait for all ranks."""
    if _several():
        dist.barrier()


def _place(device: torch.device) -> torch.device:
    return device if dist.get_backend() == "nccl" else torch.device("cpu")
