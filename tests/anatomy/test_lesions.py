from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.lesions import LESIONS, insert_lesion
from ctmr_core.anatomy.lesions.shape import irregular_ball
from ctmr_core.anatomy.lesions.sites import MAISI_SITES
from ctmr_core.anatomy.resample import resample
from ctmr_core.anatomy.tissue_map import with_tissues
from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.errors import AnatomyError
from tests.anatomy.real_label_maps import abdomen, head

MAISI = load_vocabulary("maisi")
BODY_LESIONS = (
    ("lung tumor", 9.0),
    ("pancreatic tumor", 12.0),
    ("hepatic tumor", 40.0),
    ("colon cancer primaries", 20.0),
    ("bone lesion", 14.0),
    ("left kidney cyst", 22.0),
    ("right kidney cyst", 12.0),
)
_BODY: dict[Path, LabelMap] = {}


def body(real_data: Path) -> LabelMap:
    if real_data not in _BODY:
        _BODY[real_data] = with_tissues(resample(abdomen(real_data), (180, 150, 168), (2.0, 2.0, 2.0)))
    return _BODY[real_data]


def ball_ml(diameter_mm: float) -> float:
    return np.pi / 6 * diameter_mm**3 / 1000


def test_the_names_are_labels_of_their_vocabulary() -> None:
    for vocabulary, names in LESIONS.items():
        for name in names:
            assert load_vocabulary(vocabulary).label(name).group == "lesion"


@pytest.mark.parametrize(("lesion", "diameter"), BODY_LESIONS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_lesion_lies_in_its_host_with_the_volume_asked_for(real_data: Path, lesion: str, diameter: float, seed: int) -> None:
    source = body(real_data)
    site = MAISI_SITES[lesion]
    out, record = insert_lesion(source, lesion, diameter, np.random.default_rng(seed))
    changed = out.voxels != source.voxels
    assert set(np.unique(source.voxels[changed]).tolist()) <= {*site.hosts, *site.spills_into}
    assert (out.voxels[changed] == MAISI.label(lesion).id).all()
    assert record.fraction_inside >= site.inside
    assert record.volume_ml == pytest.approx(changed.sum() * 8 / 1000)
    assert (site.inside - 0.02) * ball_ml(diameter) <= record.volume_ml <= 1.02 * ball_ml(diameter)
    assert MAISI.label(record.host).id in site.hosts
    index = np.linalg.solve(out.affine[:3, :3], np.array(record.centre_mm) - out.affine[:3, 3])
    np.testing.assert_allclose(index, np.stack(np.nonzero(changed), -1).mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(("lesion", "diameter"), BODY_LESIONS)
def test_tissues_follow_the_label(real_data: Path, lesion: str, diameter: float) -> None:
    source = body(real_data)
    out, _ = insert_lesion(source, lesion, diameter, np.random.default_rng(3))
    changed = out.voxels != source.voxels
    names = {tissue_id(name) for name in MAISI_SITES[lesion].tissues}
    found = set(np.unique(out.tissues[changed]).tolist())
    assert len(found) == 1
    assert found <= names
    np.testing.assert_array_equal(out.tissues[~changed], source.tissues[~changed])


def test_the_source_is_not_changed_and_equal_generators_give_equal_lesions(real_data: Path) -> None:
    source = body(real_data)
    digest = source.digest()
    one, first = insert_lesion(source, "hepatic tumor", 30, np.random.default_rng(8))
    two, second = insert_lesion(source, "hepatic tumor", 30, np.random.default_rng(8))
    other, third = insert_lesion(source, "hepatic tumor", 30, np.random.default_rng(9))
    assert source.digest() == digest
    assert one.digest() == two.digest() != other.digest()
    assert first == second != third


def test_both_kinds_of_bone_lesion_appear(real_data: Path) -> None:
    source = body(real_data)
    kinds = set()
    for seed in range(8):
        out, _ = insert_lesion(source, "bone lesion", 12, np.random.default_rng(seed))
        kinds |= set(np.unique(out.tissues[out.voxels == 128]).tolist())
    assert kinds == {tissue_id("bone_lesion_lytic"), tissue_id("bone_lesion_sclerotic")}


def test_a_colon_tumor_touches_the_wall(real_data: Path) -> None:
    source = body(real_data)
    for seed in range(3):
        out, _ = insert_lesion(source, "colon cancer primaries", 18, np.random.default_rng(seed))
        tumor = out.voxels == 27
        rim = ndimage.binary_dilation(tumor) & ~tumor
        assert (source.voxels[rim] != 62).any()


@pytest.mark.parametrize("lesion", ["hepatic tumor", "pancreatic tumor", "lung tumor"])
def test_too_large_a_lesion_is_refused_with_the_largest_that_fits(real_data: Path, lesion: str) -> None:
    source = body(real_data)
    with pytest.raises(AnatomyError, match="does not fit") as caught:
        insert_lesion(source, lesion, 300, np.random.default_rng(0))
    largest = float(str(caught.value.allowed).split("about ")[1].split(" mm")[0])
    insert_lesion(source, lesion, 0.85 * largest, np.random.default_rng(0))
    with pytest.raises(AnatomyError, match="does not fit"):
        insert_lesion(source, lesion, 1.5 * largest, np.random.default_rng(0))


def test_too_small_unknown_and_homeless_lesions_are_refused(real_data: Path) -> None:
    source = body(real_data)
    with pytest.raises(AnatomyError, match="too small"):
        insert_lesion(source, "hepatic tumor", 2.5, np.random.default_rng(0))
    with pytest.raises(AnatomyError, match="too small"):
        insert_lesion(source, "hepatic tumor", float("nan"), np.random.default_rng(0))
    with pytest.raises(AnatomyError, match="no such lesion"):
        insert_lesion(source, "brain tumor", 20, np.random.default_rng(0))
    empty = LabelMap(np.full((20, 20, 20), 200, np.uint8), np.eye(4), MAISI)
    with pytest.raises(AnatomyError, match="host"):
        insert_lesion(empty, "hepatic tumor", 5, np.random.default_rng(0))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 5.0), (3.0, 2.0, 1.5)])
def test_shapes_have_the_volume_of_the_ball_at_any_spacing(spacing: tuple[float, float, float]) -> None:
    shape = irregular_ball(24, np.array(spacing), np.random.default_rng(0), roughness=0.2)
    assert shape.sum() * np.prod(spacing) / 1000 == pytest.approx(ball_ml(24), rel=0.01)
    assert ndimage.label(shape)[1] == 1
    assert not shape[0].any()
    assert not shape[:, -1].any()


def test_white_matter_lesions_are_several_foci_beside_the_ventricle(real_data: Path) -> None:
    source = head(real_data, 2)
    out, record = insert_lesion(source, "left white matter lesion", 16, np.random.default_rng(1))
    changed = out.voxels != source.voxels
    assert (source.voxels[changed] == 2).all()
    assert (out.voxels[changed] == 25).all()
    assert ndimage.label(changed)[1] > 3
    assert 0.9 * ball_ml(16) < changed.sum() / 1000 < 1.2 * ball_ml(16)
    away = ndimage.distance_transform_edt(~np.isin(source.voxels, (4, 5)))
    assert np.median(away[changed]) < 12
    assert record.host == "left cerebral white matter"


def test_a_brain_tumor_has_core_rim_and_oedema_in_white_matter_only(real_data: Path) -> None:
    source = head(real_data, 2)
    out, record = insert_lesion(source, "enhancing brain tumor", 34, np.random.default_rng(1))
    necrosis, oedema, rim = (out.voxels == label for label in (401, 402, 403))
    assert set(np.unique(source.voxels[oedema]).tolist()) <= {2, 41}
    core = necrosis | rim
    assert 0.78 * ball_ml(34) < core.sum() / 1000 < 1.05 * ball_ml(34)
    assert (ndimage.binary_erosion(core) | ~necrosis).mean() > 0.999
    assert oedema.sum() > core.sum()
    assert (ndimage.distance_transform_edt(~core)[oedema]).max() < 34
    assert record.label == "enhancing brain tumor"
    assert record.fraction_inside >= 0.8


@pytest.mark.parametrize("seed", range(4))
def test_oedema_has_the_size_asked_for_though_it_keeps_to_the_white_matter_of_one_side(real_data: Path, seed: int) -> None:
    source = head(real_data, 2)
    out, _ = insert_lesion(source, "brain tumor edema", 44, np.random.default_rng(seed))
    whole = np.isin(out.voxels, (401, 402, 403))
    assert 0.8 * ball_ml(44) < whole.sum() / 1000 < 1.05 * ball_ml(44)
    sides = np.unique(source.voxels[out.voxels == 402])
    assert set(sides.tolist()) in ({2}, {41})
