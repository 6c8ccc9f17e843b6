"""An object store that loses answers, refuses what it has done, cuts bodies short and takes its time."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ctmr_core.store import Dataset
from tests.s3_servers import S3Proxy, S3Server, fresh_uri
from tests.soak import child
from tests.soak.cases import write_manifest
from tests.soak.evidence import Evidence, difference, evidence
from tests.soak.storage_storm import StorageStorm


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("line") / "cases.parquet", 3)


@pytest.fixture(scope="module")
def calm(manifest: Path) -> Evidence:
    assert child.run(manifest, manifest.with_name("calm")) == 0
    found = evidence(manifest.with_name("calm"))
    assert len(found.objects) == 3
    return found


@pytest.fixture
def server(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    moto.enter(monkeypatch)
    return moto


def through(proxy: S3Proxy, server: S3Server) -> dict[str, str]:
    return S3Server(server.name, proxy.endpoint).environment()


def test_an_object_store_holds_what_a_folder_holds(server: S3Server, manifest: Path, calm: Evidence) -> None:
    uri = fresh_uri()
    assert child.run(manifest, uri, **server.environment()) == 0
    assert difference(calm, evidence(uri)) == []


def test_lost_answers_and_refusals_change_nothing(server: S3Server, manifest: Path, calm: Evidence) -> None:
    uri = fresh_uri()
    storm = StorageStorm(seed=1, lost=0.15, refused=0.15, cut=0.0)
    with S3Proxy(server.endpoint) as proxy:
        storm.attach(proxy)
        assert child.run(manifest, uri, **through(proxy, server)) == 0, child.error_of(manifest)
    assert storm.struck["lost"] >= 3
    assert storm.struck["refused"] >= 3
    assert difference(calm, evidence(uri)) == []


def test_the_answer_to_a_commit_that_is_lost_commits_once(server: S3Server, manifest: Path, calm: Evidence) -> None:
    uri = fresh_uri()
    lost: list[str] = []

    def lose(method: str, path: str) -> bool:
        key = path.partition("?")[0]
        first = method == "PUT" and "/commits/" in key and key not in lost
        lost.extend([key] if first else [])
        return first

    with S3Proxy(server.endpoint) as proxy:
        proxy.lose = lose
        assert child.run(manifest, uri, **through(proxy, server)) == 0
    assert len(lost) == 3
    assert difference(calm, evidence(uri)) == []


def test_bodies_that_break_off_on_the_way_change_nothing(server: S3Server, manifest: Path, calm: Evidence) -> None:
    uri = fresh_uri()
    cut: list[tuple[str, str]] = []

    def break_off(method: str, path: str) -> bool:
        key = (method, path.partition("?")[0])
        first = method in {"GET", "PUT"} and key not in cut
        cut.extend([key] if first else [])
        return first

    with S3Proxy(server.endpoint) as proxy:
        proxy.cut = break_off
        assert child.run(manifest, uri, **through(proxy, server)) == 0, child.error_of(manifest)
        methods = [method for method, _ in cut]
        assert methods.count("PUT") > 3 * 10
        assert "GET" in methods
    assert difference(calm, evidence(uri)) == []


def test_a_read_that_breaks_off_is_repeated(server: S3Server, manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = fresh_uri()
    assert child.run(manifest, uri, **server.environment()) == 0
    cut: set[str] = set()

    def break_off(method: str, path: str) -> bool:
        first = method == "GET" and path not in cut
        cut.add(path)
        return first

    with S3Proxy(server.endpoint) as proxy:
        proxy.cut = break_off
        S3Server(server.name, proxy.endpoint).enter(monkeypatch)
        dataset = Dataset.open(uri)
        voxels = [dataset[case_id].images["ct"][...] for case_id in dataset]
    assert any("ct/0/c" in path for path in cut)
    whole = Dataset.open(manifest.with_name("calm"))
    assert [v.tobytes() for v in voxels] == [whole[case_id].images["ct"][...].tobytes() for case_id in whole]


@pytest.mark.parametrize("point", ["commit.made", "volume.made"])
def test_killed_in_a_storm_and_run_again(point: str, server: S3Server, manifest: Path, calm: Evidence) -> None:
    uri = fresh_uri()
    with S3Proxy(server.endpoint) as proxy:
        StorageStorm(seed=2).attach(proxy)
        environment = through(proxy, server)
        drill = {f"@{point}": {"fault": "kill", "nth": 2, "once": True}}
        assert child.run(manifest, uri, drill, **environment) == -signal.SIGKILL
        assert child.run(manifest, uri, **environment) == 0
    assert difference(calm, evidence(uri)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["moto", "seaweedfs"])
@pytest.mark.parametrize("seed", range(5))
def test_many_storms(
    name: str, seed: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server: S3Server = request.getfixturevalue(name)
    server.enter(monkeypatch)
    manifest = write_manifest(tmp_path / "cases.parquet", 8)
    assert child.run(manifest, tmp_path / "calm") == 0
    uri = fresh_uri()
    with S3Proxy(server.endpoint) as proxy:
        StorageStorm(seed=seed, lost=0.2, refused=0.2, slow=0.2, cut=0.2).attach(proxy)
        assert child.run(manifest, uri, **through(proxy, server)) == 0
    assert difference(evidence(tmp_path / "calm"), evidence(uri)) == []


@pytest.mark.slow
def test_an_outage_stops_the_line_with_advice_and_it_resumes(server: S3Server, manifest: Path, calm: Evidence) -> None:
    uri = fresh_uri()
    out = False

    def lose(method: str, path: str) -> int:
        nonlocal out
        out = out or (method == "PUT" and "/commits/" in path)
        return 503 if out else 0

    with S3Proxy(server.endpoint) as proxy:
        proxy.lose = lose
        assert child.run(manifest, uri, **through(proxy, server)) == child.FAILED
    assert "run the same command again" in child.error_of(manifest)
    assert child.run(manifest, uri, **server.environment()) == 0
    assert difference(calm, evidence(uri)) == []
