"""How the cases of a run are divided into waves: one Prefect task each."""

from __future__ import annotations

from collections.abc import Iterator

LEAST_WAVE_CASES = 256  # a wave of fewer would cost Prefect's server more than it tells
OTHER_TASKS = 2  # find-backlog and seal-catalog


def waves_of(cases: int, waves: int) -> Iterator[tuple[int, int]]:
    """The cases of each wave, and those that come after it: as many waves as wanted at most, however many cases there are."""
    size = max(LEAST_WAVE_CASES, -(-cases // waves))
    for begun in range(0, cases, size):
        yield min(size, cases - begun), max(0, cases - begun - size)


def task_runs(cases: int, waves: int) -> int:
    """Prefect task runs of a run that makes this many cases."""
    return OTHER_TASKS + sum(1 for _ in waves_of(cases, waves))
