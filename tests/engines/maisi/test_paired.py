"""Pairs from a bank on disk and from sizes, end to end through shrunken networks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ctmr_core.engines.maisi import sample_image_from_mask
from ctmr_core.engines.maisi.mask_bank import MaskBank
from ctmr_core.engines.maisi.mask_files import UseCounter
from ctmr_core.engines.maisi.paired import sample_pair
from ctmr_core.errors import EngineError
from tests.engines.maisi.bank_maker import entry, write_bank
from tests.engines.maisi.mask_networks import blobs, small_models, torso

SIZES = (0.5, 0.5, 0.4, 0.3, 0.4, -1, -1, -1, -1, -1)
GRID = {"size": (32, 32, 32), "spacing": (2.0, 2.0, 2.0)}
QUICK = {"steps": 1, "decode_window": (8, 8, 8), "decode_overlap": 0.0}
DRAWN = {"mask_steps": 1, "mask_latent_shape": (4, 8, 8, 8), "size": (32, 32, 32), "spacing": (1.5, 1.5, 1.5)}
LABELS = (1, 3, 5, 28, 200)


@pytest.fixture(scope="module")
def models(golden, tmp_path_factory):
    return small_models(golden, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    masks = [(entry(f"set/healthy_{n}.nii.gz", blobs(LABELS, n), (2.0, 2.0, 2.0)), blobs(LABELS, n)) for n in range(3)]
    tumour = torso()
    masks.append((entry("set/tumours.nii.gz", tumour, (1.5, 1.5, 1.5)), tumour))
    return MaskBank(*write_bank(tmp_path_factory.mktemp("bank"), masks, zipped=True))


def test_a_pair_from_the_bank(models, bank):
    pair = sample_pair(models, bank=bank, anatomy=["liver"], regions=["abdomen"], seed=1, **GRID, **QUICK)
    assert pair.accepted
    assert pair.image.dtype == np.int16
    assert pair.mask.dtype == np.uint8
    assert pair.image.shape == pair.mask.shape == (32, 32, 32)
    assert (pair.image[pair.mask == 0] == -1000).all()
    assert pair.image[pair.mask > 0].std() > 1
    (attempt,) = pair.record["attempts"]
    assert attempt["path"].startswith("set/healthy")
    assert attempt["augmentation"][0]["what"] == "body"
    json.dumps(pair.record)


def test_the_image_is_that_of_the_returned_mask(models, bank):
    seen = {}

    def accept(image, mask):
        seen["image"], seen["mask"] = image.copy(), mask.copy()
        return []

    pair = sample_pair(models, bank=bank, seed=2, accept=accept, **GRID, **QUICK)
    assert np.array_equal(seen["image"], pair.image)
    assert np.array_equal(seen["mask"], pair.mask)


def test_equal_seeds_make_equal_pairs(models, bank):
    first = sample_pair(models, bank=bank, seed=3, **GRID, **QUICK)
    again = sample_pair(models, bank=bank, seed=3, **GRID, **QUICK)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert first.record == again.record
    others = [sample_pair(models, bank=bank, seed=seed, **GRID, **QUICK) for seed in (4, 5)]
    assert not any(np.array_equal(first.image, other.image) for other in others)


def refusing(times):
    calls = []

    def accept(image, mask):
        calls.append(mask.copy())
        return ["too bright"] if len(calls) <= times else []

    return accept, calls


@pytest.mark.parametrize("source", ["bank", "sizes"])
def test_refused_pairs_are_drawn_again(models, bank, source):
    wish = {"bank": bank, **GRID} if source == "bank" else {"anatomy_sizes": SIZES, **DRAWN}
    accept, calls = refusing(2)
    pair = sample_pair(models, seed=5, attempts=3, accept=accept, **wish, **QUICK)
    assert pair.accepted
    assert [attempt["reasons"] for attempt in pair.record["attempts"]] == [["too bright"], ["too bright"], []]
    assert not np.array_equal(calls[0], calls[1])
    assert np.array_equal(calls[2], pair.mask)
    accept, calls = refusing(99)
    pair = sample_pair(models, seed=5, attempts=2, accept=accept, **wish, **QUICK)
    assert len(calls) == 2
    assert not pair.accepted
    assert pair.record["reasons"] == ["too bright"]


def test_one_candidate_is_varied_until_it_is_accepted(models, bank):
    accept, _ = refusing(3)
    part = bank.only(bank.candidates[:1])
    pair = sample_pair(models, bank=part, seed=5, attempts=4, accept=accept, **GRID, **QUICK)
    assert pair.accepted
    attempts = pair.record["attempts"]
    assert {attempt["path"] for attempt in attempts} == {"set/healthy_0.nii.gz"}
    assert len({attempt["augmentation"][0]["zoom"] for attempt in attempts}) == 4


def test_requested_tumours_come_from_another_grid_and_move(models, bank):
    tumours = ["hepatic tumor", "lung tumor", "pancreatic tumor", "colon cancer primaries", "bone lesion"]
    pair = sample_pair(models, bank=bank, anatomy=tumours, seed=1, size=(64, 64, 64), spacing=(1.2, 1.2, 1.2), **QUICK)
    (attempt,) = pair.record["attempts"]
    assert attempt["path"] == "set/tumours.nii.gz"
    assert attempt["score"] > 0
    assert {step["what"] for step in attempt["augmentation"]} == set(tumours)
    assert {23, 24, 26, 27, 128} <= set(np.unique(pair.mask).tolist())


def test_candidates_without_what_their_index_promises_are_left_out(models, bank):
    empty = bank.only([lying(bank.candidates[0], 128)])
    with pytest.raises(EngineError, match="lost bone lesion"):
        sample_pair(models, bank=empty, anatomy=["bone lesion"], seed=1, **GRID, **QUICK)
    tumours = (23, 24, 26, 27, 128)
    lies = bank.only([lying(bank.candidates[0], *tumours), bank.candidates[3]])
    wish = {"size": (64, 64, 64), "spacing": (1.2, 1.2, 1.2)}
    for seed in range(4):
        pair = sample_pair(models, bank=lies, anatomy=tumours, seed=seed, **wish, **QUICK)
        assert pair.record["attempts"][0]["path"] == "set/tumours.nii.gz"
        skipped = {note["path"] for note in pair.record["skipped"]}
        if skipped:
            break
    assert skipped == {"set/healthy_0.nii.gz"}


def lying(candidate, *labels):
    """A candidate whose index promises structures it doesn't show."""
    return type(candidate)(candidate.path, candidate.labels.union(labels), candidate.size, candidate.spacing, candidate.span)


def test_a_pair_from_sizes(models):
    pair = sample_pair(models, anatomy_sizes=SIZES, seed=1, **DRAWN, **QUICK)
    assert pair.accepted
    assert pair.image.shape == pair.mask.shape == (32, 32, 32)
    assert pair.record["source"] == "sizes"
    assert pair.record["attempts"][0]["sizes"] == list(SIZES)
    assert not np.isin(pair.mask, (23, 24, 26, 27, 128, 129)).any()


def test_sizes_by_name_are_completed_and_shown(models):
    known = np.array([SIZES, (0.1, 0.2, 0.3, 0.4, 0.5, -1, -1, -1, 0.6, -1)])
    pair = sample_pair(models, anatomy_sizes={"liver": 0.7}, known_sizes=known, seed=1, **DRAWN, **QUICK)
    vector = pair.record["attempts"][0]["sizes"]
    assert vector[1] == 0.7
    assert vector[5:] == [-1.0] * 5
    assert (pair.mask == 1).any()


def test_generated_masks_go_to_the_grid_that_was_asked_for(models):
    wish = {**DRAWN, "size": (64, 64, 32), "spacing": (1.0, 1.0, 1.5)}
    pair = sample_pair(models, anatomy_sizes=SIZES, seed=1, **wish, **QUICK)
    assert pair.mask.shape == (64, 64, 32)
    assert pair.mask.any()


def test_the_reference_draws_mask_and_image_from_one_stream(models):
    import torch

    from ctmr_core.engines.maisi import sample_mask

    pair = sample_pair(models, anatomy_sizes=SIZES, seed=7, compat=True, **DRAWN, **QUICK)
    stream = torch.Generator().manual_seed(7)
    mask = sample_mask(
        models, SIZES, steps=1, seed=stream, latent_shape=(4, 8, 8, 8), decode_window=(8, 8, 8), decode_overlap=0.0, compat=True
    )
    image = sample_image_from_mask(models, mask, spacing=(1.5, 1.5, 1.5), seed=stream, compat=True, **QUICK)
    assert np.array_equal(pair.mask, mask)
    assert np.array_equal(pair.image, image)
    assert pair.image.dtype == np.float32


def test_uses_are_counted(models, bank, tmp_path):
    uses = UseCounter(tmp_path / "uses.json")
    pairs = [sample_pair(models, bank=bank, seed=seed, uses=uses, **GRID, **QUICK) for seed in range(3)]
    paths = [pair.record["attempts"][-1]["path"] for pair in pairs]
    assert uses.counts() == {path: paths.count(path) for path in sorted(set(paths))}


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({}, "either from sizes or from a bank"),
        ({"anatomy_sizes": SIZES, "bank": "bank"}, "either from sizes or from a bank"),
        ({"anatomy_sizes": SIZES[:9]}, "one value per structure"),
        ({"anatomy_sizes": {"liver": 0.5}}, "no known anatomy sizes"),
        ({"anatomy_sizes": {"liver": 0.5, "lung tumor": 0.1, "bone lesion": 0.2}}, "one kind of tumour"),
        ({"bank": "bank", "regions": ("arm",)}, "body region"),
        ({"bank": "bank", "anatomy": (22,)}, "no label map of the bank fits"),
        ({"bank": "bank", "attempts": 0}, "attempts"),
        ({"bank": "bank", "seed": -3}, "seed"),
    ],
)
def test_impossible_requests_are_refused(models, bank, wish, message):
    wish = {key: bank if value == "bank" else value for key, value in wish.items()}
    with pytest.raises(EngineError, match=message):
        sample_pair(models, **{**DRAWN, **GRID, **QUICK, **wish})


def test_the_reference_shuffles_exact_candidates_by_python(models, bank, monkeypatch):
    first = bank.candidates[0]
    many = bank.only(type(first)(f"set/{n}.nii.gz", first.labels, first.size, first.spacing, first.span) for n in range(10))
    order = []
    original = MaskBank.read
    monkeypatch.setattr(MaskBank, "read", lambda self, candidate: order.append(candidate.path) or original(bank, first))
    accept, _ = refusing(10)
    sample_pair(models, bank=many, seed=0, attempts=10, accept=accept, compat=True, **GRID, **QUICK)
    assert [int(path.split("/")[1][0]) for path in order] == [7, 8, 1, 5, 3, 4, 2, 0, 9, 6]
