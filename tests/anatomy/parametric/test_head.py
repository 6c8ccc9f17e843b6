"""The parametric head: a plausible person, the same on every grid, different for every seed."""

from __future__ import annotations

import cc3d
import numpy as np
import pytest

from ctmr_core.anatomy.grid import Grid
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.parametric.head import ParametricHead, parametric_head
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.seeds import body_rng
from ctmr_core.errors import AnatomyError

SEEDS = (0, 1, 2, 3)
WHOLE = Grid.centred((104, 130, 130), (2.0, 2.0, 2.0), (0.0, 12.0, -30.0))

#: left id, right id -> (mean mL, SD mL) of one side and the largest |left - right| / mean seen, measured on 20 public whole-head
#: label maps (SynthSeg training maps, Billot et al. 2023).
PAIRED = {
    (2, 41): (214, 27, 0.073),
    (3, 42): (226, 38, 0.126),
    (4, 43): (18.0, 12.0, 0.731),
    (7, 46): (14.5, 2.3, 0.2),
    (8, 47): (53.4, 7.2, 0.2),
    (10, 49): (7.2, 1.2, 0.21),
    (11, 50): (3.65, 0.65, 0.25),
    (12, 51): (5.1, 0.85, 0.25),
    (13, 52): (1.40, 0.28, 0.3),
    (17, 53): (3.6, 1.0, 0.37),
    (18, 54): (1.46, 0.40, 0.4),
    (26, 58): (0.51, 0.12, 0.4),
    (28, 60): (4.0, 0.6, 0.25),
}
SINGLE = {14: (1.66, 0.86), 15: (1.73, 0.55), 16: (21.7, 2.3), 24: (382, 90), 506: (12.2, 2.1), 511: (355, 55), 515: (442, 70)}
REQUIRED = (
    *(side for pair in PAIRED for side in pair), *SINGLE, 5, 44, 31, 63, 85, 501, 502, 507, 508, 509, 512, 514, 516, 530, 540,
    541, 542, 543, 544, 545,
)  # fmt: skip


def head(seed: int) -> ParametricHead:
    return parametric_head(lambda stream: body_rng("head", seed, stream))


@pytest.fixture(scope="module")
def heads() -> dict[int, ParametricHead]:
    return {seed: head(seed) for seed in SEEDS}


@pytest.fixture(scope="module")
def maps(heads: dict[int, ParametricHead]) -> dict[int, LabelMap]:
    return {seed: person.label_map(WHOLE) for seed, person in heads.items()}


@pytest.fixture(scope="module")
def fine(heads: dict[int, ParametricHead]) -> LabelMap:
    """Seed 1 at 1 mm, on every point of ``WHOLE`` from its 30th slice up."""
    x, y, z = WHOLE.origin
    return heads[1].label_map(Grid((207, 259, 199), (1.0, 1.0, 1.0), (x, y, z + 60.0)))


def volumes_ml(label_map: LabelMap) -> np.ndarray:
    return np.bincount(label_map.voxels.ravel(), minlength=600) * float(np.prod(label_map.spacing)) / 1000


def centroid_mm(label_map: LabelMap, label: int) -> np.ndarray:
    return label_map.affine[:3, :3] @ np.argwhere(label_map.voxels == label).mean(0) + label_map.affine[:3, 3]


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    brain = ((a > 1) & (a < 100) & (a != 24)) | ((b > 1) & (b < 100) & (b != 24))
    return float((a[brain] == b[brain]).mean())


def test_every_head_has_every_structure(maps: dict[int, LabelMap]) -> None:
    for seed, label_map in maps.items():
        missing = [label for label in REQUIRED if volumes_ml(label_map)[label] == 0]
        assert not missing, f"seed {seed} lacks {missing}"


def test_every_id_belongs_to_the_vocabulary_and_every_labelled_voxel_has_a_tissue(maps: dict[int, LabelMap]) -> None:
    for label_map in maps.values():
        ids = set(np.unique(label_map.voxels).tolist()) - {0}
        assert ids <= set(load_vocabulary("brain").by_id)
        assert label_map.tissues is not None
        assert ((label_map.tissues > 0) == (label_map.voxels > 0)).all()


def test_volumes_are_those_of_people(maps: dict[int, LabelMap]) -> None:
    for seed, label_map in maps.items():
        found = volumes_ml(label_map)
        for pair, (mean, spread, _) in PAIRED.items():
            for label in pair:
                assert abs(found[label] - mean) < 4 * spread, (seed, label, found[label])
        for label, (mean, spread) in SINGLE.items():
            assert abs(found[label] - mean) < 4 * spread, (seed, label, found[label])


def test_mean_volumes_of_the_cerebrum_are_within_one_deviation(maps: dict[int, LabelMap]) -> None:
    found = np.mean([volumes_ml(label_map) for label_map in maps.values()], axis=0)
    for label, mean, spread in ((2, 214, 27), (41, 214, 27), (3, 226, 38), (42, 226, 38), (24, 382, 90)):
        assert abs(found[label] - mean) < spread


def test_the_sides_of_a_brain_are_alike_but_not_equal(maps: dict[int, LabelMap]) -> None:
    for seed, label_map in maps.items():
        found = volumes_ml(label_map)
        for (left, right), (_, _, limit) in PAIRED.items():
            difference = abs(found[left] - found[right]) / (0.5 * (found[left] + found[right]))
            assert difference < limit, (seed, left, difference)
    whole = volumes_ml(maps[0])
    assert whole[2] != whole[41]


def test_left_structures_lie_on_the_left(maps: dict[int, LabelMap]) -> None:
    for label_map in maps.values():
        for left, right in PAIRED:
            assert centroid_mm(label_map, left)[0] < centroid_mm(label_map, right)[0]


def test_structures_are_in_one_piece(maps: dict[int, LabelMap]) -> None:
    for seed, label_map in maps.items():
        for label in (2, 41, 3, 42, 4, 43, 10, 49, 11, 50, 12, 51, 13, 52, 17, 53, 18, 54, 26, 58, 28, 60, 16, 8, 47):
            sizes = cc3d.statistics(cc3d.connected_components(label_map.voxels == label))["voxel_counts"][1:]
            assert sizes.max() / sizes.sum() >= 0.98, (seed, label, sizes.max() / sizes.sum())


def test_layers_are_in_order_along_rays_over_the_vault(heads: dict[int, ParametricHead], fine: LabelMap) -> None:
    rank = np.full(600, -1)
    for layer, labels in enumerate(((2, 41), (3, 42), (24, 543, 514), (515, 516), (540, 541, 507), (511,), (0,))):
        rank[list(labels)] = layer
    outermost_is_cortex = []
    origin = np.asarray(heads[1].center_mm("head")) + np.array([0, -10, 15])
    for azimuth in np.radians(np.arange(0, 360, 10)):
        direction = np.array([np.cos(azimuth) * 0.8, np.sin(azimuth) * 0.8, 0.6])
        places = origin + np.arange(0, 150, 0.5)[:, None] * direction
        index = np.round((places - fine.affine[:3, 3]) / fine.spacing).astype(int)
        along = rank[fine.voxels[tuple(index[(index < fine.size).all(1) & (index >= 0).all(1)].T)]]
        assert set(range(6)) <= set(along.tolist()), azimuth
        white, grey, *shells = (int(np.flatnonzero(along == layer)[-1]) for layer in range(6))
        assert [max(white, grey), *shells] == sorted([max(white, grey), *shells]), azimuth
        outermost_is_cortex.append(white < grey)
    # a ray that grazes the wall of a gyrus may step over its 2-3 mm of cortex
    assert np.mean(outermost_is_cortex) > 0.9


def test_cortex_is_folded(maps: dict[int, LabelMap]) -> None:
    for label_map in maps.values():
        matter = np.isin(label_map.voxels, (2, 3))
        # mm^2 of pial faces; a smooth hemisphere of this size has about 300 cm^2, real folded ones 800-1100 cm^2
        faces = sum(int((np.diff(matter.astype(np.int8), axis=axis) != 0).sum()) for axis in range(3)) * 4.0
        assert faces / 1.5 / 100 > 600


def test_the_same_seed_is_the_same_head() -> None:
    grid = Grid.centred((16, 16, 16), (4.0, 4.0, 4.0))
    assert head(7).label_map(grid).digest() == head(7).label_map(grid).digest()


def test_two_seeds_are_two_people(maps: dict[int, LabelMap]) -> None:
    pairs = [(a, b) for a in SEEDS for b in SEEDS if a < b]
    assert max(agreement(maps[a].voxels, maps[b].voxels) for a, b in pairs) < 0.6


def test_a_finer_grid_shows_the_same_person(maps: dict[int, LabelMap], fine: LabelMap) -> None:
    coarse = maps[1].voxels[:, :, 30:]
    assert (fine.voxels[::2, ::2, ::2] == coarse).mean() > 0.9999  # the same points in space
    a, b = np.bincount(coarse.ravel(), minlength=600) * 8.0, np.bincount(fine.voxels.ravel(), minlength=600) * 1.0
    for label in (2, 3, 41, 42, 10, 49, 12, 51, 16, 8, 47, 24, 515, 511):
        assert abs(a[label] - b[label]) / a[label] < 0.1, label


def test_a_crop_is_the_same_as_the_whole(heads: dict[int, ParametricHead], maps: dict[int, LabelMap]) -> None:
    start = (30, 40, 50)
    origin = tuple(o + 2.0 * s for o, s in zip(WHOLE.origin, start, strict=True))
    crop = heads[2].label_map(Grid((40, 36, 32), WHOLE.spacing, origin))  # type: ignore[arg-type]
    assert crop.tissues is not None
    assert maps[2].tissues is not None
    assert (crop.voxels == maps[2].voxels[30:70, 40:76, 50:82]).mean() > 0.9999
    assert (crop.tissues == maps[2].tissues[30:70, 40:76, 50:82]).mean() > 0.9999


def test_a_grid_beside_the_head_is_empty(heads: dict[int, ParametricHead]) -> None:
    assert not heads[0].label_map(Grid.centred((8, 8, 8), (2, 2, 2), (500.0, 0.0, 0.0))).voxels.any()


def test_centres_lie_in_their_structures(heads: dict[int, ParametricHead], maps: dict[int, LabelMap]) -> None:
    vocabulary = load_vocabulary("brain")
    for seed, person in heads.items():
        for label in (10, 49, 12, 51, 13, 52, 16, 17, 53):
            found = person.center_mm(vocabulary.by_id[label].name)
            assert np.linalg.norm(found - centroid_mm(maps[seed], label)) < 6.0, (seed, label)


def test_an_unknown_centre_is_refused_with_the_names_there_are(heads: dict[int, ParametricHead]) -> None:
    with pytest.raises(AnatomyError, match="left thalamus"):
        heads[0].center_mm("liver")
