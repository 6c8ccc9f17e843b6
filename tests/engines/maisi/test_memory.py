"""The ladder of decoding: what is chosen for a device, and what happens when it was too much."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctmr_core.engines.maisi.memory import (
    WINDOWS,
    Decoding,
    decode_within_memory,
    default_precision,
    first_rung,
    free_bytes,
    ladder,
    needed_bytes,
)
from ctmr_core.errors import EngineError

CUDA = torch.device("cuda")
GB = 10**9
sizes = st.tuples(*(st.integers(4, 48).map(lambda n: 16 * n) for _ in range(3)))


def chosen(size, gigabytes: float, channels: int = 64) -> Decoding:
    rungs = ladder(size, "float16")
    return rungs[first_rung(rungs, size, channels, CUDA, int(gigabytes * GB))]


@given(sizes)
def test_windows_fit_the_latent_and_splits_divide_its_second_axis(size):
    for decoding in ladder(size, "float16"):
        assert all(1 <= window <= n // 4 for window, n in zip(decoding.window, size, strict=True))
        assert decoding.window[1] % decoding.splits == 0


@given(sizes)
def test_each_rung_needs_no_more_memory_than_the_one_before(size):
    rungs = ladder(size, "float16")
    needs = [needed_bytes(size, decoding, 64, CUDA) for decoding in rungs]
    assert needs == sorted(needs, reverse=True)
    assert len(set(rungs)) == len(rungs)


@given(sizes, st.floats(1, 90), st.floats(1, 90))
def test_more_memory_never_means_a_smaller_window(size, less, more):
    less, more = sorted((less, more))
    rungs = ladder(size, "float16")
    assert first_rung(rungs, size, 64, CUDA, int(more * GB)) <= first_rung(rungs, size, 64, CUDA, int(less * GB))


@pytest.mark.parametrize(
    ("size", "peak_gb", "window"),
    [((512, 512, 512), 45.3, (80, 80, 80)), ((512, 512, 512), 28.4, (80, 80, 48)), ((256, 256, 256), 22.7, (64, 64, 64))],
)
def test_estimates_are_near_the_published_peaks(size, peak_gb, window):
    """NVIDIA's table for an A100; weights and activations of the diffusion model, about 2 GB, are not in the estimate."""
    decoding = Decoding(window, 0.4, 4, "float16")
    assert needed_bytes(size, decoding, 64, CUDA) / GB == pytest.approx(peak_gb - 2, rel=0.12)


def test_devices_of_common_sizes_get_windows_that_fit_them():
    assert chosen((512, 512, 512), 80).window == (80, 80, 96)
    assert chosen((512, 512, 512), 32).window == (80, 80, 48)
    assert chosen((512, 512, 512), 24).window == (80, 80, 32)
    assert chosen((512, 512, 512), 16).window == (48, 48, 48)
    assert chosen((256, 256, 256), 80).window == (64, 64, 64)
    assert chosen((64, 64, 64), 4, channels=8).window == (16, 16, 16)


def test_with_next_to_nothing_free_the_smallest_window_is_tried():
    assert chosen((512, 512, 512), 0.1).window == WINDOWS[-1][0]


class Device:
    """Runs out of memory above a limit, as CUDA or as the CPU allocator does."""

    def __init__(self, limit: int, error: RuntimeError) -> None:
        self.limit, self.error, self.tried = limit, error, []

    def decode(self, decoding: Decoding) -> str:
        self.tried.append(decoding)
        if decoding.window[0] * decoding.window[1] * decoding.window[2] / decoding.splits > self.limit:
            raise self.error
        return "image"


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 bytes")],
)
def test_out_of_memory_falls_to_the_next_rung_and_is_recorded(error):
    rungs = ladder((512, 512, 512), "float16")
    device = Device(30_000, error)
    image, decoding, fallen = decode_within_memory(rungs, 0, device.decode)
    assert image == "image"
    assert tuple(fallen) == rungs[: len(fallen)]
    assert decoding == rungs[len(fallen)]
    assert decoding.window == (80, 80, 48)
    assert decoding.splits == 16


def test_splits_are_raised_before_the_window_is_made_smaller():
    rungs = ladder((512, 512, 512), "float16")
    assert [(rung.window, rung.splits) for rung in rungs[:4]] == [
        ((80, 80, 96), 4),
        ((80, 80, 96), 8),
        ((80, 80, 96), 16),
        ((80, 80, 80), 4),
    ]


def test_a_device_that_is_too_small_for_the_last_rung_is_an_error():
    rungs = ladder((128, 128, 128), "float16")
    with pytest.raises(EngineError, match="too little memory"):
        decode_within_memory(rungs, 0, Device(1, torch.OutOfMemoryError("CUDA out of memory")).decode)


def test_other_errors_are_not_taken_for_lack_of_memory():
    device = Device(1, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        decode_within_memory(ladder((128, 128, 128), "float32"), 0, device.decode)
    assert len(device.tried) == 1


def test_a_cpu_computes_in_single_precision_and_knows_its_free_memory():
    assert default_precision(torch.device("cpu")) == "float32"
    assert default_precision(CUDA) == "float16"
    assert free_bytes(torch.device("cpu")) > 10**7
