"""A volume: what goes in comes out, anyone can open it, damage never reads as voxels."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.store import Volume, open_storage, write_volume
from ctmr_core.store.local import LocalStorage
from tests.store.store_maker import make_label_map

SIZE = (70, 33, 130)


def _store(folder: Path, size: tuple[int, int, int] = SIZE, **changes: object) -> tuple[LocalStorage, dict, LabelMap, object]:
    storage = open_storage(folder)
    label_map = make_label_map(size, seed=3, vocabulary=str(changes.pop("vocabulary", "maisi")), **changes)
    rng = np.random.default_rng(1)
    images = {
        "ct": rng.integers(-1024, 3071, size).astype(np.int16),
        "mri_t1": np.maximum(rng.normal(300, 200, size), 0).astype(np.int16),
    }
    stored = write_volume(storage, "volumes/00/v.a.ome.zarr", images=images, label_map=label_map, attributes={"case_id": "v"})
    return storage, images, label_map, stored


@settings(max_examples=12, deadline=None)
@given(
    size=st.tuples(*[st.integers(1, 140)] * 3).filter(lambda s: np.prod(s) < 600_000),
    vocabulary=st.sampled_from(["maisi", "brain"]),
    seed=st.integers(0, 2**32 - 1),
    fortran=st.booleans(),
    index=st.tuples(*[st.tuples(st.integers(-150, 150), st.integers(-150, 150), st.sampled_from([-3, -1, 1, 2]))] * 3),
)
def test_voxels_come_back_as_they_went_in(
    size: tuple[int, int, int], vocabulary: str, seed: int, fortran: bool, index: tuple
) -> None:
    label_map = make_label_map(size, seed, vocabulary)
    image = np.random.default_rng(seed).integers(-(2**15), 2**15, size).astype(np.int16)
    given_image = np.asfortranarray(image) if fortran else image
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(folder)
        stored = write_volume(storage, "volumes/00/v", images={"ct": given_image}, label_map=label_map, attributes={})
        volume = Volume(storage, "v", stored.path)
        assert np.array_equal(np.asarray(volume.images["ct"]), image)
        assert np.array_equal(np.asarray(volume.labels), label_map.voxels)
        assert volume.labels.dtype == label_map.vocabulary.dtype
        cut = tuple(slice(*part) for part in index)
        assert np.array_equal(volume.images["ct"][cut], image[cut])
        assert np.array_equal(volume.labels[..., -1], label_map.voxels[..., -1])


def test_a_slice_is_what_numpy_would_give(tmp_path: Path) -> None:
    storage, images, _, stored = _store(tmp_path)
    lazy, image = Volume(storage, "v", stored.path).images["ct"], images["ct"]
    for index in (
        np.s_[0],
        np.s_[-1, 5],
        np.s_[3:9, ..., 2],
        np.s_[::-1],
        np.s_[5:5],
        np.s_[:, -4:-1],
        np.s_[1, 2, 3],
        np.s_[69:10:-7],
    ):
        assert np.array_equal(lazy[index], image[index])
        assert np.shape(lazy[index]) == image[index].shape
    for wrong in (np.s_[70], np.s_[0, 0, -131], np.s_[0, 0, 0, 0], np.s_[..., 0, ...], np.array([1, 2]), None):
        with pytest.raises(IndexError):
            lazy[wrong]


def test_geometry_and_facts_come_back(tmp_path: Path) -> None:
    storage, _, label_map, stored = _store(tmp_path)
    volume = Volume(storage, "v", stored.path)
    assert volume.sequences == ("ct", "mri_t1")
    assert volume.spacing == (1.5, 1.5, 3.0)
    assert np.array_equal(volume.affine, label_map.affine)
    assert volume.vocabulary is label_map.vocabulary
    assert volume.attributes["case_id"] == "v"
    with pytest.raises(KeyError, match="ct, mri_t1"):
        volume.images["ct_contrast"]


@pytest.mark.parametrize("vocabulary", ["maisi", "brain"])
def test_ome_zarr_reads_volume_image_and_labels(tmp_path: Path, vocabulary: str) -> None:
    storage, images, label_map, stored = _store(tmp_path, vocabulary=vocabulary)
    url = str(storage.local_path(stored.path))
    whole, *beside = Reader(parse_url(url))()
    assert np.array_equal(np.asarray(whole.data[0]), images["ct"].T)
    assert whole.metadata["contrast_limits"] == [[-160, 240]]
    labels = next(node for node in beside if node.data)
    assert np.array_equal(np.asarray(labels.data[0]), label_map.voxels.T)
    known = next(label for label in label_map.vocabulary if label.side)
    assert labels.metadata["properties"][known.id]["name"] == known.name
    assert np.allclose(np.asarray(labels.metadata["color"][known.id][:3]) * 255, known.rgb)
    (ct,) = Reader(parse_url(f"{url}/ct"))()
    assert ct.metadata["contrast_limits"] == [[-160, 240]]
    (t1,) = Reader(parse_url(f"{url}/mri_t1"))()
    ((low, high),) = t1.metadata["contrast_limits"]
    assert 0 < low < 300 < high < images["mri_t1"].max()


def test_the_metadata_is_valid_ome_zarr_and_tells_orientation_and_place(tmp_path: Path) -> None:
    storage, _, _, stored = _store(tmp_path)
    group = zarr.open_group(str(storage.local_path(stored.path)), mode="r")
    assert Image.from_zarr(group).attributes.ome.multiscales[0].name == "ct"
    assert ImageLabel.from_zarr(group["labels/maisi"]).attributes.ome.image_label is not None
    (multiscale,) = Image.from_zarr(group["ct"]).attributes.ome.multiscales
    assert [(axis.name, axis.unit) for axis in multiscale.axes] == [(name, "millimeter") for name in "zyx"]
    document = json.loads((storage.local_path(stored.path) / "ct" / "zarr.json").read_text())
    axes = document["attributes"]["ome"]["multiscales"][0]["axes"]
    assert [axis["orientation"]["value"] for axis in axes] == ["inferior-to-superior", "posterior-to-anterior", "left-to-right"]
    scale, translation = multiscale.datasets[0].coordinateTransformations
    assert list(scale.scale) == [3.0, 1.5, 1.5]
    assert list(translation.translation) == [-30.5, 20.0, -10.0]


def test_zarr_opens_it_and_finds_the_codecs_it_was_promised(tmp_path: Path) -> None:
    storage, images, label_map, stored = _store(tmp_path)
    group = zarr.open_group(str(storage.local_path(stored.path)), mode="r")
    assert np.array_equal(group["mri_t1/0"][...], images["mri_t1"].T)
    assert np.array_equal(group["labels/maisi/0"][...], label_map.voxels.T)
    assert group["ct/0"].fill_value == -1024
    assert group["mri_t1/0"].fill_value == 0
    for path, level, shuffle, size in (("ct/0", 1, "shuffle", 2), ("labels/maisi/0", 3, "noshuffle", 1)):
        (sharding,) = json.loads((storage.local_path(stored.path) / path / "zarr.json").read_text())["codecs"]
        assert sharding["configuration"]["chunk_shape"] == [64, 33, 64]
        assert sharding["configuration"]["index_location"] == "end"
        _, blosc, crc = sharding["configuration"]["codecs"]
        assert blosc["configuration"] == {
            "cname": "zstd", "clevel": level, "shuffle": shuffle, "typesize": size, "blocksize": 64 * 33 * 64 * size,
        }  # fmt: skip
        assert crc["name"] == "crc32c"


def test_nifti_header_holds_an_oblique_affine(tmp_path: Path) -> None:
    turn = nib.eulerangles.euler2mat(0.1, 0.2, -0.05) @ np.diag([1.0, 1.2, 2.0])
    affine = nib.affines.from_matvec(turn, (-5, 7, 11))
    storage, images, _, stored = _store(tmp_path, affine=affine)
    group = zarr.open_group(str(storage.local_path(stored.path)), mode="r")
    header = nib.Nifti1Header(group["ct/nifti"][...].tobytes())
    assert header.get_data_shape() == images["ct"].shape
    assert header.get_data_dtype() == np.int16
    assert np.allclose(header.get_best_affine(), affine, atol=1e-4)
    assert np.allclose(header.get_qform(), affine, atol=1e-4)


def test_one_shard_up_to_256_and_several_above(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    for n, shards in ((200, 1), (300, 2)):
        label_map = make_label_map((n, 8, 8))
        stored = write_volume(storage, f"v{n}", images={}, label_map=label_map, attributes={})
        assert sum("/c." in entry.name for entry in stored.objects) == shards
        assert np.array_equal(np.asarray(Volume(storage, "v", f"v{n}").labels), label_map.voxels)


@pytest.mark.parametrize("separator", ["/", "."])
def test_volumes_of_the_first_releases_are_read_as_those_of_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: str
) -> None:
    monkeypatch.setattr("ctmr_core.store.volumes.SEPARATOR", separator)
    storage, images, label_map, stored = _store(tmp_path)
    shards = {f"ct/0/c{separator}0{separator}0{separator}0", f"ct/nifti/c{separator}0"}
    assert shards <= {entry.name for entry in stored.objects}
    monkeypatch.undo()
    volume = Volume(storage, "v", stored.path)
    assert np.array_equal(np.asarray(volume.images["ct"]), images["ct"])
    assert np.array_equal(volume.labels[3:7, ::-1, 2], label_map.voxels[3:7, ::-1, 2])
    group = zarr.open_group(str(storage.local_path(stored.path)), mode="r")
    assert np.array_equal(group["mri_t1/0"][...], images["mri_t1"].T)


def test_the_same_voxels_are_the_same_bytes_for_any_number_of_threads(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    label_map = make_label_map(SIZE)
    images = {"ct": np.random.default_rng(0).integers(-1024, 2000, SIZE).astype(np.int16)}
    one, two, other = (
        write_volume(storage, f"v{i}", images=images, label_map=label_map, attributes={"case_id": "x"}, threads=threads)
        for i, threads in enumerate((1, 4, 1))
    )
    assert one.objects == two.objects == other.objects
    assert one.voxel_digest == two.voxel_digest
    images["ct"][0, 0, 0] += 1
    assert write_volume(storage, "v9", images=images, label_map=label_map, attributes={}).voxel_digest != one.voxel_digest


def test_empty_chunks_are_written_and_the_root_document_comes_last(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    empty = make_label_map((130, 64, 64))
    empty = LabelMap(np.zeros_like(empty.voxels), empty.affine, empty.vocabulary)
    images = {"ct": np.full(empty.size, -1024, np.int16)}
    stored = write_volume(storage, "v", images=images, label_map=empty, attributes={})
    volume = Volume(storage, "v", "v")
    assert not np.asarray(volume.labels).any()
    assert (np.asarray(volume.images["ct"]) == -1024).all()
    names = [entry.name for entry in stored.objects]
    assert names[-1] == "zarr.json"
    assert max(i for i, name in enumerate(names) if "/c." in name) < min(
        i for i, n in enumerate(names) if n.endswith("zarr.json")
    )


def test_a_flipped_bit_raises_in_both_readers(tmp_path: Path) -> None:
    storage, _, _, stored = _store(tmp_path)
    rng = np.random.default_rng(5)
    for array in ("ct/0", "labels/maisi/0"):
        shard = storage.local_path(stored.path) / array / "c.0.0.0"
        whole = shard.read_bytes()
        for position in rng.integers(0, len(whole), 12):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << int(rng.integers(8))
            shard.write_bytes(damaged)
            with pytest.raises(IntegrityError, match="missing or damaged"):
                np.asarray(Volume(storage, "v", stored.path).arrays()[array])
            with pytest.raises(Exception, match=r"(?i)checksum|crc|index|bounds|buffer|blosc"):
                zarr.open_array(str(storage.local_path(f"{stored.path}/{array}")), mode="r")[...]
        shard.write_bytes(whole)
        np.asarray(Volume(storage, "v", stored.path).arrays()[array])


def test_a_missing_shard_raises_and_does_not_read_as_air(tmp_path: Path) -> None:
    storage, _, _, stored = _store(tmp_path)
    (storage.local_path(stored.path) / "ct" / "0" / "c.0.0.0").unlink()
    with pytest.raises(IntegrityError, match=r"v\.a\.ome\.zarr/ct/0"):
        Volume(storage, "v", stored.path).images["ct"][:4, :4, :4]


@pytest.mark.parametrize("image", [np.zeros((4, 4, 4), np.int16), np.zeros(SIZE, np.float32)])
def test_an_image_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path, image: np.ndarray) -> None:
    with pytest.raises(StoreError, match="ct: an image is stored as int16 on the grid"):
        write_volume(open_storage(tmp_path), "v", images={"ct": image}, label_map=make_label_map(SIZE), attributes={})
    assert list(tmp_path.iterdir()) == []
