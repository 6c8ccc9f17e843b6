"""A training that takes seconds: six small cases with a snapshot, and its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ctmr_core.store import Dataset
from ctmr_core.store.snapshots import create_snapshot
from tests.store.store_maker import make_case, make_dataset

SNAPSHOT = "first"


def small_dataset(folder: Path) -> Dataset:
    """Six cases of CT and T1, two of them for validation, in the snapshot ``first``."""
    splits = ["train", "train", "val", "train", "val", "train"]
    dataset = make_dataset(folder, [make_case(number, size=(32, 32, 32), split=split) for number, split in enumerate(splits)])
    create_snapshot(dataset, SNAPSHOT)
    return dataset


def write_config(path: Path, dataset: str | Path, *, validation: bool = True, **training: Any) -> Path:
    """A configuration whose training takes about a second."""
    document = {
        "name": "tiny",
        "classes": ["liver", "spleen"],
        "patch": [16, 16, 16],
        "sources": [{"dataset": str(dataset)}],
        "validation": [{"name": "val", "dataset": str(dataset), "limit": 1}] if validation else [],
        "network": {"name": "SegResNet", "options": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}},
        "training": {
            "steps": 4,
            "batch_size": 2,
            "epoch": 16,
            "workers": 0,
            "optimizer": {"name": "sgd", "learning_rate": 0.01},
            "validate_every": 2,
            "checkpoint_every": 1,
            "device": "cpu",
            "logging": {"every": 1, "tensorboard": False},
            **training,
        },
    }
    with path.open("w", encoding="utf-8") as stream:
        YAML().dump(document, stream)
    return path
