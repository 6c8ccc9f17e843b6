from __future__ import annotations

import json

import pytest

from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets import PatchDataset, PatchStream, loader
from ctmr_core.store import Dataset
from tests.fresh_process import run_fresh
from tests.learning.comparing import digest, digests


def patches(bodies: Dataset, **changes: object) -> PatchDataset:
    return PatchDataset(bodies, 8, **{"seed": 1, "items": 24, **changes})


def test_a_stream_gives_the_items_of_its_source_epoch_after_epoch(bodies: Dataset) -> None:
    source = patches(bodies)
    stream = PatchStream(source, batch_size=4)
    assert digests(stream) == digests(source.item(0, i) for i in range(24))
    assert digests(stream) == digests(source.item(1, i) for i in range(24))
    assert stream.position == (2, 0)


def test_ranks_share_the_items_and_their_batches_together_are_those_of_one_rank(bodies: Dataset) -> None:
    alone = digests(PatchStream(patches(bodies), batch_size=4))
    for ranks in (2, 4):
        shares = [digests(PatchStream(patches(bodies), 4 // ranks, rank=rank, ranks=ranks)) for rank in range(ranks)]
        for batch in range(6):
            together = [item for share in shares for item in share[batch * 4 // ranks : (batch + 1) * 4 // ranks]]
            assert together == alone[batch * 4 : (batch + 1) * 4]


def test_items_that_do_not_fill_a_batch_of_every_rank_are_left_out(bodies: Dataset) -> None:
    streams = [PatchStream(patches(bodies, items=23), 3, rank=rank, ranks=2) for rank in (0, 1)]
    assert [len(stream) for stream in streams] == [9, 9]
    with pytest.raises(LearningError, match="fewer items"):
        PatchStream(patches(bodies, items=3), 2, rank=0, ranks=2)


def test_ranks_are_found_in_the_environment(bodies: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    stream = PatchStream(patches(bodies))
    assert (stream.rank, stream.ranks) == (1, 3)


def test_a_stream_resumed_in_the_middle_gives_what_was_left(bodies: Dataset) -> None:
    stream = PatchStream(patches(bodies), batch_size=4)
    going = iter(stream)
    for _ in range(8):
        next(going)
    state = json.loads(json.dumps(stream.state_dict()))
    left = digests(going)
    resumed = PatchStream(patches(bodies), batch_size=4)
    resumed.load_state_dict(state)
    assert digests(resumed) == left
    assert len(left) == 16
    assert digests(resumed) == digests(stream)  # the next epoch


def test_a_run_resumes_on_another_number_of_ranks(bodies: Dataset) -> None:
    one = PatchStream(patches(bodies), batch_size=4, rank=0, ranks=1)
    one.move_to(0, 2)
    left = digests(PatchStream(patches(bodies), 4))[8:]
    two = [PatchStream(patches(bodies), 2, rank=rank, ranks=2) for rank in (0, 1)]
    for stream in two:
        stream.load_state_dict(one.state_dict())
    first, second = (digests(stream) for stream in two)
    assert [first[0], first[1], second[0], second[1]] == left[:4]


def test_a_state_of_other_data_is_refused(bodies: Dataset) -> None:
    state = PatchStream(patches(bodies), 4).state_dict()
    for other in (
        patches(bodies, seed=2),
        patches(bodies, splits=None),
        patches(bodies, labels=["liver"]),
        patches(bodies, foreground=0.1),
        PatchDataset(bodies, 9, seed=1, items=24),
    ):
        with pytest.raises(LearningError, match="changed"):
            PatchStream(other, 4).load_state_dict(state)
    with pytest.raises(LearningError, match="another size"):
        PatchStream(patches(bodies), 2).load_state_dict(state)


#: Reads items in a child it forks, then in a forked worker of a loader.
FORKING = """
import os, sys
from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets import PatchDataset, loader
from ctmr_core.store import Dataset
source = PatchDataset(Dataset.open(sys.argv[1]), 8)
child = os.fork()
if child == 0:
    try:
        source[0]
    except LearningError as error:
        print("child:", error.fix, flush=True)
        os._exit(0)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
try:
    next(iter(loader(source, 2, workers=1, start_method="fork")))
except LearningError as error:
    print("worker:", error)
"""


def test_a_forked_worker_is_told_to_be_spawned(bodies: Dataset) -> None:
    child, worker = run_fresh(FORKING, bodies.uri).split("worker:")
    assert "spawn" in child
    assert "forked process" in worker


@pytest.fixture(scope="module")
def alone(bodies: Dataset) -> list[list[str]]:
    """Digests of the batches of two epochs, read without workers."""
    batches = loader(patches(bodies), 4, workers=0)
    return [[_batch_digest(batch) for batch in batches] for _ in range(2)]


def _batch_digest(batch: dict) -> str:
    assert batch["image"].shape == (4, 1, 8, 8, 8)
    assert batch["image"].affine.shape == (4, 4, 4)
    return digest(batch)


@pytest.mark.parametrize("start_method", [pytest.param("spawn", marks=pytest.mark.slow), "forkserver"])
def test_batches_are_the_same_with_workers_that_stay_and_after_a_resume(
    bodies: Dataset, alone: list[list[str]], start_method: str
) -> None:
    batches = loader(patches(bodies), 4, workers=2, start_method=start_method)
    going = iter(batches)
    begun = [_batch_digest(next(going)) for _ in range(2)]
    state = batches.state_dict()
    assert (state["epoch"], state["batch"]) == (0, 2)
    assert begun + [_batch_digest(batch) for batch in going] == alone[0]
    assert [_batch_digest(batch) for batch in batches] == alone[1]
    batches.load_state_dict(state)
    assert [_batch_digest(batch) for batch in batches] == alone[0][2:]
    batches._iterator._shutdown_workers()


def test_leaving_an_epoch_early_goes_on_where_it_was_left(bodies: Dataset, alone: list[list[str]]) -> None:
    batches = loader(patches(bodies), 4, workers=0)
    for number, batch in enumerate(batches):
        assert _batch_digest(batch) == alone[0][number]
        if number == 2:
            break
    assert [_batch_digest(batch) for batch in batches] == alone[0][3:]
