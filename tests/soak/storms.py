"""The storms: each breaks one run in its own way, drawn from a seed, and says what it did."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctmr_core.store.drills import POINTS
from tests.soak import child, factory

ERRORS = ("EIO", "ENOSPC", "EROFS", "ESTALE", "ETIMEDOUT")
PLACES = ("volumes/*", "commits/*", "catalog/*", "*")
POISONS = ("raise", "exit", "kill", "segfault", "memory")
DRIVER_POINTS = ("lock.made", "adopt.made", "sweep.begin", "wave.begin", "compact.begin", "compact.merged", "compact.made")


@dataclass(frozen=True)
class Scene:
    """Where a storm takes place: its manifest, a dataset that is not there yet, its seed's draws, and how many cases."""

    manifest: Path
    dataset: Path
    random: np.random.Generator
    cases: int


@dataclass(frozen=True)
class Storm:
    """A way to break a run. ``whole``: with Ray and Prefect, tens of seconds; else in one process, about a second."""

    name: str
    whole: bool
    break_run: Callable[[Scene], str]


def kill_line(scene: Scene) -> str:
    """Kill the one-process line at a point, on a random passage, up to three times in a row."""
    done = []
    for _ in range(int(scene.random.integers(1, 4))):
        point = str(scene.random.choice([point for point in POINTS if point != "wave.begin"]))
        nth = int(scene.random.integers(1, 2 * scene.cases if point.startswith("file") else 3))
        code = child.run(scene.manifest, scene.dataset, {f"@{point}": {"fault": "kill", "nth": nth, "once": True}})
        done.append(f"kill at {point} #{nth} ({code})")
    return ", ".join(done)


def fail_storage(scene: Scene) -> str:
    """Storage errors for a while, somewhere."""
    error, place = str(scene.random.choice(ERRORS)), str(scene.random.choice(PLACES))
    nth, times = int(scene.random.integers(1, 3 * scene.cases)), int(scene.random.integers(1, 4))
    order = {"fault": error, "object": place, "nth": nth, "times": times}
    code = child.run(scene.manifest, scene.dataset, {"@file.half": order})
    return f"{error} x{times} at file #{nth} of {place} ({code})"


def kill_driver(scene: Scene) -> str:
    """SIGKILL to the command when some cases are committed."""
    run = factory.start(scene.manifest, scene.dataset)
    commits = int(scene.random.integers(0, scene.cases))
    run.await_commits(commits)
    run.process.kill()
    return f"driver killed after {commits} commits ({run.wait()})"


def stop_driver(scene: Scene) -> str:
    """SIGTERM once or twice."""
    run = factory.start(scene.manifest, scene.dataset)
    commits, twice = int(scene.random.integers(1, scene.cases)), bool(scene.random.integers(2))
    run.await_commits(commits)
    run.process.terminate()
    if twice:
        time.sleep(float(scene.random.uniform(0.0, 1.0)))
        run.process.terminate()
    return f"SIGTERM {'twice' if twice else 'once'} after {commits} commits ({run.wait()})"


def kill_actors(scene: Scene) -> str:
    """SIGKILL to random actors while the run goes on."""
    run = factory.start(scene.manifest, scene.dataset)
    killed = 0
    for commits in sorted(int(n) for n in scene.random.integers(1, scene.cases, 3)):
        run.await_commits(commits)
        if run.process.poll() is not None:
            break
        actors = [process for process in run.children() if process.name() == "ray::CaseMaker"]
        if actors:
            os.kill(actors[int(scene.random.integers(len(actors)))].pid, signal.SIGKILL)
            killed += 1
    return f"{killed} actors killed ({run.wait()})"


def kill_server(scene: Scene) -> str:
    """SIGKILL to the run's Prefect server."""
    run = factory.start(scene.manifest, scene.dataset, PREFECT_CLIENT_MAX_RETRIES="1")
    run.await_commits(int(scene.random.integers(1, scene.cases)))
    if run.process.poll() is None:
        for process in run.children():
            if "pipelines.flows.local_server" in process.cmdline():
                process.kill()
    return f"Prefect's server killed ({run.wait()})"


def drill_run(scene: Scene) -> str:
    """A poison case, and the driver killed at one of its points."""
    name, fault = f"case-{int(scene.random.integers(scene.cases)):03d}", str(scene.random.choice(POISONS))
    # an attempt that raises is followed by another one with other draws, unless it stands in the dataset by then
    stages = ["committed"] if fault == "raise" else ["render", "commit", "committed"]
    stage, point = str(scene.random.choice(stages)), str(scene.random.choice(DRIVER_POINTS))
    plan = {name: {"0": f"{fault}@{stage}", "once": True}, f"@{point}": {"fault": "kill", "once": True}}
    drill = factory.write_drill(scene.dataset.with_name(f"{scene.dataset.name}-drill.json"), plan)
    first = factory.start(scene.manifest, scene.dataset, drill=drill).wait()
    second = factory.start(scene.manifest, scene.dataset, drill=drill).wait()
    return f"{fault}@{stage} in {name}, driver killed at {point} ({first}, {second})"


STORMS = (
    Storm("kill the line", False, kill_line),
    Storm("storage errors", False, fail_storage),
    Storm("kill the driver", True, kill_driver),
    Storm("stop the driver", True, stop_driver),
    Storm("kill actors", True, kill_actors),
    Storm("kill Prefect", True, kill_server),
    Storm("drill", True, drill_run),
)
