"""Compiling the networks that run once per step: the diffusion U-Net and the ControlNet."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from ctmr_core.errors import EngineError

INDUCTOR, TENSORRT = "inductor", "tensorrt"
#: Backend of ``torch.compile`` -> package it needs beyond torch.
_PACKAGES = {TENSORRT: "torch_tensorrt"}


def check_backend(backend: str | None) -> None:
    """``EngineError`` for a backend of ``torch.compile`` that is not installed."""
    if backend is None:
        return
    package = _PACKAGES.get(backend)
    if package is not None and find_spec(package) is None:
        raise EngineError(
            "TensorRT is not installed",
            where="engine_parameters.compile",
            found=f"no package {package}",
            allowed="true (torch's own compiler), false",
            fix="pip install torch-tensorrt, in the version for this torch and CUDA",
        )
    known = torch._dynamo.list_backends(exclude_tags=())
    if package is None and backend not in known:
        raise EngineError("unknown backend of torch.compile", found=backend, allowed=known)


def compiled(network: torch.nn.Module, backend: str | None) -> torch.nn.Module:
    """The network, compiled when it first runs (None: as it is); each size of volume is compiled anew."""
    if backend is None:
        return network
    if backend in _PACKAGES:
        __import__(_PACKAGES[backend])  # registers the backend
    wrapped: Any = torch.compile(network, backend=backend, dynamic=False)
    result: torch.nn.Module = wrapped
    return result
