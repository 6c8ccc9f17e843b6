"""Curation: selected by verdict, score, condition, likeness and balance; the same cases every time."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctmr_core.assessment import verdicts
from ctmr_core.assessment.curation import Selection, curate, snapshot_curated
from ctmr_core.assessment.layout import write_table
from ctmr_core.assessment.measuring import Measured, measured_table
from ctmr_core.assessment.verdicts import JUDGED
from ctmr_core.assessment.where import COLUMNS, parse_where
from ctmr_core.cases.case import Case
from ctmr_core.errors import StoreError
from ctmr_core.quality.policy import Policy
from ctmr_core.store import Dataset
from tests.store.store_maker import make_case, make_dataset

POLICY = Policy(name="mine", tolerance=0.5)


def varied(number: int) -> Case:
    """Twelve cases: 8 with CT and T1, 4 with T1; centers, splits, spacings and lesions of several kinds."""
    return make_case(
        number,
        sequences=("ct", "mri_t1") if number % 3 else ("mri_t1",),
        split=("train", "train", "val", "test")[number % 4],
        center=("chest", "abdomen")[number % 2],
        spacing=(1.0, 1.0, (1.0, 2.5)[number % 2]),
        size=(16, 16, 16),
        lesions=({"label": "hepatic tumor", "diameter": 9.0},) if number % 5 == 0 else (),
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    made = make_dataset(tmp_path_factory.mktemp("curation") / "d", [varied(i) for i in range(12)])
    keep_verdicts(made, {f"case-{i:04d}": (i != 3, i / 12) for i in range(12)})
    return made


def keep_verdicts(dataset: Dataset, found: dict[str, tuple[bool, float]], policy: Policy = POLICY) -> None:
    rows = [
        {
            "case_id": case_id,
            "case_key": dataset.row(case_id, ["case_key"])["case_key"],
            "status": "accepted",
            "accepted": accepted,
            "score": score,
            "reasons": [],
            "policy": policy.digest,
            "checks": "labels@1 noise@1",
        }
        for case_id, (accepted, score) in found.items()
    ]
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in JUDGED]
    verdicts.write(dataset.storage, policy, pa.table(columns, schema=JUDGED))


def numbers(dataset: Dataset, **selection: object) -> list[int]:
    return [int(case_id[-4:]) for case_id in curate(dataset, POLICY, Selection(**selection)).cases]


def test_the_verdict_decides_first(dataset):
    found = curate(dataset, POLICY, Selection())
    assert (len(found.cases), found.left_out) == (11, {"verdict": 1})
    assert "case-0003" not in found.cases


def test_conditions_and_options_are_joined(dataset):
    assert numbers(dataset, splits=("val",)) == [2, 6, 10]
    assert numbers(dataset, sequences=("ct",), regions=("chest",)) == [2, 4, 8, 10]
    assert numbers(dataset, min_score=0.75) == [9, 10, 11]
    assert numbers(dataset, where="split == 'train' and not body_seed < 5 and center != 'chest'") == [5, 9]
    assert numbers(dataset, where="sequence_set in ['mri_t1']", splits=("train", "test")) == [0, 9]


def test_a_case_without_a_verdict_is_an_error_that_says_what_to_run(dataset):
    with pytest.raises(StoreError, match="12 of 12 cases have no verdict") as error:
        curate(dataset, Policy(name="other", tolerance=3), Selection())
    assert "ctmr quality run" in str(error.value)


def test_strata_get_equally_many_and_larger_selections_hold_smaller_ones(dataset):
    one = curate(dataset, POLICY, Selection(balance=("sequences",)))
    assert one.strata == {"ct+mri_t1": 3, "mri_t1": 3}
    few = curate(dataset, POLICY, Selection(balance=("sequences", "spacing"), per_stratum=1))
    more = curate(dataset, POLICY, Selection(balance=("sequences", "spacing"), per_stratum=2))
    assert set(few.strata) == {"ct+mri_t1 | <=1 mm", "ct+mri_t1 | <=3 mm", "mri_t1 | <=1 mm", "mri_t1 | <=3 mm"}
    assert set(few.cases) < set(more.cases)
    assert set(curate(dataset, POLICY, Selection(balance=("lesions",), per_stratum=2)).strata) == {"hepatic tumor", "none"}


def test_of_cases_that_are_alike_the_better_scored_stays(dataset, tmp_path):
    file = tmp_path / "pairs.parquet"
    ids = [f"case-{number:04d}" for number in range(12)]
    pairs = [(1, 2), (2, 4), (4, 5), (7, 7), (8, 99)]
    table = pa.table(
        {
            "case_id": [ids[a] for a, _ in pairs] + [ids[10]],
            "other": [ids[b] if b < 12 else "elsewhere" for _, b in pairs] + ["scan-1"],
            "kind": ["image"] * len(pairs) + ["reference-image"],
            "similarity": [0.99] * (len(pairs) + 1),
        }
    )
    pq.write_table(table, file)
    # 5 before 4 before 2 before 1: 4 goes, so 2 stays and 1 goes; 10 is a copy of a scan
    assert numbers(dataset, duplicates=str(file)) == [0, 2, 5, 6, 7, 8, 9, 11]
    write_table(dataset.storage, "duplicates", table)
    assert numbers(dataset, duplicates="auto") == [0, 2, 5, 6, 7, 8, 9, 11]


def test_pairs_that_are_not_there_are_errors(tmp_path):
    made = make_dataset(tmp_path / "d", [varied(0)])
    keep_verdicts(made, {"case-0000": (True, 1.0)})
    with pytest.raises(StoreError, match="nobody looked for duplicates"):
        curate(made, POLICY, Selection(duplicates="auto"))
    with pytest.raises(StoreError, match="can not be read"):
        curate(made, POLICY, Selection(duplicates=str(tmp_path / "none.parquet")))


def test_the_snapshot_names_policy_and_selection(dataset):
    selection = Selection(splits=("train",), min_score=0.25, balance=("center",), per_stratum=2)
    made = snapshot_curated(dataset, POLICY, selection, curate(dataset, POLICY, selection), "balanced")
    assert (made.policy, made.cases) == (POLICY.digest, 4)
    assert "splits train, min_score 0.25, balance center, per_stratum 2" in made.note
    assert Dataset.open(dataset.uri, "balanced").snapshot.digest == made.digest
    again = snapshot_curated(dataset, POLICY, selection, curate(Dataset.open(dataset.uri), POLICY, selection), "balanced")
    assert again.digest == made.digest


def test_an_empty_selection_makes_no_snapshot(dataset):
    selection = Selection(min_score=1.0)
    with pytest.raises(StoreError, match="no case is left"):
        snapshot_curated(dataset, POLICY, selection, curate(dataset, POLICY, selection), "none")


@pytest.mark.parametrize("wrong", [{"balance": ("colour",)}, {"per_stratum": 3}, {"balance": ("split",), "per_stratum": 0}])
def test_impossible_selections_are_refused(wrong):
    with pytest.raises(StoreError):
        Selection(**wrong)


@pytest.mark.parametrize(
    "text",
    ["", "split", "split = 'a'", "colour == 'red'", "open('x')", "split == f('x')", "scores[3] > 1", "split in 'ab'", "a.b == 1"],
)
def test_conditions_that_are_none_are_refused(text):
    with pytest.raises(StoreError):
        parse_where(text)


@given(
    st.recursive(
        st.tuples(
            st.sampled_from(["body_seed", "deformation"]),
            st.sampled_from(["<", "<=", "==", "!=", ">", ">="]),
            st.integers(-2, 14),
        ),
        lambda inner: st.tuples(inner, st.sampled_from(["and", "or"]), inner) | st.tuples(st.just("not"), inner),
        max_leaves=6,
    )
)
def test_conditions_mean_what_python_means(tree):
    def text(node):
        if not isinstance(node, tuple):
            return str(node)
        return f"({' '.join(text(part) for part in node)})"

    seeds = list(range(12))
    table = pa.table({"body_seed": seeds, "deformation": [float(seed % 4) for seed in seeds]})
    found = table.filter(parse_where(text(tree)))["body_seed"].to_pylist()
    assert found == [seed for seed in seeds if eval(text(tree), {}, {"body_seed": seed, "deformation": seed % 4})]
    assert set(table.column_names) <= set(COLUMNS)


def test_the_choice_does_not_depend_on_the_order_of_the_catalog(dataset, tmp_path: Path):
    other = make_dataset(tmp_path / "d", [varied(i) for i in reversed(range(12))])
    keep_verdicts(other, {f"case-{i:04d}": (i != 3, i / 12) for i in range(12)})
    selection = Selection(balance=("center",), per_stratum=2)
    assert curate(other, POLICY, selection) == curate(dataset, POLICY, selection)


def test_conditions_see_scores_that_were_measured_later(tmp_path):
    made = make_dataset(tmp_path / "d", [varied(i) for i in range(4)])
    keep_verdicts(made, {f"case-{i:04d}": (True, 1.0) for i in range(4)})
    found = [
        Measured(f"case-{i:04d}", made.row(f"case-{i:04d}")["case_key"], ("agreement@1",), {"agreement/net/ct/liver": i / 4})
        for i in (1, 2, 3)
    ]
    write_table(made.storage, "measured", measured_table(found))
    assert numbers(made, where="scores['agreement/net/ct/liver'] >= 0.5") == [2, 3]
    assert numbers(made, where="scores['agreement/net/ct/liver'] is None") == [0]
