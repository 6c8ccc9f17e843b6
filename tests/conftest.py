"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

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


#: Folders whose tests start clusters and servers: all of them in one process, one after the other.
_CLUSTERS = ("pipelines", "infra", "soak")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests go to the same process when they run in several: a file's, and all that start clusters; those begin first."""

    def group(item: pytest.Item) -> str:
        parts = item.path.relative_to(REPOSITORY / "tests").parts
        return "clusters" if parts[0] in _CLUSTERS else "/".join(parts)

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=lambda item: group(item) != "clusters")  # stable: the order inside stays
