"""The nodes of the cluster: how many actors have room, and on which nodes actors can't work."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import ray

from pipelines.factory.slots import Need

LOOK_SECONDS = 2.0  # how old the picture of the cluster may get


@dataclass
class Nodes:
    """The cluster as the driver sees it. refused: node id -> why actors can't work there."""

    need: Need
    refused: dict[str, str] = field(default_factory=dict)
    _seen: list[dict[str, Any]] = field(default_factory=list)
    _looked: float = float("-inf")

    def room(self) -> int:
        """Actors that fit on the nodes which are up and not refused, if nothing else ran there."""
        return sum(self.need.fits(node["Resources"]) for node in self._alive() if node["NodeID"] not in self.refused)

    def is_gone(self, node_id: str) -> bool:
        """Whether the cluster has lost the node."""
        self._looked = float("-inf")
        return node_id not in {node["NodeID"] for node in self._alive()}

    def describe(self) -> str:
        """What the nodes have, for a person who asked for more."""
        lines = []
        for node in self._alive():
            resources = {name: node["Resources"].get(name, 0.0) for name in ("CPU", "GPU", "memory")}
            room = f"{resources['CPU']:g} CPU, {resources['GPU']:g} GPU, {resources['memory'] / 1e9:.1f} GB"
            lines.append(f"{node['NodeManagerHostname']}: {self.refused.get(node['NodeID'], room)}")
        return "; ".join(lines) or "no node"

    def _alive(self) -> list[dict[str, Any]]:
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._seen = [node for node in ray.nodes() if node["Alive"]]
            self._looked = time.monotonic()
        return self._seen
