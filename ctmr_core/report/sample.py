"""Which cases to show."""

from __future__ import annotations

import pandas as pd

from ctmr_core.store import Dataset


def sample_of(dataset: Dataset, sample: int) -> list[str]:
    """Up to ``sample`` accepted case ids of the dataset, as ``spread`` chooses them."""
    return spread(dataset.to_pandas(columns=["case_id", "body", "sequences", "lesions"]), sample)


def spread(accepted: pd.DataFrame, sample: int) -> list[str]:
    """Up to ``sample`` case ids, taking turns between kinds of case (body and sequences), lesions first."""
    if not len(accepted) or sample < 1:
        return []
    kinds = accepted["body"] + " " + accepted["sequences"].map(",".join)
    bare = accepted["lesions"].map(len) == 0
    order = accepted.assign(kind=kinds, bare=bare).sort_values(["bare", "case_id"])
    turn = order.groupby("kind").cumcount()
    return list(order.assign(turn=turn).sort_values(["turn", "kind", "case_id"])["case_id"][:sample])
