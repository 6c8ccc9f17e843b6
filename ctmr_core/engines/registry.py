"""Finding engines by name."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from ctmr_core.engines.base import Engine, SourcedBodyEngine
from ctmr_core.errors import EngineError

GROUP = "ctmr.engines"


def engine_names() -> list[str]:
    """The names of every installed engine."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load_engine(name: str, **options: Any) -> Engine:
    """A new engine. ``options`` (``device``, ``threads`` ...) go to its constructor."""
    for point in entry_points(group=GROUP):
        if point.name == name:
            engine: Engine = point.load()(**options)
            return engine
    raise EngineError("unknown engine", found=name, allowed=engine_names(), fix="install the package that provides it")


@cache
def engine_identity(name: str) -> str:
    """``name/version`` and, where there are weights, ``/<weights digest>``: what enters the case key."""
    engine = load_engine(name)
    try:
        return "/".join(part for part in (engine.name, engine.version, engine.weights_digest) if part)
    finally:
        engine.close()


@cache
def body_digest(name: str, body: str) -> str:
    """What a generated body is made of (``SourcedBodyEngine``), "" where its engine has nothing to say: enters the case key."""
    engine = load_engine(name)
    try:
        return engine.body_digest(body) if isinstance(engine, SourcedBodyEngine) and body in engine.bodies else ""
    finally:
        engine.close()
