"""What readers say of files that are cut off, altered, missing or not what their name says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.core.errors import DatasetError
from segwright.core.geometry import Geometry
from segwright.images.readers import choose_reader, read_image, read_label, write_image

AXES = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def grid_of(shape_zyx: tuple[int, int, int]) -> Geometry:
    return Geometry(shape_zyx, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), AXES)


def some_image(shape_zyx: tuple[int, int, int]) -> np.ndarray:
    return (np.random.default_rng(3).normal(size=shape_zyx) * 300).astype(np.int16)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.97])
def test_a_truncated_file_is_named_and_itk_says_nothing(tmp_path: Path, capfd, ending: str, keep: float) -> None:
    flat = ending in (".png", ".bmp")
    reader = "Tiff3DIO" if ending == ".tif" else choose_reader(ending)
    whole, cut = tmp_path / f"whole{ending}", tmp_path / f"cut{ending}"
    shape = (1, 40, 50) if flat else (10, 20, 30)
    array = np.abs(some_image(shape)) % 256 if flat else some_image(shape)
    write_image(whole, array, grid_of(shape), reader)
    content = whole.read_bytes()
    cut.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DatasetError, match=rf"cut\{ending}: "):
        read_image([cut], reader)
    assert capfd.readouterr() == ("", "")


def test_flipped_bits_in_compressed_files_are_found(tmp_path: Path, capfd) -> None:
    for ending in (".nii.gz", ".nrrd", ".mha", ".png"):
        flat = ending == ".png"
        shape = (1, 40, 50) if flat else (10, 20, 30)
        path = tmp_path / f"flipped{ending}"
        write_image(path, np.abs(some_image(shape)) % 256, grid_of(shape), choose_reader(ending))
        content = bytearray(path.read_bytes())
        content[len(content) * 2 // 3] ^= 0xFF
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=rf"flipped\{ending}: "):
            read_image([path], choose_reader(ending))
    assert capfd.readouterr().err == ""


@settings(max_examples=60, deadline=None)
@given(
    ending=st.sampled_from([".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif"]),
    changes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_any_damage_is_a_dataset_error_or_still_an_image(tmp_path_factory, ending, changes) -> None:
    flat = ending in (".png", ".bmp")
    shape = (1, 12, 14) if flat else (6, 7, 8)
    reader = "Tiff3DIO" if ending == ".tif" else choose_reader(ending)
    path = tmp_path_factory.mktemp("damaged") / f"case_0000{ending}"
    write_image(path, np.abs(some_image(shape)) % 200, grid_of(shape), reader)
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    path.write_bytes(content)
    for read in (lambda file: read_image([file], reader).array_czyx, lambda file: read_label(file, reader).array_zyx):
        try:
            assert read(path).ndim in (3, 4)
        except DatasetError as error:
            assert str(path.parent) in str(error)


def test_the_truncated_real_file_is_named(shared_data: Path) -> None:
    path = shared_data / "broken/Dataset904_truncated_gzip/imagesTr/hippocampus_035_0000.nii.gz"
    with pytest.raises(DatasetError, match=r"hippocampus_035_0000\.nii\.gz: the compressed file is truncated"):
        read_image([path], "SimpleITKIO")


def test_pixels_in_another_file_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.mha", some_image((4, 5, 6)), grid_of((4, 5, 6)), "SimpleITKIO")
    head, _, pixels = (tmp_path / "a.mha").read_bytes().partition(b"LOCAL\n")
    (tmp_path / "pixels.zraw").write_bytes(pixels)
    (tmp_path / "a.mha").write_bytes(head + b"pixels.zraw\n")
    nrrd = b"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 2 2\nencoding: raw\ndata file: pixels.zraw\n\n"
    (tmp_path / "b.nrrd").write_bytes(nrrd)
    for name in ("a.mha", "b.nrrd"):
        with pytest.raises(DatasetError, match=rf"{name}: no pixels in the file itself"):
            read_image([tmp_path / name], "SimpleITKIO")


def test_content_never_chooses_another_parser(tmp_path: Path) -> None:
    write_image(tmp_path / "a.nrrd", some_image((4, 5, 6)), grid_of((4, 5, 6)), "SimpleITKIO")
    (tmp_path / "a.mha").write_bytes((tmp_path / "a.nrrd").read_bytes())
    (tmp_path / "a.nii.gz").write_bytes((tmp_path / "a.nrrd").read_bytes())
    for name in ("a.mha", "a.nii.gz"):
        with pytest.raises(DatasetError, match=name):
            read_image([tmp_path / name], "SimpleITKIO")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nothing\.nii\.gz: the file does not exist"):
        read_image([tmp_path / "nothing.nii.gz"], "SimpleITKIO")
