from dataclasses import replace

import numpy as np
import pytest
import torch

from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.engines.tissue.context import RenderContext
from tests.engines.tissue.bodies import make_case, small_body


@pytest.fixture
def context() -> RenderContext:
    body = small_body()
    return RenderContext(make_case(body), body, 0)


def test_streams_repeat_and_are_independent(context: RenderContext) -> None:
    again = RenderContext(context.case, context.label_map, 0)
    other_attempt = RenderContext(context.case, context.label_map, 1)
    first = context.rng("scan/ct").normal(size=8)
    assert np.array_equal(first, again.rng("scan/ct").normal(size=8))
    assert not np.array_equal(first, again.rng("scan/ct_contrast").normal(size=8))
    assert not np.array_equal(first, other_attempt.rng("scan/ct").normal(size=8))


def test_white_noise_is_standard_normal(context: RenderContext) -> None:
    noise = context.normal("noise/ct")
    assert noise.shape == context.size
    assert noise.dtype == torch.float32
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02


def test_textures_are_the_same_in_every_sequence_and_differ_between_streams(context: RenderContext) -> None:
    again = RenderContext(context.case, context.label_map, 0)
    assert torch.equal(context.texture(9.0, "coarse"), again.texture(9.0, "coarse"))
    assert not torch.equal(context.texture(9.0, "coarse"), again.texture(9.0, "other"))


def test_tissues_are_derived_where_the_label_map_has_none() -> None:
    body = replace(small_body(), tissues=None)
    context = RenderContext(make_case(body), body, 0)
    liver = context.tissues.numpy()[body.voxels == 1]
    assert (liver == tissue_id("liver")).mean() > 0.8


def test_one_gather_reads_label_and_tissue(context: RenderContext) -> None:
    by_tissue = np.arange(context.code.columns, dtype=np.float32)
    table = context.code.table(by_tissue, {3: -7.0})
    values = context.code.gather(table).numpy()
    labels, tissues = context.label_map.voxels, context.label_map.tissues
    assert np.array_equal(values, np.where(labels == 3, -7.0, tissues.astype(np.float32)))


def test_vessels_stay_inside_their_organ(context: RenderContext) -> None:
    tissues = context.label_map.tissues.reshape(-1)
    lungs, liver = context.lung_vessels, context.liver_vessels
    assert len(lungs.index) > 200
    assert (tissues[lungs.index] == tissue_id("lung_parenchyma")).all()
    assert (tissues[liver.index] == tissue_id("liver")).all()
    assert lungs.share.min() > 0
    assert lungs.share.max() <= 1
