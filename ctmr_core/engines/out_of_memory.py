"""Telling errors that speak of the machine's memory from all others."""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was wanting: Python's and NumPy's error, torch's on CUDA, or the plain RuntimeError of its CPU allocator."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
