"""Comparing items and batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any


def digest(item: dict[str, Any]) -> str:
    """Of the voxels of image and label, and of where they are."""
    sha = hashlib.sha256()
    for key in ("image", "label"):
        sha.update(item[key].numpy().tobytes())
        sha.update(item[key].affine.numpy().tobytes())
    return sha.hexdigest()


def digests(items: Iterable[dict[str, Any]]) -> list[str]:
    return [digest(item) for item in items]
