"""Jobs on the ranks of a real Ray Train run: what is told, lost and refused."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from ctmr_core.errors import LearningError
from pipelines.factory.driver import FactoryError
from pipelines.factory.training import Team, cluster_for, run_ranks

pytestmark = pytest.mark.slow  # Ray Train begins with a dozen processes
Tell = Callable[[Any], None]
Stopping = Callable[[], bool]


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    """Two ranks of one thread, and a cluster for them."""
    with cluster_for(Team(workers=2, threads=1, device="auto", max_failures=1)) as team:
        yield team


@dataclass(frozen=True)
class Counting:
    """Adds up ranks, four times, each kept in a file to resume from; rank 1 is killed once at step ``killed_at``."""

    folder: Path
    killed_at: int | None = None

    def __call__(self, tell: Tell, stopping: Stopping) -> dict[str, Any]:
        state, begun = self.folder / "step", []
        step = int(state.read_text(encoding="utf-8")) if state.exists() else 0
        begun.append(step)
        while step < 4:
            total = torch.tensor([float(dist.get_rank() + 1)])
            dist.all_reduce(total)
            step += 1
            if dist.get_rank() == 0:
                state.write_text(str(step), encoding="utf-8")
            tell((step, total.item(), torch.get_num_threads()))
            dist.barrier()
            if step == self.killed_at and dist.get_rank() == 1 and not (self.folder / "killed").exists():
                (self.folder / "killed").touch()
                time.sleep(0.5)  # the report of the step is on its way
                os.kill(os.getpid(), signal.SIGKILL)
        return {"rank": dist.get_rank(), "began_at": begun[0]}


def test_ranks_work_together_and_the_first_one_tells(team: Team, tmp_path: Path) -> None:
    told: list[Any] = []
    assert run_ranks(Counting(tmp_path), tmp_path, team, told.append) == {"rank": 0, "began_at": 0}
    assert told == [(step, 3.0, 1) for step in (1, 2, 3, 4)]  # 3 = 1 + 2: both ranks are there
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_a_killed_rank_costs_what_was_done_since_the_last_checkpoint(team: Team, tmp_path: Path) -> None:
    told: list[Any] = []
    result = run_ranks(Counting(tmp_path, killed_at=2), tmp_path, team, told.append)
    assert result == {"rank": 0, "began_at": 2}
    assert [step for step, _, _ in told] == [1, 2, 3, 4]  # every step once


class Refusing:
    """Is refused on one rank, while the other waits for it."""

    def __call__(self, tell: Tell, stopping: Stopping) -> None:
        if dist.get_rank() == 1:
            raise LearningError("there is no such class", found="livre", allowed="liver")
        dist.barrier()


def test_a_refusal_ends_the_run_as_it_was_raised(team: Team, tmp_path: Path) -> None:
    with pytest.raises(LearningError, match="no such class") as raised:
        run_ranks(Refusing(), tmp_path, team, lambda _: None)
    assert (raised.value.found, raised.value.allowed) == ("'livre'", "liver")


class Stumbling:
    """Fails whenever it is tried."""

    def __call__(self, tell: Tell, stopping: Stopping) -> None:
        tell("tried")
        raise ZeroDivisionError("nothing to divide by")


def test_what_fails_every_time_is_given_up(team: Team, tmp_path: Path) -> None:
    told: list[Any] = []
    with pytest.raises(FactoryError, match="nothing to divide by"):
        run_ranks(Stumbling(), tmp_path, team, told.append)
    assert told == ["tried", "tried"]


class Endless:
    """Works until it is told to stop; each rank says when it knows."""

    def __call__(self, tell: Tell, stopping: Stopping) -> int:
        rounds = 0
        asked = torch.zeros(1)
        while not asked.item():
            asked = torch.tensor([float(stopping())])
            dist.all_reduce(asked)
            rounds += 1
            tell(rounds)
            time.sleep(0.05)
        return rounds


def test_ranks_hear_of_the_wish_to_stop(team: Team, tmp_path: Path) -> None:
    told: list[int] = []
    rounds = run_ranks(Endless(), tmp_path, team, told.append, lambda: len(told) > 3)
    assert rounds == told[-1] > 3


def test_a_team_that_has_no_room_is_refused(team: Team, tmp_path: Path) -> None:
    many = Team(workers=512, threads=1, device="cpu", max_failures=0, room_timeout=1.0)
    with pytest.raises(FactoryError, match="no room for 512 workers"):
        run_ranks(Endless(), tmp_path, many, lambda _: None)
