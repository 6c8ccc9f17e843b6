"""How an S3-compatible store is reached: settings from the usual environment, limits, and errors a person can act on.

Credentials stay with the libraries that sign the requests: they are in no attribute, no ``repr``, no pickle and no error text.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from ctmr_core.errors import StoreError

#: Bounds of one request. A shard of 256^3 int16 voxels has 33.6 MB at most, so 120 s means 0.3 MB/s.
CONNECT_SECONDS, REQUEST_SECONDS = 5, 120
MAX_RETRIES, RETRY_SECONDS = 10, 90  # obstore waits for ten seconds or so in all, by its pauses below
IDLE_CONNECTIONS = 32
_DEFAULT_REGION = "us-east-1"
_PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]*(/[A-Za-z0-9_][A-Za-z0-9._=-]*)*")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_CODE = re.compile(r"<Code>\s*([A-Za-z0-9]+)\s*</Code>")
_STATUS = re.compile(r"(?:status code: |http_response_code=.)(\d{3})")
_NO_CREDENTIALS = ("169.254.169.254", "instance metadata", "fd00:ec2::254")
_WRONG_CREDENTIALS = {
    "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "InvalidSecurity",
}  # fmt: skip
_WRONG_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}


@dataclass(frozen=True)
class S3Place:
    """A bucket, the prefix of a dataset in it ("" = the whole bucket), and where the store is.

    endpoint: None = Amazon's own for the region. credentials: which chain signs (``environment``, ``profile``, ``machine``,
    ``anonymous``); never the credentials themselves.
    """

    bucket: str
    prefix: str
    endpoint: str | None
    region: str
    credentials: str

    @classmethod
    def of(cls, uri: str) -> S3Place:
        """The place ``s3://bucket/prefix`` names, with the settings of this process's environment."""
        parts = urlparse(uri)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise StoreError(
                "credentials and options do not belong into the address of a dataset",
                allowed="s3://bucket/prefix",
                fix="put credentials into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the server into AWS_ENDPOINT_URL",
            )
        prefix = parts.path.strip("/")
        if not _BUCKET.fullmatch(parts.netloc) or (prefix and not _PREFIX.fullmatch(prefix)):
            raise StoreError(
                "not an address in an object store",
                found=uri,
                allowed="s3://bucket/prefix; the prefix of letters, digits, '_', '-', '=', '.', separated by single '/'",
            )
        endpoint = _variable("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
        if endpoint is not None and (urlparse(endpoint).scheme not in {"http", "https"} or "@" in endpoint):
            raise StoreError("not the address of an object store", where="AWS_ENDPOINT_URL", allowed="http(s)://host:port")
        return cls(
            bucket=parts.netloc,
            prefix=prefix,
            endpoint=endpoint.rstrip("/") if endpoint else None,
            region=_variable("AWS_REGION", "AWS_DEFAULT_REGION") or _DEFAULT_REGION,
            credentials=_chain(),
        )

    def key(self, name: str) -> str:
        """The key in the bucket of the object ``name`` of the dataset."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def open(self) -> Any:
        """The obstore store of the place."""
        from obstore.store import S3Store

        plain = (self.endpoint or "").startswith("http://")
        settings: dict[str, Any] = {"region": self.region}
        if self.endpoint:
            # a service-specific endpoint in the environment would win over "endpoint"
            settings["aws_endpoint_url_s3"] = settings["endpoint"] = self.endpoint
        if self.credentials == "anonymous":
            settings["skip_signature"] = True
        provider = _boto3_provider() if self.credentials in {"profile", "machine"} else None
        if self.credentials == "profile" and provider is None:
            raise StoreError(
                "a credentials profile is set, and reading it needs boto3",
                where="AWS_PROFILE",
                fix="pip install 'ctmr-factory[s3]', or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
        if provider is not None:
            settings["credential_provider"] = provider
        return S3Store(
            self.bucket,
            prefix=self.prefix or None,
            client_options={
                "allow_http": plain,
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "timeout": timedelta(seconds=REQUEST_SECONDS),
                "pool_max_idle_per_host": str(IDLE_CONNECTIONS),
            },
            retry_config={
                "max_retries": MAX_RETRIES,
                "retry_timeout": timedelta(seconds=RETRY_SECONDS),
                "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=10), "base": 3},
            },
            **settings,
        )

    def kvstore(self, name: str) -> dict[str, Any]:
        """The tensorstore key-value store of the folder ``name``; what it shares with others is in :meth:`context`."""
        spec = {"driver": "s3", "bucket": self.bucket, "path": f"{self.key(name)}/", "aws_region": self.region}
        return {**spec, "endpoint": self.endpoint} if self.endpoint else spec

    def context(self) -> dict[str, Any]:
        """tensorstore's shared resources: who signs, retries and the number of requests at a time."""
        kinds = {"environment": {"type": "environment"}, "anonymous": {"type": "anonymous"}}
        profile = {  # it does not find the files by itself
            "type": "profile",
            "profile": os.environ.get("AWS_PROFILE", "default"),
            "credentials_file": str(Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")).expanduser()),
            "config_file": str(Path(os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")).expanduser()),
        }
        return {
            "aws_credentials": profile if self.credentials == "profile" else kinds.get(self.credentials, {"type": "default"}),
            "s3_request_concurrency": {"limit": IDLE_CONNECTIONS},
            "s3_request_retries": {"max_retries": MAX_RETRIES, "initial_delay": "100ms", "max_delay": "10s"},
        }

    def failed(self, deed: str, where: str, error: Exception | str) -> StoreError:
        """``error`` of a client of this store as a ``StoreError`` that says what to do and holds no answer of the server."""
        text = str(error)
        code = next(iter(_CODE.findall(text)), "")
        status = next(iter(_STATUS.findall(text)), "")
        server = self.endpoint or f"Amazon S3, region {self.region}"
        if code == "NoSuchBucket":
            return StoreError(
                "there is no such bucket",
                where=where,
                found=self.bucket,
                fix=f"create it first, or check the name; asked: {server}",
            )
        if any(sign in text for sign in _NO_CREDENTIALS):
            return StoreError(
                "no credentials for the object store were found",
                where=where,
                fix="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN), or AWS_PROFILE",
            )
        if code in _WRONG_REGION or status == "301":
            return StoreError(
                "the bucket is in another region", where=where, found=self.region, fix="set AWS_REGION to the bucket's"
            )
        if code in _WRONG_CREDENTIALS or status in {"401", "403"} or text.startswith("PERMISSION_DENIED"):
            return StoreError(
                f"the object store did not let this process {deed}",
                where=where,
                found=code or f"HTTP {status or 403}",
                fix="check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and the rights of that key on "
                f"bucket {self.bucket}; asked: {server}",
            )
        if not status:
            return StoreError(
                "the object store can not be reached",
                where=where,
                found=_first_line(text),
                fix=f"check AWS_ENDPOINT_URL and the network, then run the same command again: it resumes; asked: {server}",
            )
        return StoreError(
            f"the object store could not {deed} an object",
            where=where,
            found=f"HTTP {status} {code}".strip(),
            fix=f"run the same command again: it resumes; asked: {server}",
        )


def server_name(endpoint: str | None) -> str:
    """How the store calls itself in its HTTP answers, "" when it doesn't say; for error messages only."""
    import http.client

    parts = urlparse(endpoint or "")
    if not parts.hostname:
        return ""
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=CONNECT_SECONDS)
    try:
        connection.request("HEAD", "/")
        return connection.getresponse().headers.get("Server", "")
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def _variable(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def _chain() -> str:
    if _variable("AWS_SKIP_SIGNATURE") in {"1", "true", "True"}:
        return "anonymous"
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return "environment"
    return "profile" if os.environ.get("AWS_PROFILE") else "machine"


def _boto3_provider() -> Any:
    """boto3's chain (profiles, roles, instance and container credentials), None without boto3 or when it finds nothing."""
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return None
    try:
        return Boto3CredentialProvider()
    except ValueError:
        return None


def _first_line(text: str) -> str:
    line = text.splitlines()[0] if text else ""
    return re.sub(r"https?://\S*", "", line.split(" [", maxsplit=1)[0]).strip()[:200]
