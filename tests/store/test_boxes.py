from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from ctmr_core.errors import IntegrityError
from ctmr_core.store import Volume, open_storage, write_volume
from ctmr_core.store.boxes import BoxReader
from ctmr_core.store.storage import Storage
from tests.store.store_maker import make_label_map

SIZE = (150, 70, 290)  # chunks and shards that reach out of the volume, two shards along z


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """One volume with CT and labels of bodies, one with labels of heads (uint16)."""
    storage = open_storage(tmp_path_factory.mktemp("boxes"))
    images = {"ct": np.random.default_rng(1).integers(-1024, 2000, SIZE).astype(np.int16)}
    write_volume(storage, "v", images=images, label_map=make_label_map(SIZE), attributes={})
    write_volume(storage, "h", images={}, label_map=make_label_map((70, 66, 20), vocabulary="brain"), attributes={})
    return storage


@given(data=st.data())
@settings(max_examples=12, deadline=None)
@pytest.mark.parametrize(("volume", "array"), [("v", "ct/0"), ("v", "labels/maisi/0"), ("h", "labels/brain/0")])
def test_a_box_is_what_the_volume_shows(stored: Storage, volume: str, array: str, data: st.DataObject) -> None:
    whole = Volume(stored, volume, volume).arrays()[array]
    edges = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in whole.shape]
    box = (slice(*edges[0]), slice(*edges[1]), slice(*edges[2]))
    reader = BoxReader.of(stored, f"{volume}/{array}")
    assert reader is not None
    found = np.empty([stop - start for start, stop in edges], whole.dtype)
    reader.begin(box)(found)
    assert np.array_equal(found, whole[box])


def test_boxes_of_volumes_of_the_first_releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctmr_core.store.volumes.SEPARATOR", "/")
    storage = open_storage(tmp_path)
    label_map = make_label_map((20, 21, 22))
    write_volume(storage, "v", images={}, label_map=label_map, attributes={})
    found = _read(storage, "v/labels/maisi/0", (slice(1, 9), slice(0, 21), slice(3, 4)))
    assert np.array_equal(found, label_map.voxels[1:9, :, 3:4])


def test_boxes_are_written_into_arrays_of_another_dtype_and_order(stored: Storage) -> None:
    box = (slice(8, 104), slice(3, 67), slice(200, 290))
    reader = BoxReader.of(stored, "v/ct/0")
    assert reader is not None
    wanted = Volume(stored, "v", "v").images["ct"][box]
    for out in (np.zeros((100, 66, 92), np.float32), np.zeros((100, 66, 92), np.int32, order="F")):
        reader.begin(box)(out[1:97, 2:66, :90])
        assert np.array_equal(out[1:97, 2:66, :90], wanted)
        assert np.count_nonzero(out) == np.count_nonzero(wanted)


def test_damage_raises_and_names_the_array(stored: Storage, tmp_path: Path) -> None:
    folder = stored.local_path("v")
    assert folder is not None
    shutil.copytree(folder, tmp_path / "v")
    storage = open_storage(tmp_path)
    shard = tmp_path / "v" / "ct" / "0" / "c.0.0.0"
    whole = shard.read_bytes()
    box = (slice(0, 150), slice(0, 70), slice(0, 256))
    rng = np.random.default_rng(5)
    for position in [*rng.integers(0, len(whole), 12).tolist(), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        shard.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=r"(?s)v/ct/0.*missing or damaged.*CRC-32C"):
            _read(storage, "v/ct/0", box)
    for length in (0, 100, len(whole) // 2):
        shard.write_bytes(whole[:length])
        with pytest.raises(IntegrityError, match=r"v/ct/0.*missing or damaged"):
            _read(storage, "v/ct/0", box)
    shard.unlink()
    with pytest.raises(IntegrityError, match=r"c\.0\.0\.0: No such file"):
        _read(storage, "v/ct/0", box)
    (shard.parent / "zarr.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"(?s)v/ct/0.*zarr\.json"):
        BoxReader.of(storage, "v/ct/0")


def test_a_chunk_that_was_never_written_does_not_read_as_air(tmp_path: Path) -> None:
    from zarr.codecs import BloscCodec, Crc32cCodec

    array = zarr.create_array(
        tmp_path / "a", shape=(8, 8, 8), chunks=(4, 4, 4), shards=(8, 8, 8), dtype="i2", filters=None,
        compressors=[BloscCodec(cname="zstd"), Crc32cCodec()], fill_value=0,
    )  # fmt: skip
    array[:4, :4, :4] = 7
    storage = open_storage(tmp_path)
    assert (_read(storage, "a", (slice(0, 4),) * 3) == 7).all()
    with pytest.raises(IntegrityError, match=r"chunk \(1, 0, 0\) \[z, y, x\] is missing"):
        _read(storage, "a", (slice(0, 4), slice(0, 4), slice(0, 8)))


def test_arrays_that_are_coded_in_another_way_are_left_to_others(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "plain", shape=(8, 8, 8), chunks=(4, 4, 4), dtype="i2")
    zarr.create_array(tmp_path / "float", shape=(8, 8, 8), chunks=(4, 4, 4), shards=(8, 8, 8), dtype="f4")
    storage = open_storage(tmp_path)
    assert BoxReader.of(storage, "plain") is None
    assert BoxReader.of(storage, "float") is None


def _read(storage: Storage, path: str, box: tuple[slice, slice, slice]) -> np.ndarray:
    reader = BoxReader.of(storage, path)
    assert reader is not None
    out = np.full([part.stop - part.start for part in box], 99, np.int64)
    reader.begin(box)(out)
    return out
