"""What docs/dataset.md shows works as shown."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.dataset as pads
import pytest

from ctmr_core.store import Dataset
from tests.store.store_maker import make_case, make_dataset

PAGE = Path(__file__).parents[2] / "docs" / "dataset.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documented")
    make_dataset(folder, [make_case(1), make_case(2)])
    return folder


def _examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_crop_loader_puts_its_label_in_every_crop(folder: Path) -> None:
    (example,) = (text for text in _examples() if "class Crops" in text)
    names: dict = {}
    exec(example.partition("loader =")[0], names)
    rare = Dataset.open(folder).row("case-0001")["label_ids"][0]
    crops = names["Crops"](folder, label=rare, size=16)
    assert len(crops) >= 8
    for image, labels in (crops[0], crops[len(crops) - 1]):
        assert image.shape == (1, 16, 16, 16)
        assert (labels == rare).any()
    assert len(names["Crops"](folder, label=129)) in (0, 8, 16)


def test_the_catalog_folder_opens_as_it_is(folder: Path) -> None:
    assert pads.dataset(folder / "catalog").count_rows() == 2


def test_the_tour_runs(folder: Path) -> None:
    tour = next(text for text in _examples() if 'v = ds["case-0001"]' in text)
    tour = tour.replace("path/to/dataset", str(folder)).replace("64:160", "4:12").replace("80]", "8]")
    names: dict = {}
    exec(tour, names)
    assert np.asarray(names["v"].images["ct"]).shape == make_case(1).size
