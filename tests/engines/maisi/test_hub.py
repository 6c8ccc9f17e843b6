"""Fetching weights: from a mirror folder and from a server that speaks the hub's protocol, with every byte accounted for."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from ctmr_core.engines.maisi import released
from ctmr_core.engines.maisi.hub import file_states, models_root, pull, verify
from ctmr_core.engines.maisi.released import PARTS, released_files
from ctmr_core.engines.maisi.variants import VARIANTS
from ctmr_core.errors import EngineError, IntegrityError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def content_of(path: str) -> bytes:
    return f"weights of {path}".encode() * 1000


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Small files take the place of the published ones: their digests are the published digests of these tests."""
    digests = {path: hashlib.sha256(content_of(path)).hexdigest() for path in released.SHA256}
    monkeypatch.setattr(released, "SHA256", digests)
    return digests


def write_mirror(folder: Path, variant: str, parts=("image",), flat: bool = False) -> Path:
    for file in released_files(variant, parts):
        path = folder / (Path(file.path).name if flat else file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content_of(file.path))
    return folder


def statuses(states) -> set[str]:
    return {state.status for state in states}


@pytest.mark.parametrize("flat", [False, True])
def test_a_mirror_gives_verified_files_without_copying_them(tmp_path, published, flat):
    mirror = write_mirror(tmp_path / "mirror", "rflow-ct", flat=flat)
    states = pull("rflow-ct", tmp_path / "models", mirror=mirror)
    assert statuses(states) == {"verified"}
    assert all(state.path.samefile(mirror / (state.path.name if flat else state.file.path)) for state in states)
    assert statuses(file_states("rflow-ct", tmp_path / "models")) == {"verified"}


def test_where_no_digest_is_published_the_first_pull_decides(tmp_path, published):
    mirror = write_mirror(tmp_path / "mirror", "ddpm-ct")
    states = {state.path.name: state.status for state in pull("ddpm-ct", tmp_path / "models", mirror=mirror)}
    assert states["autoencoder_v1.pt"] == "verified"
    assert states["diff_unet_3d_ddpm-ct.pt"] == "recorded"

    (tmp_path / "models/models/diff_unet_3d_ddpm-ct.pt").unlink()
    other = write_mirror(tmp_path / "other", "ddpm-ct")
    (other / "models/diff_unet_3d_ddpm-ct.pt").write_bytes(b"something else")
    with pytest.raises(IntegrityError, match="not the one that was pulled first"):
        pull("ddpm-ct", tmp_path / "models", mirror=other)


def test_a_damaged_file_is_refused_and_not_kept(tmp_path, published):
    mirror = write_mirror(tmp_path / "mirror", "rflow-ct")
    damaged = mirror / "models/controlnet_3d_rflow-ct.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError) as refusal:
        pull("rflow-ct", tmp_path / "models", mirror=mirror)
    assert published["models/controlnet_3d_rflow-ct.pt"] in str(refusal.value)
    assert not (tmp_path / "models/models/controlnet_3d_rflow-ct.pt").exists()
    assert damaged.exists()


def test_verify_finds_a_bit_that_changed_behind_the_back_of_the_record(tmp_path, published):
    root = tmp_path / "models"
    pull("rflow-ct", root, mirror=write_mirror(tmp_path / "mirror", "rflow-ct"))
    path = root / "models/autoencoder_v1.pt"
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = {state.path.name: state.status for state in verify("rflow-ct", root)}
    assert found["autoencoder_v1.pt"] == "changed"
    assert found["diff_unet_3d_rflow-ct.pt"] == "verified"


def test_a_folder_filled_by_hand_is_usable_and_said_to_be_unverified(tmp_path, published):
    root = write_mirror(tmp_path, "ddpm-ct", flat=True)
    assert statuses(file_states("ddpm-ct", root)) == {"not hashed"}
    found = {state.path.name: state.status for state in verify("ddpm-ct", root)}
    assert found == {
        "autoencoder_v1.pt": "verified",
        "diff_unet_3d_ddpm-ct.pt": "unverified",
        "controlnet_3d_ddpm-ct.pt": "unverified",
    }


def test_a_mirror_that_lacks_a_file_names_it(tmp_path, published):
    with pytest.raises(EngineError, match=r"models/autoencoder_v1\.pt"):
        pull("rflow-ct", tmp_path / "models", mirror=tmp_path)


def test_non_commercial_weights_need_an_acceptance_once(tmp_path, published):
    mirror = write_mirror(tmp_path / "mirror", "rflow-mr")
    root = tmp_path / "models"
    with pytest.raises(EngineError, match="--accept-license"):
        pull("rflow-mr", root, mirror=mirror)
    assert not root.exists()
    pull("rflow-mr", root, mirror=mirror, accept_licence=True)
    licences = json.loads((root / "licences.json").read_text())
    entry = licences["NVIDIA OneWay Noncommercial License (22 March 2022)"]
    assert entry["accepted"]
    assert entry["files"] == ["models/autoencoder_v2.pt", "models/diff_unet_3d_rflow-mr.pt"]
    pull("rflow-mr", root, mirror=mirror)


def test_licences_are_those_of_the_variants():
    for variant in VARIANTS.values():
        assert variant.licence in {licence.name for licence in released.licences_of(variant.name)}


def test_every_network_is_among_the_released_files():
    for variant in VARIANTS.values():
        names = {Path(file.path).name for file in released_files(variant.name, PARTS)}
        assert set(variant.files.values()) <= names


def test_the_models_folder_comes_from_the_argument_the_environment_or_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("CTMR_MODELS", raising=False)
    assert models_root() == Path.home() / ".cache/ctmr/models"
    monkeypatch.setenv("CTMR_MODELS", str(tmp_path))
    assert models_root() == tmp_path
    assert models_root("/elsewhere") == Path("/elsewhere")


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs: HEAD with commit and ETag, GET with ranges."""

    requests: ClassVar[list[tuple[str, str, str | None]]] = []

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        type(self).requests.append((self.command, self.path, self.headers.get("Range")))
        if "/resolve/" not in self.path or "candidate_masks" in self.path:
            self.send_error(404)
            return
        data = content_of(self.path.partition("/resolve/")[2].partition("/")[2])
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if body and asked else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body:
            self.wfile.write(data[start:])

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def own_hub_cache(tmp_path, monkeypatch) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")


def test_the_hub_is_asked_for_the_pinned_commit_and_its_files_are_verified(tmp_path, published, hub, own_hub_cache):
    root = tmp_path / "models"
    states = pull("rflow-mr-brain", root, endpoint=hub)
    assert {state.path.name: state.status for state in states} == {
        "autoencoder_v1.pt": "verified",
        "diff_unet_3d_rflow-mr-brain_v1.pt": "recorded",
    }
    pinned = released.REPOSITORIES[released.MR_BRAIN].revision
    asked = f"/nvidia/NV-Generate-MR-Brain/resolve/{pinned}/models/diff_unet_3d_rflow-mr-brain_v1.pt"
    assert ("GET", asked) in {request[:2] for request in Hub.requests}
    record = json.loads((root / "digests.json").read_text())["models/diff_unet_3d_rflow-mr-brain_v1.pt"]
    assert record["revision"] == COMMIT
    Hub.requests = []
    pull("rflow-mr-brain", root, endpoint=hub)
    assert Hub.requests == []


def test_what_the_hub_does_not_have_is_said_with_repository_and_file(tmp_path, published, hub, own_hub_cache):
    with pytest.raises(EngineError, match="the hub did not give the file") as refusal:
        pull("rflow-ct", tmp_path / "models", ("bank",), endpoint=hub)
    assert "candidate_masks_flexible_size_and_spacing_4000.json" in str(refusal.value)


@pytest.mark.slow  # huggingface_hub tries several times before it gives up
def test_a_hub_that_cannot_be_reached_is_an_error_with_a_way_out(tmp_path, published, own_hub_cache):
    with pytest.raises(EngineError, match="--from FOLDER"):
        pull("rflow-mr-brain", tmp_path / "models", endpoint="http://127.0.0.1:9")
