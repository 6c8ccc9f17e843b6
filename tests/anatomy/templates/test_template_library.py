import multiprocessing

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctmr_core.anatomy.label_map import LabelIntensity, LabelMap
from ctmr_core.anatomy.templates.library import TemplateLibrary, TemplateRow, check_template_id, rows_to_index
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.errors import AnatomyError


def label_map(*labels: int, size=(6, 7, 8), spacing=(0.7, 0.7, 1.25), vocabulary="maisi", intensities=None) -> LabelMap:
    loaded = load_vocabulary(vocabulary)
    voxels = np.zeros(size, loaded.dtype)
    for n, label in enumerate(labels):
        voxels[n % size[0], n // size[0]] = label
    affine = np.diag([*spacing, 1.0])
    affine[0, 1], affine[:3, 3] = 0.1, (-11.123456789, 5, 7)
    return LabelMap(voxels, affine, loaded, intensities=intensities or {})


@pytest.fixture
def library(tmp_path) -> TemplateLibrary:
    return TemplateLibrary.open(tmp_path / "library", create=True)


@pytest.mark.parametrize("vocabulary", ["maisi", "brain"])
def test_what_is_added_is_what_is_got_bit_for_bit(library, vocabulary):
    added = label_map(3, 5, 14, vocabulary=vocabulary, intensities={"ct": {3: LabelIntensity(44.1, 7.25)}})
    row = library.add("one", added, source="ward 3", licence="CC0", imported_with="maisi", notes=["odd"])
    again = TemplateLibrary.open(library.path)
    assert again.row("one") == row
    got = again.get("one")
    assert got.digest() == added.digest() == row.digest
    assert np.array_equal(got.voxels, added.voxels)
    assert np.array_equal(got.affine, added.affine)
    assert got.voxels.flags.c_contiguous
    assert got.intensities == added.intensities


def test_the_row_describes_the_map(library):
    row = library.add("one", label_map(1, 23, 28, 200))
    assert row.labels == (1, 23, 28, 200)
    assert row.regions == ("chest", "abdomen")
    assert row.lesions == (23,)
    assert row.has_tumor
    assert row.volumes_ml[1] == pytest.approx(8 * np.prod(row.spacing) / 1000, abs=1e-4)


def test_the_stored_file_is_a_plain_nifti_with_both_transforms(library):
    added = label_map(3, spacing=(1, 1, 2))
    library.add("one", added)
    image = nib.load(library.path / "templates" / "one.nii.gz")
    assert image.header["qform_code"] == image.header["sform_code"] == 1
    assert image.get_data_dtype() == np.uint8
    assert np.allclose(image.affine, added.affine, atol=1e-5)


def test_files_have_the_same_bytes_every_time(library, tmp_path):
    other = TemplateLibrary.open(tmp_path / "other", create=True)
    for each in (library, other):
        each.add("b", label_map(3, 5))
        each.add("a", label_map(5))
    for name in ("index.parquet", "templates/a.nii.gz", "templates/b.nii.gz"):
        assert (library.path / name).read_bytes() == (other.path / name).read_bytes()


def test_a_changed_damaged_or_missing_file_is_refused(library):
    library.add("one", label_map(3, 5))
    file = library.path / "templates" / "one.nii.gz"
    image = nib.load(file)
    voxels = np.asarray(image.dataobj).copy()
    voxels[0, 0, 0] = 1
    nib.save(nib.Nifti1Image(voxels, image.affine), file)
    with pytest.raises(AnatomyError, match="was changed"):
        library.get("one")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(AnatomyError, match="cannot read"):
        library.get("one")
    file.unlink()
    with pytest.raises(AnatomyError, match="cannot read"):
        library.get("one")


def test_a_moved_affine_is_a_change(library):
    library.add("one", label_map(3, 5))
    file = library.path / "templates" / "one.nii.gz"
    image = nib.load(file)
    affine = image.affine.copy()
    affine[0, 3] += 1
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj).copy(), affine), file)
    with pytest.raises(AnatomyError, match="was changed"):
        library.get("one")


def test_ids_in_use_are_refused_unless_replaced(library):
    library.add("one", label_map(3))
    with pytest.raises(AnatomyError, match="of this id"):
        library.add("one", label_map(5))
    assert library.add("one", label_map(5), replace=True).labels == (5,)
    assert TemplateLibrary.open(library.path).get("one").voxels.max() == 5


@pytest.mark.parametrize("bad", ["", "../x", "a/b", "a.b", "-a", "a b", "x" * 81, "a\n", "é"])
def test_ids_that_are_not_file_names_everywhere_are_refused(library, bad):
    with pytest.raises(AnatomyError, match="template id"):
        library.add(bad, label_map(3))
    with pytest.raises(AnatomyError):
        library.get(bad)


def test_ids_follow_the_pattern_of_case_ids():
    from ctmr_core.anatomy.templates.library import TEMPLATE_ID_PATTERN
    from ctmr_core.cases.case import CASE_ID_PATTERN

    assert TEMPLATE_ID_PATTERN == CASE_ID_PATTERN
    assert check_template_id("A-1_b") == "A-1_b"


def test_removal_deletes_row_and_file(library):
    library.add("one", label_map(3))
    library.remove("one")
    assert "one" not in TemplateLibrary.open(library.path)
    assert not (library.path / "templates" / "one.nii.gz").exists()
    with pytest.raises(AnatomyError, match="no such template"):
        library.remove("one")


def test_an_unfinished_write_leaves_the_library_as_it_was(library, monkeypatch):
    library.add("one", label_map(3))
    before = (library.path / "index.parquet").read_bytes()

    def crash(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ctmr_core.anatomy.templates.library.pq.write_table", crash)
    with pytest.raises(OSError, match="No space"):
        library.add("two", label_map(5))
    assert (library.path / "index.parquet").read_bytes() == before
    assert [row.id for row in TemplateLibrary.open(library.path).rows()] == ["one"]
    assert not [file for file in library.path.rglob(".*") if file.name != ".lock"]


def test_a_missing_or_foreign_index_is_refused(tmp_path):
    with pytest.raises(AnatomyError, match="no template library"):
        TemplateLibrary.open(tmp_path / "gone")
    (tmp_path / "index.parquet").write_text("not parquet")
    with pytest.raises(AnatomyError, match="cannot read the index"):
        TemplateLibrary.open(tmp_path)


def _add(arguments) -> None:
    path, name = arguments
    TemplateLibrary.open(path).add(name, label_map(3))


def test_imports_at_the_same_time_all_arrive(library):
    names = [f"t{n:02d}" for n in range(40)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_add, [(library.path, name) for name in names])
    assert [row.id for row in TemplateLibrary.open(library.path).rows()] == names


def test_find_filters_exactly(library):
    library.add("chest", label_map(28, 3))
    library.add("belly", label_map(1, 3, 5))
    library.add("sick", label_map(1, 3, 26))
    library.add("head", label_map(2, 41, vocabulary="brain"))
    ids = lambda **wanted: [row.id for row in library.find(**wanted)]  # noqa: E731
    assert ids() == ["belly", "chest", "head", "sick"]
    assert ids(regions=["abdomen"], vocabulary="maisi") == ["belly", "chest", "sick"]
    assert ids(regions=["head"]) == ["head"]
    assert ids(regions=["chest"], labels=[3]) == ["chest"]
    assert ids(labels=[1], tumor_free=True) == ["belly"]
    assert ids(labels=[1, 26], tumor_free=True) == ["sick"]
    assert ids(vocabulary="brain") == ["head"]
    assert ids(labels=[99]) == []
    assert ids(limit=2) == ["belly", "chest"]


def with_grid(name, size, spacing) -> TemplateRow:
    return TemplateRow(
        id=name,
        digest="",
        vocabulary="maisi",
        size=size,
        spacing=spacing,
        affine=(0.0,) * 16,
        labels=(),
        volumes_ml={},
        regions=(),
    )


def test_find_ranks_by_the_published_distance(library):
    rows = [
        with_grid("exact", (256, 256, 128), (1.5, 1.5, 2.0)),
        with_grid("same_too", (256, 256, 128), (1.5, 1.5, 2.0)),
        with_grid("finer", (512, 512, 128), (0.75, 0.75, 2.0)),  # same field of view: 2 x (2.56 + 0.75) = 6.62
        with_grid("longer", (256, 256, 168), (1.5, 1.5, 2.0)),  # 80 mm / 10 + 40 / 100 = 8.4
        with_grid("far_too_small", (128, 256, 128), (3.0, 1.5, 2.0)),
    ]
    library = TemplateLibrary(library.path, rows_to_index(rows))
    found = library.find(size=(256, 256, 128), spacing=(1.5, 1.5, 2.0))
    assert [row.id for row in found] == ["exact", "same_too", "finer", "longer"]


@settings(max_examples=20, deadline=None)
@given(
    grids=st.lists(st.tuples(st.integers(16, 600), st.floats(0.3, 5)), min_size=1, max_size=8),
    size=st.integers(16, 512),
    spacing=st.floats(0.3, 5),
)
def test_nearest_is_never_farther_than_the_next(tmp_path_factory, grids, size, spacing):
    rows = {f"t{n}": with_grid(f"t{n}", (d, d, d), (mm, mm, mm)) for n, (d, mm) in enumerate(grids)}
    found = TemplateLibrary(tmp_path_factory.getbasetemp(), rows_to_index(rows.values())).find(
        size=(size,) * 3, spacing=(spacing,) * 3
    )

    def score(row):
        d, mm = row.size[0], row.spacing[0]
        return 3 * (abs(d * mm - size * spacing) / 10 + abs(d - size) / 100 + abs(mm - spacing))

    assert [score(row) for row in found] == pytest.approx(sorted(score(row) for row in found))
    assert {row.id for row in found} == {name for name, row in rows.items() if row.size[0] > size - 128}
