"""What turns slices into feature vectors: a fixed bank of filters that needs no download, or any network from a file.

The bank is made of random filters, not of learned ones. Distances between its features rank sets against each other under this
bank alone: they are not Fréchet *Inception* distances, and no published number can be compared with them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional

from ctmr_core.errors import CheckError

#: Means of ImageNet's colours as RadImageNet networks expect them, in the order MAISI's evaluation applies them to B, G, R.
CHANNEL_MEANS = (0.406, 0.456, 0.485)
_BATCH = 16  # slices in a network at a time
_SIDE = 128  # pixels of a slice in the bank
_LAYERS = ((1, 24, 7), (24, 40, 5), (40, 56, 3))  # channels in, channels out, width of the filters
_PERCENTS = (1, 5, 10, 25, 50, 75, 90, 95, 99)
_BINS = 32
_BIN_ENDS = np.arange(1, _BINS, dtype=np.float32) / _BINS
_EMPTY = np.float32(1 / 255)
_GAIN = 10.0  # brings the numbers of a slice to about 1, where the kernel of KID is neither flat nor steep
_SEED = 2024


class FeatureExtractor(Protocol):
    """Slices in, one vector per slice out.

    name: what the features are called; digest: changes whenever the features do; note: what they may be compared with.
    """

    name: str
    digest: str
    note: str

    def features(self, slices: np.ndarray) -> np.ndarray:
        """float32 [slices, d] of slices float32 [slices, rows, columns] in 0..1."""
        ...


class FilterBank:
    """256 numbers per slice: mean and spread of 120 responses of random filters at three scales, and 16 plain statistics."""

    name = "filter-bank"
    note = "comparable with distances of the same filter bank only; not FID"

    def __init__(self) -> None:
        rng = np.random.Generator(np.random.Philox(key=_SEED))
        self._filters = [_filters(rng, *layer) for layer in _LAYERS]
        sha = hashlib.sha256(f"{_SIDE}|{_PERCENTS}|{_GAIN}|1|".encode())
        for weights in self._filters:
            sha.update(weights.numpy().tobytes())
        self.digest = sha.hexdigest()[:16]

    def features(self, slices: np.ndarray) -> np.ndarray:
        parts = [self._some(slices[start : start + _BATCH]) for start in range(0, len(slices), _BATCH)]
        return np.concatenate(parts)

    def _some(self, slices: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(slices, np.float32))[:, None]
            images = functional.interpolate(images, (_SIDE, _SIDE), mode="bilinear", antialias=True, align_corners=False)
            found = [_statistics(images[:, 0])]
            values = images
            for weights in self._filters:
                if values.shape[1] > 1:  # channels beside each other: half the time
                    values = values.contiguous(memory_format=torch.channels_last)
                values = functional.conv2d(values, weights, stride=2, padding=weights.shape[-1] // 2).abs_()
                found += _mean_and_spread(values)
            return (torch.cat(found, dim=1) * _GAIN).numpy()


def _filters(rng: np.random.Generator, channels_in: int, channels_out: int, width: int) -> torch.Tensor:
    """float32 [out, in, width, width], every filter with mean 0 per channel, so that it sees texture and not brightness."""
    weights = rng.standard_normal((channels_out, channels_in, width, width))
    weights -= weights.mean(axis=(2, 3), keepdims=True)
    weights /= np.sqrt((weights**2).sum(axis=(1, 2, 3), keepdims=True)) / 2.0
    return torch.from_numpy(weights.astype(np.float32))


def _mean_and_spread(values: torch.Tensor) -> list[torch.Tensor]:
    """Both [slices, channels] of [slices, channels, rows, columns]. In two passes: a sixth of the time of ``torch.std``."""
    mean = values.mean(dim=(2, 3), keepdim=True)
    squares = (values - mean).square_().sum(dim=(2, 3))
    return [mean[:, :, 0, 0], (squares / (values[0, 0].numel() - 1)).sqrt()]


def _statistics(images: torch.Tensor) -> torch.Tensor:
    """[slices, 16]: mean, spread, nine percentiles, gradients along both axes, curvature, empty share and entropy."""
    flat = images.flatten(1)
    across, down = images.diff(dim=1).abs().mean(dim=(1, 2)), images.diff(dim=2).abs().mean(dim=(1, 2))
    curved = images.diff(n=2, dim=1).abs().mean(dim=(1, 2)) + images.diff(n=2, dim=2).abs().mean(dim=(1, 2))
    percents, entropy, empty = (torch.from_numpy(values) for values in _order_statistics(flat.numpy()))
    plain = torch.stack([across, down, curved, empty, entropy], dim=1)
    return torch.cat([*_mean_and_spread(images[:, None]), plain, percents], dim=1)


def _order_statistics(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Percentiles float32 [slices, 9], entropy of 32 bins over 0..1 and share of empty pixels, float32 [slices].

    All three from one sort: numpy's takes a tenth of the time of torch's.
    """
    ordered = np.sort(flat, axis=1)
    pixels = flat.shape[1]
    ranks = np.array(_PERCENTS) / 100 * (pixels - 1)
    below = ranks.astype(np.intp)
    low, high = ordered[:, below], ordered[:, np.minimum(below + 1, pixels - 1)]
    percents = low + (high - low) * (ranks - below).astype(np.float32)
    ends = np.append(_BIN_ENDS, _EMPTY)
    places = np.stack([np.searchsorted(row, ends) for row in ordered])
    counts = np.diff(places[:, :-1], axis=1, prepend=0, append=pixels)
    shares = (counts / pixels).astype(np.float32)
    entropy = -(shares * np.log(np.maximum(shares, np.float32(1e-9)))).sum(axis=1) / np.float32(np.log(_BINS))
    return percents, entropy, (places[:, -1] / pixels).astype(np.float32)


class NetworkFile:
    """A network from a TorchScript file, as MAISI's evaluation uses RadImageNet's ResNet-50.

    Its input is [slices, 3, rows, columns]: the slice three times, less :data:`CHANNEL_MEANS`; what it gives beyond two axes
    is averaged over space. Runs on the processor. Load files you trust only.
    """

    note = "comparable with distances by the same network and protocol"

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        try:
            self.digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            self._network = torch.jit.load(str(path), map_location="cpu").eval()
        except (OSError, RuntimeError) as error:
            raise CheckError(
                "the network can not be loaded",
                where=str(path),
                found=str(error).splitlines()[0],
                allowed="a TorchScript file (torch.jit.save) that takes [slices, 3, rows, columns]",
            ) from error

    def features(self, slices: np.ndarray) -> np.ndarray:
        means = torch.tensor(CHANNEL_MEANS)[None, :, None, None]
        found = []
        with torch.inference_mode():
            for start in range(0, len(slices), _BATCH):
                images = torch.from_numpy(np.ascontiguousarray(slices[start : start + _BATCH], np.float32))[:, None]
                values = self._network(images.expand(-1, 3, -1, -1) - means)
                found.append(values.flatten(2).mean(dim=2) if values.ndim > 2 else values)
        return torch.cat(found).float().numpy()
