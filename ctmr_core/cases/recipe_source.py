"""The text of a recipe: plain data for the models, line numbers for the errors."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from ctmr_core.cases.problems import Path as FieldPath
from ctmr_core.cases.problems import field_name
from ctmr_core.errors import CtmrError, RecipeError


@dataclass(frozen=True)
class Kind:
    """What a YAML file is called in errors, the class of those errors, and what is said of its fields."""

    name: str
    error: type[CtmrError]
    fields: str


RECIPE = Kind("recipe", RecipeError, "name, cases and so on, see docs/recipes.md")


@dataclass(frozen=True)
class RecipeSource:
    """A recipe as it was written. ``name`` is what errors call it; ``lines`` maps field paths to 1-based lines."""

    name: str
    text: str
    data: Any
    lines: Mapping[FieldPath, int]

    @property
    def digest(self) -> str:
        """SHA-256 hex of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def where(self, path: Sequence[str | int] = ()) -> str:
        """``"quick.yaml line 7, field groups[0].size"``; the line of the nearest enclosing field where one is missing."""
        path = tuple(path)
        field = f", field {field_name(path)}" if path else ""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.name} line {self.lines[path[:length]]}{field}"
        return f"{self.name}{field}"


def read_source(path: Path | str, kind: Kind = RECIPE) -> RecipeSource:
    """Read a YAML file. ``RecipeError`` (the error of ``kind``) if it is not there, not UTF-8, not YAML or not a mapping."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise kind.error(f"there is no such {kind.name}", where=str(path), fix="check the path") from None
    except OSError as error:
        raise kind.error(f"the {kind.name} cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise kind.error(f"the {kind.name} is not text in UTF-8", where=str(path), fix="save it as UTF-8") from error
    return parse_source(text, str(path), kind)


def parse_source(text: str, name: str, kind: Kind = RECIPE) -> RecipeSource:
    """The recipe in ``text``. YAML 1.2: yes, no, on and off are plain strings."""
    try:
        document = YAML(typ="rt").load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = (error.problem or "cannot be parsed").strip()
        raise kind.error(
            f"this is not valid YAML: {problem}", where=f"{name}{line}", fix="correct the line or the indentation"
        ) from error
    except YAMLError as error:
        raise kind.error(f"this is not valid YAML: {str(error).splitlines()[0]}", where=name) from error
    except (TypeError, ValueError) as error:  # how ruamel meets a list used as a key, or a date such as 2026-13-45
        raise kind.error(f"this is not valid YAML: {error}", where=name, fix="look for a misplaced bracket or colon") from error
    if not isinstance(document, Mapping):
        found = "empty" if document is None else f"a {type(document).__name__}"
        raise kind.error(
            f"a {kind.name} is a mapping of fields to values",
            where=name,
            found=found,
            allowed=kind.fields,
        )
    lines: dict[FieldPath, int] = {}
    return RecipeSource(name, text, _plain(document, (), lines), lines)


def _plain(node: Any, path: FieldPath, lines: dict[FieldPath, int]) -> Any:
    """``node`` without ruamel's own types; fills ``lines`` on the way."""
    if isinstance(node, CommentedMap):
        plain = {}
        for key, value in node.items():
            place = (*path, key)
            lines[place] = node.lc.key(key)[0] + 1 if key in (node.lc.data or {}) else lines.get(path, 1)
            plain[str(key)] = _plain(value, place, lines)
        return plain
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            lines[(*path, index)] = node.lc.item(index)[0] + 1
        return [_plain(value, (*path, index), lines) for index, value in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):  # ScalarInt, ScalarFloat, quoted strings
        if isinstance(node, kind):
            return kind(node)
    return str(node)  # a date
