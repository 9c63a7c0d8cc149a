"""Reading and writing every family of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.core.errors import DatasetError
from segwright.core.geometry import Geometry
from segwright.images.readers import (
    choose_reader,
    known_endings,
    read_channels,
    read_header,
    read_image,
    read_label,
    write_image,
    write_label,
)

TILTED = (0.0, -1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
GRID = Geometry((4, 5, 6), (2.5, 0.75, 0.5), (-12.25, 30.5, 7.0), TILTED)
FLAT = Geometry((1, 5, 6), (999.0 * 0.75, 0.75, 0.5), (1.5, 2.5), (1.0, 0.0, 0.0, 1.0), 2)
PICTURE = Geometry((1, 5, 6), (999.0, 1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0), 2)


def some_image(shape: tuple[int, ...] = (4, 5, 6), kind: type = np.int16) -> np.ndarray:
    return (np.random.default_rng(3).normal(size=shape) * 300).astype(kind)


@pytest.mark.parametrize(
    ("ending", "override", "expected"),
    [
        (".nii.gz", None, "SimpleITKIO"),
        (".NRRD", None, "SimpleITKIO"),
        (".mha", "None", "SimpleITKIO"),
        (".gipl", None, "SimpleITKIO"),
        (".nii", None, "NibabelIO"),
        (".nii.gz", "NibabelIOWithReorient", "NibabelIOWithReorient"),
        (".nrrd", "SimpleITKIOWithReorient", "SimpleITKIOWithReorient"),
        (".nii", "SimpleITKIO", "SimpleITKIO"),
        (".nii", "SimpleITKIOWithReorient", "SimpleITKIOWithReorient"),
        (".tiff", "NaturalImage2DIO", "NaturalImage2DIO"),
        (".png", None, "NaturalImage2DIO"),
        (".bmp", None, "NaturalImage2DIO"),
        (".tiff", None, "Tiff3DIO"),
    ],
)
def test_the_reader_follows_v2s_order(ending: str, override: str | None, expected: str) -> None:
    assert choose_reader(ending, override=override) == expected


def test_a_tiff_example_decides_between_pictures_and_stacks(tmp_path: Path) -> None:
    write_image(tmp_path / "flat_0000.tif", some_image((1, 5, 6)), FLAT, "NaturalImage2DIO")
    write_image(tmp_path / "deep_0000.tif", some_image(), GRID, "Tiff3DIO")
    assert choose_reader(".tif", tmp_path / "flat_0000.tif") == "NaturalImage2DIO"
    assert choose_reader(".tif", tmp_path / "deep_0000.tif") == "Tiff3DIO"


def test_unknown_endings_and_readers_are_refused_with_what_is_known() -> None:
    with pytest.raises(DatasetError, match=r"\.jpg.*\.nii\.gz"):
        choose_reader(".jpg")
    with pytest.raises(DatasetError, match=r"MyReader.*SimpleITKIO"):
        choose_reader(".png", override="MyReader")
    with pytest.raises(DatasetError, match=r"SimpleITKIO cannot read \.png"):
        choose_reader(".png", override="SimpleITKIO")
    with pytest.raises(DatasetError, match=r"Tiff3DIO cannot read \.png; it reads \.tif, \.tiff"):
        choose_reader(".png", override="Tiff3DIO")
    assert set(known_endings()) == {".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff"}


@pytest.mark.parametrize(
    ("ending", "reader", "grid"),
    [
        (".nii", "SimpleITKIO", GRID),
        (".nii", "SimpleITKIOWithReorient", None),
        (".tiff", "NaturalImage2DIO", PICTURE),
    ],
)
def test_a_named_reader_reads_and_writes_endings_it_is_not_chosen_for(
    tmp_path: Path, ending: str, reader: str, grid: Geometry | None
) -> None:
    """As v2, which looks at the ending only where it chooses the reader itself."""
    shape = (4, 5, 6) if grid is None else grid.shape_zyx
    write_image(tmp_path / f"case_0000{ending}", some_image(shape), grid or GRID, reader)
    image = read_image([tmp_path / f"case_0000{ending}"], reader)
    assert np.array_equal(np.sort(image.array_czyx, axis=None), np.sort(some_image(shape), axis=None))
    assert grid is None or image.geometry == grid
    label = np.arange(120).reshape(image.geometry.shape_zyx) if grid is None else np.ones(shape, int)
    write_label(tmp_path / f"case{ending}", label, image.geometry, reader)
    written = read_label(tmp_path / f"case{ending}", reader)
    np.testing.assert_array_equal(written.array_zyx, label)
    assert written.geometry == image.geometry


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".nii"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_values_type_and_geometry_survive_a_round_trip(tmp_path: Path, ending: str, kind: type) -> None:
    path = tmp_path / f"case_0000{ending}"
    reader = choose_reader(ending)
    array_zyx = np.abs(some_image(kind=np.float64)).astype(kind)
    write_image(path, array_zyx, GRID, reader)
    image = read_image([path], reader)
    assert image.array_czyx.dtype == np.float32
    np.testing.assert_array_equal(image.array_czyx[0], array_zyx.astype(np.float32))
    assert image.geometry == GRID
    assert image.stored_dtype == np.dtype(kind).name
    assert read_header(path, reader) == (GRID, np.dtype(kind).name)


def test_gipl_keeps_values_spacing_and_origin(tmp_path: Path) -> None:
    write_image(tmp_path / "case_0000.gipl", some_image(), GRID, "SimpleITKIO")
    image = read_image([tmp_path / "case_0000.gipl"], "SimpleITKIO")
    np.testing.assert_array_equal(image.array_czyx[0], some_image())
    assert (image.geometry.spacing_zyx, image.geometry.origin_xyz) == (GRID.spacing_zyx, GRID.origin_xyz)


@settings(max_examples=15, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(0.01, 20)] * 3),
    origin=st.tuples(*[st.floats(-1000, 1000)] * 3),
    ending=st.sampled_from([".nii.gz", ".nrrd", ".mha"]),
)
def test_a_label_map_gets_its_images_oblique_geometry(tmp_path_factory, angles, spacing, origin, ending) -> None:
    folder = tmp_path_factory.mktemp("oblique")
    rotation = sitk.Euler3DTransform((0, 0, 0), *angles).GetMatrix()
    grid = Geometry((3, 4, 5), spacing, origin, rotation)
    write_image(folder / f"image{ending}", some_image((3, 4, 5)), grid, "SimpleITKIO")
    stored = read_header(folder / f"image{ending}", "SimpleITKIO")[0]
    write_label(folder / f"label{ending}", np.ones((3, 4, 5), np.uint8), stored, "SimpleITKIO")
    label = read_label(folder / f"label{ending}", "SimpleITKIO").geometry
    # the formats' own precision: NIfTI holds float32
    for wanted, seen, rtol in ((grid, stored, 1e-6), (stored, label, 1e-6)):
        np.testing.assert_allclose(seen.spacing_zyx, wanted.spacing_zyx, rtol=rtol)
        np.testing.assert_allclose(seen.origin_xyz, wanted.origin_xyz, rtol=rtol, atol=1e-6)
        np.testing.assert_allclose(seen.direction_xyz, wanted.direction_xyz, atol=1e-6)


def test_labels_of_real_images_keep_the_exact_geometry(shared_data: Path, tmp_path: Path) -> None:
    images = sorted((shared_data / "hippocampus_mixed" / "Dataset113_HippocampusMixed" / "imagesTr").iterdir())
    assert len(images) == 16
    for path in images:
        geometry = read_header(path, "SimpleITKIO")[0]
        write_label(tmp_path / "label.nii.gz", np.zeros(geometry.shape_zyx, np.uint8), geometry, "SimpleITKIO")
        assert read_header(tmp_path / "label.nii.gz", "SimpleITKIO")[0] == geometry, path.name


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_two_dimensional_medical_images_become_one_slice(tmp_path: Path, ending: str) -> None:
    write_image(tmp_path / f"flat{ending}", some_image((1, 5, 6)), FLAT, "SimpleITKIO")
    image = read_image([tmp_path / f"flat{ending}"], "SimpleITKIO")
    assert image.geometry == FLAT  # slice spacing 999 x 0.75: method 1.3
    assert sitk.ReadImage(str(tmp_path / f"flat{ending}")).GetDimension() == 2
    np.testing.assert_array_equal(image.array_czyx[0], some_image((1, 5, 6)))


def test_one_slice_of_a_volume_stays_three_dimensional(tmp_path: Path) -> None:
    grid = Geometry((1, 5, 6), (3.0, 1.0, 1.0), (0.0, 0.0, 9.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    write_label(tmp_path / "thin.nii.gz", np.ones((1, 5, 6), np.uint8), grid, "SimpleITKIO")
    assert read_label(tmp_path / "thin.nii.gz", "SimpleITKIO").geometry == grid


def test_label_bytes_are_the_same_every_time(tmp_path: Path) -> None:
    label = (some_image() > 0).astype(np.uint8)
    for ending, reader in ((".nii.gz", "SimpleITKIO"), (".nrrd", "SimpleITKIO"), (".tif", "Tiff3DIO")):
        for name in "ab":
            write_label(tmp_path / f"{name}{ending}", label, GRID, reader)
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()
    assert not list(tmp_path.glob(".part*"))


@pytest.mark.parametrize(("highest", "expected"), [(254, "uint8"), (255, "uint16"), (300, "uint16")])
def test_written_label_type_depends_on_the_highest_label(tmp_path: Path, highest: int, expected: str) -> None:
    label = np.zeros((4, 5, 6), np.int32)
    label[1, 2, 3] = highest
    write_label(tmp_path / "label.nii.gz", label, GRID, "SimpleITKIO")
    read = read_label(tmp_path / "label.nii.gz", "SimpleITKIO")
    assert read.stored_dtype == expected
    np.testing.assert_array_equal(read.array_zyx, label)


def test_labels_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    for wrong in (np.full((4, 5, 6), -1), np.full((4, 5, 6), 70000), np.zeros((4, 5, 6), np.float32)):
        with pytest.raises(DatasetError, match="whole numbers from 0 to 65535"):
            write_label(tmp_path / "label.nii.gz", wrong, GRID, "SimpleITKIO")
    with pytest.raises(DatasetError, match="does not fit the grid"):
        write_label(tmp_path / "label.nii.gz", np.zeros((4, 5, 7), np.uint8), GRID, "SimpleITKIO")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2], np.uint8),
        ([0, 255], np.uint8),
        ([0, 256], np.int16),
        ([-1, 3], np.int16),
        ([0, 40000], np.int32),
    ],
)
def test_label_maps_get_the_smallest_integer_type(tmp_path: Path, values: list[int], expected: type) -> None:
    array = np.resize(np.array(values), (4, 5, 6))
    for stored in (np.float32, np.int32):
        write_image(tmp_path / "label.nii.gz", array.astype(stored), GRID, "SimpleITKIO")
        label = read_label(tmp_path / "label.nii.gz", "SimpleITKIO")
        assert label.array_zyx.dtype == expected
        assert label.stored_dtype == np.dtype(stored).name
        np.testing.assert_array_equal(label.array_zyx, array)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_label_values_are_whole_in_single_precision(tmp_path: Path, ending: str) -> None:
    """A rescaling leaves such numbers, and v2 casts them to float32 before anything else."""
    array = np.full((4, 5, 6), 2.9999999999999996)
    array[0, 0, 0] = -1.0000000000000002
    assert not np.array_equal(array, np.rint(array))
    write_image(tmp_path / f"label{ending}", array, GRID, "SimpleITKIO")
    label = read_label(tmp_path / f"label{ending}", "SimpleITKIO")
    assert (label.stored_dtype, label.array_zyx.dtype) == ("float64", np.int16)
    np.testing.assert_array_equal(label.array_zyx, np.rint(array))


def test_label_values_beyond_single_precision_stay_exact(tmp_path: Path) -> None:
    array = np.full((4, 5, 6), 2.0**24 + 1)
    write_image(tmp_path / "label.nii.gz", array, GRID, "SimpleITKIO")
    np.testing.assert_array_equal(read_label(tmp_path / "label.nii.gz", "SimpleITKIO").array_zyx, 16_777_217)
    array[0, 0, 0] = 3.0001
    write_image(tmp_path / "label.nii.gz", array, GRID, "SimpleITKIO")
    with pytest.raises(DatasetError, match="whole numbers but 1 voxels"):
        read_label(tmp_path / "label.nii.gz", "SimpleITKIO")


@pytest.mark.parametrize("wrong", [0.5, np.nan, np.inf])
def test_label_values_must_be_whole_numbers(tmp_path: Path, wrong: float) -> None:
    array = np.ones((4, 5, 6), np.float32)
    array[0, 0, :2] = wrong
    write_image(tmp_path / "label.nii.gz", array, GRID, "SimpleITKIO")
    with pytest.raises(DatasetError, match=r"label\.nii\.gz: label values must be whole numbers but 2 voxels"):
        read_label(tmp_path / "label.nii.gz", "SimpleITKIO")


def test_a_label_value_that_is_nearly_whole_is_shown_as_it_is(tmp_path: Path) -> None:
    array = np.full((4, 5, 6), 2.9999998, np.float32)
    write_image(tmp_path / "label.nii.gz", array, GRID, "SimpleITKIO")
    with pytest.raises(DatasetError, match=r"120 voxels are not \(for example 2\.9999998\)"):
        read_label(tmp_path / "label.nii.gz", "SimpleITKIO")


def test_channels_are_stacked_and_their_grids_compared(tmp_path: Path) -> None:
    files = [tmp_path / f"case_000{channel}.nii.gz" for channel in range(2)]
    write_image(files[0], some_image(), GRID, "SimpleITKIO")
    write_image(files[1], some_image(kind=np.float32), GRID, "SimpleITKIO")
    image = read_image(files, "SimpleITKIO")
    assert (image.array_czyx.shape, image.stored_dtype) == ((2, 4, 5, 6), "mixed")
    other = Geometry((4, 5, 6), (2.0, 0.75, 0.5), GRID.origin_xyz, TILTED)
    write_image(files[1], some_image(), other, "SimpleITKIO")
    with pytest.raises(DatasetError, match=r"case_0001\.nii\.gz: its grid differs.*spacing"):
        read_image(files, "SimpleITKIO")
    assert [one.geometry for one in read_channels(files, "SimpleITKIO")] == [GRID, other]


def test_the_fourth_axis_of_a_single_file_is_its_channels(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "broken/Dataset907_image_4d/imagesTr/hippocampus_092_0000.nii.gz"
    image = read_image([path], "SimpleITKIO")
    whole = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(image.array_czyx, sitk.GetArrayFromImage(whole))
    assert image.geometry.shape_zyx == (28, 49, 38) and image.geometry.origin_xyz == whole.GetOrigin()[:3]
    with pytest.raises(DatasetError, match=r"092_0000.*2 channels"):
        read_image([path, path], "SimpleITKIO")
    with pytest.raises(DatasetError, match=r"092_0000.*one value a voxel"):
        read_label(path, "SimpleITKIO")


@pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "SimpleITKIOWithReorient"])
def test_reorientation_to_ras_only_moves_voxels(tmp_path: Path, reader: str) -> None:
    array = some_image()
    write_image(tmp_path / "case.nii.gz", array, GRID, "NibabelIO")
    turned = read_image([tmp_path / "case.nii.gz"], reader)
    # GRID: stored x runs along -y of LPS (anterior), stored y along -x (right): x and y change places, no flips
    np.testing.assert_array_equal(turned.array_czyx[0], array.transpose(0, 2, 1))
    assert turned.geometry.direction_xyz == (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
    assert turned.geometry.spacing_zyx == (2.5, 0.5, 0.75)
    itk = sitk.DICOMOrient(sitk.ReadImage(str(tmp_path / "case.nii.gz")), "RAS")
    assert read_header(tmp_path / "case.nii.gz", reader)[0] == turned.geometry
    np.testing.assert_allclose(turned.geometry.origin_xyz, itk.GetOrigin())
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk), turned.array_czyx[0])


@pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "SimpleITKIOWithReorient"])
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_reoriented_label_maps_are_written_on_the_grid_of_their_image(
    tmp_path: Path, axes: tuple[int, ...], signs: tuple[int, ...], reader: str
) -> None:
    direction = np.eye(3)[:, axes] * signs
    grid = Geometry((4, 5, 6), (2.5, 0.75, 0.5), (10.0, -7.0, 3.0), tuple(float(v) for v in direction.ravel()))
    array = np.arange(120, dtype=np.uint8).reshape(4, 5, 6)
    write_image(tmp_path / "case_0000.nii.gz", array, grid, "NibabelIO")
    turned = read_image([tmp_path / "case_0000.nii.gz"], reader)
    assert Geometry.from_json(turned.geometry.to_json()) == turned.geometry
    label = turned.array_czyx[0].astype(np.uint8)
    write_label(tmp_path / "case.nii.gz", label, turned.geometry, reader)
    written, image = (sitk.ReadImage(str(tmp_path / name)) for name in ("case.nii.gz", "case_0000.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), array)
    for ours, theirs in (
        (written.GetOrigin(), image.GetOrigin()),
        (written.GetDirection(), image.GetDirection()),
        (written.GetSpacing(), image.GetSpacing()),
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    again = read_label(tmp_path / "case.nii.gz", reader)
    np.testing.assert_array_equal(again.array_zyx, label)


def test_real_images_reorient_as_itk_does(shared_data: Path) -> None:
    for path in sorted((shared_data / "hippocampus_mixed").rglob("imagesTr/*"))[:6]:
        turned = read_image([path], "NibabelIOWithReorient")
        itk = sitk.DICOMOrient(sitk.ReadImage(str(path)), "RAS")
        np.testing.assert_array_equal(turned.array_czyx[0], sitk.GetArrayFromImage(itk))
        np.testing.assert_allclose(turned.geometry.origin_xyz, itk.GetOrigin(), atol=1e-5)
