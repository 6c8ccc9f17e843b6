import nibabel as nib
import numpy as np
import pytest

from ctmr_core.anatomy.mapping import load_mapping
from ctmr_core.anatomy.templates.importing import import_template, import_templates
from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.anatomy.templates.mask_folder import holds_masks, read_mask_folder
from ctmr_core.errors import AnatomyError

MAPPING = load_mapping("totalsegmentator_v2")


@pytest.fixture
def masks(real_data, tmp_path):
    """The multi-label map of the real scan, taken apart into one mask per structure."""
    image = nib.load(real_data / "ct_abdomen" / "labels_totalsegmentator_v2.nii.gz")
    labels = np.asarray(image.dataobj)
    folder = tmp_path / "segmentations"
    folder.mkdir()
    for label in (1, 2, 3, 5, 20, 31):
        mask = (labels == label).astype(np.uint8)
        nib.save(nib.Nifti1Image(mask, image.affine), folder / f"{MAPPING.names[label]}.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros_like(labels), image.affine), folder / "prostate.nii.gz")
    return folder, np.where(np.isin(labels, (1, 2, 3, 5, 20, 31)), labels, 0)


def test_a_folder_of_masks_is_one_label_map(masks):
    folder, labels = masks
    assert holds_masks(folder, MAPPING)
    assert np.array_equal(read_mask_folder(folder, MAPPING).voxels, labels)


def test_a_folder_of_masks_becomes_one_template(masks, tmp_path):
    library = TemplateLibrary.open(tmp_path / "library", create=True)
    report = import_templates([masks[0]], library, mapping="totalsegmentator_v2", envelope="none")
    assert [row.id for row in report.rows] == ["segmentations"]
    assert report.rows[0].labels == (1, 3, 5, 14, 37, 62)


def test_masks_with_other_names_or_grids_are_refused(masks, tmp_path):
    folder, labels = masks
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), np.eye(4)), folder / "skin.nii.gz")
    with pytest.raises(AnatomyError, match=r"skin\.nii\.gz"):
        read_mask_folder(folder, MAPPING)
    assert read_mask_folder(folder, MAPPING, drop_unknown=True).voxels.any()
    (folder / "skin.nii.gz").rename(folder / "heart.nii.gz")
    with pytest.raises(AnatomyError, match="one grid"):
        read_mask_folder(folder, MAPPING)


def test_empty_masks_and_folders_of_label_maps(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), empty / "liver.nii.gz")
    with pytest.raises(AnatomyError, match="all empty"):
        import_template(empty, TemplateLibrary.open(tmp_path / "library", create=True), mapping=MAPPING)
    (empty / "liver.nii.gz").rename(empty / "patient_1.nii.gz")
    assert not holds_masks(empty, MAPPING)
