"""Clean volumes to judge: what the recipes in ``manifests/`` make, on coarser grids, and what else a recipe may ask for.

Every group of the recipes is drawn in turn, with other people than the recipe would draw, two volumes of each, together with
bodies of regions and sequences that no recipe names. Groups of imported label maps take part when there is a library of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

from ctmr_core.anatomy.templates.importing import import_template
from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.cases.case import Case
from ctmr_core.cases.label_maps import build_label_map
from ctmr_core.cases.planner import plan
from ctmr_core.cases.recipe import parse_recipe
from ctmr_core.cases.recipe_source import read_source
from ctmr_core.engines import load_engine
from ctmr_core.quality.base import Candidate

MANIFESTS = Path(__file__).parent.parent / "manifests"
#: Recipes of parametric bodies, and recipes that draw from a library of label maps.
RECIPES = ("quick", "demo", "nightly", "usefulness/head_parametric", "usefulness/torso", "usefulness/torso_one_scanner")
LIBRARY_RECIPES = ("real_data", "real_templates", "usefulness/head_templates")
#: Voxels are made at least so large, in mm; size follows, so that the field of view stays.
COARSEST_MM = {"brain": 3.0, "maisi": 5.0}
SEED = 20_000  # other people than the recipes, and than the bodies that get defects
CASES_PER_BODY = 2  # making a person takes four times as long as an image of it

TORSO: dict[str, Any] = {"bodies": {"parametric": "torso"}, "size": [84, 64, 64], "spacing": [5.0, 5.0, 5.0]}
HEAD: dict[str, Any] = {"bodies": {"parametric": "head"}, "size": [72, 88, 80], "spacing": [3.0, 3.0, 3.0], "center": "head"}
#: Groups beside those of the recipes: name -> fields.
MORE: dict[str, dict[str, Any]] = {
    "chest": {**TORSO, "center": "chest", "sequences": {"choose": [["ct"], ["ct_contrast"]]}},
    "pelvis": {**TORSO, "center": "pelvis", "sequences": {"choose": [["ct"], ["ct_contrast"]]}},
    "trunk-mr": {**TORSO, "center": {"choose": ["abdomen", "chest", "pelvis"]}, "sequences": ["mri_t1", "mri_t2"]},
    "kidney-cyst": {
        **TORSO,
        "center": "abdomen",
        "sequences": ["ct_contrast"],
        "lesions": [{"label": "left kidney cyst", "diameter": 28.0}],
    },
    "head-stripped": {**HEAD, "sequences": ["mri_t1_skull_stripped", "mri_pd"]},
    "head-tumour": {
        **HEAD,
        "sequences": ["mri_t1", "mri_flair", "mri_swi"],
        "lesions": [{"label": "enhancing brain tumor", "diameter": 28.0}],
    },
}


def clean_volumes(library: TemplateLibrary | None = None, seed: int = SEED) -> Iterator[tuple[str, Callable[[], Candidate]]]:
    """(name, maker of the candidate), without end: the groups in turn. library: of the label maps the recipes ask for.

    seed: other seeds draw other people.
    """
    names = RECIPES + (LIBRARY_RECIPES if library is not None else ())
    groups = [(name, read_source(MANIFESTS / f"{name}.yaml").data, i) for name in names for i in _groups(name)]
    groups += [("more", {"groups": [{"name": name, **fields}]}, 0) for name, fields in MORE.items()]
    drawn = [_cases(name, data, index, library, seed) for name, data, index in groups]
    while True:
        for cases in drawn:
            for name, case in islice(cases, CASES_PER_BODY):
                yield name, partial(_candidate, case, library)


def real_library(folder: Path, real_data: Path) -> TemplateLibrary:
    """The label maps of a folder with ``ct_abdomen`` and ``brain_label_maps`` as the library that the recipes expect."""
    library = TemplateLibrary.open(folder, create=True)
    scan = real_data / "ct_abdomen"
    labels = scan / "labels_totalsegmentator_v2.nii.gz"
    given = {"mapping": "totalsegmentator_v2", "image": scan / "ct.nii.gz", "licence": "for research"}
    import_template(labels, library, template_id="ct-abdomen", **given)  # type: ignore[arg-type]
    for path in sorted((real_data / "brain_label_maps").glob("*.nii.gz")):
        import_template(path, library, mapping="freesurfer", licence="for research")
    return library


def _groups(recipe: str) -> range:
    return range(len(read_source(MANIFESTS / f"{recipe}.yaml").data["groups"]))


def _cases(
    name: str, data: dict[str, Any], index: int, library: TemplateLibrary | None, people: int
) -> Iterator[tuple[str, Case]]:
    """Cases of one group, eight of every seed, so that shares of lesions and of choices come out."""
    group = {**data["groups"][index], "cases_per_body": CASES_PER_BODY}
    group["cases"] = group.get("cases", 8)
    first = people + zlib.crc32(f"{name} {group['name']}".encode())
    for seed in count(first):
        recipe = parse_recipe({"name": name.rpartition("/")[2], "seed": seed, "groups": [group]}).scaled_to(8)
        for number, case in enumerate(plan(recipe, library).iter_cases()):
            yield f"{name} {group['name']} {'+'.join(case.sequences)} {seed - first}-{number}", _coarse(case)


def _coarse(case: Case) -> Case:
    """The same field of view in larger voxels; voxels that are large already stay as they are."""
    head = case.body == "parametric:head" or case.center in ("head", "3rd ventricle")
    least = COARSEST_MM["brain" if head else "maisi"]
    spacing = tuple(max(mm, least) for mm in case.spacing)
    size = tuple(max(round(n * mm / new), 16) for n, mm, new in zip(case.size, case.spacing, spacing, strict=True))
    return Case.model_validate({**case.model_dump(), "size": size, "spacing": spacing})


def _candidate(case: Case, library: TemplateLibrary | None) -> Candidate:
    """The first attempt at the case."""
    label_map, _ = build_label_map(case, library, 0)
    return Candidate(case, label_map, load_engine(case.engine).render(case, label_map, 0))
