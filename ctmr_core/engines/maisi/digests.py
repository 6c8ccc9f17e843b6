"""SHA-256 of weight files, computed once and remembered for as long as size and time of the file stay the same.

Gigabytes are hashed when they are fetched, when someone asks for it, or when a file was put in place by hand; planning and
generating read the small ``digests.json`` beside them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ctmr_core.errors import EngineError, IntegrityError

LOG = logging.getLogger(__name__)
DIGESTS = "digests.json"


class FileDigest(BaseModel):
    """What is known of one file below the models folder.

    size, mtime_ns: of the file when it was hashed; another size or time means that it must be hashed again.
    pulled: SHA-256 hex of the file that was fetched to this place, "" for one that was put there by hand.
    revision: the commit of the hub it was fetched from, "" where unknown. trained: SHA-256 hex of the file that a training here
    put in this place, "" otherwise.
    """

    model_config = ConfigDict(extra="ignore")

    sha256: str
    size: int
    mtime_ns: int
    pulled: str = ""
    revision: str = ""
    trained: str = ""


class Digests:
    """The digests of the files below ``root``. A folder that can't be written is hashed anew by every process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known = _read(root / DIGESTS)

    def recorded(self, path: str) -> FileDigest | None:
        """What is on record for ``path`` (relative to the root), whether or not the file is still like that."""
        return self._known.get(path)

    def current(self, path: str) -> FileDigest | None:
        """The record of the file if its size and time are still the recorded ones."""
        known = self._known.get(path)
        status = (self.root / path).stat()
        return known if known and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns) else None

    def hashed(self, path: str, *, fresh: bool = False) -> FileDigest:
        """The record of the file as it is now, hashed where that is needed (fresh: in any case)."""
        if fresh:
            return self.record(path, hash_file(self.root / path))
        return self.current(path) or self.record(path, hash_once(self.root / path))

    def record(self, path: str, sha256: str, *, pulled: bool = False, revision: str = "", trained: bool = False) -> FileDigest:
        """Remember the digest of a file, on disk where that is possible. pulled, trained: it was fetched or trained just now."""
        status = (self.root / path).stat()
        self._known = _read(self.root / DIGESTS) or self._known
        before = self._known.get(path)
        entry = FileDigest(
            sha256=sha256,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            pulled=sha256 if pulled else before.pulled if before else "",
            revision=revision or (before.revision if before else ""),
            trained=sha256 if trained else "" if pulled or before is None else before.trained,
        )
        self._known = {**self._known, path: entry}
        document = {name: self._known[name].model_dump() for name in sorted(self._known)}
        try:
            write_json(self.root / DIGESTS, document)
        except OSError as error:
            LOG.warning("%s cannot be written (%s); weights are hashed by every process", self.root / DIGESTS, error)
        return entry


def hash_file(path: Path) -> str:
    """SHA-256 hex of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_once(path: Path) -> str:
    """SHA-256 hex of a file's content, computed once per process while its size and time stay the same."""
    status = path.stat()
    return _hash_version(path.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _hash_version(path: Path, size: int, mtime_ns: int) -> str:
    del size, mtime_ns  # they are the key: a folder that can't be written must not be hashed for every case
    return hash_file(path)


def combined_digest(parts: Mapping[str, str]) -> str:
    """SHA-256 hex over names and digests, in the order of the names: the ``weights_digest`` of an engine."""
    text = "\n".join(f"{name} {parts[name]}" for name in sorted(parts))
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a small JSON file whole or not at all, also when several processes do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(document, indent=2, sort_keys=True) + "\n")
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)  # there only when something went wrong


def _read(path: Path) -> dict[str, FileDigest]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {name: FileDigest.model_validate(entry) for name, entry in document.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise EngineError("the record of weight digests cannot be read", where=str(path), found=str(error)) from error
    except (ValueError, AttributeError, ValidationError) as error:
        raise IntegrityError(
            "the record of weight digests is damaged",
            where=str(path),
            found=str(error).splitlines()[0],
            fix="remove it and run `ctmr models verify`",
        ) from error
