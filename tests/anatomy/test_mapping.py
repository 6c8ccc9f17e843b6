import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctmr_core.anatomy.mapping import (
    LabelMapping,
    apply_mapping,
    count_ids,
    load_mapping,
    mapping_from_color_table,
    mapping_names,
)
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.errors import AnatomyError

MAISI = load_vocabulary("maisi")


@pytest.mark.parametrize("name", mapping_names())
def test_every_built_in_mapping_loads_and_maps_into_its_vocabulary(name):
    mapping = load_mapping(name)
    targets = set(mapping.table.values()) | {side for pair in mapping.sides.values() for side in pair}
    assert targets
    assert all(target in mapping.vocabulary for target in targets)
    for left, right in mapping.sides.values():
        assert mapping.vocabulary.label(left).side == "left"
        assert mapping.vocabulary.label(right).side == "right"


def test_the_totalsegmentator_mapping_is_the_published_one(real_data):
    published = json.loads((real_data / "mapping" / "totalsegmentator_total_v2_to_maisi132.json").read_text())
    assert load_mapping("totalsegmentator_v2").table == {int(source): target for source, target in published.items()}


def test_sides_agree_between_source_and_target_names():
    for name in ("totalsegmentator_v2", "totalsegmentator_mr", "spl_abdominal_atlas", "freesurfer"):
        mapping = load_mapping(name)
        for source, target in mapping.table.items():
            side = mapping.vocabulary.label(target).side if target else ""
            if side:
                assert side in mapping.names[source].lower(), (name, source)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (17, 17),
        (1001, 3),
        (2035, 42),
        (11175, 3),
        (12101, 42),
        (3010, 2),
        (4010, 41),
        (5001, 2),
        (78, 25),
        (515, 515),
        (401, 401),
    ],
)
def test_freesurfer_parcels_become_cortex_and_white_matter(source, target):
    assert load_mapping("freesurfer").table[source] == target


@given(st.lists(st.integers(0, 117), min_size=1, max_size=60))
def test_mapping_is_the_table_applied_to_every_voxel(ids):
    mapping = load_mapping("totalsegmentator_v2")
    voxels = np.array(ids, np.int16).reshape(1, 1, -1)
    mapped = apply_mapping(voxels, mapping)
    assert mapped.dtype == np.uint8
    assert mapped.flags.c_contiguous
    assert mapped.ravel().tolist() == [mapping.table.get(source, 0) for source in ids]


@given(st.lists(st.integers(0, 20000), min_size=1, max_size=80))
def test_counting_ids_counts_every_voxel_once(ids):
    voxels = np.asfortranarray(np.array(ids * 2, np.uint16).reshape(2, 1, -1))
    counts = count_ids(voxels)
    assert sum(counts.values()) == voxels.size
    assert all(counts[i] == 2 * ids.count(i) for i in set(ids))


def test_unknown_ids_are_refused_with_their_counts_unless_dropped():
    voxels = np.zeros((4, 4, 4), np.int32)
    voxels[0, 0, :3] = 250
    voxels[1, 1, 1] = 2**30
    voxels[2, 2, 2] = 5
    mapping = load_mapping("totalsegmentator_v2")
    with pytest.raises(AnatomyError, match=r"250 \(3 voxels\), 1073741824 \(1 voxels\)"):
        apply_mapping(voxels, mapping)
    dropped = apply_mapping(voxels, mapping, drop_unknown=True)
    assert count_ids(dropped) == {0: 63, 1: 1}


def test_unsided_labels_are_divided_at_the_midline_or_refused():
    voxels = np.full((6, 2, 2), 299, np.uint16)
    mapping = load_mapping("spl_abdominal_atlas")
    with pytest.raises(AnatomyError, match=r"299 \(Pelvis\)"):
        apply_mapping(voxels, mapping)
    divided = apply_mapping(voxels, mapping, midline=2.5)
    assert (divided[:3] == 95).all()
    assert (divided[3:] == 96).all()


def test_yaml_mappings_take_names_ids_ranges_and_background(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "vocabulary: maisi\nlabels: {5: liver, 7: Portal_Vein_and_Splenic_Vein, 9: 200, 12: background, 20-22: spleen}\n"
    )
    mapping = load_mapping(file)
    assert mapping.name == "mine"
    assert mapping.table == {5: 1, 7: 17, 9: 200, 12: 0, 20: 3, 21: 3, 22: 3}


@pytest.mark.parametrize(
    "text", ["id,label\n5,liver\n7,6\n", "5,liver\n7,6\n", "\ufeffsource,name,target\n5,Leber,liver\n7,Aorta,aorta\n"]
)
def test_csv_mappings_with_or_without_header(tmp_path, text):
    file = tmp_path / "mine.csv"
    file.write_text(text, encoding="utf-8")
    assert load_mapping(file).table == {5: 1, 7: 6}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "labels: {5: livr}", "liver"),
        ("a.yaml", "labels: {5: 199}", "no such label"),
        ("a.yaml", "labels: [5]", "`labels`"),
        ("a.yaml", "labels: {5: liver}\nvocab: maisi", "unknown field"),
        ("a.yaml", "labels: {5: liver", "not a YAML mapping"),
        ("a.yaml", "vocabulary: mice\nlabels: {5: liver}", "unknown vocabulary"),
        ("a.yaml", "labels: {5: liver, 4-6: spleen}", "mapped twice"),
        ("a.yaml", "labels: {-5: liver}", "source id"),
        ("a.csv", "id,label\nfive,liver\n", "whole number"),
        ("a.csv", "id,label\n5\n", "too short"),
        ("a.csv", "", "empty"),
        ("a.csv", "5,\xff\xfe", "no such label"),
        ("a.txt", "5 liver", "unknown mapping"),
    ],
)
def test_mapping_files_that_cannot_be_used_are_refused_with_a_reason(tmp_path, name, text, message):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    with pytest.raises(AnatomyError, match=message):
        load_mapping(file)


def test_a_missing_mapping_lists_the_known_ones(tmp_path):
    with pytest.raises(AnatomyError, match="totalsegmentator_v2"):
        load_mapping("totalsegmentator")
    with pytest.raises(AnatomyError, match="no such mapping file"):
        load_mapping(tmp_path / "gone.csv")


def test_a_color_table_with_rules_makes_a_mapping(tmp_path):
    table = tmp_path / "atlas.ctbl"
    table.write_text(
        "# colours\n0 Background 0 0 0 0\n3 liver 1 2 3 255\n52 left_kidney 1 2 3 255\n7 big_vessel 1 2 3 255\n8 odd 1 2 3 255\n"
    )
    mapping = mapping_from_color_table(table, {"big_vessel": "aorta"}, MAISI)
    assert mapping.table == {3: 1, 52: 14, 7: 6}
    with pytest.raises(AnatomyError, match="no such name"):
        mapping_from_color_table(table, {"vessel": "aorta"}, MAISI)
    rules = tmp_path / "rules.yaml"
    rules.write_text("vocabulary: maisi\ncolor_table: atlas.ctbl\nlabels: {big_vessel: aorta, odd: background}\n")
    assert load_mapping(rules).table == {3: 1, 52: 14, 7: 6, 8: 0}


def test_the_atlas_mapping_knows_every_id_of_its_color_table(real_data):
    lines = (real_data / "abdominal_atlas" / "AbdominalAtlasColors.ctbl").read_text().splitlines()
    mapping = load_mapping("spl_abdominal_atlas")
    ids = [int(line.split()[0]) for line in lines if line and not line.startswith("#")]
    assert ids
    assert all(identifier in mapping for identifier in ids)


def test_a_mapping_can_be_made_in_code():
    mapping = LabelMapping("two", MAISI, {1: 3})
    assert apply_mapping(np.ones((2, 2, 2), np.uint8), mapping).max() == 3
