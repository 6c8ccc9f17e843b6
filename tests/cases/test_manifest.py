"""Manifests: written and read in three formats, refused with the place of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctmr_core.anatomy.sequences import MODALITY_CODES
from ctmr_core.cases.case import Case, Lesion
from ctmr_core.cases.manifest import Manifest, read_manifest
from ctmr_core.cases.manifest_table import SCHEMA, rows_are_valid
from ctmr_core.cases.planner import plan
from ctmr_core.cases.recipe import load_recipe
from ctmr_core.errors import ManifestError

EXAMPLES = Path(__file__).resolve().parents[2] / "manifests" / "examples.csv"
HEADER = "case_id,body,sequences,size,spacing,center,lesions,engine_parameters"
ROW = "a,parametric:torso,ct,64x64x64,1.5x1.5x2,abdomen,,"

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=8), json_values, max_size=3)
printable = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
cases = st.builds(
    Case,
    case_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}", fullmatch=True),
    body=st.sampled_from(["parametric:torso", "parametric:head", "template:abc-1"]),
    body_seed=st.integers(0, 2**63 - 1),
    split=st.sampled_from(["train", "val", "test"]),
    sequences=st.lists(st.sampled_from(sorted(MODALITY_CODES)), min_size=1, max_size=4, unique=True),
    size=st.tuples(*[st.integers(16, 1024)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 10)] * 3),
    center=printable,
    lesions=st.lists(st.builds(Lesion, label=printable, diameter=st.floats(1e-3, 1e4)), max_size=3),
    deformation=st.floats(0, 50),
    pose=st.just(()) | st.tuples(*[st.floats(-45, 45)] * 3),
    engine=printable,
    engine_parameters=objects,
    checks=objects,
    max_attempts=st.integers(1, 100),
    seed=st.integers(0, 2**63 - 1),
    template_digest=printable,
    engine_identity=printable,
)


def write(tmp_path: Path, *lines: str, name: str = "m.csv") -> Path:
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def refusal(path: Path) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    return caught.value


@settings(deadline=None)
@given(st.lists(cases, min_size=1, max_size=4, unique_by=lambda case: case.case_id))
def test_cases_survive_the_table_and_have_the_same_keys(some):
    manifest = Manifest.from_cases(some)
    assert list(manifest.iter_cases()) == some
    assert manifest.case_keys() == [case.key for case in some]
    assert rows_are_valid(manifest.table)


def test_parquet_keeps_rows_recipe_and_bytes(recipe_path, tmp_path):
    manifest = plan(load_recipe(recipe_path))
    manifest.write(tmp_path / "deep" / "a.parquet")
    again = read_manifest(tmp_path / "deep" / "a.parquet")
    assert again.table.equals(manifest.table)
    assert again.metadata["recipe"] == recipe_path.read_text()
    assert again.metadata["schema_version"] == "1"
    again.write(tmp_path / "b.parquet")
    assert (tmp_path / "b.parquet").read_bytes() == (tmp_path / "deep" / "a.parquet").read_bytes()
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["a.parquet"]


def test_ranges_of_rows_are_read_lazily(recipe_path):
    manifest = plan(load_recipe(recipe_path))
    every = list(manifest.iter_cases())
    assert list(manifest.iter_cases(3, 7)) == every[3:7]
    assert list(manifest.iter_cases(18, 99)) == every[18:]
    assert manifest.case(5) == every[5]
    assert manifest.case_keys(4, 6) == [every[4].key, every[5].key]
    assert list(manifest.iter_cases(20)) == []
    with pytest.raises(ManifestError, match="no such rows"):
        manifest.case_keys(-1, 3)


def test_the_same_cases_by_hand_in_csv_json_lines_and_parquet_have_the_same_keys(tmp_path):
    by_csv = read_manifest(EXAMPLES)
    rows = [case.model_dump(mode="json", exclude_defaults=True) for case in by_csv.iter_cases()]
    by_json = read_manifest(write(tmp_path, *(json.dumps(row) for row in rows), name="m.jsonl"))
    by_parquet_path = tmp_path / "hand.parquet"
    columns = ["case_id", "body", "body_seed", "split", "sequences", "size", "spacing", "center", "lesions"]
    pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows]), by_parquet_path)
    assert by_json.case_keys() == by_csv.case_keys() == read_manifest(by_parquet_path).case_keys()


@pytest.mark.parametrize(
    ("field", "cell", "expected"),
    [
        ("spacing", "1.5x1.5x2", (1.5, 1.5, 2.0)),
        ("spacing", "1.5 1.5 2", (1.5, 1.5, 2.0)),
        ("spacing", "1.5;1.5;2", (1.5, 1.5, 2.0)),
        ("spacing", '"[1.5, 1.5, 2]"', (1.5, 1.5, 2.0)),
        ("size", "64X32x16", (64, 32, 16)),
        ("sequences", "ct;ct_contrast", ("ct", "ct_contrast")),
        ("sequences", '"[""ct"", ""mri""]"', ("ct", "mri")),
        ("lesions", "hepatic tumor:20;lung tumor:12.5", (("hepatic tumor", 20.0), ("lung tumor", 12.5))),
        ("lesions", "", ()),
        ("center", "", ""),
        ("engine_parameters", '"{""ct"": {""dose"": 2}}"', {"ct": {"dose": 2}}),
    ],
)
def test_cells_may_be_written_in_several_ways(tmp_path, field, cell, expected):
    names = HEADER.split(",")
    cells = ROW.split(",")
    cells[names.index(field)] = cell
    case = read_manifest(write(tmp_path, HEADER, ",".join(cells))).case(0)
    found = getattr(case, field)
    assert (tuple((lesion.label, lesion.diameter) for lesion in found) if field == "lesions" else found) == expected
    assert case.split == "train"
    assert case.engine == "tissue"


@pytest.mark.parametrize("mark", ["\t", ";"])
def test_other_separators_work_as_spreadsheets_write_them(tmp_path, mark):
    path = write(tmp_path, "\ufeff" + HEADER.replace(",", mark), ROW.replace(",", mark))
    assert read_manifest(path).case(0).spacing == (1.5, 1.5, 2.0)


@pytest.mark.parametrize(
    ("field", "cell", "words"),
    [
        ("spacing", "1.5x1.5", ["2 number(s) in place of three", "1.5x1.5x2"]),
        ("spacing", "axbxc", ["these are not three numbers"]),
        ("spacing", "1x1x99", ["spacing along z is 99", "0.2..10"]),
        ("spacing", "1x1xnan", ["nan"]),
        ("size", "64x64x64.5", ["three whole numbers"]),
        ("size", "64x64x8", ["size along z is 8", "16..1024"]),
        ("sequences", "ct;cct", ["unknown sequence 'cct'", "ct_wo_contrast"]),
        ("sequences", "ct;ct", ["listed twice"]),
        ("body", "parametric:arm", ["unknown body", "parametric:torso"]),
        ("case_id", "a b", ["'a b'"]),
        ("case_id", "", ["a value is missing", "case_id"]),
        ("lesions", "hepatic tumor", ["not a lesion", "<label>:<diameter in mm>"]),
        ("lesions", "hepatic tumor:big", ["'big' is not a diameter"]),
        ("lesions", "hepatic tumor:-3", ["-3", "greater than 0"]),
        ("engine_parameters", "{dose: 3}", ["not a JSON object"]),
        ("engine_parameters", '"{""dose"": NaN}"', ["NaN"]),
        ("engine_parameters", "[1]", ["JSON object is needed"]),
    ],
)
def test_bad_cells_are_refused_with_line_and_field(tmp_path, field, cell, words):
    names = HEADER.split(",")
    cells = ROW.split(",")
    cells[names.index(field)] = cell
    path = write(tmp_path, "# by hand", HEADER, ROW.replace("a,", "ok,", 1), "", ",".join(cells))
    error = refusal(path)
    assert str(error.where).startswith(f"{path} line 5")
    if words[0].find("along") < 0 and "unknown body" not in words[0]:
        assert field in str(error)
    for word in words:
        assert word in str(error)


def test_lines_are_those_an_editor_shows_even_after_a_cell_with_a_line_break(tmp_path):
    path = write(tmp_path, HEADER, '"a\n",parametric:torso,ct,64x64x64,1x1x1,,,', ROW.replace("64x64x64", "1x1x1"))
    assert f"{path} line 4" in str(refusal(path))


def test_doubled_case_ids_name_both_rows(tmp_path):
    error = refusal(write(tmp_path, HEADER, ROW, ROW.replace("a,", "b,", 1), ROW))
    assert "line 2 and line 4, field case_id" in str(error.where)
    assert error.found == "'a'"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([HEADER.replace("spacing", "spaceing"), ROW], ["unknown column", "did you mean 'spacing'"]),
        ([HEADER.replace("center", "size"), ROW], ["a column is there twice"]),
        (["case_id,body", "a,b"], ["no column 'sequences'"]),
        ([HEADER, ROW + ",,"], ["not as many cells", "10", "8 cells"]),
        ([HEADER, '"' + ROW], ["not valid CSV", "line 2"]),
        ([HEADER], ["holds no rows"]),
        ([""], ["holds no rows"]),
    ],
)
def test_bad_tables_are_refused(tmp_path, lines, words):
    error = refusal(write(tmp_path, *lines))
    for word in words:
        assert word in str(error)


def test_bad_json_lines_are_refused_with_their_line(tmp_path):
    good = json.dumps(
        {"case_id": "a", "body": "parametric:head", "sequences": ["ct"], "size": [32, 32, 32], "spacing": [1, 1, 1]}
    )
    error = refusal(write(tmp_path, good, good.replace('"a"', '"b"')[:40], name="m.jsonl"))
    assert "line 2" in str(error)
    assert "not valid JSON" in str(error)
    assert "line 2: unknown field" in str(refusal(write(tmp_path, good, good.replace("body", "boddy"), name="m.jsonl")))
    assert "a value is missing" in str(refusal(write(tmp_path, "", '{"case_id": "a"}', name="m.jsonl")))
    assert "one object per line" in str(refusal(write(tmp_path, "[1]", name="m.jsonl")))


def test_damaged_and_foreign_files_are_refused(tmp_path, recipe_path):
    path = tmp_path / "m.parquet"
    plan(load_recipe(recipe_path)).write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "not a complete Parquet file" in str(refusal(path))
    path.write_bytes(b"")
    assert "not a complete Parquet file" in str(refusal(path))
    assert "no such manifest" in str(refusal(tmp_path / "absent.parquet"))
    assert "no such manifest" in str(refusal(tmp_path / "absent.csv"))
    assert "unknown kind of manifest" in str(refusal(tmp_path / "m.xlsx"))
    (tmp_path / "dir.csv").mkdir()
    assert "cannot be read" in str(refusal(tmp_path / "dir.csv"))
    (tmp_path / "latin.csv").write_bytes("é".encode("latin-1"))
    assert "UTF-8" in str(refusal(tmp_path / "latin.csv"))


def test_another_schema_version_is_refused(tmp_path, recipe_path):
    table = plan(load_recipe(recipe_path)).table
    table = table.replace_schema_metadata({**table.schema.metadata, b"ctmr.schema_version": b"99"})
    pq.write_table(table, tmp_path / "m.parquet")
    assert "another schema version" in str(refusal(tmp_path / "m.parquet"))


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("case_id", "a/b", ["row 3", "case_id"]),
        ("case_id", "torso-ct-0000000", ["row 1 and row 3"]),
        ("body", "template:../x", ["row 3", "unknown body"]),
        ("split", "dev", ["row 3", "split", "'dev'"]),
        ("sequences", ["ct", "ct"], ["row 3", "listed twice"]),
        ("sequences", [], ["row 3", "sequences"]),
        ("size", [64, 64], ["row 3", "size"]),
        ("size", [64, 64, 4000], ["row 3", "4000"]),
        ("spacing", [1.0, 1.0, float("nan")], ["row 3", "spacing"]),
        ("deformation", 51.0, ["row 3", "deformation"]),
        ("lesions", [{"label": "x", "diameter": 0.0}], ["row 3", "lesions[0].diameter"]),
        ("max_attempts", 0, ["row 3", "max_attempts"]),
        ("body_seed", -1, ["row 3", "body_seed"]),
        ("engine_parameters", "{", ["row 3", "engine_parameters"]),
        ("checks", "3", ["row 3", "checks"]),
    ],
)
def test_a_planned_manifest_that_was_edited_is_checked_again(tmp_path, recipe_path, column, value, words):
    rows = plan(load_recipe(recipe_path)).table.to_pylist()
    rows[2][column] = value
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "m.parquet")
    error = refusal(tmp_path / "m.parquet")
    for word in words:
        assert word in str(error)


def test_bad_rows_can_be_skipped(tmp_path):
    path = write(tmp_path, HEADER, ROW, ROW, ROW.replace("a,", "b,", 1), ROW.replace("64x64x64", "x"), "c,d")
    manifest = read_manifest(path, skip_invalid=True)
    assert [case.case_id for case in manifest.iter_cases()] == ["a", "b"]
    assert [str(error.where).split(",")[0] for error in manifest.skipped] == [
        f"{path} line 2 and line 3",
        f"{path} line 5",
        f"{path} line 6",
    ]
    whole = refusal(path)
    assert str(whole).count("also:") == 2


def test_only_parquet_is_written(recipe_path, tmp_path):
    with pytest.raises(ManifestError, match="written as Parquet"):
        plan(load_recipe(recipe_path)).write(tmp_path / "m.csv")
    with pytest.raises(ManifestError, match="cannot be written"):
        plan(load_recipe(recipe_path)).write(recipe_path / "m.parquet")


def test_digests_are_filled_in_where_they_are_empty():
    base = {"sequences": ("ct",), "size": (32, 32, 32), "spacing": (1.0, 1.0, 1.0)}
    manifest = Manifest.from_cases(
        [
            Case(case_id="a", body="template:t1", **base),
            Case(case_id="b", body="template:t2", template_digest="kept", engine_identity="kept", **base),
            Case(case_id="c", body="parametric:head", **base),
        ]
    ).completed(lambda engine: f"{engine}/1", lambda template: f"digest of {template}")
    assert [case.template_digest for case in manifest.iter_cases()] == ["digest of t1", "kept", ""]
    assert [case.engine_identity for case in manifest.iter_cases()] == ["tissue/1", "kept", "tissue/1"]


def test_the_summary_counts_what_people_ask_for():
    summary = read_manifest(EXAMPLES).summary()
    assert summary["cases"] == 5
    assert summary["images"] == 8
    assert summary["with_lesions"] == 3
    assert summary["lesions"] == {"hepatic tumor": 3, "left white matter lesion": 1}
    assert summary["splits"] == {"test": 1, "train": 3, "val": 1}
    assert summary["spacings"] == {"3 x 3 x 4": 3, "1.8 x 1.8 x 1.8": 2}


def test_one_case_of_each_combination_is_enough_to_judge_a_manifest(recipe_path):
    manifest = plan(load_recipe(recipe_path))
    distinct = list(manifest.distinct_cases())
    assert len({case.case_id for case in distinct}) == len(distinct)
    combinations = {(case.body, case.sequences, case.size, case.spacing) for case in manifest.iter_cases()}
    assert {(case.body, case.sequences, case.size, case.spacing) for case in distinct} == combinations
    alike = [case.model_copy(update={"case_id": f"c{seed}", "body_seed": seed}) for seed in range(5) for case in distinct[:1]]
    assert [case.case_id for case in Manifest.from_cases(alike).distinct_cases()] == ["c0"]
