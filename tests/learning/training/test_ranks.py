"""Two processes that train together (gloo on this machine)."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch

from ctmr_core.learning.training import TrainingSettings, fit, load_checkpoint, ranks
from ctmr_core.learning.training.board import read_metrics
from tests.learning.training.lines import Line


class Steady(Line):
    """A line whose ranks have different points, without dropout or noise; scores of every rank are gathered."""

    def __init__(self, whole: bool = False) -> None:
        super().__init__()
        self.whole = whole

    def loss(self, batch: Any, networks: Any, step: Any) -> Any:
        rows = slice(None) if self.whole else slice(2 * ranks.rank(), 2 * ranks.rank() + 2)
        x, y = batch["x"][rows], batch["y"][rows]
        return torch.nn.functional.mse_loss(networks["line"](x), y), {"rank": torch.tensor(float(ranks.rank()))}

    def validate(self, networks: Any, step: Any) -> dict[str, float]:
        found = ranks.gathered([ranks.rank()])
        return {"error": float(len(found)), "sum": float(sum(found))}


def settings() -> TrainingSettings:
    return TrainingSettings.model_validate(
        {"steps": 4, "validate_every": 2, "checkpoint_every": 2, "accumulate": 2, "logging": {"every": 2, "tensorboard": False}}
    )


def without_dropout(task: Line) -> Line:
    task.modules["line"][1].p = 0.0
    return task


def one_of_two(rank: int, folder: Path, stop_at: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting-{stop_at}", rank=rank, world_size=2)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return rank == 1 and len(asked) == stop_at  # rank 1 alone is asked to stop

    reports: list[str] = []
    result = fit(
        without_dropout(Steady()), settings(), folder / "two", should_stop=stop, on_report=lambda r: reports.append(r.kind)
    )
    (folder / f"rank-{rank}.txt").write_text(f"{result.reason} {result.step} {reports.count('checkpoint')}")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_train_as_one_with_all_the_points(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for stop_at, outcome in ((1, "stopped 1 1"), (99, "finished 4 2")):
        processes = [context.Process(target=one_of_two, args=(rank, tmp_path, stop_at)) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(300)
            assert process.exitcode == 0
        assert [(tmp_path / f"rank-{rank}.txt").read_text() for rank in range(2)] == [outcome, outcome]

    fit(without_dropout(Steady(whole=True)), settings(), tmp_path / "one")
    one, two = (load_checkpoint(tmp_path / name / "checkpoints" / "last.pt").weights["line"] for name in ("one", "two"))
    assert one.keys() == two.keys()  # no traces of the wrapper
    assert all(torch.allclose(value, two[name], atol=1e-5) for name, value in one.items())
    assert [line["sum"] for line in read_metrics(tmp_path / "two", "validation")] == [1.0, 1.0]
    assert all(line["rank"] == 0.5 for line in read_metrics(tmp_path / "two", "train"))


def test_a_single_process_is_rank_0_of_1() -> None:
    assert (ranks.rank(), ranks.ranks()) == (0, 1)
    assert ranks.gathered([1, 2]) == [1, 2]
    assert ranks.averaged({"a": 2.0}, torch.device("cpu")) == {"a": 2.0}
    assert ranks.device_of("cpu") == torch.device("cpu")
