"""Runs on a real Ray cluster of several nodes that come and go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctmr_core.store import Dataset
from ctmr_core.store.runs import read_runs
from pipelines.factory.driver import Crew, Driver, FactoryError, Ledger
from pipelines.factory.nodes import Nodes
from pipelines.factory.slots import Need, Slot
from pipelines.factory.tally import Progress, Tally
from pipelines.factory.work import ActorSettings
from pipelines.flows.generate_dataset import run_generate_dataset
from tests.pipelines.blocks import blocks_case, digest_of, undisturbed_digest
from tests.pipelines.conftest import Write, options

CASES = 32
SECONDS = 0.4  # per case: long enough that nodes can come and go while they are made
PATIENCE = 120.0


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A cluster with a head that has no room for actors."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def add_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=80_000_000, include_dashboard=False)


def test_nodes_join_and_die_mid_run_and_the_dataset_is_the_undisturbed_one(
    nodes: Any, write_manifest: Write, tmp_path: Path
) -> None:
    manifest = write_manifest([blocks_case(i, SECONDS) for i in range(CASES)])
    first = add_node(nodes)
    steps: list[tuple[Callable[[Progress], bool], Callable[[], object]]] = [
        (lambda seen: seen.accepted >= 2, lambda: add_node(nodes)),
        (lambda seen: seen.nodes >= 2 and seen.accepted >= 6, lambda: nodes.remove_node(first, allow_graceful=False)),
    ]

    def disturb(progress: Progress) -> None:
        if steps and steps[0][0](progress):
            steps.pop(0)[1]()

    summary = run_generate_dataset(options(manifest, tmp_path / "out", address=nodes.address, workers=None), disturb)
    assert not steps
    assert (summary.accepted, summary.failed, summary.quarantined) == (CASES, 0, 0)
    assert (summary.nodes, summary.deaths >= 1) == (2, True)
    assert digest_of(tmp_path / "out") == undisturbed_digest(manifest, tmp_path / "calm")
    (record,) = read_runs(Dataset.open(tmp_path / "out").storage)
    assert (record.accepted, record.nodes, record.waves) == (CASES, 2, 1)
    assert sum(worker.cases for worker in record.fleet) <= CASES
    assert record.costs[0].engine == "blocks"
    assert 0 < record.efficiency <= 1


def test_actors_keep_away_from_nodes_that_were_refused(nodes: Any, tmp_path: Path) -> None:
    import ray

    ray.init(address=nodes.address)
    add_node(nodes), add_node(nodes)
    seen = Nodes(Need(cpus=1))
    deadline = time.monotonic() + PATIENCE
    while seen.room() < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    avoided, other = (node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU"))
    seen.refused[avoided] = "no such dataset"
    assert seen.room() == 1
    slot = Slot(0, ActorSettings(dataset=str(tmp_path / "missing")), Need(cpus=1))
    slot.spawn(avoid=seen.refused)
    while not slot.ready:
        assert time.monotonic() < deadline
        slot.poll()
        time.sleep(0.1)
    assert slot.place is not None
    assert slot.place.node_id == other
    assert "dataset can't be reached" in slot.place.refusal
    slot.kill()


def test_what_no_node_can_hold_is_refused_with_what_they_have(nodes: Any, tmp_path: Path) -> None:
    import ray

    ray.init(address=nodes.address)
    add_node(nodes)
    crew = Crew(1, ActorSettings(dataset=str(tmp_path)), gpus_per_worker=1.0, node_timeout=0.5)
    driver = Driver(crew, Ledger(lambda _: None, lambda *_: None), Tally(1, 0), lambda _: None)
    with pytest.raises(FactoryError, match=r"no node of the cluster has room[\s\S]*1 CPU, 0 GPU[\s\S]*1 CPU, 1 GPU"):
        driver.run([blocks_case(0)], 1)


def test_a_dataset_the_nodes_do_not_see_is_refused_before_any_case(nodes: Any, tmp_path: Path) -> None:
    import ray

    ray.init(address=nodes.address)
    add_node(nodes)
    Dataset.create(tmp_path / "theirs")
    crew = Crew(1, ActorSettings(dataset=str(tmp_path / "theirs"), lock_token="held by a run elsewhere"))
    driver = Driver(crew, Ledger(lambda _: None, lambda *_: None), Tally(1, 0), lambda _: None)
    with pytest.raises(FactoryError, match=r"has another dataset under this name[\s\S]*a shared file system or a bucket"):
        driver.run([blocks_case(0)], 1)
