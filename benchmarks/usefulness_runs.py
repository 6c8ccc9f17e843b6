"""The proofs of ``usefulness.py``: their datasets, and what each of their runs trains on."""

from __future__ import annotations

from typing import Any

ALL = "all"
NESTED = (4, 16)
T1, T2, FLAIR = (f"mri_{name}_skull_stripped" for name in ("t1", "t2", "flair"))


def source(dataset: str, bodies: str = ALL, **more: Any) -> dict[str, Any]:
    return {"dataset": dataset, "snapshot": bodies, "foreground": 0.7, **more}


def rendered(recipe: str, **more: Any) -> dict[str, Any]:
    return {"recipe": recipe, "foreground": 0.7, "patches_per_case": 8, **more}


#: Runs with as many updates as ``main``, and its patch.
LONG = ("main", "long-bodies-4", "long-bodies-16", "long-parametric-16", "long-one-scanner-16", "long-any-contrast")
#: Proof -> run -> what it trains on. ``main`` is the one that counts; short runs are all alike but for one thing.
RUNS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "brain": {
        "main": [source("head_templates")],
        "long-bodies-4": [source("head_templates", "bodies-4")],
        "long-parametric-16": [source("head_parametric", "bodies-16")],
        "long-any-contrast": [source("head_templates", sequences=[name]) for name in (T1, T2, FLAIR)],
        "bodies-4": [source("head_templates", "bodies-4")],
        "bodies-16": [source("head_templates", "bodies-16")],
        "bodies-all": [source("head_templates")],
        "parametric-16": [source("head_parametric", "bodies-16")],
        "any-contrast": [source("head_templates", sequences=[name]) for name in (T1, T2, FLAIR)],
        "no-t1": [source("head_templates", sequences=[name]) for name in (T2, FLAIR)],
        "no-t1-inverted": [source("head_templates", sequences=[name]) for name in (T2, FLAIR)],
        "online": [rendered("head_templates")],
        "not-turned": [source("head_templates")],
    },
    "torso": {
        "main": [source("torso")],
        "long-bodies-4": [source("torso", "bodies-4")],
        "long-bodies-16": [source("torso", "bodies-16")],
        "long-one-scanner-16": [source("torso_one_scanner", "bodies-16")],
        "bodies-4": [source("torso", "bodies-4")],
        "bodies-16": [source("torso", "bodies-16")],
        "bodies-all": [source("torso")],
        "one-scanner-16": [source("torso_one_scanner", "bodies-16")],
        "with-contrast": [source("torso"), source("torso", sequences=["ct_contrast"])],
        "chest": [source("torso_chest"), source("torso_chest", sequences=["ct_contrast"])],
        "online": [rendered("torso")],
    },
    "torso-mr": {
        "main": [source("torso_mr")],
        "bodies-4": [source("torso_mr", "bodies-4")],
        "light": [source("torso_mr")],
        "with-t2": [source("torso_mr"), source("torso_mr", sequences=["mri_t2"])],
    },
}
#: Run -> section of the training -> what it changes there.
CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "not-turned": {"augmentation": {"transforms": []}},  # without the random nods of the heads
    "no-t1-inverted": {"augmentation": {"invert": 0.5}},  # every other patch has its contrast reversed
    "chest": {"intensity": {"ct_window": [-1000, 400]}},  # lungs are not as dark as air
    "light": {"augmentation": {"preset": "light", "transforms": []}},
}
#: Datasets of a proof and how many cases of each recipe are made (None: all). The first is the one the baselines are made from.
DATASETS: dict[str, dict[str, int | None]] = {
    "brain": {"head_templates": None, "head_parametric": 18},
    "torso": {"torso": None, "torso_one_scanner": 18, "torso_chest": 18},
    "torso-mr": {"torso_mr": 18},
}
#: Run -> a scan without labels of its structures, and what it is: what is found there can only be looked at.
UNLABELLED: dict[str, tuple[str, str]] = {"long-any-contrast": ("flair_tumor/flair.nii.gz", FLAIR)}
#: Updates of long and of short runs: half an hour and four minutes of one core with AMX, of brain and torso three times as much
#: without.
STEPS = {"brain": (5000, 1500), "torso": (4500, 1200), "torso-mr": (1200, 700)}
#: Proofs that train in bf16 on a CPU with AMX. Patches of the others are halved to one voxel along z, where PyTorch's
#: convolutions in bf16 are wrong (https://github.com/pytorch/pytorch/issues/169688).
BF16 = ("brain", "torso")
#: Patch of the short runs, where it is another.
SHORT_PATCH = {"brain": [48, 48, 48], "torso": [48, 48, 48]}
#: Short runs that take more updates than the others of their proof.
MORE_STEPS = {"chest": 2000}
