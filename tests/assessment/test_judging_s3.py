"""Judging and curating where the dataset lives in an object store."""

from __future__ import annotations

import pytest

from ctmr_core.assessment.curation import Selection, curate, snapshot_curated
from ctmr_core.assessment.judging import rejudge
from ctmr_core.assessment.verdicts import policies_applied, read_verdicts
from ctmr_core.quality.policy import Policy
from tests.assessment.made import make_judged

STRICT = Policy(name="strict", checks={"hu_median": {"skull_low": 2400}})


@pytest.mark.parametrize("s3_server", ["moto"], indirect=True)
def test_a_dataset_in_an_object_store_is_judged_and_curated(heads, s3_uri):
    dataset, _ = make_judged(s3_uri, heads, unjudged=(1,))
    found = rejudge(dataset, STRICT)
    assert (found.cases, found.kept, found.measured) == (3, 2, 1)
    again = rejudge(dataset, STRICT)
    assert (again.measured, again.verdicts) == (0, found.verdicts)
    assert read_verdicts(dataset, STRICT).num_rows == 3
    assert [document["digest"] for document in policies_applied(dataset.storage)] == [STRICT.digest]
    chosen = curate(dataset, STRICT, Selection(where="scores['overlap/mri_t1/dice'] > 0"))
    assert snapshot_curated(dataset, STRICT, Selection(), chosen, "v1").cases == 2
