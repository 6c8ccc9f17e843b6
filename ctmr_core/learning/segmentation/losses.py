"""Segmentation losses of MONAI, by class name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from monai.losses import DeepSupervisionLoss

from ctmr_core.errors import LearningError
from ctmr_core.learning.segmentation.config import LossSettings
from ctmr_core.learning.segmentation.monai_names import no_such
from ctmr_core.learning.segmentation.networks import all_scores

#: What a loss over classes that exclude each other needs; losses without one of these arguments do it by themselves.
_OURS = {"to_onehot_y": True, "softmax": True}


class SegmentationLoss(torch.nn.Module):
    """The loss of a network's output with the label map; of several (deep supervision) their mean with halving weights."""

    def __init__(self, loss: torch.nn.Module) -> None:
        super().__init__()
        self._single = loss
        self._several = DeepSupervisionLoss(loss)  # type: ignore[arg-type]

    def forward(self, output: Any, label: torch.Tensor) -> torch.Tensor:
        """output: what the network gave. label: [batch, 1, x, y, z], training ids."""
        scores = [one.float() for one in all_scores(output)]
        value: torch.Tensor = self._single(scores[0], label) if len(scores) == 1 else self._several(scores, label)
        return value


def make_loss(settings: LossSettings) -> SegmentationLoss:
    """The loss; ``LearningError`` for losses and options MONAI does not have."""
    import monai.losses as losses

    names = loss_names()
    if settings.name not in names:
        raise no_such("MONAI has no such segmentation loss", "field loss.name", settings.name, names)
    kind: Callable[..., torch.nn.Module] = getattr(losses, settings.name)
    parameters = [name for name in inspect.signature(kind).parameters if name not in _OURS]
    for name in settings.options:
        if name not in parameters:
            raise no_such(f"{settings.name} has no such option", "field loss.options", name, parameters)
    ours = {name: value for name, value in _OURS.items() if name in inspect.signature(kind).parameters}
    options = {
        name: torch.tensor(value, dtype=torch.float32) if name == "weight" and isinstance(value, list) else value
        for name, value in settings.options.items()
    }
    try:
        return SegmentationLoss(kind(**ours, **options))
    except (TypeError, ValueError) as error:
        raise LearningError(
            f"{settings.name} can't be made with these options: {error}", where="field loss.options", found=settings.options
        ) from error


def loss_names() -> list[str]:
    """Losses of MONAI that take scores and label maps: those with a ``to_onehot_y``."""
    import monai.losses as losses

    kinds = {name: value for name, value in vars(losses).items() if inspect.isclass(value) and name.endswith("Loss")}
    return sorted(name for name, kind in kinds.items() if "to_onehot_y" in inspect.signature(kind).parameters)
