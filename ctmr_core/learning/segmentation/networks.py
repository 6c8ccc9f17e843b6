"""Segmentation networks of MONAI, by class name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from ctmr_core.errors import LearningError
from ctmr_core.learning.segmentation.config import NetworkSettings
from ctmr_core.learning.segmentation.monai_names import no_such
from ctmr_core.learning.training.checkpoints import load_weights

#: Arguments that follow from classes and sequences.
_OURS = ("spatial_dims", "in_channels", "out_channels")


def make_network(
    settings: NetworkSettings, channels: int, classes: int, patch: tuple[int, int, int], seed: int
) -> torch.nn.Module:
    """The network from ``channels`` to scores of ``classes`` (with background); weights are drawn from ``seed`` or read.

    ``LearningError`` for networks and options MONAI does not have, and for a patch the network can't halve as often as it must.
    """
    kind = _kind(settings.name)
    options = _options(kind, settings, channels, classes)
    _refuse_patch(kind, options, settings, channels, classes, patch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _made(kind, options, settings)
    if settings.weights is not None:
        load_weights(network, settings.weights, partly=settings.partly)
    return network


def network_arguments(settings: NetworkSettings, channels: int, classes: int) -> dict[str, Any]:
    """Arguments of the constructor of the network, those that follow from channels and classes included."""
    return _options(_kind(settings.name), settings, channels, classes)


def network_names() -> list[str]:
    """Networks of MONAI that take channels in and give channels out."""
    import monai.networks.nets as nets

    found = {name: value for name, value in vars(nets).items() if inspect.isclass(value) and issubclass(value, torch.nn.Module)}
    own = {name: kind for name, kind in found.items() if kind.__name__ == name}  # MONAI has aliases
    return sorted(name for name, kind in own.items() if {"in_channels", "out_channels"} <= set(_parameters(kind)))


def _kind(name: str) -> type[torch.nn.Module]:
    import monai.networks.nets as nets

    names = network_names()
    if name not in names:
        raise no_such("MONAI has no such segmentation network", "field network.name", name, names)
    kind: type[torch.nn.Module] = getattr(nets, name)
    return kind


def _parameters(kind: type) -> Mapping[str, inspect.Parameter]:
    parameters = dict(inspect.signature(kind.__init__).parameters)  # type: ignore[misc]
    parameters.pop("self", None)
    return parameters


def _options(kind: type, settings: NetworkSettings, channels: int, classes: int) -> dict[str, Any]:
    parameters = _parameters(kind)
    free = [name for name in parameters if name not in _OURS]
    for name in settings.options:
        if name not in free:
            what = "it follows from classes and sequences" if name in _OURS else f"{settings.name} has no such option"
            raise no_such(what, "field network.options", name, free)
    missing = [name for name in free if parameters[name].default is inspect.Parameter.empty and name not in settings.options]
    if missing:
        raise LearningError(
            f"{settings.name} needs more options", where="field network.options", found=sorted(settings.options), allowed=missing
        )
    ours = {"spatial_dims": 3, "in_channels": channels, "out_channels": classes}
    return {**{name: value for name, value in ours.items() if name in parameters}, **settings.options}


def _made(kind: type[torch.nn.Module], options: dict[str, Any], settings: NetworkSettings) -> torch.nn.Module:
    try:
        return kind(**options)
    except (TypeError, ValueError, KeyError, AssertionError, IndexError, RuntimeError) as error:
        raise LearningError(
            f"{settings.name} can't be made with these options: {error}",
            where="field network.options",
            found=dict(settings.options),
        ) from error


def _refuse_patch(
    kind: type[torch.nn.Module],
    options: dict[str, Any],
    settings: NetworkSettings,
    channels: int,
    classes: int,
    patch: tuple[int, int, int],
) -> None:
    """Shapes only, on PyTorch's meta device; networks that can't be run there show what they dislike in the first step."""
    with torch.device("meta"):
        try:
            network = kind(**options).eval()
        except Exception:  # noqa: BLE001 - whatever it is, making it in earnest shows it again
            return
        try:
            scores = network(torch.zeros(1, channels, *patch))
        except NotImplementedError:
            return
        except (RuntimeError, ValueError, AssertionError) as error:
            raise LearningError(
                f"{settings.name} can't take patches of this size: {str(error).splitlines()[0]}",
                where="field patch",
                found=list(patch),
                fix="use multiples of 32 voxels, or fewer levels of the network",
            ) from error
    first = all_scores(scores)[0]
    if tuple(first.shape) != (1, classes, *patch):
        raise LearningError(
            f"{settings.name} gives scores of another shape",
            where="field network",
            found=list(first.shape),
            allowed=str([1, classes, *patch]),
            fix="use multiples of 32 voxels as patch, or other options",
        )


def all_scores(output: Any) -> list[torch.Tensor]:
    """What a network gave, as scores [batch, classes, x, y, z], the finest first.

    Networks with deep supervision give several: a list (``SegResNetDS``), or a stack [batch, outputs, classes, x, y, z]
    (``DynUNet``).
    """
    if isinstance(output, torch.Tensor):
        return list(output.unbind(1)) if output.ndim == 6 else [output]
    if isinstance(output, Mapping):
        return [value for value in output.values() if isinstance(value, torch.Tensor)]
    return list(output)
