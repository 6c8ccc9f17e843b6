"""From what pydantic reports to what a person reads: field, found, allowed, and the name they probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from ctmr_core.errors import CtmrError

Path = tuple[str | int, ...]
E = TypeVar("E", bound=CtmrError)

_MODEL_ONLY = frozenset({"value", "every", "[key]"})  # steps of the models that are never written
_SHOWN = 8  # problems spelled out in one error; the rest is counted


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: ``path`` into the document, and the parts of a ``CtmrError``."""

    path: Path
    what: str
    found: Any
    allowed: str | None
    fix: str | None = None


def near(name: str, names: Iterable[str]) -> str | None:
    """The name among ``names`` that ``name`` most probably misspells, or None."""
    matches = difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.6)
    return matches[0] if matches else None


def refuse_unknown_keys(data: Mapping[Any, Any], known: Iterable[str]) -> None:
    """Raise the pydantic error of an unknown key, with the known ones and the near miss in its context."""
    known = list(known)
    for key in data:
        if key not in known:
            raise PydanticCustomError(
                "unknown_key",
                "unknown key",
                {"key": str(key), "allowed": ", ".join(known), "near": near(str(key), known) or "", "path": [str(key)]},
            )


def problems_of(error: ValidationError, document: Any) -> list[Problem]:
    """Every problem of ``error``, with paths that exist in ``document`` (the data as the person wrote it)."""
    return [_problem(item, document) for item in error.errors(include_url=False) if not _is_echo(item)]


def _is_echo(item: Any) -> bool:
    """Pydantic also calls a list too short when it is its items that are wrong."""
    return item["type"] == "too_short" and bool(item["input"]) and item["ctx"]["actual_length"] < len(item["input"])


def _problem(item: Any, document: Any) -> Problem:
    context = item.get("ctx", {})
    inner = tuple(context.get("path", ()))
    path = written_path((*item["loc"], *inner), document)
    kind = item["type"]
    if kind == "unknown_key":
        fix = f"did you mean {context['near']!r}?" if context["near"] else None
        return Problem(path, "unknown key", context["key"], context["allowed"], fix)
    if kind == "missing" and isinstance(item["loc"][-1], int):
        return Problem(path, "a value is missing", item["input"], "one number each for x, y and z")
    if kind == "missing":
        return Problem(path, "a value is missing", None, None, f"add {path[-1]!r}")
    if kind == "literal_error":
        meant = near(str(item["input"]), re.findall(r"'([^']+)'", context["expected"]))
        fix = f"did you mean {meant!r}?" if meant else None
        return Problem(path, "this value is not one of the allowed", item["input"], context["expected"], fix)
    if kind == "value_error":
        what, _, allowed = str(context["error"]).partition("; allowed: ")
        return Problem(path, what, item["input"], allowed or None)
    if "what" in context:
        found, allowed = context.get("found", item["input"]), context.get("allowed")
        return Problem(path, context["what"], found, allowed, context.get("fix") or None)
    message = item["msg"].removeprefix("Input should be ")
    return Problem(path, "this value cannot be used", item["input"], message[:1].lower() + message[1:])


def written_path(location: Sequence[str | int], document: Any) -> Path:
    """``location`` without the steps that only exist in the model (a scalar read as ``value``, one item read as a list)."""
    path: list[str | int] = []
    for index, step in enumerate(location):
        last = index == len(location) - 1
        in_mapping = isinstance(document, Mapping) and step in document
        if in_mapping or (isinstance(document, (list, tuple)) and isinstance(step, int) and step < len(document)):
            document = document[step]
        elif not (last and isinstance(document, Mapping) and isinstance(step, str) and step not in _MODEL_ONLY):
            continue
        path.append(step)
    return tuple(path)


def field_name(path: Path) -> str:
    """``("groups", 0, "size")`` -> ``"groups[0].size"``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else step)
    return text


def gather(errors: Sequence[E]) -> E:
    """One error for all of ``errors``: the first in full, the next few below it, the rest counted."""
    first = errors[0]
    if len(errors) == 1:
        return first
    more = [" ".join(part.strip() for part in str(error).splitlines()) for error in errors[1:_SHOWN]]
    rest = len(errors) - 1 - len(more)
    lines = [first.fix] if first.fix else []
    lines += [f"also: {line}" for line in more] + ([f"and {rest} more"] if rest > 0 else [])
    whole = type(first)(first.what, where=first.where, allowed=first.allowed, fix="\n  ".join(lines))
    whole.found = first.found
    whole.args = (whole._text(),)
    return whole
