"""The classes of a segmentation task: labels of the vocabularies, some of them together, as contiguous training ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from ctmr_core.anatomy.vocabulary import BACKGROUND, DTYPES, Vocabulary, load_vocabulary
from ctmr_core.errors import LearningError

GROUP = "group:"


class Classes:
    """Training id 1, 2, ... for each class in the order given; 0 is everything else.

    members: class name -> labels, each a label name or ``group:<group>`` (``group:lesion``). A list of names is one class each.
    A label one vocabulary lacks is looked for in the others: a dataset may hold bodies and heads.
    Raises ``LearningError`` for names no vocabulary has and for labels in two classes.
    """

    def __init__(self, members: Mapping[str, str | Sequence[str]] | Sequence[str]) -> None:
        pairs = members.items() if isinstance(members, Mapping) else [(name, name) for name in members]
        self.members = {name: (labels,) if isinstance(labels, str) else tuple(labels) for name, labels in pairs}
        if not self.members or len(self.members) > 255:
            raise LearningError("a task has 1 to 255 classes", found=len(self.members))
        for name in self.members:
            self._refuse_unknown(name)
        for vocabulary in DTYPES:
            self.table(vocabulary)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def names(self) -> tuple[str, ...]:
        """Names by training id, ``background`` first."""
        return ("background", *self.members)

    def table(self, vocabulary: str) -> np.ndarray:
        """uint8 array, index = label id of the vocabulary (any id its dtype can have), value = training id."""
        return self._tables[vocabulary]

    @cached_property
    def _tables(self) -> dict[str, np.ndarray]:
        return {name: self._table(load_vocabulary(name)) for name in DTYPES}

    def _table(self, vocabulary: Vocabulary) -> np.ndarray:
        table = np.zeros(np.iinfo(vocabulary.dtype).max + 1, np.uint8)
        for number, (name, labels) in enumerate(self.members.items(), start=1):
            for label in labels:
                for wanted in ids_of(vocabulary, label):
                    if table[wanted] not in (0, number):
                        raise LearningError(
                            "a label is in two classes",
                            where=f"class {name}",
                            found=vocabulary.label(wanted).name,
                            fix="name each label once",
                        )
                    table[wanted] = number
        return table

    def _refuse_unknown(self, name: str) -> None:
        vocabularies = [load_vocabulary(vocabulary) for vocabulary in DTYPES]
        for label in self.members[name]:
            if any(ids_of(vocabulary, label) for vocabulary in vocabularies):
                continue
            groups = sorted({f"{GROUP}{entry.group}" for vocabulary in vocabularies for entry in vocabulary})
            near = _near(label, [*groups, *(entry.name for vocabulary in vocabularies for entry in vocabulary)])
            raise LearningError(
                "no vocabulary has such a label", where=f"class {name}", found=label, allowed=near or groups, fix=None
            )


class AllLabels:
    """Labels as they are stored: the training id is the label id, dtype that of the vocabulary."""

    members: Mapping[str, tuple[str, ...]] = {}

    def table(self, vocabulary: str) -> None:
        """There is nothing to map."""


def ids_of(vocabulary: Vocabulary, label: str) -> tuple[int, ...]:
    """Ids of a label or ``group:<group>`` in a vocabulary; none where it lacks it."""
    if label.startswith(GROUP):
        return tuple(entry for entry in vocabulary.ids(label.removeprefix(GROUP)) if entry != BACKGROUND)
    return (vocabulary.by_name[label].id,) if label in vocabulary else ()


def _near(label: str, names: Sequence[str]) -> list[str]:
    import difflib

    return difflib.get_close_matches(label.lower(), names, n=8, cutoff=0.4)
