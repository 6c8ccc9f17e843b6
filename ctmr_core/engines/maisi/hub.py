"""Fetching MAISI weights and making sure that they are what they should be.

``pull`` fetches from the Hugging Face hub or from a folder that mirrors it, ``verify`` hashes what is in place,
``file_states`` says what is there without reading it. Below the models folder files keep their paths of the hub, so a folder
that NVIDIA's own scripts have filled can be used as it is.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from ctmr_core.engines.maisi.digests import Digests, FileDigest, hash_file, write_json
from ctmr_core.engines.maisi.released import PARTS, REPOSITORIES, Licence, Part, ReleasedFile, licences_of, released_files
from ctmr_core.errors import EngineError, IntegrityError

MODELS_VARIABLE = "CTMR_MODELS"
LICENCES = "licences.json"
_RELEASED = {repository.licence.name: repository.licence for repository in REPOSITORIES.values()}

#: verified: the published file. recorded: the file of the first pull (no digest is published). unverified: put there by
#: hand, and nothing to compare with. different: put there by hand, and not the published file. changed: not the file that
#: was pulled or trained any more. not hashed: there, not looked into yet. trained: the file that `ctmr train` put there.
Status = Literal["verified", "recorded", "trained", "unverified", "different", "changed", "not hashed", "missing"]


@dataclass(frozen=True)
class FileState:
    """One file of a variant as it is on this machine. size: bytes, 0 when missing. sha256: "" where it is not known.

    licences: names of those the file stands under. What was trained here stands under the licences of what it was trained from,
    which are none for weights that were trained from nothing.
    """

    file: ReleasedFile
    path: Path
    status: Status
    size: int = 0
    sha256: str = ""
    licences: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        return self.status not in ("missing", "changed")


class LicenceRecord(BaseModel):
    """Files below the models folder that stand under one licence, and when a restricted one was accepted (UTC, "" = not)."""

    url: str
    files: list[str] = Field(default_factory=list)
    accepted: str = ""


def models_root(root: str | Path | None = None) -> Path:
    """The models folder: ``root``, else ``CTMR_MODELS``, else ``~/.cache/ctmr/models``."""
    chosen = root or os.environ.get(MODELS_VARIABLE) or Path.home() / ".cache" / "ctmr" / "models"
    return Path(chosen).expanduser()


def file_states(variant: str, root: Path, parts: Sequence[Part] = ("image",)) -> list[FileState]:
    """What is in place of a variant, told from names, sizes and the record: no weights are read."""
    digests = Digests(root)
    return [_state(file, digests, fresh=False) for file in released_files(variant, tuple(parts))]


def licences_in(variant: str, root: Path, parts: Sequence[Part] = ("image",)) -> tuple[str, ...]:
    """Names of the licences of the files of a variant in the models folder ``root``, each once; see ``FileState.licences``."""
    return tuple(dict.fromkeys(name for state in file_states(variant, root, parts) for name in state.licences))


def verify(
    variant: str, root: Path, parts: Sequence[Part] = ("image",), done: Callable[[FileState], None] | None = None
) -> list[FileState]:
    """Hash every file of ``parts`` that is in place and compare it; ``done`` hears of each one as it is finished."""
    digests = Digests(root)
    states = []
    for file in released_files(variant, tuple(parts)):
        state = _state(file, digests, fresh=True)
        states.append(state)
        if done is not None:
            done(state)
    return states


def pull(
    variant: str,
    root: Path,
    parts: Sequence[Part] = ("image",),
    *,
    mirror: Path | None = None,
    accept_licence: bool = False,
    endpoint: str | None = None,
    done: Callable[[FileState], None] | None = None,
) -> list[FileState]:
    """Fetch what is missing of a variant, verify all of it and record digests and licences below ``root``.

    mirror: a folder with the files under their paths of the hub (``models/...``) or side by side; nothing is downloaded then.
    accept_licence: needed once for weights under a non-commercial licence. endpoint: another address of the hub.
    Downloads continue where they stopped. Raises ``EngineError`` when a licence is not accepted or a file can't be had,
    ``IntegrityError`` when one is not the published one (or not the one of the first pull); such a file is not kept.
    """
    for licence in licences_of(variant):
        refuse_unaccepted(variant, licence, root, accept_licence)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError("the models folder cannot be made", where=str(root), found=error.strerror) from error
    digests = Digests(root)
    states = []
    for file in released_files(variant, tuple(parts)):
        state = _state(file, digests, fresh=False)
        if state.status not in ("verified", "recorded", "trained"):
            state = _fetch(file, digests, state, mirror, endpoint)
        if state.status != "trained":
            _record_licence(root, file, accept_licence)
        states.append(state)
        if done is not None:
            done(state)
    return states


def carry_licences(
    variant: str, source: Path, target: Path, *, trained: Mapping[str, Sequence[str]], taken: Sequence[str]
) -> list[str]:
    """Note in ``target`` the licences of the files of a variant that are there, as accepted in ``source``; their names.

    What is trained from weights stays under their licences. trained: path of a file trained just now -> paths in ``source`` of
    what it was trained from, none for one trained from nothing. taken: paths of files that are those of ``source``.
    """
    there = {state.file.path: state for state in file_states(variant, target, PARTS) if state.status != "missing"}
    base = {state.file.path: state for state in file_states(variant, source, PARTS)}
    files: dict[str, set[str]] = {}
    for path, state in there.items():
        origins = [base[one] for one in trained.get(path, (path,))] if path in (*trained, *taken) else [state]
        for name in (name for origin in origins for name in origin.licences):
            files.setdefault(name, set()).add(path)
    before = {**_licences(target), **_licences(source)}
    records = {
        name: LicenceRecord(
            url=before[name].url if name in before else _RELEASED[name].url,
            files=sorted(paths),
            accepted=before[name].accepted if name in before else "",
        )
        for name, paths in files.items()
    }
    write_json(target / LICENCES, {name: record.model_dump() for name, record in records.items()})
    return sorted(records)


def refuse_unaccepted(variant: str, licence: Licence, root: Path, accepted: bool) -> None:
    """``EngineError`` for a restricted licence that nobody has accepted for this models folder."""
    if not licence.restricted or accepted or licence.name in _accepted_licences(root):
        return
    raise EngineError(
        f"the weights of {variant} come under the {licence.name}. {licence.summary}",
        where=licence.url,
        fix=f"read it; if it allows what you are about to do: ctmr models pull {variant} --accept-license",
    )


def missing_weights(variant: str, root: Path, states: Sequence[FileState]) -> EngineError | None:
    """The error that says which files are not there (or not what they should be) and how to get them; None if all are."""
    missing = [state for state in states if not state.usable]
    if not missing:
        return None
    changed = [state for state in missing if state.status == "changed"]
    what = "weights are not the ones on record" if changed else "weights are missing"
    return EngineError(
        what,
        where=f"variant {variant}, models folder {root}",
        found=", ".join(f"{state.file.path}: {state.status}" for state in missing),
        fix=f"ctmr models pull {variant} --root {root} (or set {MODELS_VARIABLE} to the folder that has them)",
    )


def _in_place(file: ReleasedFile, root: Path) -> str:
    """Where the file is below ``root``: under its path of the hub, or side by side with the others."""
    name = Path(file.path).name
    return name if not (root / file.path).is_file() and (root / name).is_file() else file.path


def _state(file: ReleasedFile, digests: Digests, *, fresh: bool) -> FileState:
    """fresh: hash the file whatever the record says of its size and time."""
    name = _in_place(file, digests.root)
    path = digests.root / name
    if not path.is_file():
        return FileState(file, path, "missing", licences=(file.licence.name,))
    entry = digests.hashed(name, fresh=True) if fresh else digests.current(name)
    if entry is None:
        return FileState(file, path, "not hashed", path.stat().st_size, licences=(file.licence.name,))
    status = _status(file, entry)
    return FileState(file, path, status, entry.size, entry.sha256, _licences_of(file, digests.root, status))


def _licences_of(file: ReleasedFile, root: Path, status: Status) -> tuple[str, ...]:
    """As released, but of a file that was trained here what the folder's record says."""
    if status != "trained" or not (root / LICENCES).is_file():
        return (file.licence.name,)
    return tuple(sorted(name for name, record in _licences(root).items() if file.path in record.files))


def _status(file: ReleasedFile, entry: FileDigest) -> Status:
    if entry.sha256 == file.sha256:
        return "verified"
    if entry.trained:
        return "trained" if entry.sha256 == entry.trained else "changed"
    if entry.pulled:
        return "recorded" if entry.sha256 == entry.pulled else "changed"
    return "different" if file.sha256 else "unverified"


def _fetch(file: ReleasedFile, digests: Digests, before: FileState, mirror: Path | None, endpoint: str | None) -> FileState:
    """Put the file in place and its digest on record."""
    root = digests.root
    recorded = digests.recorded(file.path)
    expected = file.sha256 or (recorded.pulled if recorded else "")
    if before.status != "missing" and expected and hash_file(before.path) == expected:
        path, revision = before.path, recorded.revision if recorded else ""
    elif mirror is not None:
        path, revision = _from_mirror(file, root, mirror), ""
    else:
        path, revision = _from_hub(file, root, endpoint)
    sha256 = hash_file(path)
    if expected and sha256 != expected:
        path.unlink()
        raise IntegrityError(
            "the file is not the published one" if file.sha256 else "the file is not the one that was pulled first",
            where=str(mirror or f"{file.repository}/{file.path}"),
            found=sha256,
            allowed=expected,
            fix="pull again; if it stays so, the mirror or the repository has changed",
        )
    digests.record(path.relative_to(root).as_posix(), sha256, pulled=True, revision=revision)
    status: Status = "verified" if file.sha256 else "recorded"
    return FileState(file, path, status, path.stat().st_size, sha256, (file.licence.name,))


def _from_mirror(file: ReleasedFile, root: Path, mirror: Path) -> Path:
    """Hard-link, or where that can't be done copy, the file from the mirror."""
    candidates = (mirror / file.path, mirror / Path(file.path).name)
    source = next((path for path in candidates if path.is_file()), None)
    if source is None:
        raise EngineError("the mirror lacks a file", where=str(mirror), found=file.path, allowed=map(str, candidates))
    target = root / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(source):
        return target
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        partial.unlink(missing_ok=True)
        try:
            partial.hardlink_to(source.resolve())
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, partial)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise EngineError("the file cannot be put in place", where=str(target), found=str(error)) from error
    return target


def _from_hub(file: ReleasedFile, root: Path, endpoint: str | None) -> tuple[Path, str]:
    """Download the file to its place; the path and the commit it came from (as far as it is known)."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise EngineError(
            "fetching weights from the hub needs the package huggingface_hub",
            fix="pip install 'ctmr-factory[hub]', or give a folder that has the files with --from",
        ) from error
    repository = REPOSITORIES[file.repository]
    try:
        path = hf_hub_download(repository.name, file.path, revision=repository.revision, local_dir=root, endpoint=endpoint)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise EngineError(
            "the hub did not give the file",
            where=f"{repository.name}@{repository.revision[:12]}, {file.path}",
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            fix="pull again (it continues where it stopped), or fetch the files elsewhere and use --from FOLDER",
        ) from error
    return Path(path), _commit_of(file, root) or repository.revision


def _commit_of(file: ReleasedFile, root: Path) -> str:
    """The commit that huggingface_hub noted beside a file it downloaded: the first line of its metadata."""
    note = root / ".cache" / "huggingface" / "download" / f"{file.path}.metadata"
    return note.read_text(encoding="utf-8").splitlines()[0].strip() if note.is_file() else ""


def _record_licence(root: Path, file: ReleasedFile, accepted: bool) -> None:
    """Note in ``licences.json`` under which terms the files of a repository stand, and when they were accepted."""
    document = _licences(root)
    before = document.get(file.licence.name) or LicenceRecord(url=file.licence.url)
    when = before.accepted
    if accepted and not when:
        when = datetime.now(UTC).isoformat(timespec="seconds")
    after = LicenceRecord(url=file.licence.url, files=sorted({*before.files, file.path}), accepted=when)
    if after != before:
        records = {**document, file.licence.name: after}
        write_json(root / LICENCES, {name: record.model_dump() for name, record in records.items()})


def _accepted_licences(root: Path) -> set[str]:
    return {name for name, record in _licences(root).items() if record.accepted}


def _licences(root: Path) -> dict[str, LicenceRecord]:
    path = root / LICENCES
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {name: LicenceRecord.model_validate(record) for name, record in document.items()}
    except (ValueError, AttributeError) as error:
        raise IntegrityError("the record of licences is damaged", where=str(path), fix="remove it and pull again") from error
