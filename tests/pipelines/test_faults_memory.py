"""Ray's memory monitor ends the process of a case that takes too much memory."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from ctmr_core.store import Dataset, read_failures, verify
from pipelines.factory.cluster import ray_cluster
from pipelines.flows.generate_dataset import run_generate_dataset
from tests.pipelines.conftest import Write, options
from tests.soak.cases import named_case

ROOM_BYTES = 2 << 30  # above what the machine holds when the test begins; a drill takes twice that


@pytest.mark.slow
def test_a_case_that_ray_ends_for_its_memory_is_quarantined_alone(
    write_manifest: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()
    if memory.available < 3 * ROOM_BYTES:
        pytest.skip("not enough free memory to tell a swelling case from the others")
    plan = tmp_path / "drill.json"
    plan.write_text(json.dumps({"case-1": {"*": "swell"}}), encoding="utf-8")
    monkeypatch.setenv("CTMR_FAULTS", str(plan))
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{(memory.total - memory.available + ROOM_BYTES) / memory.total:.4f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    manifest = write_manifest([named_case(f"case-{i}") for i in range(4)])
    with ray_cluster(None, cpus=1):
        summary = run_generate_dataset(options(manifest, tmp_path / "out", workers=1, unit_size=2, case_timeout=120.0))
    assert (summary.accepted, summary.failed, summary.quarantined) == (3, 0, 1)
    assert summary.deaths >= 2
    dataset = Dataset.open(tmp_path / "out")
    assert set(dataset) == {"case-0", "case-2", "case-3"}
    assert not verify(dataset).problems
    (record,) = read_failures(dataset.storage)
    assert record.case_id == "case-1"
    assert "memory" in record.reason
