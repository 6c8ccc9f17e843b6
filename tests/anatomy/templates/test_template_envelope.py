import numpy as np
import pytest

from ctmr_core.anatomy.mapping import apply_mapping, load_mapping
from ctmr_core.anatomy.templates.envelope import envelope_from_ct, envelope_from_labels, envelope_from_mr
from ctmr_core.anatomy.templates.reading import read_label_scan, read_scan

SPACING = (2.5, 2.5, 3.0)


def patient(shift: int = 0, half_width: int = 45):
    """A patient of 2 x 1 elliptic cross-section on a table 5 mm below, with two lungs; labels: liver and both lungs."""
    x, y, _ = np.ogrid[:128, :96, :24]
    radius = ((x - 63.5 - shift) / half_width) ** 2 + ((y - 50) / 24) ** 2
    body = np.broadcast_to(radius <= 1, (128, 96, 24))
    hu = np.where(body, 40, -1000).astype(np.int16)
    hu[:, 20:23] = 60  # table top, as wide as the field of view
    hu[:, 16:20] = -950
    hu[:, 14:16] = 60
    labels = np.zeros(hu.shape, np.uint8)
    for centre, label in ((43 + shift, 29), (84 + shift, 32)):
        lung = np.broadcast_to(((x - centre) / 13) ** 2 + ((y - 50) / 14) ** 2 <= 1, hu.shape) & body
        hu[lung] = -850
        labels[lung] = label
    liver = np.broadcast_to((abs(x - 63.5 - shift) < 6) & (abs(y - 50) < 6), hu.shape)
    labels[liver & body] = 1
    return labels, hu, body


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_the_table_is_left_out_and_the_skin_is_kept():
    labels, hu, body = patient()
    found = envelope_from_ct(labels, hu, SPACING, has_lungs=True)
    assert dice(found, body) > 0.99
    assert not found[:, :24].any()
    assert found[labels > 0].all()


def test_a_patient_cut_off_on_both_sides_is_found():
    labels, hu, body = patient(half_width=75)  # reaches both lateral faces; the air is in two pieces
    found = envelope_from_ct(labels, hu, SPACING, has_lungs=True)
    assert dice(found, body) > 0.99
    assert found[0, 50].all()


def test_a_field_of_view_inside_the_body_is_all_body():
    labels, hu, _ = patient()
    inner = (slice(30, 98), slice(40, 60), slice(None))
    assert envelope_from_ct(labels[inner], hu[inner], SPACING, has_lungs=True).all()


def test_lungs_without_a_label_that_reach_the_side_of_the_crop_stay_body():
    labels, hu, body = patient()
    labels[labels != 1] = 0
    crop = slice(38, 128)
    found = envelope_from_ct(labels[crop], hu[crop], SPACING, has_lungs=False)
    assert found[:6, 45:55].all()
    assert dice(found, body[crop]) > 0.98


def test_fine_grids_give_the_same_patient_as_coarse_ones():
    labels, hu, body = patient()
    fine = [np.kron(a, np.ones((4, 4, 1), a.dtype)) for a in (labels, hu)]
    found = envelope_from_ct(*fine, (0.625, 0.625, 3.0), has_lungs=True)
    assert dice(found, np.kron(body, np.ones((4, 4, 1), bool))) > 0.99


def test_a_real_scan_loses_its_table(real_data):
    ct = read_scan(real_data / "ct_abdomen" / "ct.nii.gz")
    labels = read_label_scan(real_data / "ct_abdomen" / "labels_totalsegmentator_v2.nii.gz").voxels
    found = envelope_from_ct(labels, ct.voxels, ct.spacing, has_lungs=True)
    litres = np.count_nonzero(found) * np.prod(ct.spacing) / 1e6
    assert 20 < litres < 26
    assert not found[:, :2].any()  # the table's rail
    assert not found[66:76, :6, 90].any()  # the mattress under the small of the back
    assert np.mean(ct.voxels[found] < -300) < 0.04
    assert np.mean(ct.voxels[~found] < -300) > 0.97


def test_without_an_image_the_trunk_covers_the_labels_and_resembles_the_patient(real_data):
    ct = read_scan(real_data / "ct_abdomen" / "ct.nii.gz")
    labels = read_label_scan(real_data / "ct_abdomen" / "labels_totalsegmentator_v2.nii.gz").voxels
    labels = apply_mapping(labels, load_mapping("totalsegmentator_v2"))
    drawn = envelope_from_labels(labels, ct.spacing)
    assert drawn[labels > 0].all()
    assert dice(drawn, envelope_from_ct(labels, ct.voxels, ct.spacing, has_lungs=True)) > 0.92


def test_the_drawn_trunk_goes_through_the_volume_and_ends_above_a_head():
    labels = np.zeros((60, 60, 40), np.uint8)
    labels[25:35, 25:35, 10:25] = 1
    through = envelope_from_labels(labels, (4, 4, 4))
    assert through.any(axis=(0, 1)).all()
    labels[25:35, 25:35, 20:25] = 22
    ended = envelope_from_labels(labels, (4, 4, 4))
    assert ended[:, :, 0].any()
    assert not ended[:, :, -1].any()


def test_a_drawn_head_has_a_thin_scalp_and_a_neck_below_it():
    x, y, z = np.ogrid[:80, :80, :120]
    labels = np.zeros((80, 80, 120), np.uint8)
    labels[((x - 40) ** 2 + (y - 40) ** 2 + (z - 95) ** 2) <= 18**2] = 120
    labels[37:43, 32:38, 60:78] = 53  # neck
    labels[10:70, 25:50, :60] = 30  # chest up to the shoulders
    drawn = envelope_from_labels(labels, (4, 4, 4))
    width = drawn[:, 36].sum(axis=0) * 4
    scalp = (np.count_nonzero(drawn[:, 40, 95]) * 4 - 37 * 4) / 2
    assert 3 <= scalp <= 12
    assert 24 < width[70] < 80
    assert width[40] > 240


@pytest.mark.parametrize("size", [(8, 8, 8), (30, 30, 1), (1, 40, 40)])
def test_labels_that_fill_a_small_volume_leave_only_body_around_them(size):
    labels = np.zeros(size, np.uint8)
    labels[tuple(slice(n // 4, n // 4 + max(1, n // 2)) for n in size)] = 1
    assert envelope_from_labels(labels, (1.0, 1.0, 1.0)).all()


def test_the_patient_is_found_in_a_magnetic_resonance_image(real_data):
    mr = read_scan(real_data / "mr_abdomen" / "mr.nii.gz")
    labels = read_label_scan(real_data / "mr_abdomen" / "labels_totalsegmentator_mr.nii.gz").voxels
    found = envelope_from_mr(labels, mr.voxels, mr.spacing)
    assert found[labels > 0].all()
    assert 0.6 < found.mean() < 0.9
    assert not found[[0, 0, -1, -1], [0, -1, 0, -1]].any()  # the corners are air
    assert not found[30, -1].any()
    assert np.median(mr.voxels[~found]) < 0.1 * np.median(mr.voxels[found])


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_layout_does_not_matter(order):
    labels, hu, _ = patient()
    reference = envelope_from_ct(labels, hu, SPACING, has_lungs=True)
    again = envelope_from_ct(np.array(labels, order=order), np.array(hu, order=order), SPACING, has_lungs=True)
    assert np.array_equal(reference, again)
