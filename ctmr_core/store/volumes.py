"""Writing one volume: images and label map as one OME-Zarr 0.5 store.

zarr-python defines the store (every ``zarr.json``), tensorstore encodes the voxels, in a third less processor time than
zarr-python. They are turned round to [z, y, x] a shard at a time, so that 512^3 needs no second copy. Everything is encoded
in memory and then written through :class:`~ctmr_core.store.storage.Storage`, so that a disk and an object store get the same
objects, whose SHA-256 costs no second read. Equal voxels and attributes give equal bytes.

A shard lies beside the document of its array (``c.0.0.0``, not ``c/0/0/0``): a volume of one sequence has seven folders less
to make and to flush, of fourteen.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import numpy as np
import tensorstore as ts
import xxhash

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.errors import StoreError
from ctmr_core.store import ome
from ctmr_core.store.axes import turned
from ctmr_core.store.drills import reach
from ctmr_core.store.storage import Storage, checked_name

CHUNK = 64  # voxels per axis: a 96^3 patch touches 8 to 27 chunks and reads about 3 times its own bytes
SHARD = 256  # voxels per axis: one file up to 256^3, and bounded memory above
SEPARATOR = "."  # between the indices in the name of a shard; volumes of the first releases have "/", and say so
CT_FILL = -1024  # air
ATTRIBUTES = "ctmr"  # where a volume's own attributes live beside "ome"
_DIGEST_SLAB = 1 << 26  # bytes hashed at a time
_LEGEND = "<legend>"  # stands for the legend of a vocabulary until the document is text
_used_by: set[int] = set()  # process ids in which tensorstore has worked


@dataclass(frozen=True)
class StoredObject:
    """One object of a volume: name below the volume's folder, size in bytes, SHA-256 hex of the stored bytes."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class StoredVolume:
    """A volume as written, not yet committed.

    ``voxel_digest``: xxh3-128 hex over the decoded voxels (see :func:`voxel_digest`). ``bytes``: sum over the objects.
    """

    path: str
    objects: tuple[StoredObject, ...]
    voxel_digest: str
    bytes: int


def load_writers() -> None:
    """Import what writing needs, so that the first volume is not charged for it."""
    _group_document()
    ome.nifti_header((1, 1, 1), np.dtype(np.int16), np.eye(4).tobytes())


def write_volume(
    storage: Storage,
    path: str,
    *,
    images: Mapping[str, np.ndarray],
    label_map: LabelMap,
    attributes: Mapping[str, Any],
    threads: int = 1,
) -> StoredVolume:
    """Write images (sequence -> int16 [x, y, z] on the label map's grid) and label map below ``path``; shards first, root last.

    attributes: JSON-able facts about the case, stored under ``ctmr``; no times, hosts or attempt ids, so that the bytes stay
    the same when the case is made again. threads: for encoding. On failure nothing of the volume is left behind.
    Raises ``StoreError`` for images that don't fit the label map and for storage that fails.
    """
    checked_name(path)
    _refuse_misfits(images, label_map)
    documents = _Documents(images, label_map, attributes)
    arrays: dict[str, np.ndarray] = {}
    for sequence, image in images.items():
        arrays[documents.add_image(sequence, image)] = image
    arrays[documents.add_label()] = label_map.voxels
    metadata = documents.finished()
    objects: list[tuple[str, bytes]] = []
    for name, array in arrays.items():
        objects.extend(_encode(name, array, metadata[f"{name}/zarr.json"], threads))
    objects.extend((name, data) for name, data in metadata.items() if not name.endswith("zarr.json"))
    documents_last = sorted((name for name in metadata if name.endswith("zarr.json")), key=lambda n: (-n.count("/"), n))
    objects.extend((name, metadata[name]) for name in documents_last)
    reach("volume.begin", path)
    try:
        storage.write_all([(f"{path}/{name}", data) for name, data in objects])
    except StoreError:
        storage.delete_tree(path)
        raise
    reach("volume.made", path)
    stored = tuple(StoredObject(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in objects)
    return StoredVolume(path, stored, voxel_digest(arrays), sum(entry.bytes for entry in stored))


def voxel_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """xxh3-128 hex over name, dtype, size and voxels of every array, by name; voxels [x, y, z] in C order, little-endian."""
    digest = xxhash.xxh3_128()
    for name in sorted(arrays):
        array = arrays[name]
        little = array.dtype.newbyteorder("<")
        digest.update(f"{name}|{little.str}|{array.shape}|".encode())
        data = np.ascontiguousarray(array, little).reshape(-1).view(np.uint8)
        for start in range(0, data.size, _DIGEST_SLAB):
            digest.update(data[start : start + _DIGEST_SLAB].data)
    return digest.hexdigest()


def _refuse_misfits(images: Mapping[str, np.ndarray], label_map: LabelMap) -> None:
    for sequence, image in images.items():
        checked_name(sequence)
        if image.dtype != np.int16 or image.shape != label_map.voxels.shape:
            raise StoreError(
                "an image is stored as int16 on the grid of its label map",
                where=sequence,
                found=(image.shape, str(image.dtype)),
                allowed=f"{label_map.voxels.shape}, int16",
            )


class _Documents:
    """The ``zarr.json`` documents and header arrays of one volume, as zarr-python writes them."""

    def __init__(self, images: Mapping[str, np.ndarray], label_map: LabelMap, attributes: Mapping[str, Any]) -> None:
        self._contents: dict[str, bytes] = {}
        self._label_map = label_map
        self._affine = np.asarray(label_map.affine, np.float64)
        own = {
            "sequences": list(images),
            "vocabulary": label_map.vocabulary.name,
            "spacing": list(label_map.spacing),
            "affine": self._affine.tolist(),
        }
        self._omero = {sequence: ome.omero(sequence, image) for sequence, image in images.items()}
        shown: dict[str, Any] = {}
        if images:
            shown["multiscales"] = [ome.multiscale(name, f"{name}/0", self._affine) for name in images]
            shown["omero"] = self._omero[next(iter(images))]  # what viewers show when they open the volume: the first sequence
        self._group("", shown, {**attributes, **own})

    def add_image(self, sequence: str, image: np.ndarray) -> str:
        """The image group of a sequence; the path of its array."""
        self._group(sequence, {"multiscales": [ome.multiscale(sequence, "0", self._affine)], "omero": self._omero[sequence]})
        self._array(f"{sequence}/0", image, CT_FILL if is_ct(sequence) else 0, level=1, shuffle="shuffle")
        header = ome.nifti_header(image.shape, image.dtype, self._affine.tobytes())
        self._contents[f"{sequence}/nifti/zarr.json"] = _header_document(len(header), SEPARATOR)
        self._contents[f"{sequence}/nifti/c{SEPARATOR}0"] = header
        return f"{sequence}/0"

    def add_label(self) -> str:
        """The label group of the vocabulary; the path of its array."""
        name = self._label_map.vocabulary.name
        self._group("labels", {"labels": [name]})
        self._group(
            f"labels/{name}",
            {"multiscales": [ome.multiscale(name, "0", self._affine)], "image-label": _LEGEND},
            legend=ome.image_label(self._label_map.vocabulary),
        )
        self._array(f"labels/{name}/0", self._label_map.voxels, 0, level=3, shuffle="noshuffle")
        return f"labels/{name}/0"

    def finished(self) -> dict[str, bytes]:
        """Name -> bytes of every document (without the indentation, which would be half of it) and header array."""
        return dict(sorted(self._contents.items()))

    def _group(self, path: str, metadata: dict[str, Any], own: dict[str, Any] | None = None, legend: str = "") -> None:
        attributes: dict[str, Any] = {"ome": {"version": ome.OME_VERSION, **metadata}}
        if own is not None:
            attributes[ATTRIBUTES] = own
        text = _json({**_group_document(), "attributes": attributes})
        if legend:  # hundreds of names and colours, the same in every volume
            text = text.replace(_json(_LEGEND), legend, 1)
        self._contents[f"{path}/zarr.json" if path else "zarr.json"] = text.encode()

    def _array(self, path: str, voxels: np.ndarray, fill: int, *, level: int, shuffle: Literal["shuffle", "noshuffle"]) -> None:
        self._contents[f"{path}/zarr.json"] = _array_document(voxels.shape, voxels.dtype, fill, level, shuffle, SEPARATOR)


# zarr-python takes milliseconds for every group and array; the documents of a volume differ in attributes and sizes only. It is
# imported here because it takes half a second, and readers need none of it.


@cache
def _group_document() -> dict[str, Any]:
    import zarr

    store: dict[str, Any] = {}
    zarr.create_group(zarr.storage.MemoryStore(store), attributes={})
    document: dict[str, Any] = json.loads(store["zarr.json"].to_bytes())
    return document


@lru_cache(maxsize=256)
def _array_document(
    size: tuple[int, ...],
    dtype: np.dtype,
    fill: int,
    level: int,
    shuffle: Literal["shuffle", "noshuffle"],
    separator: Literal[".", "/"],
) -> bytes:
    """The document of an array of ``size`` [x, y, z], stored as [z, y, x]."""
    import zarr
    from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

    shape = size[::-1]
    chunks = tuple(min(n, CHUNK) for n in shape)
    shards = tuple(min(-(-n // chunk) * chunk, SHARD) for n, chunk in zip(shape, chunks, strict=True))
    blosc = BloscCodec(
        cname="zstd", clevel=level, shuffle=shuffle, typesize=dtype.itemsize, blocksize=int(np.prod(chunks)) * dtype.itemsize
    )  # one block per chunk: the ratio of level 5 at the speed of level 1
    store: dict[str, Any] = {}
    zarr.create_array(
        zarr.storage.MemoryStore(store),
        shape=shape,
        dtype=dtype.newbyteorder("<"),
        chunks=chunks,
        shards=shards,
        filters=None,
        serializer=BytesCodec(endian="little") if dtype.itemsize > 1 else BytesCodec(endian=None),
        compressors=[blosc, Crc32cCodec()],  # blosc has no checksum: without crc32c a flipped bit reads as other voxels
        fill_value=fill,
        chunk_key_encoding={"name": "default", "separator": separator},
        dimension_names=("z", "y", "x"),
    )
    return _compact(store["zarr.json"].to_bytes())


@cache
def _header_document(length: int, separator: Literal[".", "/"]) -> bytes:
    """The document of a header array: bytes as they are, in one chunk."""
    import zarr

    store: dict[str, Any] = {}
    zarr.create_array(
        zarr.storage.MemoryStore(store),
        shape=(length,),
        dtype="u1",
        chunks=(length,),
        compressors=None,
        chunk_key_encoding={"name": "default", "separator": separator},
    )
    return _compact(store["zarr.json"].to_bytes())


def _compact(document: bytes) -> bytes:
    return _json(json.loads(document)).encode()


def _json(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"))


def _encode(name: str, voxels: np.ndarray, document: bytes, threads: int) -> list[tuple[str, bytes]]:
    """The shards of one array [x, y, z] as (object name, bytes), encoded by tensorstore in memory."""
    refuse_fork()
    one_chunk = max(voxels.shape) <= CHUNK
    context = ts.Context({} if one_chunk else {"data_copy_concurrency": {"limit": max(threads, 1)}})  # a pool costs 0.3 ms
    memory = ts.KvStore.open({"driver": "memory", "path": f"{name}/"}, context=context).result()
    memory["zarr.json"] = document
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "memory", "path": f"{name}/"},
        "store_data_equal_to_fill_value": True,  # all-zero label chunks are written: a missing chunk is a fault
    }
    array = ts.open(spec, open=True, context=context).result()
    for x, y, z in np.ndindex(*(-(-n // SHARD) for n in voxels.shape)):
        shard = tuple(slice(i * SHARD, min((i + 1) * SHARD, n)) for i, n in zip((x, y, z), voxels.shape, strict=True))
        block = voxels[shard]
        source = block.T if block.flags.f_contiguous else turned(block)
        array[shard[::-1]].write(source, can_reference_source_data_indefinitely=True).result()
    keys = sorted(key.decode() for key in memory.list().result() if key != b"zarr.json")
    return [(f"{name}/{key}", memory[key]) for key in keys]


def refuse_fork() -> None:
    """tensorstore's threads do not exist in a forked child: it would hang or die there without a word."""
    _used_by.add(os.getpid())
    if len(_used_by) > 1:
        raise StoreError(
            "voxels are being read or written in a forked process",
            fix='start worker processes with multiprocessing_context="spawn"',
        )
