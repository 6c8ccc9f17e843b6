"""Vocabularies: what the integers of a label map mean.

``maisi`` is the house language of bodies: the 132 classes of NVIDIA's MAISI label dictionary (124 structures and
8 reserved ids) and ``body`` 200, stored as uint8. ``brain`` is the house language of heads: FreeSurfer aseg ids
(FreeSurferColorLUT), head tissues as SimNIBS and SynthSeg number them (501-530), and the brain tumour parts of
MAISI's extended dictionary (401-403), stored as uint16. Ids 540-545 are the factory's own.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources

import numpy as np

from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.errors import AnatomyError

BACKGROUND = 0
DTYPES: dict[str, np.dtype] = {"maisi": np.dtype(np.uint8), "brain": np.dtype(np.uint16)}


@dataclass(frozen=True)
class Label:
    """One structure of a vocabulary.

    ``side`` is ``"left"``, ``"right"`` or ``""`` (the patient's side); ``color`` is ``"#rrggbb"``; ``tissue`` names
    what the structure is made of where nothing finer is known; ``group`` is organ, vessel, bone, muscle, lesion ...
    """

    id: int
    name: str
    group: str
    side: str
    color: str
    tissue: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour as three integers 0-255."""
        return (int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16))


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of labels with a name. Background (0) is implied and never listed."""

    name: str
    labels: tuple[Label, ...]
    dtype: np.dtype = field(default=np.dtype(np.uint8))

    @cached_property
    def by_id(self) -> dict[int, Label]:
        return {label.id: label for label in self.labels}

    @cached_property
    def by_name(self) -> dict[str, Label]:
        return {label.name: label for label in self.labels}

    def __hash__(self) -> int:
        return hash((self.name, len(self.labels)))  # not of hundreds of labels: vocabularies are keys of caches

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __contains__(self, key: int | str) -> bool:
        return key in (self.by_name if isinstance(key, str) else self.by_id)

    def label(self, key: int | str) -> Label:
        """The label with this id or exact name; ``AnatomyError`` that lists near names otherwise."""
        table = self.by_name if isinstance(key, str) else self.by_id
        if key in table:
            return table[key]  # type: ignore[index]
        raise AnatomyError(
            f"the {self.name} vocabulary has no such label",
            found=key,
            allowed=self._near(key),
            fix=f"see `ctmr templates labels {self.name}`",
        )

    def ids(self, group: str) -> tuple[int, ...]:
        """The ids of every label of ``group``."""
        return tuple(label.id for label in self.labels if label.group == group)

    @cached_property
    def tissue_table(self) -> np.ndarray:
        """uint8 array, index = label id, value = tissue id (0 where the id is not in the vocabulary)."""
        table = np.zeros(max(self.by_id) + 1, np.uint8)
        for label in self.labels:
            table[label.id] = tissue_id(label.tissue)
        return table

    def _near(self, key: int | str) -> list[str]:
        import difflib

        if isinstance(key, str):
            near = difflib.get_close_matches(key.lower(), list(self.by_name), n=8, cutoff=0.4)
            return near or [label.name for label in self.labels if label.group != "reserved"]
        return [f"{min(self.by_id)}..{max(self.by_id)}, {len(self.labels)} ids in use"]


@cache
def load_vocabulary(name: str) -> Vocabulary:
    """The built-in vocabulary ``"maisi"`` or ``"brain"``."""
    if name not in DTYPES:
        raise AnatomyError("unknown vocabulary", found=name, allowed=sorted(DTYPES))
    source = resources.files("ctmr_core.anatomy.data").joinpath(f"{name}.csv")
    labels = tuple(
        Label(int(row["id"]), row["name"], row["group"], row["side"], row["color"], row["tissue"])
        for row in csv.DictReader(source.read_text(encoding="utf-8").splitlines())
    )
    return Vocabulary(name, labels, DTYPES[name])
