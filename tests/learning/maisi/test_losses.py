"""The losses against plain re-statements of their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ctmr_core.learning.maisi.losses import latent_divergence, on_latent_grid, region_contrast, roi_weights, weighted_l1
from ctmr_core.learning.maisi.noising import augmented_codes


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def predictions(rng, batch):
    return [torch.from_numpy(rng.normal(0, 1, (batch, 4, 3, 2, 3)).astype(np.float32)) for _ in range(3)]


def test_labels_of_any_dtype_are_taken_at_every_fourth_voxel(rng):
    labels = torch.from_numpy(rng.integers(0, 200, (2, 1, 12, 8, 12)))
    latent = torch.zeros((2, 4, 3, 2, 3))
    expected = torch.nn.functional.interpolate(labels.float(), size=(3, 2, 3), mode="nearest").long()
    for dtype in (torch.uint8, torch.int64):
        assert torch.equal(on_latent_grid(labels.to(dtype), latent).long(), expected)


def test_tumours_weigh_more_in_the_loss_for_integer_labels(rng):
    output, target, _ = predictions(rng, 2)
    labels = torch.from_numpy(rng.choice([1, 23, 200], (2, 1, 12, 8, 12)))
    weights = roi_weights(labels, output, (23,), 100.0)
    near = labels[:, :, ::4, ::4, ::4].numpy()
    expected = (np.abs(output.numpy() - target.numpy()) * np.where(near == 23, 100, 1)).mean()
    assert float(weighted_l1(output, target, weights)) == pytest.approx(float(expected), rel=1e-6)
    assert float(weighted_l1(output, target)) == pytest.approx(float((output - target).abs().mean()), rel=1e-6)


@pytest.mark.parametrize("scale", [0.1, 10.0], ids=["free", "bounded"])
def test_the_contrast_is_that_of_the_formula_for_each_sample(rng, scale):
    output, free, target = (one * scale for one in predictions(rng, 2))
    changed = torch.zeros((2, 1, 12, 8, 12), dtype=torch.bool)
    changed[0, 0, :5, :5, :5] = True
    apart = changed.clone()
    apart[0, 0, :6, :6, :6] = True
    within, outside = region_contrast(output, free, target, changed, apart, 2.0)
    parts = []
    for sample in range(2):
        o, f, t = (one[sample].numpy().astype(np.float64) for one in (output, free, target))
        roi = np.broadcast_to(changed[sample, :, ::4, ::4, ::4].numpy(), o.shape)
        rest = ~np.broadcast_to(apart[sample, :, ::4, ::4, ::4].numpy(), o.shape)
        inside = -np.abs(o - f)[roi].sum() / (roi.sum() + 1e-5)
        parts.append((max(inside + 2, 0) - 2, np.abs(f - t)[rest].sum() / (rest.sum() + 1e-5)))
    assert float(within) == pytest.approx(np.mean([one for one, _ in parts]), rel=1e-4)
    assert float(outside) == pytest.approx(np.mean([one for _, one in parts]), rel=1e-4)
    if scale > 1:
        assert parts[0][0] == -2, "not more than delta is asked for"


def test_a_batch_of_one_is_a_batch_of_two_equal_samples(rng):
    output, free, target = predictions(rng, 1)
    changed = torch.from_numpy(rng.random((1, 1, 12, 8, 12)) < 0.3)
    one = region_contrast(output, free, target, changed, changed, 2.0)
    two = region_contrast(*(torch.cat([part, part]) for part in (output, free, target, changed, changed)), 2.0)
    assert [float(value) for value in two] == pytest.approx([float(value) for value in one])


def test_the_divergence_is_a_sum_over_the_latent(rng):
    mean = torch.from_numpy(rng.normal(0, 1, (2, 4, 2, 2, 2)))
    spread = torch.from_numpy(rng.uniform(0.1, 2, (2, 4, 2, 2, 2)))
    normal, standard = torch.distributions.Normal(mean, spread), torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(normal, standard).sum() / 2
    assert float(latent_divergence(mean, spread)) == pytest.approx(float(expected), rel=1e-6)


def test_modality_codes_lose_detail_as_often_as_asked():
    codes = torch.tensor([0, 1, 3, 8, 9, 20]).repeat(20_000)
    new = augmented_codes(codes, 0.1, torch.Generator().manual_seed(3))
    shares = {
        int(code): {int(value): float((new[codes == code] == value).double().mean()) for value in new[codes == code].unique()}
        for code in codes.unique()
    }
    assert set(shares[0]) == {0}
    for code, vague in ((3, 1), (9, 8), (20, 8)):
        assert shares[code] == pytest.approx({0: 0.1, vague: 0.09, code: 0.81}, abs=0.01)
    for code in (1, 8):
        assert shares[code] == pytest.approx({0: 0.1, code: 0.9}, abs=0.01)
    assert torch.equal(augmented_codes(codes, 0.0, torch.Generator()), codes)
