"""A small dataset of bodies and one of heads, shared by the tests of a session."""

from __future__ import annotations

import pytest

from ctmr_core.store import Dataset
from tests.store.store_maker import make_case, make_dataset


@pytest.fixture(scope="session")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six cases with CT and T1 (two of them for validation), one that has CT alone, one that was rejected; [40, 44, 48]."""
    splits = ["train", "train", "val", "train", "val", "train"]
    cases = [make_case(number, size=(40, 44, 48), split=split) for number, split in enumerate(splits)]
    cases += [make_case(6, size=(40, 44, 48), sequences=("ct",)), make_case(7, size=(40, 44, 48))]
    return make_dataset(tmp_path_factory.mktemp("bodies"), cases, rejected=(7,))


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """One case of 192^3: 27 chunks."""
    return make_dataset(tmp_path_factory.mktemp("large"), [make_case(0, size=(192, 192, 192), sequences=("ct",))])
