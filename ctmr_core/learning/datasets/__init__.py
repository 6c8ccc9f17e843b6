"""Datasets and loaders for training: patches read from the store, mixed by ratio, or rendered on the spot."""

from ctmr_core.learning.datasets.classes import Classes
from ctmr_core.learning.datasets.loading import PatchLoader, loader
from ctmr_core.learning.datasets.mixed import Mixed
from ctmr_core.learning.datasets.online import OnlineDataset
from ctmr_core.learning.datasets.patch_dataset import PatchDataset
from ctmr_core.learning.datasets.stream import PatchStream
from ctmr_core.learning.datasets.volume_dataset import VolumeDataset

__all__ = ["Classes", "Mixed", "OnlineDataset", "PatchDataset", "PatchLoader", "PatchStream", "VolumeDataset", "loader"]
