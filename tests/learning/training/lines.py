"""A small task: a straight line through points, with dropout so that random numbers matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ctmr_core.learning.training import Step, Task


class Points:
    """Five batches an epoch, each of its own epoch and number."""

    def __init__(self, poison: int | None = None) -> None:
        self.place = [0, 0]
        self.poison = poison

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, first = self.place
        for number in range(first, 5):
            self.place = [epoch, number + 1] if number < 4 else [epoch + 1, 0]
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(10 * epoch + number))
            if self.poison == 5 * epoch + number:
                x = x * float("nan")
            yield {"x": x, "y": x.sum(1, keepdim=True), "case_id": [f"e{epoch}b{number}i{item}" for item in range(4)]}

    def state_dict(self) -> dict[str, Any]:
        return {"place": list(self.place)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = list(state["place"])


class Line(Task):
    name = "line"
    best_by = "error"
    higher_is_better = False

    def __init__(self, poison: int | None = None, width: int = 8, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.modules = {
                "line": torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.Dropout(0.3), torch.nn.Linear(width, 1)),
                "frozen": torch.nn.Linear(1, 1),
            }
        self.batches = Points(poison)
        self.width = width
        self.noise: list[float] = []
        self.validated: list[int] = []

    @property
    def players(self) -> Mapping[str, tuple[str, ...]]:
        return {"line": ("line",)}

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"network": {"width": self.width}}

    def loss(self, batch: Any, networks: Mapping[str, torch.nn.Module], step: Step) -> Any:
        noise = torch.randn(1, generator=step.rng)
        self.noise.append(float(noise))
        error = torch.nn.functional.mse_loss(networks["line"](batch["x"]) + 0.01 * noise, batch["y"])
        return error, {"half": error / 2}

    def validate(self, networks: Mapping[str, torch.nn.Module], step: Step) -> dict[str, float]:
        assert not networks["line"].training
        self.validated.append(step.number)
        x = torch.eye(3)
        return {"error": float((networks["line"](x) - x.sum(1, keepdim=True)).square().mean())}


class Duel(Task):
    """Two players with opposite aims: one number each."""

    name = "duel"

    def __init__(self) -> None:
        self.modules = {name: torch.nn.Linear(1, 1, bias=False) for name in ("maker", "judge")}
        for module in self.modules.values():
            torch.nn.init.ones_(module.weight)
        self.batches = Points()

    @property
    def players(self) -> Mapping[str, tuple[str, ...]]:
        return {"maker": ("maker",), "judge": ("judge",)}

    def loss(self, batch: Any, networks: Mapping[str, torch.nn.Module], step: Step) -> Any:
        made = networks["judge"](networks["maker"](torch.ones(1, 1)))
        return (made if step.player == "maker" else -made).mean(), {}
