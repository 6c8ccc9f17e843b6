"""Where the ranks of a training leave reports and the driver leaves its wish to stop; a module of its own, quick to import."""

from __future__ import annotations

from typing import Any

from ctmr_core.errors import CtmrError


class Desk:
    """An actor where the ranks leave reports and the driver leaves its wish to stop."""

    def __init__(self) -> None:
        self._reports: list[Any] = []
        self._stop = False
        self._refusal: CtmrError | None = None
        self._result: Any = None

    def tell(self, report: Any) -> None:
        self._reports.append(report)

    def take(self) -> list[Any]:
        taken, self._reports = self._reports, []
        return taken

    def stop(self) -> None:
        self._stop = True

    def stopping(self) -> bool:
        return self._stop

    def refuse(self, error: CtmrError) -> None:
        self._refusal = self._refusal or error

    def finish(self, result: Any) -> None:
        self._result = result

    def outcome(self) -> tuple[CtmrError | None, Any]:
        return self._refusal, self._result
