"""Multipart uploads that nobody finished: a killed process leaves their parts in an object store, unseen and paid for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ctmr_core.store.objects import ObjectStorage
from ctmr_core.store.s3 import S3Place
from ctmr_core.store.storage import Storage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upload:
    """An unfinished upload. key: of the object in the bucket. bytes: of the parts that have arrived."""

    key: str
    id: str
    begun: datetime
    bytes: int


class Uploads:
    """The unfinished uploads below a dataset. Needs boto3 (extra ``s3``): no other library at hand can list them."""

    def __init__(self, place: S3Place, client: Any) -> None:
        self._place = place
        self._client = client

    @classmethod
    def of(cls, storage: Storage) -> Uploads | None:
        """Those of ``storage``; None for a disk, and without boto3."""
        if not isinstance(storage, ObjectStorage) or storage.place.credentials == "anonymous":
            return None
        try:
            import boto3
        except ImportError:
            return None
        place = storage.place
        return cls(place, boto3.client("s3", endpoint_url=place.endpoint, region_name=place.region))

    def unfinished(self) -> Iterator[Upload]:
        """Every unfinished upload, as the store lists them; none, with a warning, when it can't."""
        from botocore.exceptions import BotoCoreError, ClientError

        pages = self._client.get_paginator("list_multipart_uploads")
        try:
            for page in pages.paginate(Bucket=self._place.bucket, Prefix=self._place.key("")):
                for entry in page.get("Uploads", ()):
                    size = self._arrived(entry["Key"], entry["UploadId"])
                    yield Upload(entry["Key"], entry["UploadId"], entry["Initiated"], size)
        except (BotoCoreError, ClientError) as error:
            log.warning("unfinished uploads can not be listed (%s): set a lifecycle rule on the bucket", type(error).__name__)

    def abort(self, upload: Upload) -> None:
        """Have the store forget the upload and its parts."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client.abort_multipart_upload(Bucket=self._place.bucket, Key=upload.key, UploadId=upload.id)
        except (BotoCoreError, ClientError) as error:
            raise self._place.failed("abort", f"s3://{self._place.bucket}/{upload.key}", _told(error)) from None

    def _arrived(self, key: str, upload_id: str) -> int:
        parts = self._client.get_paginator("list_parts").paginate(Bucket=self._place.bucket, Key=key, UploadId=upload_id)
        return sum(part["Size"] for page in parts for part in page.get("Parts", ()))


def _told(error: Exception) -> str:
    answer = getattr(error, "response", {})
    code, status = answer.get("Error", {}).get("Code", ""), answer.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    return f"status code: {status} <Code>{code}</Code>" if status else type(error).__name__
