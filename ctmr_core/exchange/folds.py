"""Folds for cross-validation in which a body is never on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

FOLDS = 5  # the number nnU-Net and Auto3DSeg use


def fold_of(body_identity: str, folds: int = FOLDS) -> int:
    """0 .. folds - 1 from the name of the body alone: it stays when cases are added."""
    return int.from_bytes(hashlib.sha256(body_identity.encode()).digest()[:8], "big") % folds


def splits_of(cases: Iterable[tuple[str, str, str]], folds: int = FOLDS) -> list[dict[str, list[str]]]:
    """nnU-Net's ``splits_final.json``: one fold ``{"train": [...], "val": [...]}`` each.

    cases: (case id, split, body identity). Where the dataset has a ``val`` split it is the only fold; otherwise ``folds``
    of them, without those that would have no case on one side.
    """
    ordered = sorted(cases)
    validation = [case_id for case_id, split, _ in ordered if split == "val"]
    if validation:
        return [{"train": [case_id for case_id, split, _ in ordered if split == "train"], "val": validation}]
    placed = [(case_id, fold_of(body, folds)) for case_id, _, body in ordered]
    found = [
        {"train": [one for one, place in placed if place != fold], "val": [one for one, place in placed if place == fold]}
        for fold in range(folds)
    ]
    return [fold for fold in found if fold["train"] and fold["val"]]
