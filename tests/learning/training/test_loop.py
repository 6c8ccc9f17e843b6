from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ctmr_core.errors import LearningError
from ctmr_core.learning.training import Report, TrainingSettings, fit, load_checkpoint
from ctmr_core.learning.training.board import read_metrics
from ctmr_core.learning.training.optimizing import Precision
from tests.learning.training.lines import Duel, Line


def settings(**changes: Any) -> TrainingSettings:
    fields = {
        "steps": 12,
        "checkpoint_every": 4,
        "validate_every": 4,
        "optimizer": {"learning_rate": 0.05},
        "logging": {"every": 3, "tensorboard": False},
    }
    return TrainingSettings.model_validate({**fields, **changes})


class Killed(Exception):
    pass


class AfterCalls:
    """Says yes at call ``number``, or raises there as a kill would end the process."""

    def __init__(self, number: int, kill: bool = False) -> None:
        self.left, self.kill = number, kill

    def __call__(self) -> bool:
        self.left -= 1
        if self.left == 0 and self.kill:
            raise Killed
        return self.left == 0


def tensors(path: Path) -> dict[str, torch.Tensor]:
    found = {}

    def collect(value: Any, name: str) -> None:
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, dict):
            for key, one in value.items():
                collect(one, f"{name}/{key}")

    checkpoint = load_checkpoint(path)
    collect({"weights": checkpoint.weights, "training": checkpoint.training}, "")
    return found


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"accumulate": 2}])
def test_a_killed_and_resumed_training_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole = fit(Line(), settings(**changes), tmp_path / "whole")
    with pytest.raises(Killed):
        fit(Line(), settings(**changes), tmp_path / "parts", should_stop=AfterCalls(7, kill=True))
    stopped = fit(Line(), settings(**changes), tmp_path / "parts", should_stop=AfterCalls(6))
    assert (stopped.reason, stopped.step) == ("stopped", 10)  # from the checkpoint of step 4
    task = Line()
    rest = fit(task, settings(**changes), tmp_path / "parts")
    assert (rest.reason, rest.step) == ("finished", 12)
    assert len(task.noise) == 2 * settings(**changes).accumulate

    one, other = tensors(whole.last), tensors(rest.last)
    assert one.keys() == other.keys()
    assert len(one) > 8
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert rest.best_score == whole.best_score

    def lines(folder: str) -> list[dict[str, Any]]:
        return [{key: value for key, value in line.items() if key != "time"} for line in read_metrics(tmp_path / folder)]

    assert lines("parts") == lines("whole")


def test_steps_can_be_added(tmp_path: Path) -> None:
    fit(Line(), settings(), tmp_path)
    task = Line()
    again = fit(task, settings(), tmp_path)
    assert (again.reason, again.step, task.noise) == ("finished", 12, [])
    assert fit(Line(), settings(steps=14), tmp_path).step == 14


def test_random_numbers_depend_on_seed_and_step(tmp_path: Path) -> None:
    noises = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.randn(len(noises))  # whatever was drawn before
        task = Line()
        fit(task, settings(steps=3), tmp_path / name, seed=seed)
        noises.append(task.noise)
    assert noises[0] == noises[1] != noises[2]
    assert len(set(noises[0])) == 3


def test_the_best_checkpoint_has_the_best_score(tmp_path: Path) -> None:
    reports: list[Report] = []
    result = fit(Line(), settings(), tmp_path, on_report=reports.append)
    scores = {report.step: report.values["error"] for report in reports if report.kind == "validation"}
    assert list(scores) == [4, 8, 12]
    assert result.best_score == min(scores.values())
    best = load_checkpoint(tmp_path / "checkpoints" / "best.pt")
    assert scores[best.step] == result.best_score == best.scores["error"]
    assert best.training is None
    network = Line(seed=5).modules["line"].eval()
    network.load_state_dict(best.weights["line"])
    error = (network(torch.eye(3)) - torch.ones(3, 1)).square().mean()
    assert float(error.detach()) == pytest.approx(result.best_score)
    assert [report.step for report in reports if report.kind == "checkpoint"] == [4, 8, 12]


def test_training_makes_the_loss_smaller(tmp_path: Path) -> None:
    fit(Line(), settings(steps=60, schedule={"name": "cosine", "warmup": 5}), tmp_path)
    lines = read_metrics(tmp_path, "train")
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    assert lines[-1]["half"] == pytest.approx(lines[-1]["loss"] / 2)


def test_accumulated_parts_make_the_update_of_a_whole_batch(tmp_path: Path) -> None:
    class Steady(Line):
        """Every batch is the same, without dropout or noise."""

        def loss(self, batch: Any, networks: Any, step: Any) -> Any:
            x = torch.tensor([[1.0, 2.0, 3.0]])
            return torch.nn.functional.mse_loss(networks["line"][2](networks["line"][0](x)), x.sum(1, keepdim=True)), {}

    once = fit(Steady(), settings(steps=3), tmp_path / "once")
    parts = fit(Steady(), settings(steps=3, accumulate=4), tmp_path / "parts")
    one, other = (load_checkpoint(result.last).weights["line"] for result in (once, parts))
    assert all(torch.allclose(value, other[name], atol=1e-6) for name, value in one.items())


def test_players_are_optimized_in_turn_each_with_its_own_loss(tmp_path: Path) -> None:
    result = fit(Duel(), settings(steps=3, optimizer={"name": "sgd", "learning_rate": 0.1, "momentum": 0.0}), tmp_path)
    weights = load_checkpoint(result.last).weights
    assert float(weights["maker"]["weight"]) < 1 < float(weights["judge"]["weight"])
    assert {"maker/loss", "judge/loss"} <= read_metrics(tmp_path, "train")[0].keys()


def test_modules_of_no_player_stay_as_they_are_and_are_not_saved(tmp_path: Path) -> None:
    task = Line()
    before = task.modules["frozen"].weight.clone()
    result = fit(task, settings(), tmp_path)
    assert torch.equal(task.modules["frozen"].weight, before)
    assert list(load_checkpoint(result.last).weights) == ["line"]


def test_a_loss_that_is_not_finite_stops_with_step_and_items(tmp_path: Path) -> None:
    with pytest.raises(LearningError, match="loss is not finite") as raised:
        fit(Line(poison=6), settings(), tmp_path)
    assert raised.value.where == "step 7"
    assert "e1b1i0" in str(raised.value)
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt").step == 4


def test_or_is_passed_over(tmp_path: Path) -> None:
    result = fit(Line(poison=6), settings(nonfinite="skip"), tmp_path)
    assert result.step == 12
    assert all(torch.isfinite(value).all() for value in load_checkpoint(result.last).weights["line"].values())
    lines = {line["step"]: line for line in read_metrics(tmp_path, "train")}
    assert all(line["loss"] > 0 for line in lines.values())


def test_a_checkpoint_of_another_network_is_refused_by_what_differs(tmp_path: Path) -> None:
    fit(Line(), settings(steps=2), tmp_path)
    with pytest.raises(LearningError, match=r"network.width: 8 there, 9 here"):
        fit(Line(width=9), settings(steps=2), tmp_path)
    with pytest.raises(LearningError, match="task: line there, duel here"):
        fit(Duel(), settings(steps=2), tmp_path)
    with pytest.raises(LearningError, match="there is a training in this folder"):
        fit(Line(), settings(steps=2), tmp_path, resume=False)


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path) -> None:
    def second() -> bool:
        with pytest.raises(LearningError, match="another training runs in this folder"):
            fit(Line(), settings(), tmp_path)
        return True

    assert fit(Line(), settings(), tmp_path, should_stop=second).reason == "stopped"
    assert fit(Line(), settings(), tmp_path).reason == "finished"


def test_a_time_budget_ends_the_training_with_scores(tmp_path: Path) -> None:
    task = Line()
    result = fit(task, settings(steps=100_000, minutes=1e-6, validate_every=0), tmp_path)
    assert (result.reason, result.step) == ("out of time", 1)
    assert task.validated == [1]
    assert result.best_score is not None


def test_bf16_on_a_cpu_where_asked(tmp_path: Path) -> None:
    seen = []

    class Watched(Line):
        def loss(self, batch: Any, networks: Any, step: Any) -> Any:
            seen.append(networks["line"](batch["x"]).dtype)
            return super().loss(batch, networks, step)

    fit(Watched(), settings(steps=2, precision="bf16"), tmp_path)
    assert set(seen) == {torch.bfloat16}
    with pytest.raises(LearningError, match="fp16 needs a GPU"):
        fit(Watched(), settings(steps=2, precision="fp16", device="cpu"), tmp_path / "other")


def test_auto_is_float32_on_a_cpu() -> None:
    assert Precision("auto", torch.device("cpu")).name == "float32"


def test_schedules() -> None:
    def factors(**fields: Any) -> list[float]:
        schedule = settings(schedule=fields).schedule
        return [round(schedule.factor(step, 10), 3) for step in (0, 1, 2, 6, 10)]

    assert factors(name="constant", warmup=2) == [0.333, 0.667, 1.0, 1.0, 1.0]
    assert factors(name="cosine", warmup=2, final=0.0) == [0.333, 0.667, 1.0, 0.5, 0.0]
    assert factors(name="polynomial", power=1.0, final=0.1) == [1.0, 0.91, 0.82, 0.46, 0.1]


def test_a_stop_does_not_wait_for_a_validation_which_is_made_up_for(tmp_path: Path) -> None:
    task = Line()
    fit(task, settings(), tmp_path, should_stop=AfterCalls(4))
    assert task.validated == []
    task = Line()
    fit(task, settings(), tmp_path)
    assert task.validated == [4, 8, 12]
