"""A dataset in an S3-compatible object store.

An object appears whole or not at all, and is durable when the store has answered. What a disk does with ``link(2)`` is here the
conditional put ``If-None-Match: *``. Its answer can get lost: the repeated request then finds the name taken, by the very
object it wrote. Every conditional put therefore carries a number of its own in the object's metadata, and "taken" is believed
only of an object with another number.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from ctmr_core.errors import StoreError
from ctmr_core.store.answers import listed, whole
from ctmr_core.store.drills import reach
from ctmr_core.store.s3 import S3Place, server_name
from ctmr_core.store.storage import PROBES, Storage, checked_name

WRITE_ID = "ctmr-write"  # user metadata (x-amz-meta-ctmr-write): which conditional put made the object
PART_BYTES = 16 << 20  # larger objects go up in parts of this size, so that a lost connection costs one part
PARTS_AT_A_TIME = 4
REQUESTS_AT_A_TIME = 8
DELETED_AT_A_TIME = 1000  # as many as S3 takes in one request
_PAUSES = (0.2, 0.8, 3.2)  # seconds before a conditional put is tried again that the client does not repeat by itself
_GIVEN_UP = re.compile(r"after \d+ retries")  # the client has repeated it until its own bounds
_FINAL = (NotSupportedError, PermissionDeniedError, UnauthenticatedError)


class ObjectStorage(Storage):
    """A dataset below ``s3://bucket/prefix``. The store is opened at first use; pickled, it is its URI and nothing else."""

    def __init__(self, uri: str) -> None:
        self.place = S3Place.of(uri)
        self.uri = f"s3://{self.place.bucket}/{self.place.prefix}".rstrip("/")

    def __reduce__(self) -> tuple[type[ObjectStorage], tuple[str]]:
        return (ObjectStorage, (self.uri,))

    @cached_property
    def objects(self) -> Any:  # type: ignore[override]
        """The obstore store behind it."""
        return self.place.open()

    def prove(self) -> None:
        """Refuse the store (``StoreError``) unless it creates an object only if there is none and reads parts of it."""
        name, ours = f"{PROBES}/{uuid.uuid4().hex}", uuid.uuid4().hex.encode()
        try:
            if not self.create(name, ours):
                raise self._unfit("it says that an object nobody has made is there already")
            if self.create(name, b"another"):
                raise self._unfit("it lets a second writer replace an object that is to be created only once (If-None-Match: *)")
            if self.read(name) != ours:
                raise self._unfit("an object reads otherwise than it was written")
            try:
                part = bytes(obstore.get_range(self.objects, name, start=4, end=12))
            except BaseError as error:
                raise self._unfit("it does not read parts of an object (Range)") from error
            if part != ours[4:12]:
                raise self._unfit("it does not read parts of an object (Range)")
        finally:
            self.delete(name)

    def create(self, name: str, data: bytes) -> bool:
        mine = uuid.uuid4().hex
        reach("file.begin", name)
        for pause in (*_PAUSES, None):
            try:
                obstore.put(self.objects, checked_name(name), data, mode="create", attributes={WRITE_ID: mine})
                break
            except AlreadyExistsError:
                if self._write_id(name) != mine:
                    return False
                break
            except (FileNotFoundError, *_FINAL) as error:
                raise self._failed("write", name, error) from None
            except BaseError as error:  # no answer, or a conflict with another writer: the object may be there or not
                if pause is None or _GIVEN_UP.search(str(error)):
                    raise self._failed("write", name, error) from None
            time.sleep(pause or 0.0)
        reach("file.made", name)
        return True

    def write(self, name: str, data: bytes) -> None:
        checked_name(name)
        reach("file.begin", name)
        try:
            obstore.put(
                self.objects,
                name,
                data,
                use_multipart=len(data) > PART_BYTES,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_A_TIME,
            )
        except (BaseError, FileNotFoundError) as error:
            raise self._failed("write", name, error) from None
        reach("file.made", name)

    def write_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Voxels first, then documents, the last object last; several at a time."""
        documents = [entry for entry in objects[:-1] if entry[0].endswith(".json")]
        voxels = [entry for entry in objects[:-1] if not entry[0].endswith(".json")]
        with ThreadPoolExecutor(REQUESTS_AT_A_TIME, thread_name_prefix="ctmr put") as pool:
            for group in (voxels, documents, objects[-1:]):
                list(pool.map(lambda entry: self.write(*entry), group))

    def read(self, name: str) -> bytes:
        try:
            return whole(lambda: bytes(obstore.get(self.objects, checked_name(name)).bytes()))
        except (NotFoundError, FileNotFoundError) as error:
            if "NoSuchBucket" in str(error):
                raise self._failed("read", name, error) from None
            raise FileNotFoundError(f"{self.uri}/{name}") from None
        except BaseError as error:
            raise self._failed("read", name, error) from None

    def entries(self, prefix: str) -> Iterator[str]:
        fans = [str(path).rstrip("/") for path in self._folder(checked_name(prefix))["common_prefixes"]]
        with ThreadPoolExecutor(REQUESTS_AT_A_TIME, thread_name_prefix="ctmr list") as pool:
            for start in range(0, len(fans), REQUESTS_AT_A_TIME):  # a few folders at a time, not all in memory
                for found in pool.map(self._folder, fans[start : start + REQUESTS_AT_A_TIME]):
                    for path in (*found["common_prefixes"], *(meta["path"] for meta in found["objects"])):
                        yield "/".join(str(path).rstrip("/").split("/")[-2:])

    def delete(self, name: str) -> None:
        try:
            obstore.delete(self.objects, checked_name(name))
        except (NotFoundError, FileNotFoundError):
            return
        except BaseError as error:
            raise self._failed("delete", name, error) from None

    def delete_tree(self, prefix: str) -> None:
        try:
            for batch in self._pages(checked_name(prefix)):
                paths = [meta["path"] for meta in batch]
                for start in range(0, len(paths), DELETED_AT_A_TIME):
                    obstore.delete(self.objects, paths[start : start + DELETED_AT_A_TIME])
        except (NotFoundError, FileNotFoundError):
            return
        except BaseError as error:
            raise self._failed("delete", prefix, error) from None

    def kvstore(self, name: str) -> dict[str, Any]:
        return self.place.kvstore(checked_name(name))

    def kvstore_context(self) -> dict[str, Any]:
        return self.place.context()

    def kvstore_failed(self, name: str, error: Exception) -> StoreError | None:
        text = str(error)
        if text.startswith(("NOT_FOUND", "DATA_LOSS", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "OUT_OF_RANGE")):
            return None
        return self.place.failed("read", f"{self.uri}/{name}", error)

    def _pages(self, prefix: str) -> Iterator[Sequence[Any]]:
        return listed(self.objects, prefix)

    def _folder(self, prefix: str) -> Any:
        try:
            return whole(lambda: obstore.list_with_delimiter(self.objects, prefix=prefix))
        except (BaseError, FileNotFoundError) as error:
            raise self._failed("list", prefix, error) from None

    def _write_id(self, name: str) -> str | None:
        """Which conditional put made the object; None when it is gone or carries no number."""
        try:
            return obstore.get(self.objects, name).attributes.get(WRITE_ID)
        except (NotFoundError, FileNotFoundError):
            return None
        except BaseError as error:
            raise self._failed("read", name, error) from None

    def _unfit(self, why: str) -> StoreError:
        endpoint = self.place.endpoint
        name = server_name(endpoint)
        return StoreError(
            f"this object store can not keep a dataset: {why}",
            where=self.uri,
            found=f"{endpoint or 'Amazon S3'}{f' ({name})' if name else ''}",
            allowed="a store with conditional writes and ranged reads: for example Amazon S3, SeaweedFS, MinIO",
            fix="use such a store, or generate into a local folder and copy the finished dataset",
        )

    def _failed(self, deed: str, name: str, error: Exception) -> StoreError:
        return self.place.failed(deed, f"{self.uri}/{name}", error)
