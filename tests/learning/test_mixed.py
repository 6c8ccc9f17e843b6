from __future__ import annotations

from collections import Counter

import pytest
import torch

from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets import Mixed, PatchDataset, PatchStream
from ctmr_core.store import Dataset
from tests.learning.comparing import digests


class Scans(torch.utils.data.Dataset):
    """Real scans, as any map-style dataset gives them."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, number: int) -> dict:
        return {"image": torch.full((1, 8, 8, 8), number), "label": torch.zeros(1, 8, 8, 8)}


def test_sources_get_their_shares(bodies: Dataset) -> None:
    mixed = Mixed([(PatchDataset(bodies, 8), 3), (Scans(), 1)], items=4000)
    drawn = Counter(mixed.source_of(0, item) for item in range(4000))
    assert drawn[0] / 4000 == pytest.approx(0.75, abs=0.03)
    assert [mixed.source_of(0, item) for item in range(50)] != [mixed.source_of(1, item) for item in range(50)]


def test_items_are_the_same_again_and_those_of_their_source(bodies: Dataset) -> None:
    patches, scans = PatchDataset(bodies, 8, seed=4), Scans()
    mixed = Mixed([(patches, 0.5), (scans, 0.5)], items=20, seed=9)
    for item in range(20):
        found = mixed.item(2, item)
        assert torch.equal(found["image"], mixed.item(2, item)["image"])
        if mixed.source_of(2, item) == 0:
            assert digests([found]) == digests([patches.item(2, item)])
        else:
            assert int(found["image"][0, 0, 0, 0]) in range(5)


def test_a_mixture_is_streamed_and_resumed_like_a_dataset(bodies: Dataset) -> None:
    def mixture() -> PatchStream:
        sources = [(PatchDataset(bodies, 8, seed=1), 2), (PatchDataset(bodies, 8, ("mri_t1",), seed=2), 1)]
        return PatchStream(Mixed(sources, items=12), 3)

    stream, resumed = mixture(), mixture()
    going = iter(stream)
    begun = digests(next(going) for _ in range(6))
    resumed.load_state_dict(stream.state_dict())
    assert digests(resumed) == digests(going)
    assert len(begun) == 6


def test_a_source_of_ratio_zero_is_never_drawn_from(bodies: Dataset) -> None:
    mixed = Mixed([(PatchDataset(bodies, 8), 1), (Scans(), 0)], items=500)
    assert {mixed.source_of(0, item) for item in range(500)} == {0}


def test_impossible_ratios_are_refused(bodies: Dataset) -> None:
    for ratio in (-1.0, float("nan"), 0.0):
        with pytest.raises(LearningError, match="ratios"):
            Mixed([(Scans(), ratio)])
