"""Errors written for the person who reads them.

Every refusal says what was wrong, where (file, row, field), what was found, what is allowed and how to
fix it. ``CtmrError`` carries these parts separately so that the command line can print them as text or JSON.
"""

from __future__ import annotations

from collections.abc import Iterable


class CtmrError(Exception):
    """Base class of every error the factory raises on purpose.

    Parameters
    ----------
    what: one sentence that names the problem.
    where: file, row and field, for example ``"quick.yaml line 7, field groups[0].spacing"``.
    found: the offending value, shown with ``repr``.
    allowed: a sentence or the collection of allowed values.
    fix: what the reader can do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        found: object = None,
        allowed: str | Iterable[object] | None = None,
        fix: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.found = None if found is None else repr(found)
        if allowed is None or isinstance(allowed, str):
            self.allowed = allowed
        else:
            self.allowed = ", ".join(str(value) for value in allowed)
        self.fix = fix
        super().__init__(self._text())

    def _text(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        for name, value in (("found", self.found), ("allowed", self.allowed), ("fix", self.fix)):
            if value is not None:
                lines.append(f"  {name}: {value}")
        return "\n".join(lines)

    def located(self, where: str) -> CtmrError:
        """The same error, with ``where`` put in front of the place it already names."""
        place = f"{where}, {self.where}" if self.where else where
        copy = type(self)(self.what, where=place, allowed=self.allowed, fix=self.fix)
        copy.found = self.found
        copy.args = (copy._text(),)
        return copy

    def as_dict(self) -> dict[str, str | None]:
        """The parts of the error, for ``--json`` output."""
        parts = ("what", "where", "found", "allowed", "fix")
        return {"error": type(self).__name__, **{part: getattr(self, part) for part in parts}}


class AnatomyError(CtmrError):
    """A label map, vocabulary, mapping, template or body that cannot be used."""


class RecipeError(CtmrError):
    """A recipe that cannot be planned."""


class ManifestError(CtmrError):
    """A manifest, or one of its rows, that cannot be generated."""


class EngineError(CtmrError):
    """An engine that is unknown or was asked for something it cannot render."""


class StoreError(CtmrError):
    """A dataset that cannot be opened, written or verified."""


class DatasetHeldError(StoreError):
    """Another run holds the dataset."""


class IntegrityError(StoreError):
    """Stored bytes that are not what the commit record says they are."""


class CheckError(CtmrError):
    """A check that is unknown or was configured with impossible thresholds."""


class LearningError(CtmrError):
    """Training data that cannot be drawn, or a training run that cannot go on."""


class ExchangeError(CtmrError):
    """An export or import that can not be done."""
