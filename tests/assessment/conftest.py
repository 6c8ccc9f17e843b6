"""What tests of finished datasets share."""

from __future__ import annotations

import pytest

from ctmr_core.quality.base import Candidate
from tests.assessment.made import made_heads


@pytest.fixture(scope="session")
def heads() -> list[Candidate]:
    """Three coarse heads with their images, made once."""
    return made_heads()
