from __future__ import annotations

from typing import Any

import pytest
import torch

from ctmr_core.errors import LearningError
from ctmr_core.learning.segmentation.config import LossSettings, NetworkSettings
from ctmr_core.learning.segmentation.losses import loss_names, make_loss
from ctmr_core.learning.segmentation.networks import all_scores, make_network, network_names

PATCH = (16, 16, 16)
SMALL = {"channels": [4, 8], "strides": [2]}


def test_a_network_has_our_channels_and_weights_of_the_seed() -> None:
    settings = NetworkSettings(name="UNet", options=SMALL)
    networks = [make_network(settings, 2, 5, PATCH, seed) for seed in (0, 0, 1)]
    scores = [network.eval()(torch.ones(1, 2, *PATCH)) for network in networks]
    assert scores[0].shape == (1, 5, *PATCH)
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("SegResnet", {}, "did you mean 'SegResNet'"),
        ("SegResNet", {"init_filter": 8}, "did you mean 'init_filters'"),
        ("SegResNet", {"out_channels": 3}, "follows from classes and sequences"),
        ("UNet", {}, "needs more options"),
        ("UNet", {"channels": [4, 8], "strides": [2, 2, 2, 2], "kernel_size": "big"}, "can't be made|can't take"),
        (
            "SegResNet",
            {"init_filters": 8, "blocks_down": [1, 1, 1, 1, 1, 1], "blocks_up": [1, 1, 1, 1, 1]},
            "patches of this size",
        ),
    ],
)
def test_what_monai_can_not_make_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LearningError, match=message):
        make_network(NetworkSettings(name=name, options=options), 1, 3, PATCH, 0)


def test_networks_and_losses_have_their_usual_names() -> None:
    assert {"UNet", "SegResNet", "SegResNetDS", "DynUNet", "SwinUNETR", "BasicUNet"} <= set(network_names())
    assert {"DiceLoss", "DiceCELoss", "DiceFocalLoss", "TverskyLoss", "GeneralizedDiceLoss"} <= set(loss_names())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SegResNetDS", {"init_filters": 4, "blocks_down": [1, 1, 1], "dsdepth": 2, "norm": "instance"}),
        (
            "DynUNet",
            {
                "kernel_size": [3, 3, 3],
                "strides": [1, 2, 2],
                "upsample_kernel_size": [2, 2],
                "filters": [4, 8, 8],
                "deep_supervision": True,
            },
        ),
    ],
)
def test_deep_supervision_reaches_every_output(name: str, options: dict[str, Any]) -> None:
    network = make_network(NetworkSettings(name=name, options=options), 1, 3, PATCH, 0).train()
    output = network(torch.rand(2, 1, *PATCH))
    scores = all_scores(output)
    assert len(scores) == 2
    assert scores[0].shape == (2, 3, *PATCH)
    label = torch.zeros(2, 1, *PATCH, dtype=torch.uint8)
    label[:, :, :5] = 2
    loss = make_loss(LossSettings())
    loss(output, label).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    alone = make_loss(LossSettings())(scores[0], label)
    assert loss(output, label) != alone


@pytest.mark.parametrize("name", ["DiceCELoss", "DiceLoss", "DiceFocalLoss", "GeneralizedDiceLoss", "TverskyLoss"])
def test_a_loss_is_smaller_for_better_scores(name: str) -> None:
    label = torch.zeros(1, 1, *PATCH, dtype=torch.uint8)
    label[:, :, 4:9] = 1
    right = torch.nn.functional.one_hot(label[:, 0].long(), 3).permute(0, 4, 1, 2, 3) * 8.0
    loss = make_loss(LossSettings(name=name))
    assert loss(right, label) < loss(torch.zeros_like(right), label) < loss(-right, label)


def test_options_of_a_loss_are_checked() -> None:
    assert make_loss(LossSettings(name="DiceCELoss", options={"include_background": False, "weight": [0.1, 1.0, 1.0]}))
    with pytest.raises(LearningError, match="no such option"):
        make_loss(LossSettings(name="DiceCELoss", options={"softmax": False}))
    with pytest.raises(LearningError, match="did you mean 'DiceCELoss'"):
        make_loss(LossSettings(name="DiceCE"))
