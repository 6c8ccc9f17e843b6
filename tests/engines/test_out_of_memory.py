"""Want of memory is told from other errors, by the errors that libraries really raise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ctmr_core.engines.out_of_memory import is_out_of_memory

FAR_TOO_MUCH = 1 << 60  # bytes: no address space holds it


@pytest.mark.parametrize(
    "ask",
    [lambda: np.empty(FAR_TOO_MUCH, np.uint8), lambda: torch.empty(FAR_TOO_MUCH, dtype=torch.uint8)],
    ids=["numpy", "torch"],
)
def test_what_allocators_raise_is_want_of_memory(ask) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        ask()
    assert is_out_of_memory(caught.value)


def test_other_errors_are_not() -> None:
    assert not is_out_of_memory(RuntimeError("size mismatch"))
    assert not is_out_of_memory(OSError("no space left on device"))
