"""MAISI engines in the factory, on a real Ray cluster and Prefect server: paired CT and unlabelled MR, of shrunken networks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ctmr_core.cases.case import Case
from ctmr_core.cases.planner import plan
from ctmr_core.cases.recipe import parse_recipe
from ctmr_core.engines import body_digest, engine_identity, load_engine
from ctmr_core.engines.bodies import label_map_of
from ctmr_core.errors import RecipeError
from ctmr_core.quality.hu_median import GROUPS
from ctmr_core.quality.registry import check_names
from ctmr_core.store import Dataset, verify
from pipelines.factory.replay import replay
from pipelines.flows.admission import Examiner
from pipelines.flows.generate_dataset import run_generate_dataset
from tests.engines.maisi.bodies_folder import write_models
from tests.engines.maisi.checkpoints import shrink, write_checkpoints
from tests.engines.maisi.conftest import golden  # noqa: F401 - a fixture
from tests.pipelines.conftest import Write, options

SIZES = [0.5, 0.5, 0.4, 0.3, 0.4, -1, -1, -1, -1, -1]
QUICK = {"limits": "off", "steps": 1}
BANK = {**QUICK, "bank_splits": {"train": 1.0}}
#: The networks make noise, which no check of anatomy or contrast lets pass.
NOISE = {name: False for name in check_names() if name not in ("labels", "geometry", "finite")}
OUT_OF_REACH = {f"{group}_low": 1001 for group in GROUPS["maisi"]} | {f"{group}_high": 1002 for group in GROUPS["maisi"]}


@pytest.fixture(scope="module")
def models(golden, tmp_path_factory) -> Iterator[Path]:  # noqa: F811
    """A models folder that processes of the cluster find, too: it is named before the cluster is started."""
    root = write_models(golden, tmp_path_factory.mktemp("models"))
    config = shrink(golden.network("rflow"))
    write_checkpoints(root, "rflow-mr-brain", config, netseed=200)
    (root / "network_rflow-mr-brain.json").write_text(json.dumps(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTMR_MODELS", str(root))
        engine_identity.cache_clear()
        body_digest.cache_clear()
        yield root
    engine_identity.cache_clear()
    body_digest.cache_clear()


@pytest.fixture(scope="module")
def maisi_cluster(models: Path, cluster: None) -> None:
    """The cluster, started after the models folder was named."""


def ct(name: str, body: str, **fields: object) -> Case:
    mask = body == "generated:mask"
    given: dict[str, object] = {
        "case_id": name,
        "body": body,
        "sequences": ("ct",),
        "size": (32, 32, 32),
        "spacing": (1.5, 1.5, 1.5) if mask else (2.0, 2.0, 2.0),
        "engine": "rflow-ct",
        "engine_parameters": {**QUICK, "anatomy_sizes": SIZES, "mask_steps": 1} if mask else BANK,
        "checks": NOISE,
    }
    return Case.model_validate(given | fields)


def judged_once_too_strictly() -> Case:
    """A body of the bank whose first attempt shows an organ largely enough to be judged, and whose second does not."""
    engine = load_engine("rflow-ct")
    for seed in range(20):
        case = ct("second", "generated:bank", body_seed=seed, max_attempts=2)
        largest = []
        for attempt in (0, 1):
            label_map, _ = label_map_of(case, None, engine, attempt)
            counts = np.bincount(label_map.voxels.ravel(), minlength=256)
            largest.append(max(int(counts[list(labels)].sum()) for labels in GROUPS["maisi"].values()))
        if largest[0] > largest[1]:
            checks = {**NOISE, "hu_median": {**OUT_OF_REACH, "voxels": largest[0]}}
            return case.model_copy(update={"checks": checks})
    raise AssertionError("all bodies of the bank are alike")


@pytest.mark.usefixtures("maisi_cluster")
def test_paired_ct_and_unlabelled_mr_are_made_checked_and_committed(write_manifest: Write, tmp_path: Path) -> None:
    hopeless = {**NOISE, "hu_median": OUT_OF_REACH}
    brain = ct("brain", "unlabelled:head", engine="rflow-mr-brain", sequences=("mri_t1", "mri_flair", "mri_swi"))
    cases = [
        ct("drawn", "generated:mask", body_seed=1),
        ct("banked", "generated:bank", body_seed=2),
        judged_once_too_strictly(),
        ct("hopeless", "generated:bank", body_seed=3, max_attempts=2, checks=hopeless),
        brain.model_copy(update={"engine_parameters": QUICK}),
    ]
    manifest = write_manifest(cases)
    summary = run_generate_dataset(options(manifest, tmp_path / "out", unit_size=2))
    dataset = Dataset.open(tmp_path / "out")
    rows = {row["case_id"]: row for row in dataset.ledger.to_table().to_pylist()}
    accepted = {name: row["attempt"] for name, row in rows.items() if row["status"] == "accepted"}
    assert accepted == {"drawn": 0, "banked": 0, "second": 1, "brain": 0}, [row["reasons"] for row in rows.values()]
    assert (summary.planned, summary.accepted, summary.rejected, summary.failed) == (5, 4, 1, 0)
    assert (rows["hopeless"]["status"], rows["hopeless"]["attempt"]) == ("rejected", 1)
    assert any("hu_median: ct: the median of" in reason for reason in rows["hopeless"]["reasons"])
    assert any(name.startswith("hu_median") for name, _ in rows["hopeless"]["scores"])
    for name, row in rows.items():
        assert row["licences"] == ["NVIDIA Open Model License"]
        assert len(row["weights_digest"]) == 64
        assert row["engine_identity"].endswith(row["weights_digest"])
        assert (len(row["template_digest"]) == 64) == row["body"].startswith("generated:"), name
    assert rows["drawn"]["weights_digest"] != rows["brain"]["weights_digest"]
    made = json.loads(rows["banked"]["image_parameters"])
    assert made["body"]["path"].startswith("set/healthy")
    assert made["images"]["ct"]["labels"] == "conditioned on"
    drawn = dataset["drawn"]
    assert (np.asarray(drawn.images["ct"])[np.asarray(drawn.labels) == 0] == -1000).all()
    contrasts = [np.asarray(dataset["brain"].images[name]) for name in brain.sequences]
    assert not np.array_equal(contrasts[0], contrasts[1])

    run_generate_dataset(options(manifest, tmp_path / "again", workers=1))
    digests = [verify(Dataset.open(tmp_path / name)) for name in ("out", "again")]
    assert not digests[0].problems
    assert digests[0].digest == digests[1].digest
    assert replay(dataset, "second", None).identical


def recipe(**group: object) -> dict:
    fields = {"name": "pairs", "cases": 4, "sequences": ["ct"], "size": [32, 32, 32], "spacing": [2.0, 2.0, 2.0]}
    return {"name": "r", "groups": [{**fields, "engine": "rflow-ct", **group}]}


def test_a_recipe_asks_for_organs_of_drawn_sizes(models: Path) -> None:
    sizes = {"liver": {"uniform": [0.2, 0.9]}, "hepatic tumor": {"choose": [-1, 0.3]}}
    (models / "datasets" / "all_anatomy_size_conditions.json").write_text(json.dumps([{"organ_size": SIZES}]))
    group = {"bodies": {"generated": "mask"}, "engine_parameters": {**QUICK, "anatomy_sizes": sizes}}
    cases = list(plan(parse_recipe(recipe(**group)), validators=(Examiner(None).examine,)).iter_cases())
    livers = {case.engine_parameters["anatomy_sizes"]["liver"] for case in cases}
    assert len(livers) == len({case.body_identity for case in cases}) == 4
    (models / "datasets" / "all_anatomy_size_conditions.json").unlink()


def test_a_recipe_for_what_the_bank_lacks_is_refused_before_any_work(models: Path) -> None:
    group = {"bodies": {"generated": "bank"}, "engine_parameters": {**BANK, "anatomy": ["brain"]}}
    with pytest.raises(RecipeError, match="no label map of the bank fits"):
        plan(parse_recipe(recipe(**group)), validators=(Examiner(None).examine,))
    with pytest.raises(RecipeError, match="does not make this body"):
        plan(parse_recipe(recipe(bodies={"generated": "atlas"})), validators=(Examiner(None).examine,))
