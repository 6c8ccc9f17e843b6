"""How well a segmentation agrees with a label map: Dice and the 95th percentile of surface distances, class by class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import edt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ctmr_core.anatomy.field_of_view import bounding_box


@dataclass(frozen=True)
class ClassScore:
    """One class of one case. dice and hd95 (mm) are NaN where the label map lacks the class, hd95 also where it was not found.

    truth_ml, found_ml: volumes of the class in the label map and in the segmentation.
    """

    dataset: str
    case: str
    number: int
    label: str
    dice: float
    hd95: float
    truth_ml: float
    found_ml: float


def score_case(
    truth: np.ndarray,
    found: np.ndarray,
    spacing: tuple[float, float, float],
    names: Mapping[int, str],
    *,
    dataset: str = "",
    case: str = "",
    with_distances: bool = True,
) -> list[ClassScore]:
    """Scores of the classes ``names`` (training id -> name); truth, found: uint8 [x, y, z] on one grid of ``spacing`` mm."""
    width = 1 + max(int(truth.max(initial=0)), int(found.max(initial=0)), *names)
    pairs = np.zeros(width * width, np.int64)
    for drawn, seen in zip(truth, found, strict=True):  # slice by slice: no copy of the whole as integers
        pairs += np.bincount((drawn.astype(np.intp) * width + seen).ravel(), minlength=width * width)
    table = pairs.reshape(width, width)
    millilitres = float(np.prod(spacing)) / 1000.0
    rows = []
    for number, name in names.items():
        both, in_truth, in_found = int(table[number, number]), int(table[number].sum()), int(table[:, number].sum())
        has_distance = with_distances and in_truth and in_found
        rows.append(
            ClassScore(
                dataset=dataset,
                case=case,
                number=number,
                label=name,
                dice=2 * both / (in_truth + in_found) if in_truth else float("nan"),
                hd95=hausdorff95(truth == number, found == number, spacing) if has_distance else float("nan"),
                truth_ml=in_truth * millilitres,
                found_ml=in_found * millilitres,
            )
        )
    return rows


def hausdorff95(truth: np.ndarray, found: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """mm: the larger of the two 95th percentiles of the distances from the surface voxels of one mask to those of the other.

    Both bool [x, y, z], neither empty. The same as ``monai.metrics.compute_hausdorff_distance(percentile=95)``, computed in the
    box around both masks.
    """
    box = bounding_box(truth | found)
    assert box is not None  # noqa: S101 - neither is empty
    a, b = (np.pad(mask[box], 1) for mask in (truth, found))
    edges = [_surface(mask) for mask in (a, b)]
    distances = [edt.edt(np.ascontiguousarray(~edge), anisotropy=spacing, black_border=False) for edge in edges]
    return float(max(np.percentile(distances[1][edges[0]], 95), np.percentile(distances[0][edges[1]], 95)))


def _surface(mask: np.ndarray) -> np.ndarray:
    """Voxels of the mask with a neighbour, along an axis, outside of it."""
    inner = mask.copy()
    for axis in range(3):
        inner &= np.roll(mask, 1, axis) & np.roll(mask, -1, axis)
    return mask & ~inner


def score_frame(rows: Iterable[ClassScore]) -> pd.DataFrame:
    """One row per case and class."""
    return pd.DataFrame([asdict(row) for row in rows])


def class_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per validation set and class: cases that have it, Dice and HD95 (mean, median), cases in which it was missed, and
    ml found in cases that lack it."""
    tables = []
    for (dataset, number, label), rows in frame.groupby(["dataset", "number", "label"], sort=True):
        there = rows[rows.dice.notna()]
        tables.append(
            {
                "dataset": dataset,
                "class": label,
                "cases": len(there),
                "dice_mean": there.dice.mean(),
                "dice_median": there.dice.median(),
                "hd95_mean": there.hd95.mean(),
                "hd95_median": there.hd95.median(),
                "missed": int((there.found_ml == 0).sum()),
                "false_ml": rows[rows.dice.isna()].found_ml.sum(),
                "number": number,
            }
        )
    return pd.DataFrame(tables).sort_values(["dataset", "number"]).drop(columns="number").reset_index(drop=True)


def write_scores(frame: pd.DataFrame, folder: Path, name: str) -> Path:
    """``<name>.parquet``: one row per case and class; ``<name>.csv`` and ``<name>.md``: one per class; path of the last."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / f"{name}.parquet")
    table = class_table(frame)
    table.to_csv(folder / f"{name}.csv", index=False, float_format="%.4f")
    path = folder / f"{name}.md"
    path.write_text(markdown(table), encoding="utf-8")
    return path


def markdown(table: pd.DataFrame) -> str:
    """The class table for people."""
    lines = [
        "| dataset | class | cases | Dice mean | median | HD95 mm mean | median | missed | false ml |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table.itertuples(index=False):
        values = [_number(value, digits) for value, digits in ((row.dice_mean, 3), (row.dice_median, 3), (row.hd95_mean, 1),
                                                               (row.hd95_median, 1))]  # fmt: skip
        name = table.columns.get_loc("class")
        cells = [str(row.dataset), str(row[name]), str(row.cases), *values, str(row.missed), _number(row.false_ml, 1)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def mean_dice(table: pd.DataFrame) -> float:
    """Mean over the classes of their mean over the cases; NaN where no case has any."""
    values = table.dice_mean.to_numpy(np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"
