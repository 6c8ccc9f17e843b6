"""Datasets and loaders for training: patches read from the store, mixed by ratio, or rendered on the spot."""

from typing import TYPE_CHECKING, Any

from ctmr_core.learning.datasets.classes import Classes
from ctmr_core.learning.datasets.loading import PatchLoader, loader
from ctmr_core.learning.datasets.mixed import Mixed
from ctmr_core.learning.datasets.patch_dataset import PatchDataset
from ctmr_core.learning.datasets.stream import PatchStream
from ctmr_core.learning.datasets.volume_dataset import VolumeDataset

if TYPE_CHECKING:
    from ctmr_core.learning.datasets.online import OnlineDataset

__all__ = ["Classes", "Mixed", "OnlineDataset", "PatchDataset", "PatchLoader", "PatchStream", "VolumeDataset", "loader"]


def __getattr__(name: str) -> Any:
    if name == "OnlineDataset":  # engines and templates take a second to import, which workers that read patches don't need
        from ctmr_core.learning.datasets.online import OnlineDataset

        return OnlineDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
