"""Batches of one size, whatever loads them, from wherever they go on."""

from __future__ import annotations

import pytest
import torch

from ctmr_core.errors import LearningError
from ctmr_core.learning.maisi.batches import Items, SizedBatches
from ctmr_core.learning.training import TrainingSettings

SIZES = [(8, 8, 8)] * 5 + [(8, 8, 16)] * 3 + [(16, 8, 8)]


class Numbers(Items):
    sizes = SIZES

    def __getitem__(self, key):
        epoch, index = key
        return {"epoch": epoch, "index": index, "latent": torch.zeros(self.sizes[index])}


def batches(seed=1, workers=0, **settings):
    return SizedBatches(Numbers(), TrainingSettings(workers=workers, **{"batch_size": 2, **settings}), seed)


def epoch_of(source):
    return [batch["index"].tolist() for batch in source]


def test_every_item_comes_once_an_epoch_among_others_of_its_size():
    found = epoch_of(batches())
    assert all(len({SIZES[index] for index in batch}) == 1 for batch in found)
    assert sorted({index for batch in found for index in batch}) == list(range(len(SIZES)))
    assert [len(batch) for batch in found] == [2] * 6, "short ones are filled up"
    source = batches()
    assert epoch_of(source) != epoch_of(source)
    assert epoch_of(batches(seed=2)) != epoch_of(batches())


def test_it_goes_on_after_any_batch():
    whole = batches()
    expected = [*epoch_of(whole), *epoch_of(whole)]
    for stop in (1, 3, 6, 8):
        source, seen = batches(), []
        for batch in (batch for _ in range(2) for batch in source):
            seen.append(batch["index"].tolist())
            if len(seen) == stop:
                break
        state = source.state_dict()
        rest = batches()
        rest.load_state_dict(state)
        while len(seen) < len(expected):
            seen += epoch_of(rest)
        assert seen == expected


def test_other_items_or_batches_are_refused():
    state = batches().state_dict()
    with pytest.raises(LearningError, match="together"):
        batches(batch_size=3).load_state_dict(state)


def test_parts_of_an_update_share_its_batch():
    assert {len(batch) for batch in epoch_of(batches(batch_size=4, accumulate=2))} == {2}


@pytest.mark.slow
def test_workers_change_nothing():
    assert epoch_of(batches(workers=2)) == epoch_of(batches())
