"""What the tests of the MAISI engine may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.engines.maisi.checkpoints import Golden


@pytest.fixture(scope="session")
def golden() -> Golden:
    """The golden vectors: ``CTMR_GOLDEN``, or ``shared/golden`` beside the repository."""
    folder = Path(os.environ.get("CTMR_GOLDEN", REPOSITORY.parent / "shared" / "golden"))
    if not (folder / "network_rflow.json").is_file():
        pytest.skip(f"no golden vectors at {folder}; set CTMR_GOLDEN to run this test")
    return Golden(folder)
