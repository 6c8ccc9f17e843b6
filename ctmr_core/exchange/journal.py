"""What an export has done so far: one line per finished case, and the files it consists of."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ctmr_core.errors import ExchangeError
from ctmr_core.store.storage import checked_name

JOURNAL = "export.jsonl"
DOCUMENT = "export.json"
SCRATCH = ".export"


@contextmanager
def held(out: Path) -> Iterator[Path]:
    """The folder of an export for one process at a time; gives an empty scratch folder on the same file system."""
    scratch = out / SCRATCH
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / "lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ExchangeError("another process is exporting into this folder", where=str(out)) from error
        for entry in scratch.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
        yield scratch
    shutil.rmtree(scratch, ignore_errors=True)


def digest_of(value: Any) -> str:
    """SHA-256 hex of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def settle(scratch: Path, out: Path) -> list[dict[str, Any]]:
    """Give the files below ``scratch`` their places below ``out``, each by one rename; (name, bytes, sha256) of each, by name.

    Names are made of plain segments only, and no part of the way may be a link that leads out of the export.
    """
    files = []
    for path in sorted(entry for entry in scratch.rglob("*") if entry.is_file()):
        name = path.relative_to(scratch).as_posix()
        target = _inside(out, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        size, digest = path.stat().st_size, _sha256(path)
        path.replace(target)
        files.append({"name": name, "bytes": size, "sha256": digest})
    shutil.rmtree(scratch)
    return files


def read_journal(out: Path) -> Iterator[dict[str, Any]]:
    """The lines of ``export.jsonl``; a last line that a crash cut off is passed over."""
    path = out / JOURNAL
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith("\n"):
                return
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ExchangeError(
                    "a line of the journal is damaged",
                    where=f"{path} line {number}",
                    fix="delete the line; its case is written anew",
                ) from error
            for file in record["files"]:
                checked_name(file["name"])
            yield record


class Journal:
    """Appends to ``export.jsonl``; one process writes it."""

    def __init__(self, out: Path, standing: Iterable[Mapping[str, Any]]) -> None:
        """Begin with the lines in ``standing``: what came before and still counts."""
        self._path = out / JOURNAL
        _write_lines(self._path, standing)
        self._file = self._path.open("a", encoding="utf-8")

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Put lines on the disk."""
        self._file.writelines(_line(record) for record in records)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def sort_journal(out: Path) -> None:
    """Put the lines in the order of the case ids, so that equal exports have equal journals.

    Keeps (case id, offset) of every line in memory, not the lines.
    """
    path = out / JOURNAL
    with path.open("rb") as lines:
        places, offset = [], 0
        for line in lines:
            places.append((json.loads(line)["case_id"], offset, len(line)))
            offset += len(line)
        places.sort()
        fresh = path.with_name(f".{JOURNAL}.new")
        with fresh.open("wb") as file:
            for _, start, length in places:
                lines.seek(start)
                file.write(lines.read(length))
    fresh.replace(path)


def write_document(out: Path, document: Mapping[str, Any]) -> None:
    """Write ``export.json`` in one step."""
    fresh = out / f".{DOCUMENT}.new"
    fresh.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    fresh.replace(out / DOCUMENT)


def read_document(out: Path) -> dict[str, Any] | None:
    """``export.json``, None for an empty folder; ``ExchangeError`` for a folder with other things in it."""
    path = out / DOCUMENT
    if path.is_file():
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ExchangeError("not the description of an export", where=str(path), fix="delete the file") from error
        return dict(document)
    if out.is_dir() and any(entry.name != SCRATCH for entry in out.iterdir()):
        raise ExchangeError("the folder is not empty and holds no export", where=str(out), fix="choose another --out")
    return None


def remove_files(out: Path, names: Iterable[str]) -> None:
    """Remove files of an export, and folders they leave empty."""
    for name in names:
        _inside(out, name).unlink(missing_ok=True)
        for parent in PurePosixPath(name).parents:
            folder = out / parent
            if folder == out or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


def is_there(out: Path, record: Mapping[str, Any]) -> bool:
    """Whether the files of a line are there with their sizes."""
    for file in record["files"]:
        path = out / file["name"]
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            return False
    return True


def _inside(out: Path, name: str) -> Path:
    """The place of a file below the export; refused when the way there leads out of it."""
    place = out / checked_name(name)
    if not place.parent.resolve().is_relative_to(out.resolve()):
        raise ExchangeError("a folder of the export is a link to elsewhere", where=str(place.parent), fix="remove the link")
    return place


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        file.writelines(_line(record) for record in records)
    fresh.replace(path)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":")) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
