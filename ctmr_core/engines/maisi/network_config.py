"""Network configurations: the reference ones, or a file or dictionary of the same structure.

A configuration names classes (``_target_``) and their arguments; ``"@name"`` refers to another top-level entry.
Expressions (``"$..."``), which the reference's reader would run as code, are refused.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ctmr_core.engines.maisi.variants import variant
from ctmr_core.errors import EngineError

NetworkConfig = dict[str, Any]


@cache
def _reference_text(name: str) -> str:
    return (files("ctmr_core.engines.maisi") / "data" / f"network_{name}.json").read_text(encoding="utf-8")


def reference_config(name: str) -> NetworkConfig:
    """The reference configuration ``rflow`` or ``ddpm`` (see ``data/README.md``)."""
    config: NetworkConfig = json.loads(_reference_text(name))
    return config


def read_network_config(source: NetworkConfig | str | Path | None, variant_name: str) -> NetworkConfig:
    """The configuration to use, with all references resolved.

    source: a dictionary, the path of a JSON file, or None for the variant's reference configuration.
    Raises ``EngineError`` for unreadable files, unknown references and expressions.
    """
    if source is None:
        return resolve(reference_config(variant(variant_name).config))
    if isinstance(source, dict):
        return resolve(source)
    try:
        config = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise EngineError("the network configuration can't be read", where=str(source), found=str(problem)) from problem
    if not isinstance(config, dict):
        raise EngineError("a network configuration is a JSON object", where=str(source), found=type(config).__name__)
    try:
        return resolve(config)
    except EngineError as problem:
        raise problem.located(str(source)) from None


def resolve(config: NetworkConfig) -> NetworkConfig:
    """A copy in which every ``"@name"`` is replaced by the top-level entry ``name``."""
    return {key: _resolved(value, config, key, ()) for key, value in config.items()}


def _resolved(value: Any, config: NetworkConfig, where: str, path: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(entry, config, f"{where}.{key}", path) for key, entry in value.items()}
    if isinstance(value, list):
        return [_resolved(entry, config, f"{where}[{i}]", path) for i, entry in enumerate(value)]
    if not isinstance(value, str):
        return value
    if value.startswith("$"):
        raise EngineError("expressions are not run", where=where, found=value, fix="write the value itself")
    if not value.startswith("@"):
        return value
    name = value[1:]
    if name not in config or name in path:
        what = "reference to itself" if name in path else "reference to an entry that is not there"
        raise EngineError(what, where=where, found=value, allowed=sorted(f"@{key}" for key in config))
    return _resolved(config[name], config, where, (*path, name))
