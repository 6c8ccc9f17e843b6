"""What is trained: networks, batches, a loss and scores. The loop does the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch


def _unseen(name: str, pixels: np.ndarray) -> None:
    """Nobody looks at the picture."""


Networks = Mapping[str, torch.nn.Module]
Loss = tuple[torch.Tensor, Mapping[str, torch.Tensor]]


class Batches(Protocol):
    """Batches of one epoch each time it is iterated, and where it is: ``ctmr_core.learning.datasets.loader`` makes one."""

    def __iter__(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Step:
    """Where the training is.

    number: updates done before this one. player: whose loss is asked for. device: where the networks are. rng: a generator on the
    CPU that depends on the seed, the step, the part of it and the rank; PyTorch's own generators (dropout) are seeded like it.
    folder: of the training, to write tables to on rank 0. picture: shows uint8 [height, width, 3] under a name in TensorBoard.
    """

    number: int
    player: str
    device: torch.device
    rng: torch.Generator
    folder: Path
    picture: Callable[[str, np.ndarray], None] = _unseen


class Task(ABC):
    """One thing to train.

    name: written into checkpoints. modules: every network by name; those that no player names are frozen and not saved.
    batches: what to train on. best_by: the score of :meth:`validate` that chooses the best checkpoint.
    """

    name: str = "task"
    best_by: str | None = None
    higher_is_better: bool = True
    modules: dict[str, torch.nn.Module]
    batches: Batches

    @property
    def players(self) -> Mapping[str, tuple[str, ...]]:
        """Who is optimized in turn within every step -> the modules it owns. One player owns all, unless said otherwise: a
        generator and its discriminator are two."""
        return {"network": tuple(self.modules)}

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON-able facts a checkpoint must agree with to be resumed: the configuration, the architecture."""
        return {}

    @property
    def records(self) -> Mapping[str, Any]:
        """JSON-able facts kept in every checkpoint: datasets, snapshots, versions."""
        return {}

    @abstractmethod
    def loss(self, batch: Any, networks: Networks, step: Step) -> Loss:
        """What ``step.player`` minimizes, a scalar with gradient, and named parts of it for the log.

        networks: :attr:`modules`, on the device, those that are trained wrapped for several ranks: call these. Batches come as
        they were loaded, on the CPU. Runs under autocast where precision is mixed.
        """

    def validate(self, networks: Networks, step: Step) -> Mapping[str, float]:
        """Scores, the same on every rank (see ``training.ranks.gathered``). networks: unwrapped, averaged, in eval mode."""
        del networks, step
        return {}

    def items_of(self, batch: Any) -> list[str]:
        """Names of the items of a batch, for the error that stops a training."""
        names = batch.get("case_id", []) if isinstance(batch, Mapping) else []
        return [str(name) for name in names]
