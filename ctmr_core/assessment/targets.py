"""Targets of a set: those its recipe named, kept with the dataset, or those of a YAML file (see ``cases.targets``)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ctmr_core.assessment import layout
from ctmr_core.cases.problems import field_name, gather, problems_of
from ctmr_core.cases.targets import NumberTarget, Targets
from ctmr_core.errors import CheckError
from ctmr_core.store.dataset import Dataset
from ctmr_core.store.storage import Storage, checked_name

__all__ = ["NumberTarget", "Targets", "keep_targets", "read_targets", "targets_of"]
_NAME = f"{layout.QUALITY}/targets-"


def read_targets(path: Path) -> Targets:
    """The ``targets:`` block of a YAML file, for example a recipe; ``CheckError`` names file and field of what is wrong."""
    try:
        document: Any = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        raise CheckError("the targets can not be read", where=str(path), found=str(error).splitlines()[0]) from error
    if not isinstance(document, dict) or "targets" not in document:
        raise CheckError("the file has no targets", where=str(path), allowed="targets: {shares: {...}, numbers: {...}}")
    return _validated(document["targets"] or {}, str(path))


def keep_targets(storage: Storage, text: str) -> None:
    """Keep the targets a manifest brought along (JSON), as the last ones asked for."""
    name = checked_name(layout.QUALITY, f"targets-{hashlib.sha256(text.encode()).hexdigest()[: layout.DIGITS]}.json")
    storage.write(name, text.encode())  # again, where they were there: the last written count


def targets_of(dataset: Dataset) -> Targets | None:
    """The targets of the last manifest that had any and was generated into this dataset; None when none had."""
    found = [entry for entry in dataset.storage.list(layout.QUALITY) if entry.name.startswith(_NAME)]
    if not found:
        return None
    last = max(found, key=lambda entry: (entry.modified, entry.name)).name
    try:
        return Targets.model_validate_json(dataset.storage.read(last))
    except ValidationError as error:
        raise CheckError(
            "these are no targets", where=f"{dataset.uri}/{last}", found=str(error.errors()[0]["msg"]), fix="delete the file"
        ) from error


def _validated(data: Any, place: str) -> Targets:
    try:
        return Targets.model_validate(data)
    except ValidationError as error:
        raise gather(
            [
                CheckError(
                    problem.what,
                    where=f"{place}, field {field_name(('targets', *problem.path))}",
                    found=problem.found,
                    allowed=problem.allowed,
                    fix=problem.fix,
                )
                for problem in problems_of(error, data)
            ]
        ) from error
