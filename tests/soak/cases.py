"""The small manifest the storms run on."""

from __future__ import annotations

from pathlib import Path

from ctmr_core.cases.case import Case
from ctmr_core.cases.manifest import Manifest
from ctmr_core.quality.registry import check_names

_FORM = ("geometry", "labels", "finite", "constant", "clipped")  # boxes have no anatomy to check


def quick_case(number: int, seconds: float = 0.0) -> Case:
    """A body of boxes at 48^3, made in milliseconds and then ``seconds`` of sleep."""
    return named_case(f"case-{number:03d}", number, seconds)


def named_case(name: str, number: int = 5, seconds: float = 0.0) -> Case:
    """A quick case of a given name."""
    return Case.model_validate(
        {
            "case_id": name,
            "body": "generated:blocks",
            "body_seed": number,
            "sequences": ("ct",),
            "size": (48, 48, 48),
            "spacing": (4.0, 4.0, 4.0),
            "engine": "blocks",
            "checks": {check: False for check in check_names() if check not in _FORM},
            "engine_parameters": {"seconds": seconds} if seconds else {},
        }
    )


def write_manifest(path: Path, cases: int, seconds: float = 0.0) -> Path:
    """A manifest of ``cases`` quick cases."""
    Manifest.from_cases([quick_case(number, seconds) for number in range(cases)]).write(path)
    return path
