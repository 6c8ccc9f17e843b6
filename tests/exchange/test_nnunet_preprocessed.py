"""nnU-Net's preprocessed format: equal to what its own preprocessor makes of the raw export, and read by its own loader."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctmr_core.errors import ExchangeError
from ctmr_core.exchange import export, load_exporter
from ctmr_core.exchange.nnunet_preprocessed.files import block_and_chunk
from ctmr_core.exchange.nnunet_preprocessed.plans import topology
from ctmr_core.exchange.nnunet_preprocessed.preprocessing import nonzero_region, resample_image, resample_labels
from ctmr_core.store import Dataset, create_snapshot, seal
from tests.exchange.exchange_maker import (
    BODY,
    commit_case,
    exchange_case,
    image_voxels,
    label_voxels,
    manifest_of,
    oblique_affine,
)
from tests.exchange.test_driver import contents

NAME = "Dataset005_Night"
SETTINGS = {"id": 5, "name": "Night", "patch": "16,16,16"}
#: Spacing and size of the cases: one of them is resampled to the median of the others.
GRIDS = [((1.5, 2.0, 3.0), (20, 24, 18)), ((1.0, 1.0, 1.5), (40, 36, 30))]
#: Slices so thick that they are resampled one by one, and along x, so that the plans transpose the axes.
THICK = [((6.0, 1.0, 1.25), (17, 60, 56)), ((7.0, 1.5, 1.25), (20, 56, 52))]


def made(folder: Path, grids: list[Any], sequences: tuple[str, ...], empty_border: bool = False) -> Dataset:
    """Four cases, of the grids in turn; ``empty_border``: zeros around the body, as after skull stripping."""
    splits = ("train", "train", "val", "test")
    cases = [
        exchange_case(i, sequences=sequences, split=split, spacing=grids[i % 2][0], size=grids[i % 2][1])
        for i, split in enumerate(splits)
    ]
    dataset = Dataset.create(folder, manifest_of(cases))
    for case in cases:
        affine = oblique_affine()
        affine[:3, :3] = affine[:3, :3] / (1.5, 2.0, 3.0) * case.spacing
        images = image_voxels(case)
        if empty_border:
            body = label_voxels(size=case.size) > 0
            body[:, : case.size[1] // 2] = False
            images = {name: np.where(body, image + 1, 0).astype(np.int16) for name, image in images.items()}
        commit_case(dataset, case, affine=affine, images=images)
    seal(dataset.storage, "unit", [(case.case_id, case.key) for case in cases])
    dataset.refresh()
    return dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made(tmp_path_factory.mktemp("nnunet") / "set", GRIDS, ("ct", "mri_t1"))


@pytest.fixture(scope="module")
def exported(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("preprocessed")
    assert export(dataset, load_exporter("nnunet-preprocessed", SETTINGS), out).cases == 3
    return out


class PlainUnpickler(pickle.Unpickler):
    """Refuses everything that has to be imported."""

    def find_class(self, module: str, name: str) -> Any:
        raise AssertionError(f"{module}.{name}")


def read_case(root: Path, case_id: str) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    import blosc2

    place = root / "nnUNetPlans_3d_fullres"
    data, labels = (blosc2.open(str(place / f"{case_id}{end}.b2nd"), mode="r")[...] for end in ("", "_seg"))
    return data, labels, PlainUnpickler(io.BytesIO((place / f"{case_id}.pkl").read_bytes())).load()


def test_cases_are_normalised_and_say_where_their_labels_are(exported: Path, dataset: Dataset) -> None:
    root = exported / NAME
    plans = json.loads((root / "nnUNetPlans.json").read_text())
    known = plans["foreground_intensity_properties_per_channel"]["0"]
    data, labels, properties = read_case(root, "case-0000")
    assert (data.dtype, data.shape, labels.dtype, labels.shape) == (np.float32, (2, 18, 24, 20), np.int16, (1, 18, 24, 20))
    ct, mr = (np.asarray(dataset["case-0000"].images[name]).T.astype(np.float64) for name in ("ct", "mri_t1"))
    clipped = np.clip(ct, known["percentile_00_5"], known["percentile_99_5"])
    assert np.allclose(data[0], (clipped - known["mean"]) / known["std"], atol=1e-4)
    assert np.allclose(data[1], (mr - mr.mean()) / mr.std(), atol=1e-4)
    true = np.asarray(dataset["case-0000"].labels).T
    assert np.array_equal(labels[0] == 4, true == BODY)
    assert {label: len(places) for label, places in properties["class_locations"].items()} == {1: 462, 2: 72, 3: 18, 4: 1000}
    for label, places in properties["class_locations"].items():
        assert all(labels[place] == label for place in places)
        assert len(set(places)) == len(places)
    assert properties["bbox_used_for_cropping"] == [[0, 18], [0, 24], [0, 20]]


def test_test_cases_stay_out_and_folds_are_the_dataset_s(exported: Path) -> None:
    root = exported / NAME
    names = sorted(path.name for path in (root / "gt_segmentations").iterdir())
    assert names == [f"case-000{i}.nii.gz" for i in range(3)]
    assert len(list((root / "nnUNetPlans_3d_fullres").iterdir())) == 9
    assert json.loads((root / "splits_final.json").read_text()) == [{"train": ["case-0000", "case-0001"], "val": ["case-0002"]}]
    assert json.loads((root / "dataset.json").read_text())["numTraining"] == 3


def test_the_same_again_and_only_what_is_missing(exported: Path, dataset: Dataset, tmp_path: Path) -> None:
    exporter = load_exporter("nnunet-preprocessed", SETTINGS)
    export(dataset, exporter, tmp_path)
    assert contents(tmp_path) == contents(exported)
    (tmp_path / NAME / "nnUNetPlans_3d_fullres/case-0001_seg.b2nd").unlink()
    assert export(dataset, exporter, tmp_path).written == 1
    assert contents(tmp_path) == contents(exported)


def test_a_snapshot_is_planned_from_its_own_cases(exported: Path, tmp_path: Path) -> None:
    dataset = made(tmp_path / "set", GRIDS, ("ct", "mri_t1"))
    create_snapshot(dataset, "night-1")
    late = exchange_case(9, case_id="late", sequences=("ct", "mri_t1"), size=(64, 64, 64))
    dataset.adopt(manifest_of([late]))
    commit_case(dataset, late)
    seal(dataset.storage, "late", [(late.case_id, late.key)])
    assert "late" in Dataset.open(dataset.uri)
    export(Dataset.open(dataset.uri, "night-1"), load_exporter("nnunet-preprocessed", SETTINGS), tmp_path / "out")
    for name in ("nnUNetPlans.json", "dataset_fingerprint.json", "nnUNetPlans_3d_fullres/case-0001.b2nd"):
        assert (tmp_path / "out" / NAME / name).read_bytes() == (exported / NAME / name).read_bytes()


def test_plans_of_another_export_are_kept_and_what_they_can_not_be_is_refused(
    exported: Path, dataset: Dataset, tmp_path: Path
) -> None:
    path = exported / NAME / "nnUNetPlans.json"
    export(dataset, load_exporter("nnunet-preprocessed", {"id": 6, "name": "More", "plans": str(path)}), tmp_path / "more")
    plans, first = (json.loads(one.read_text()) for one in (tmp_path / "more/Dataset006_More/nnUNetPlans.json", path))
    assert plans == {**first, "dataset_name": "Dataset006_More"}
    changed = tmp_path / "plans.json"

    def refused(match: str, **settings: object) -> None:
        with pytest.raises(ExchangeError, match=match):
            export(dataset, load_exporter("nnunet-preprocessed", {"plans": str(changed), **settings}), tmp_path / "none")

    for key, value in (("preprocessor_name", "MyPreprocessor"), ("patch_size", [256, 256])):
        other = json.loads(path.read_text())
        other["configurations"]["3d_fullres"][key] = value
        changed.write_text(json.dumps(other))
        refused(key)
    changed.write_text(path.read_text())
    refused("no such configuration", configuration="3d_lowres")
    refused("patch is in the plans", patch="32,32,32")
    changed.write_text("{}")
    refused("not the plans")
    del first["foreground_intensity_properties_per_channel"]["1"]
    changed.write_text(json.dumps(first))
    refused("another number of channels")


def test_stages_of_the_network() -> None:
    strides, kernels = topology([128, 128, 128], [1.0, 1.0, 1.0])
    assert strides == [[1, 1, 1]] + 5 * [[2, 2, 2]]
    assert kernels == 6 * [[3, 3, 3]]
    strides, kernels = topology([20, 256, 224], [5.0, 1.5625, 1.5625])  # the plan published for ACDC
    assert strides == [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]]
    assert kernels == [[1, 3, 3]] + 5 * [[3, 3, 3]]


def test_blocks_and_chunks_keep_to_their_limits() -> None:
    assert block_and_chunk((1, 256, 256, 256), (96, 96, 96), 4) == ((1, 32, 32, 32), (1, 96, 128, 128))
    for shape in ((2, 18, 24, 20), (1, 7, 512, 512), (3, 1, 1, 1)):
        block, chunk = block_and_chunk(shape, (128, 128, 128), 4)
        assert all(1 <= b <= c <= n for b, c, n in zip(block, chunk, shape, strict=True))
        assert np.prod(block) * 4 <= 128 * 1024
        assert np.prod(chunk) * 4 <= 6 * 1024**2


def test_labels_stay_whole_when_resampled() -> None:
    labels = label_voxels().T.astype(np.int16)
    for thick in (None, 0):
        larger = resample_labels(labels, (36, 48, 40), 1, thick)
        assert set(np.unique(larger)) == set(np.unique(labels))
        assert np.isclose((larger == BODY).sum() / (labels == BODY).sum(), 8, rtol=0.05)
    assert np.array_equal(resample_labels(np.repeat(labels, 2, axis=0), labels.shape, 1, 0), labels)
    ramp = np.broadcast_to(np.arange(24, dtype=np.float32)[None, :, None], (18, 24, 20))
    finer = resample_image(np.ascontiguousarray(ramp), (18, 48, 20), 3, None)
    assert np.allclose(finer[3, 8:-8, 5], np.arange(48)[8:-8] / 2 - 0.25, atol=1e-2)


def test_holes_are_not_outside() -> None:
    image = np.zeros((1, 12, 12, 12), np.int16)
    image[0, 3:9, 3:9, 3:9] = 5
    image[0, 5:7, 5:7, 5:7] = 0
    assert np.array_equal(nonzero_region(image), np.pad(np.ones((6, 6, 6), bool), 3))
    image[0, :6, 5:7, 5:7] = 0  # now the hole is open
    assert nonzero_region(image).sum() == 6**3 - 4 * 4


@pytest.fixture
def nnunet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders as nnU-Net wants them."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return tmp_path


@pytest.mark.parametrize("kind", ["grids", "thick slices", "empty border", "regions"])
def test_equal_to_nnunet_s_own_preprocessing(nnunet: Path, kind: str) -> None:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    sequences = ("mri_t1",) if kind == "empty border" else ("ct", "mri_t1")
    dataset = made(nnunet / "set", THICK if kind == "thick slices" else GRIDS, sequences, kind == "empty border")
    settings: dict[str, object] = {"id": 5, "name": "Night"}
    if kind == "regions":
        (nnunet / "regions.yaml").write_text("whole: [liver, hepatic tumor]\ntumor: [hepatic tumor]\n")
        settings["regions"] = str(nnunet / "regions.yaml")
    export(dataset, load_exporter("nnunet", settings), nnunet / "raw")
    export(dataset, load_exporter("nnunet-preprocessed", {**settings, "patch": "16,16,16"}), nnunet / "preprocessed")
    raw, root = nnunet / "raw" / NAME, nnunet / "preprocessed" / NAME
    plans = PlansManager(str(root / "nnUNetPlans.json"))
    configuration = plans.get_configuration("3d_fullres")
    document = json.loads((root / "dataset.json").read_text())
    folder = root / configuration.data_identifier
    assert infer_dataset_class(str(folder)) is nnUNetDatasetBlosc2
    cases = nnUNetDatasetBlosc2(str(folder))
    assert cases.identifiers == ["case-0000", "case-0001", "case-0002"]
    if kind == "thick slices":
        assert plans.transpose_forward == [2, 0, 1]
    if kind == "empty border":
        assert configuration.use_mask_for_norm == [True]
    for case_id in cases.identifiers:
        data, labels, _, properties = cases.load_case(case_id)
        images = [str(raw / f"imagesTr/{case_id}_000{channel}.nii.gz") for channel in range(len(sequences))]
        made_by_nnunet = DefaultPreprocessor(verbose=False).run_case(
            images, str(raw / f"labelsTr/{case_id}.nii.gz"), plans, configuration, document
        )
        assert np.allclose(data[...], made_by_nnunet[0], atol=1e-4)
        assert np.array_equal(labels[...], made_by_nnunet[1])
        theirs = made_by_nnunet[2]
        for name in ("shape_before_cropping", "bbox_used_for_cropping", "shape_after_cropping_and_before_resampling"):
            assert np.array_equal(properties[name], theirs[name])
        for name in ("spacing", "origin", "direction"):
            assert np.allclose(properties["sitk_stuff"][name], theirs["sitk_stuff"][name], atol=1e-5)
        assert np.allclose(properties["spacing"], theirs["spacing"])
        assert properties["class_locations"].keys() == theirs["class_locations"].keys()
        counts = {key: min(len(places), 1000) for key, places in theirs["class_locations"].items()}
        assert {key: len(places) for key, places in properties["class_locations"].items()} == counts
    batch = next(
        nnUNetDataLoader(cases, 2, configuration.patch_size, configuration.patch_size, plans.get_label_manager(document), 0.5)
    )
    assert batch["data"].shape == (2, len(sequences), *configuration.patch_size)
    assert batch["target"].shape == (2, 1, *configuration.patch_size)
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        len(sequences),
        3,
        deep_supervision=False,
    )
    assert network(batch["data"]).shape == (2, 3, *configuration.patch_size)


def test_stages_are_those_nnunet_plans(nnunet: Path) -> None:
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    rng = np.random.default_rng(0)
    for _ in range(200):
        spacing, patch = rng.uniform(0.4, 6, 3).round(2).tolist(), rng.integers(8, 257, 3).tolist()
        _, strides, kernels, size, _ = get_pool_and_conv_props(spacing, patch, 4, 999999)
        ours = topology(patch, spacing)
        assert (tuple(map(tuple, ours[0])), tuple(map(tuple, ours[1]))) == (strides, kernels)
        multiple = np.prod(ours[0], axis=0)
        assert (np.ceil(np.array(patch) / multiple) * multiple).tolist() == list(size)
