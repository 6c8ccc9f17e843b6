"""Exporting a dataset: cases streamed through worker processes, each recorded when it is there, so that any run can go on."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ctmr_core.errors import CtmrError, ExchangeError, StoreError
from ctmr_core.exchange.base import ExportCase, Exporter, ExportPlan, ExportUnit, Selection, file_names
from ctmr_core.exchange.journal import (
    Journal,
    digest_of,
    held,
    is_there,
    read_document,
    read_journal,
    remove_files,
    settle,
    sort_journal,
    write_document,
)
from ctmr_core.exchange.planning import plan_export
from ctmr_core.store import Dataset
from ctmr_core.worker_processes import end_with_parent

SCHEMA = 1
_AHEAD = 2  # units handed out per worker: the next one is there when a worker is done, and no more is held


@dataclass
class ExportSummary:
    """What an export came to. cases: in the export now; written: by this run; failures: unit -> why it could not be written.

    bytes: of the files that this run wrote, without index and metadata.
    """

    out: str
    format: str
    cases: int = 0
    written: int = 0
    bytes: int = 0
    content_digest: str = ""
    failures: dict[str, str] = field(default_factory=dict)


def export(
    dataset: Dataset,
    exporter: Exporter,
    out: Path,
    *,
    selection: Selection | None = None,
    name: str = "",
    workers: int = 1,
    done: Callable[[int, int], None] | None = None,
) -> ExportSummary:
    """Write the chosen cases of ``dataset`` into the folder ``out``.

    Doing so again writes what is missing: cases that are there (recorded, with files of the right size, of the same content and
    the same options) stay, cases that left the dataset are removed. workers: processes; 1 works in this one. done: is told
    (cases there, cases in all) after each unit. A unit that can't be written (``CtmrError``) is reported and the others go on;
    storage that can't be written to ends the export. Memory: a volume or so per worker, whatever the number of cases.
    """
    plan = plan_export(dataset, selection or Selection(), name)
    facts = exporter.prepare(plan)
    document = _document(plan, exporter, facts)
    _refuse_others(out, document)
    out.mkdir(parents=True, exist_ok=True)
    summary = ExportSummary(str(out), exporter.name, content_digest=plan.content_digest)
    stamp = digest_of([document["format"], document["format_version"], document["options"], facts])
    wanted = {digest: len(unit.cases) for unit, digest in _units(exporter, plan, stamp)}
    document["cases"] = total = sum(wanted.values())
    with held(out) as scratch:
        standing = _standing(out, wanted)
        summary.cases = sum(standing.values())
        write_document(out, {**(read_document(out) or {}), **document, "complete": False})
        journal = Journal(out, (line for line in read_journal(out) if line["unit_digest"] in standing))
        todo = ((unit, digest) for unit, digest in _units(exporter, plan, stamp) if digest not in standing)
        common = {"snapshot": plan.snapshot, "software": document["software"]}
        try:
            for unit, digest, outcome in _written(dataset, exporter, out, scratch, todo, workers):
                if isinstance(outcome, CtmrError):
                    summary.failures[unit.name] = str(outcome)
                else:
                    journal.add(_lines(unit, digest, outcome, common))
                    _count(summary, unit, outcome)
                if done is not None:
                    done(summary.cases, total)
        finally:
            journal.close()
        if not summary.failures:
            _finish(out, scratch, exporter, plan, document)
    return summary


def _count(summary: ExportSummary, unit: ExportUnit, files: list[dict[str, Any]]) -> None:
    summary.cases += len(unit.cases)
    summary.written += len(unit.cases)
    summary.bytes += sum(file["bytes"] for file in files)


def _document(plan: ExportPlan, exporter: Exporter, facts: Any) -> dict[str, Any]:
    return {
        "kind": "ctmr-export",
        "schema": SCHEMA,
        "software": f"ctmr-factory {version('ctmr-factory')}",
        "format": exporter.name,
        "format_version": exporter.version,
        "options": exporter.options.model_dump(mode="json"),
        "facts": digest_of(facts),
        "name": plan.name,
        "dataset": plan.dataset,
        "snapshot": plan.snapshot,
        "snapshot_name": plan.snapshot_name,
        "content_digest": plan.content_digest,
        "licences": list(plan.licences),
    }


def _refuse_others(out: Path, document: dict[str, Any]) -> None:
    standing = read_document(out)
    if standing is not None and standing.get("format") != document["format"]:
        raise ExchangeError(
            "the folder holds an export in another format",
            where=str(out),
            found=standing.get("format"),
            allowed=document["format"],
            fix="choose another --out",
        )


def _units(exporter: Exporter, plan: ExportPlan, stamp: str) -> Iterator[tuple[ExportUnit, str]]:
    """Every unit with a digest over all that decides its files."""
    for unit in exporter.units(plan):
        cases = [(case.case_id, case.case_key, case.content_digest, case.split, case.sequences) for case in unit.cases]
        yield unit, digest_of([stamp, unit.name, cases])


def _standing(out: Path, wanted: Mapping[str, int]) -> dict[str, int]:
    """Those units of ``wanted`` (digest -> cases) that are there; files of all others are removed."""
    found = Counter(line["unit_digest"] for line in read_journal(out) if line["unit_digest"] in wanted and is_there(out, line))
    standing = {digest: cases for digest, cases in wanted.items() if found[digest] == cases}
    for line in read_journal(out):
        if line["unit_digest"] not in standing:
            remove_files(out, file_names(line))
    return standing


def _lines(unit: ExportUnit, digest: str, files: list[dict[str, Any]], common: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            **common,
            "case_id": case.case_id,
            "case_key": case.case_key,
            "content_digest": case.content_digest,
            "split": case.split,
            "body_identity": case.body_identity,
            "sequences": list(case.sequences),
            "vocabulary": case.vocabulary,
            "unit": unit.name,
            "unit_digest": digest,
            "files": files,
        }
        for case in unit.cases
    ]


def _finish(out: Path, scratch: Path, exporter: Exporter, plan: ExportPlan, document: dict[str, Any]) -> None:
    sort_journal(out)
    folder = scratch / "index"
    folder.mkdir()
    exporter.finish(plan, partial(read_journal, out), folder)
    index = settle(folder, out)
    before = (read_document(out) or {}).get("index", [])
    remove_files(out, {file["name"] for file in before} - {file["name"] for file in index})
    write_document(out, {**document, "complete": True, "index": index})


Outcome = list[dict[str, Any]] | CtmrError


def _written(
    dataset: Dataset,
    exporter: Exporter,
    out: Path,
    scratch: Path,
    todo: Iterator[tuple[ExportUnit, str]],
    workers: int,
) -> Iterator[tuple[ExportUnit, str, Outcome]]:
    """Units with the files that were written for them, in no order."""
    if workers <= 1:
        writer = _Writer(dataset, exporter, out, scratch)
        for unit, digest in todo:
            yield unit, digest, writer(unit)
        return
    context = multiprocessing.get_context("spawn")  # tensorstore does not survive a fork
    pool = ProcessPoolExecutor(workers, context, _begin_worker, (dataset, exporter, out, scratch))
    pending: dict[Future[Outcome], tuple[ExportUnit, str]] = {}
    try:
        more = True
        while more or pending:
            while more and len(pending) < workers * _AHEAD:
                following = next(todo, None)
                if following is None:
                    more = False
                else:
                    pending[pool.submit(_write_in_worker, following[0])] = following
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                unit, digest = pending.pop(future)
                yield unit, digest, future.result()
    except BrokenProcessPool as error:
        raise ExchangeError(
            "a worker process died, perhaps for want of memory", fix="run the same command again, with fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Writer:
    """Writes units, in this process."""

    def __init__(self, dataset: Dataset, exporter: Exporter, out: Path, scratch: Path) -> None:
        self._dataset, self._exporter, self._out, self._scratch = dataset, exporter, out, scratch

    def __call__(self, unit: ExportUnit) -> Outcome:
        folder = self._scratch / f"{unit.name}.{os.getpid()}"
        folder.mkdir()
        try:
            self._exporter.write(unit, self._cases(unit), folder)
            return settle(folder, self._out)
        except OSError as error:
            raise ExchangeError("can not write the export", where=str(self._out), found=str(error)) from error
        except CtmrError as error:
            return error

    def _cases(self, unit: ExportUnit) -> Iterator[ExportCase]:
        for entry in unit.cases:
            try:
                volume = self._dataset[entry.case_id]
                yield ExportCase(entry, volume, partial(self._dataset.row, entry.case_id))
            except StoreError as error:
                raise error.located(f"case {entry.case_id}") from error


_worker: list[_Writer] = []  # of this process


def _begin_worker(dataset: Dataset, exporter: Exporter, out: Path, scratch: Path) -> None:
    end_with_parent()
    _worker[:] = [_Writer(dataset, exporter, out, scratch)]


def _write_in_worker(unit: ExportUnit) -> Outcome:
    return _worker[0](unit)
