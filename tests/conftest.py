"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.s3_servers import moto, rclone, s3_proxy, s3_server, s3_uri, seaweedfs  # noqa: F401 - fixtures for every test

# In CI the examples are the same every time: a new one is found by people, who can look into it, not by a night's run.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("people", deadline=None)  # a first import or a busy machine is no failure
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "people")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans and label maps: ``CTMR_TEST_DATA``, or ``shared/data`` beside the repository."""
    folder = Path(os.environ.get("CTMR_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set CTMR_TEST_DATA to run this test")
    return folder


#: Tests that start clusters and servers, in two parts that take about as long: a part runs in one process, test by test.
_PARTS = {
    "storms": ("tests/pipelines/test_faults", "tests/pipelines/test_driver", "tests/pipelines/test_cluster", "tests/soak/"),
    "clusters": ("tests/pipelines/", "tests/infra/"),
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Which tests go to the same process when they run in several: those of a file, and those of a part."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            part = next((part for part, names in _PARTS.items() if nodeid.startswith(names)), None)
            return part or nodeid.partition("::")[0]

    return ByFile(config, log)
