"""Exports go on where they stopped, whatever stopped them, and give the same files however they are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from ctmr_core.errors import CtmrError, ExchangeError
from ctmr_core.exchange import ExportCase, Selection, export, exporter_names, load_exporter, registry
from ctmr_core.exchange.base import CaseExporter
from ctmr_core.exchange.journal import held, read_journal
from ctmr_core.store import Dataset, create_snapshot, seal
from tests.exchange.exchange_maker import commit_case, exchange_case, exchange_dataset
from tests.store.store_maker import manifest_of


def contents(folder: Path) -> dict[str, str]:
    """Name -> digest of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return exchange_dataset(tmp_path / "set", [exchange_case(i) for i in range(4)])


def test_every_file_is_recorded_with_its_origin(dataset: Dataset, tmp_path: Path) -> None:
    kept = create_snapshot(dataset, "night-1")
    opened = Dataset.open(dataset.uri, "night-1")
    out = tmp_path / "out"
    summary = export(opened, load_exporter("nifti"), out)
    assert (summary.cases, summary.written, summary.failures) == (4, 4, {})
    lines = list(read_journal(out))
    assert [line["case_id"] for line in lines] == list(dataset)
    recorded = {file["name"]: file["sha256"] for line in lines for file in line["files"]}
    document = json.loads((out / "export.json").read_text())
    recorded |= {file["name"]: file["sha256"] for file in document["index"]}
    assert {name: digest for name, digest in contents(out).items() if name not in ("export.json", "export.jsonl")} == recorded
    assert {line["snapshot"] for line in lines} == {kept.digest}
    assert [line["case_key"] for line in lines] == [dataset.row(case)["case_key"] for case in dataset]
    assert document["complete"]
    assert document["licences"] == ["CC-BY-4.0"]


def test_what_is_there_stays_and_what_is_missing_is_written(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(dataset, load_exporter("nifti"), out)
    whole = contents(out)
    (out / "labels/case-0001.nii.gz").unlink()
    (out / "images/case-0002_ct.nii.gz").write_bytes(b"half")
    untouched = (out / "images/case-0003_ct.nii.gz").stat().st_mtime_ns
    with (out / "export.jsonl").open("a") as file:
        file.write('{"case_id": "case-00')  # a crash in the middle of a line
    assert export(dataset, load_exporter("nifti"), out).written == 2
    assert contents(out) == whole
    assert (out / "images/case-0003_ct.nii.gz").stat().st_mtime_ns == untouched
    assert export(dataset, load_exporter("nifti"), out).written == 0


class StopsAfterTwo(CaseExporter):
    """Dies in the middle of the third case, as a killed process does: with files written and nothing said."""

    name: ClassVar[str] = "nifti"
    seen = 0

    def write_case(self, case: ExportCase, folder: Path) -> None:
        self.seen += 1
        if self.seen == 3:
            (folder / "half.nii.gz").write_bytes(b"half")
            raise KeyboardInterrupt
        inner.write_case(case, folder)

    def prepare(self, plan: Any) -> Mapping[str, Any]:
        return {}


inner: Any = load_exporter("nifti")


def test_an_export_that_was_killed_leaves_whole_files_only(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopping = StopsAfterTwo(inner.options)
    with pytest.raises(KeyboardInterrupt):
        export(dataset, stopping, out)
    assert [line["case_id"] for line in read_journal(out)] == ["case-0000", "case-0001"]
    assert not json.loads((out / "export.json").read_text())["complete"]
    assert export(dataset, inner, out).written == 2
    undisturbed = tmp_path / "undisturbed"
    export(dataset, inner, undisturbed)
    assert contents(out) == contents(undisturbed)


def test_the_files_are_the_same_for_any_number_of_processes(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset, load_exporter("nifti"), tmp_path / "one", workers=1)
    summary = export(dataset, load_exporter("nifti"), tmp_path / "two", workers=2)
    assert summary.written == 4
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_dataset_that_grows_and_changes(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(dataset, load_exporter("nifti"), out)
    remade, new = exchange_case(1, seed=9), exchange_case(7)
    dataset.adopt(manifest_of([remade, new]))
    for case in (remade, new):
        commit_case(dataset, case)
    seal(dataset.storage, "unit-more", [(case.case_id, case.key) for case in (remade, new)])
    dataset.refresh()
    assert export(dataset, load_exporter("nifti"), out).written == 2
    summary = export(dataset, load_exporter("nifti"), out, selection=Selection(cases=("case-0000", "case-0007")))
    assert (summary.cases, summary.written) == (2, 0)
    assert sorted(path.name for path in (out / "labels").iterdir()) == ["case-0000.nii.gz", "case-0007.nii.gz"]


def test_other_options_write_anew_and_take_the_old_files_away(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(dataset, load_exporter("nifti"), out)
    assert export(dataset, load_exporter("nifti", {"suffix": "nii"}), out).written == 4
    assert not list(out.rglob("*.nii.gz"))


def test_a_damaged_case_is_named_and_the_others_are_exported(dataset: Dataset, tmp_path: Path) -> None:
    arrays = Path(dataset.uri) / dataset["case-0002"].path / "ct/0"
    volume = max((path for path in arrays.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(volume.read_bytes())
    data[200] ^= 1
    volume.write_bytes(data)
    out = tmp_path / "out"
    summary = export(dataset, load_exporter("nifti"), out)
    assert (summary.cases, list(summary.failures)) == (3, ["case-0002"])
    assert "damaged" in summary.failures["case-0002"]
    assert not json.loads((out / "export.json").read_text())["complete"]
    assert not list(out.rglob("case-0002*"))


def test_folders_that_are_not_ours_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("mine")
    with pytest.raises(ExchangeError, match="holds no export"):
        export(dataset, load_exporter("nifti"), theirs)
    out = tmp_path / "out"
    export(dataset, load_exporter("nifti"), out, selection=Selection(limit=1))
    with pytest.raises(ExchangeError, match="another format"):
        export(dataset, load_exporter("monai"), out)
    with held(out), pytest.raises(ExchangeError, match="another process"):
        export(dataset, load_exporter("nifti"), out)


def test_names_from_a_catalog_never_lead_out_of_the_folder(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctmr_core.exchange import planning

    light = planning._light

    def tampered(table: pa.Table, sequences: tuple[str, ...]) -> pa.Table:
        made = light(table, sequences)
        return made.set_column(0, "case_id", pa.array(["../../evil"] * made.num_rows))

    monkeypatch.setattr(planning, "_light", tampered)
    with pytest.raises(CtmrError, match="plain segments"):
        export(dataset, load_exporter("nifti"), tmp_path / "a/b/out")
    assert not list(tmp_path.rglob("evil*"))


def test_links_inside_an_export_are_not_followed(dataset: Dataset, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = tmp_path / "out"
    export(dataset, load_exporter("nifti"), out, selection=Selection(limit=1))
    (out / "labels/case-0000.nii.gz").unlink()
    (out / "labels").rmdir()
    (out / "labels").symlink_to(elsewhere)
    kept = elsewhere / "case-0000.nii.gz"
    kept.write_text("not of the export")
    with pytest.raises(ExchangeError, match="link to elsewhere"):
        export(dataset, load_exporter("nifti"), out)
    assert [path.read_text() for path in elsewhere.iterdir()] == ["not of the export"]


def test_selections(dataset: Dataset, tmp_path: Path) -> None:
    more = exchange_dataset(tmp_path / "more", [exchange_case(i, split=("train", "val")[i % 2]) for i in range(4)])
    assert export(more, load_exporter("nifti"), tmp_path / "val", selection=Selection(splits=("val",))).cases == 2
    with pytest.raises(ExchangeError, match="no case to export"):
        export(more, load_exporter("nifti"), tmp_path / "none", selection=Selection(sequences=("mri_t1",)))
    with pytest.raises(ExchangeError, match="not an accepted case"):
        export(more, load_exporter("nifti"), tmp_path / "none", selection=Selection(cases=("case-9999",)))
    assert not (tmp_path / "none").exists()


class Counting(CaseExporter):
    """A format of another package."""

    name: ClassVar[str] = "counting"

    def write_case(self, case: ExportCase, folder: Path) -> None:
        (folder / f"{case.entry.case_id}.txt").write_text(str(case.labels().size))


def test_other_packages_bring_formats(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def points(group: str) -> Iterator[EntryPoint]:
        return iter([EntryPoint("counting", "tests.exchange.test_driver:Counting", group)])

    monkeypatch.setattr(registry, "entry_points", points)
    assert "counting" in exporter_names()
    export(dataset, load_exporter("counting"), tmp_path / "out")
    assert (tmp_path / "out/case-0003.txt").read_text() == "8640"


def test_settings_are_checked() -> None:
    with pytest.raises(ExchangeError, match="unknown format"):
        load_exporter("nope")
    with pytest.raises(ExchangeError, match=r"--set suffix"):
        load_exporter("nifti", {"suffix": "png"})
    with pytest.raises(ExchangeError, match="--set colour"):
        load_exporter("nifti", {"colour": "red"})
