import nibabel as nib
import numpy as np
import pytest

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.mapping import load_mapping
from ctmr_core.anatomy.templates.importing import import_template, import_templates
from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.errors import AnatomyError

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])


@pytest.fixture
def library(tmp_path) -> TemplateLibrary:
    return TemplateLibrary.open(tmp_path / "library", create=True)


def small_body() -> np.ndarray:
    voxels = np.zeros((40, 30, 20), np.uint8)
    voxels[24:32, 10:20, 4:16] = 1
    voxels[8:13, 10:16, 8:14] = 3
    voxels[18:21, 8:11, :] = 35
    return voxels


def save(path, voxels, affine=AFFINE):
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def test_a_real_segmentation_with_its_scan_becomes_a_template(real_data, library):
    folder = real_data / "ct_abdomen"
    row = import_template(
        folder / "labels_totalsegmentator_v2.nii.gz",
        library,
        template_id="abdomen",
        mapping="totalsegmentator_v2",
        image=folder / "ct.nii.gz",
        licence="Apache-2.0",
    )
    assert row.regions == ("chest", "abdomen", "pelvis")
    assert row.size == (122, 101, 112)
    assert row.spacing == pytest.approx((3, 3, 3))
    assert row.imported_with == "totalsegmentator_v2"
    assert row.volumes_ml[1] == pytest.approx(41692 * 27 / 1000)
    assert 40 < row.intensities["ct"][1].median < 60
    assert 5 < row.intensities["ct"][1].spread < 20
    assert row.intensities["ct"][94].median > 100
    assert 200 not in row.intensities["ct"]
    stored = library.get("abdomen")
    source = np.asarray(nib.load(folder / "labels_totalsegmentator_v2.nii.gz").dataobj)
    table = load_mapping("totalsegmentator_v2").table
    for label in (5, 25, 76):
        assert np.array_equal(stored.voxels == table[label], source == label)
    assert set(np.unique(stored.voxels[source == 0])) == {0, 200}


def test_importing_twice_gives_the_same_digest(real_data, library):
    path = real_data / "ct_abdomen" / "labels_totalsegmentator_v2.nii.gz"
    rows = [import_template(path, library, template_id=name, mapping="totalsegmentator_v2") for name in "ab"]
    assert rows[0].digest == rows[1].digest
    assert "skin line is a guess" in rows[0].notes[0]


def test_the_atlas_needs_sides_and_a_true_spacing(real_data, library):
    atlas = real_data / "abdominal_atlas" / "seg.nrrd"
    with pytest.raises(AnatomyError, match="split-sides"):
        import_template(atlas, library, mapping="spl_abdominal_atlas")
    shrunk = import_template(atlas, library, template_id="shrunk", mapping="spl_abdominal_atlas", split_sides=True)
    assert any("spacing-scale" in note for note in shrunk.notes)
    row = import_template(
        atlas, library, template_id="atlas", mapping="spl_abdominal_atlas", split_sides=True, spacing_scale=(1.3, 1.3, 1.94)
    )
    assert not any("spacing-scale" in note for note in row.notes)
    assert row.spacing == pytest.approx((0.9375 * 1.3, 0.9375 * 1.3, 1.5 * 1.94))
    assert row.volumes_ml[95] == pytest.approx(row.volumes_ml[96], rel=0.05)
    stored = library.get("atlas").voxels
    for left, right in ((95, 96), (72, 84), (14, 5)):
        assert np.argwhere(stored == left)[:, 0].mean() < np.argwhere(stored == right)[:, 0].mean()


def test_brain_maps_get_no_envelope_and_keep_their_ids(real_data, library):
    path = real_data / "t1_brain" / "labels_freesurfer.mgz"
    image = real_data / "t1_brain" / "t1.mgz"
    row = import_template(
        path, library, template_id="t1", mapping="freesurfer", image=image, image_sequence="mri_t1_skull_stripped"
    )
    assert row.vocabulary == "brain"
    assert row.regions == ("head",)
    values = row.intensities["mri_t1_skull_stripped"]
    assert values[2].median > values[3].median > values[4].median  # white matter, cortex, fluid in a T1
    source = np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)
    assert np.array_equal(library.get("t1").voxels == 17, source == 17)
    assert np.count_nonzero(library.get("t1").voxels) == np.count_nonzero(source)


def test_a_magnetic_resonance_scan_gets_numbered_vertebrae_and_a_skin_line(real_data, library):
    folder = real_data / "mr_abdomen"
    row = import_template(
        folder / "labels_totalsegmentator_mr.nii.gz",
        library,
        template_id="mr",
        mapping="totalsegmentator_mr",
        image=folder / "mr.nii.gz",
        image_sequence="mri_t1",
    )
    assert {36, 37} <= set(row.labels)
    assert any("numbered" in note for note in row.notes)
    assert row.volumes_ml[200] > 2000


def test_a_wrong_image_is_refused_and_nothing_is_stored(tmp_path, library):
    labels = save(tmp_path / "labels.nii.gz", small_body())
    hu = np.where(small_body() > 0, 40, -1000).astype(np.int16)
    moved = AFFINE.copy()
    moved[0, 3] = 3
    cases = {
        "not on the grid": save(tmp_path / "small.nii.gz", hu[:-1]),
        "lies elsewhere": save(tmp_path / "moved.nii.gz", hu, moved),
        "Hounsfield": save(tmp_path / "mr.nii.gz", np.abs(hu)),
        "NaN": save(tmp_path / "nan.nii.gz", np.full(hu.shape, np.nan, np.float32)),
    }
    for message, image in cases.items():
        with pytest.raises(AnatomyError, match=message):
            import_template(labels, library, image=image)
    assert len(TemplateLibrary.open(library.path)) == 0


def test_mirrored_maps_are_refused_unless_allowed(tmp_path, library):
    path = save(tmp_path / "labels.nii.gz", small_body()[::-1])
    with pytest.raises(AnatomyError, match="exchanged"):
        import_template(path, library)
    row = import_template(path, library, allow_mirrored=True)
    assert any("exchanged" in note for note in row.notes)


def test_envelopes_on_request_only(tmp_path, library):
    path = save(tmp_path / "labels.nii.gz", small_body())
    assert 200 not in import_template(path, library, template_id="bare", envelope="none").labels
    assert 200 in import_template(path, library, template_id="drawn").labels
    with pytest.raises(AnatomyError, match="needs an image"):
        import_template(path, library, template_id="x", envelope="image")
    with pytest.raises(AnatomyError, match="unknown envelope"):
        import_template(path, library, template_id="x", envelope="skin")


def test_a_map_that_has_a_body_keeps_it(tmp_path, library):
    voxels = small_body()
    voxels[4:36, 4:26][voxels[4:36, 4:26] == 0] = 200
    import_template(save(tmp_path / "labels.nii.gz", voxels), library, template_id="own")
    assert np.array_equal(library.get("own").voxels, voxels)


def test_muscles_called_body_are_not_taken_for_a_drawn_body(tmp_path, library):
    voxels = small_body()
    voxels[2:38, 22:28, 2:18] = 200
    import_template(save(tmp_path / "labels.nii.gz", voxels), library, template_id="muscles")
    assert (library.get("muscles").voxels[:, :5, 10] == 200).any()


@pytest.mark.parametrize(
    "options", [{"spacing_scale": (1, 0, 1)}, {"spacing_scale": (1, 1)}, {"image_sequence": "pet"}, {"mapping": "nope"}]
)
def test_impossible_options_are_refused(tmp_path, library, options):
    with pytest.raises(AnatomyError):
        import_template(save(tmp_path / "labels.nii.gz", small_body()), library, **options)


def test_a_batch_collects_errors_and_imports_the_rest(tmp_path, library):
    folder = tmp_path / "maps"
    folder.mkdir()
    save(folder / "good one.nii.gz", small_body())
    save(folder / "unknown.nii.gz", np.where(small_body() == 3, 222, small_body()).astype(np.uint8))
    (folder / "broken.nii").write_bytes(b"x" * 500)
    (folder / "readme.txt").write_text("not a map")
    seen = []
    report = import_templates([folder], library, envelope="none", done=lambda path, outcome: seen.append(path.name))
    assert [row.id for row in report.rows] == ["good_one"]
    assert sorted(path.name for path in report.errors) == ["broken.nii", "unknown.nii.gz"]
    assert seen == ["broken.nii", "good one.nii.gz", "unknown.nii.gz"]
    with pytest.raises(AnatomyError, match="no label maps"):
        import_templates([tmp_path / "library"], library)


def test_templates_are_label_maps_in_the_house_vocabulary(tmp_path, library):
    import_template(save(tmp_path / "labels.nii.gz", small_body()), library, template_id="one")
    label_map = library.get("one")
    assert isinstance(label_map, LabelMap)
    assert label_map.voxels.dtype == np.uint8
    assert label_map.tissues is None
    assert label_map.vocabulary.name == "maisi"
