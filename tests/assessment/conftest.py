"""What tests of finished datasets share."""

from __future__ import annotations

import pytest

from ctmr_core.quality.base import Candidate
from tests.assessment.made import head_case, make_candidate


@pytest.fixture(scope="session")
def heads() -> list[Candidate]:
    """Three coarse heads with their images, made once."""
    return [make_candidate(head_case(number)) for number in range(3)]
