"""The training flow in this process, on a real Prefect server, and on real ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
import torch
from prefect.client.schemas.sorting import FlowRunSort
from typer.testing import CliRunner

from ctmr_core.errors import LearningError
from ctmr_core.learning.training.loop import LAST, Report
from ctmr_core.store import Dataset
from ctmr_core.store.snapshots import create_snapshot
from pipelines.cli.main import app
from pipelines.flows.train_options import TrainOptions
from pipelines.flows.train_segmentation import run_train_segmentation
from tests.pipelines.training import SNAPSHOT, small_dataset, write_config

COMMAND = [sys.executable, "-c", "from pipelines.cli.main import main; main()", "train", "segmentation"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("training") / "dataset")


@pytest.fixture
def config(dataset: Dataset, tmp_path: Path) -> Path:
    return write_config(tmp_path / "tiny.yaml", dataset.uri)


def options(config: Path, folder: Path, **changes: Any) -> TrainOptions:
    return TrainOptions.model_validate({"config": str(config), "folder": str(folder), "threads": 1} | changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / LAST, weights_only=True)["weights"]["network"]
    return found


def test_sigterm_leaves_a_checkpoint_from_which_the_same_weights_are_reached(config: Path, tmp_path: Path) -> None:
    def terminate(report: Report) -> None:
        if report.kind == "train" and report.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    stopped = run_train_segmentation(options(config, tmp_path / "run"), terminate)
    assert (stopped.reason, stopped.complete) == ("stopped", False)
    assert 1 <= stopped.step < 4
    assert signal.getsignal(signal.SIGTERM) is before
    seen: list[Report] = []
    ended = run_train_segmentation(options(config, tmp_path / "run"), seen.append)
    trained = [report.step for report in seen if report.kind == "train"]
    assert (ended.reason, ended.step, trained[0]) == ("finished", 4, stopped.step + 1)
    calm = run_train_segmentation(options(config, tmp_path / "calm"))
    assert all(torch.equal(value, weights(tmp_path / "calm")[name]) for name, value in weights(tmp_path / "run").items())
    assert ended.scores == calm.scores
    assert [row["class"] for row in ended.table] == ["liver", "spleen"]
    with pytest.raises(LearningError, match="there is a training in this folder"):
        run_train_segmentation(options(config, tmp_path / "run", resume=False))


def test_the_newest_snapshot_takes_the_place_of_the_growing_dataset(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "dataset")
    config = write_config(tmp_path / "tiny.yaml", dataset.uri)
    outcome = run_train_segmentation(options(config, tmp_path / "run", snapshot="newest", steps=1))
    assert outcome.snapshots == {dataset.uri: SNAPSHOT}
    checkpoint = torch.load(tmp_path / "run" / LAST, weights_only=True)
    assert [source["snapshot"] for source in checkpoint["records"]["config"]["sources"]] == [SNAPSHOT]
    create_snapshot(dataset, "second", cases=list(dataset)[:5])
    with pytest.raises(LearningError, match="belongs to another training"):
        run_train_segmentation(options(config, tmp_path / "run", snapshot="newest", steps=2))
    with pytest.raises(LearningError, match="nothing of the configuration trains on the snapshot"):
        run_train_segmentation(options(config, tmp_path / "other", snapshot=SNAPSHOT, dataset=str(tmp_path / "elsewhere")))


def test_relative_paths_start_from_the_base(dataset: Dataset, tmp_path: Path) -> None:
    place = Path(dataset.uri)
    config = write_config(tmp_path / "relative.yaml", place.name)
    here = Path.cwd()
    outcome = run_train_segmentation(options(config, tmp_path / "run", base=str(place.parent), steps=1))
    assert (outcome.step, Path.cwd()) == (1, here)


def test_the_command_prints_the_outcome_as_json_or_as_a_table(config: Path, tmp_path: Path) -> None:
    arguments = ["train", "segmentation", str(config), "--out", str(tmp_path / "run"), "--threads", "1", "--snapshot", "newest"]
    first = CliRunner().invoke(app, [*arguments, "--steps", "2", "--json"])
    assert first.exit_code == 0, first.output
    assert (json.loads(first.stdout)["step"], json.loads(first.stdout)["reason"]) == (2, "finished")
    second = CliRunner().invoke(app, arguments)
    assert second.exit_code == 0, second.output
    assert "step 4/4" in second.stdout
    assert "HD95" in second.stdout
    assert "liver" in second.stdout
    wrong = CliRunner().invoke(app, [*arguments, "--local", "--workers", "2"])
    assert wrong.exit_code == 2
    uneven = CliRunner().invoke(app, [*arguments, "--workers", "3"])
    assert uneven.exit_code == 1
    assert "a multiple of 3" in uneven.output


#: The command with a wrong configuration, and what it had imported by then.
TOO_LATE = """
import sys
from pipelines.cli.main import main
try:
    main()
finally:
    print([name for name in ("monai", "prefect", "ray") if name in sys.modules])
"""


def test_a_wrong_configuration_is_told_before_frameworks_are_imported(config: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text().replace("liver", "livver"))
    asked = [sys.executable, "-c", TOO_LATE, "train", "segmentation", str(config), "--out", str(tmp_path / "run")]
    told = subprocess.run(asked, capture_output=True, text=True, timeout=300, check=False)
    assert told.returncode == 1
    assert "livver" in told.stderr
    assert told.stdout.strip() == "[]"


def test_a_run_folder_is_scored_again_and_used_on_scans(config: Path, tmp_path: Path) -> None:
    trained = run_train_segmentation(options(config, tmp_path / "run", steps=2))
    scored = CliRunner().invoke(app, ["train", "validate", str(tmp_path / "run"), "--last", "--json"])
    assert scored.exit_code == 0, scored.output
    assert [row["dice_mean"] for row in json.loads(scored.stdout)] == [row["dice_mean"] for row in trained.table]
    voxels = np.random.default_rng(0).normal(0, 300, (30, 34, 20)).astype(np.int16)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(voxels, np.diag([1.5, 1.5, 3, 1])), tmp_path / folder / "ct.nii.gz")
    scans = [str(tmp_path / folder / "ct.nii.gz") for folder in ("a", "b")]
    done = CliRunner().invoke(app, ["segment", str(tmp_path / "run"), *scans, "--out", str(tmp_path / "labels"), "--json"])
    assert done.exit_code == 0, done.output
    files = json.loads(done.stdout)["files"]
    assert [Path(file).name for file in files] == ["a-ct.nii.gz", "b-ct.nii.gz"]
    labels = np.asarray(nib.load(files[0]).dataobj)
    assert labels.shape == voxels.shape
    assert set(np.unique(labels)) <= {0, 1, 2}


@pytest.fixture(scope="module")
def prefect() -> Iterator[Any]:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from pipelines.flows.environment import PrefectServer

    server = PrefectServer()
    with temporary_settings({PREFECT_API_URL: server.url}), get_client(sync_client=True) as client:
        yield client
    server.stop()


@pytest.mark.slow
def test_a_configured_server_sees_the_run_its_progress_and_its_scores(prefect: Any, config: Path, tmp_path: Path) -> None:
    outcome = run_train_segmentation(options(config, tmp_path / "run"))
    assert outcome.tracking_lost == ""
    runs = prefect.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=10)
    (run,) = [run for run in runs if run.name == str(tmp_path / "run")]
    assert run.state_name == "Completed"
    artifacts = prefect.request("POST", "/artifacts/filter", json={}).json()
    mine = {artifact["type"]: artifact["data"] for artifact in artifacts if artifact["flow_run_id"] == str(run.id)}
    assert mine["progress"] == 100.0
    assert "| val | liver |" in mine["markdown"]


@pytest.mark.slow
def test_two_ranks_train_as_one_and_a_killed_one_is_made_up_for(dataset: Dataset, tmp_path: Path) -> None:
    """One rank of Ray gives the bytes of this process, two ranks give its weights, whatever is killed."""
    config = write_config(tmp_path / "tiny.yaml", dataset.uri, steps=8)
    calm = run_train_segmentation(options(config, tmp_path / "calm"))
    killed: list[int] = []

    def kill_one(report: Report) -> None:
        if report.kind == "checkpoint" and report.step == 3 and not killed:
            ranks = [one for one in psutil.process_iter(["name"]) if "RayTrainWorker" in one.info["name"] and _is_mine(one)]
            os.kill(ranks[-1].pid, signal.SIGKILL)
            killed.append(ranks[-1].pid)

    from pipelines.factory.cluster import ray_cluster

    with ray_cluster(None, cpus=2):
        one = run_train_segmentation(options(config, tmp_path / "one", address="auto"))
        two = run_train_segmentation(options(config, tmp_path / "two", workers=2), kill_one)
    assert killed
    assert (calm.step, one.step, two.step) == (8, 8, 8)
    expected = weights(tmp_path / "calm")
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "one").items())
    for name, value in weights(tmp_path / "two").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)
    assert two.scores == pytest.approx(calm.scores, abs=1e-3)
    assert [path.name for path in (tmp_path / "two").glob(".*")] == [".lock"]  # no half-written file


def _is_mine(process: psutil.Process) -> bool:
    return os.getpid() in [parent.pid for parent in process.parents()]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_to_the_command_ends_it_with_a_checkpoint(workers: int, dataset: Dataset, tmp_path: Path) -> None:
    config = write_config(tmp_path / "tiny.yaml", dataset.uri, steps=100_000, validate_every=0)
    command = [*COMMAND, str(config), "--out", str(tmp_path / "run"), "--workers", str(workers), "--threads", "1", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (tmp_path / "run" / LAST).exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    stopped = json.loads(printed)
    assert stopped["reason"] == "stopped"
    assert torch.load(tmp_path / "run" / LAST, weights_only=True)["step"] == stopped["step"] > 0
    assert not psutil.wait_procs(started, timeout=120)[1]
    more = run_train_segmentation(options(config, tmp_path / "run", steps=stopped["step"] + 1))
    assert more.step == stopped["step"] + 1
