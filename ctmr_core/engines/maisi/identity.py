"""Which weights and network configuration an engine works with, as one digest that enters the case key."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ctmr_core.engines.maisi.digests import Digests, combined_digest
from ctmr_core.engines.maisi.hub import file_states
from ctmr_core.engines.maisi.network_config import read_network_config


def own_network_config(name: str, root: Path) -> Path | None:
    """``network_<variant>.json`` in the models folder: for weights of another size than the released ones."""
    path = root / f"network_{name}.json"
    return path if path.is_file() else None


def weights_digest(name: str, root: Path, network_config: Path | None) -> str:
    """SHA-256 hex over the digests of the image networks' files and the configuration; "" while a file is missing.

    Cheap where ``digests.json`` knows the files; otherwise they are hashed once. The place of files does not matter.
    """
    states = file_states(name, root)
    if any(state.status == "missing" for state in states):
        return ""
    digests = Digests(root)
    parts = {state.path.name: digests.hashed(state.path.relative_to(root).as_posix()).sha256 for state in states}
    if network_config is not None:
        document = json.dumps(read_network_config(network_config, name), sort_keys=True, separators=(",", ":"))
        parts["network configuration"] = hashlib.sha256(document.encode()).hexdigest()
    return combined_digest(parts)
