"""A recipe's policy may name segmenters: they judge every attempt while cases are made, and are part of what a case is."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ctmr_core.assessment.judging import rejudge
from ctmr_core.assessment.targets import targets_of
from ctmr_core.cases.manifest import Manifest, read_manifest
from ctmr_core.cases.recipe import load_recipe
from ctmr_core.errors import CheckError, RecipeError
from ctmr_core.quality.policy import load_policy
from ctmr_core.store import Dataset
from pipelines.cli.main import app
from pipelines.factory.production import Workshop
from pipelines.factory.replay import replay
from pipelines.factory.work import ActorSettings, UnitReport, WorkUnit
from pipelines.flows.generate_dataset import run_generate_dataset
from pipelines.flows.policies import with_policy
from pipelines.flows.preparation import prepare
from tests.pipelines.conftest import options

RECIPE = """name: small
policy: agreeing.yaml
targets: {shares: {sequence: {ct: 1}}, numbers: {score/agreement/bones/ct/cortical bone: {low: 0.1}}}
max_attempts: 2
groups:
  - {name: a, cases: 1, bodies: {parametric: head}, sequences: [ct], size: [32, 32, 32], spacing: [6, 6, 6]}
  - {name: b, cases: 1, bodies: {parametric: head}, sequences: [ct], size: [32, 32, 32], spacing: [6, 6, 6],
     checks: {agreement: false}}
"""
POLICY = "policy: 1\nname: agreeing\nsegmenters: [{{name: bones, source: net.ts, mapping: {{1: cortical bone}}, dice: {dice}}}]\n"


class Bones(torch.nn.Module):
    """Above 150 HU: [1, 1, x, y, z] -> scores of one class."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (image > 150).float()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("network") / "net.ts"
    torch.jit.script(Bones()).save(str(path))
    return path.read_bytes()


def planned(folder: Path, network: bytes, dice: float) -> Path:
    (folder / "net.ts").write_bytes(network)
    (folder / "agreeing.yaml").write_text(POLICY.format(dice=dice))
    (folder / "small.yaml").write_text(RECIPE)
    result = CliRunner().invoke(app, ["plan", str(folder / "small.yaml"), "--out", str(folder / "m.parquet"), "--force"])
    assert result.exit_code == 0, result.output
    return folder / "m.parquet"


def made(manifest: Path, dataset: Path) -> UnitReport:
    with prepare(options(manifest, dataset)) as backlog:
        workshop = Workshop(ActorSettings(str(dataset), segmenters=backlog.segmenters))
        report = workshop.make_unit(WorkUnit(tuple(backlog.cases())), threading.Event())
        workshop.close()
        backlog.seal()
    return report


def test_what_agrees_is_accepted_with_its_dice_and_judged_again_without_a_voxel(tmp_path, network):
    manifest = planned(tmp_path, network, dice=0.1)
    assert [outcome.status for outcome in made(manifest, tmp_path / "out").outcomes] == ["accepted", "accepted"]
    dataset, policy = Dataset.open(tmp_path / "out"), load_policy(tmp_path / "agreeing.yaml")
    with_net, without = dataset.row("a-0000000"), dataset.row("b-0000000")
    assert 0.1 < with_net["scores"]["agreement/bones/ct/cortical bone"] <= 1
    assert with_net["policy_digest"] == policy.digest != without["policy_digest"]
    assert not any(name.startswith("agreement") for name in [*without["judged"], *without["scores"]])
    found = rejudge(dataset, policy)
    assert (found.kept, found.measured) == (2, 0)
    assert targets_of(dataset).shares == {"sequence": {"ct": 1.0}}
    assert replay(dataset, "a-0000000", None).accepted


def test_what_does_not_agree_is_made_again_and_rejected_with_its_reason(tmp_path, network):
    outcomes = made(planned(tmp_path, network, dice=0.999), tmp_path / "out").outcomes
    rejected, accepted = sorted(outcomes, key=lambda outcome: outcome.case_id)
    assert (rejected.status, rejected.attempts, accepted.status) == ("rejected", 2, "accepted")
    assert rejected.reason.startswith("agreement: bones finds cortical bone in ct with a Dice of 0.")


def test_another_network_or_limit_is_another_case_and_another_place_the_same(tmp_path, network):
    def keys(folder: str, network: bytes, dice: float) -> list[str]:
        (tmp_path / folder).mkdir()
        return read_manifest(planned(tmp_path / folder, network, dice)).case_keys()

    (a, b), (c, d), (e, f), (g, h) = (
        keys("one", network, 0.1), keys("two", network, 0.1), keys("limit", network, 0.2), keys("net", network + b" ", 0.1)
    )  # fmt: skip
    assert a == c
    assert len({a, e, g}) == 3
    assert b == d == f == h


def test_a_network_that_changed_or_is_gone_stops_the_run_before_a_case(tmp_path, network):
    manifest = planned(tmp_path, network, dice=0.1)
    (tmp_path / "net.ts").write_bytes(network + b" ")
    with pytest.raises(CheckError, match="not the one the policy names"):
        made(manifest, tmp_path / "out")
    (tmp_path / "net.ts").unlink()
    with pytest.raises(CheckError, match="the file of a segmenter is not here"):
        made(manifest, tmp_path / "out")
    with pytest.raises(RecipeError, match=r"small.yaml line 2, field policy[\s\S]*no such segmenter"):
        with_policy(load_recipe(tmp_path / "small.yaml"))


def test_cases_without_their_segmenters_are_refused(tmp_path, network):
    manifest = read_manifest(planned(tmp_path, network, dice=0.1))
    Manifest(manifest.table.replace_schema_metadata(None)).write(tmp_path / "bare.parquet")
    with pytest.raises(CheckError, match="segmenters that are not at hand"):
        made(tmp_path / "bare.parquet", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_actors_load_the_segmenters_and_judge_by_them(tmp_path, network):
    summary = run_generate_dataset(options(planned(tmp_path, network, dice=0.999), tmp_path / "out"))
    assert (summary.accepted, summary.rejected) == (1, 1)
