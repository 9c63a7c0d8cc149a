"""NIfTI headers: each reader's own understanding of the grid, and what they claim of the size."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tests.unit.images.test_readers import GRID, some_image

from segwright.core.errors import DatasetError
from segwright.images.readers import choose_reader, read_header, read_image, read_label, write_image, write_label


def patched_nifti(path: Path, **fields: tuple[int, str, tuple[float, ...]]) -> None:
    """Write a NIfTI file whose header fields (offset, struct code, values) are overwritten."""
    plain = path.with_name("plain.nii")
    write_image(plain, some_image(), GRID, "NibabelIO")
    content = bytearray(plain.read_bytes())
    plain.unlink()
    for offset, code, values in fields.values():
        struct.pack_into("<" + code, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content)) if path.name.endswith(".gz") else bytes(content))


SFORM = (0.0, 0.75, 0.0, 7.0, -0.5, 0.0, 0.0, 8.0, 0.0, 0.0, 2.5, 9.0)
NIBABEL_GRIDS = {
    "micrometres": ((123, "B", (3,)), (2.5, 0.5, 0.75), (12.25, -30.5, 7.0), (1, 1, 1), True),
    "metres": ((123, "B", (1,)), (2.5, 0.5, 0.75), (12.25, -30.5, 7.0), (1, 1, 1), True),
    "neither qform nor sform": ((252, "2h", (0, 0)), (2.5, 0.75, 0.5), (-1.25, -1.5, -3.75), (1, 1, -1), False),
    "an sform of code 2 and a qform": ((280, "12f", SFORM), (2.5, 0.5, 0.75), (7.0, 5.5, 9.0), (1, -1, 1), True),
}
"""Changed header field -> after turning to RAS: spacing, position of the first voxel, steps through z, y, x and whether
y and x change places, recorded from nnunetv2 2.8.1 with nibabel 5.4.2."""


@pytest.mark.parametrize("kind", NIBABEL_GRIDS)
def test_nibabels_readers_understand_headers_as_nibabel_does(tmp_path: Path, kind: str) -> None:
    field, spacing_zyx, first_ras, steps, swapped = NIBABEL_GRIDS[kind]
    path = tmp_path / "case_0000.nii"
    patched_nifti(path, codes=(252, "2h", (1, 2 if field[0] == 280 else 1)), field=field)
    turned = read_image([path], "NibabelIOWithReorient")
    array = some_image().transpose(0, 2, 1) if swapped else some_image()
    np.testing.assert_array_equal(turned.array_czyx[0], array[:: steps[0], :: steps[1], :: steps[2]])
    assert turned.geometry.spacing_zyx == spacing_zyx
    x, y, z = turned.geometry.origin_xyz
    np.testing.assert_allclose((-x, -y, z), first_ras)
    assert read_image([path], "NibabelIO").geometry.spacing_zyx == (2.5, 0.75, 0.5)
    assert read_header(path, "NibabelIO")[0] == read_image([path], "NibabelIO").geometry


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_header_that_claims_too_much_allocates_nothing(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"huge{ending}"
    patched_nifti(path, dim=(40, "8h", (3, 10000, 10000, 10000, 1, 1, 1, 1)))
    for read in (read_header, lambda file, reader: read_image([file], reader), read_label):
        with pytest.raises(DatasetError, match=r"huge.*1e\+12 values"):
            read(path, "NibabelIO")
    patched_nifti(path, dim=(40, "8h", (3, 600, 700, 800, 1, 1, 1, 1)))
    with pytest.raises(DatasetError, match=r"huge.*only \d+ bytes"):
        read_image([path], "NibabelIO")


@pytest.mark.parametrize("shear", [1e-4, 1e-2, 0.2])
def test_sheared_axes_become_the_nearest_right_angled_ones(tmp_path: Path, shear: float) -> None:
    path = tmp_path / "sheared.nii.gz"
    rows = (0.5, shear, 0.0, 1.0, 0.0, 0.75, 0.0, 2.0, 0.0, 0.0, 2.5, 3.0)
    patched_nifti(path, codes=(252, "2h", (0, 1)), sform=(280, "12f", rows))
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(path))
    image = read_image([path], "SimpleITKIO")
    np.testing.assert_array_equal(image.array_czyx[0], some_image())
    direction = np.reshape(image.geometry.direction_xyz, (3, 3))
    np.testing.assert_allclose(direction @ direction.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(direction, np.diag([-1, -1, 1]), atol=shear)
    np.testing.assert_allclose(image.geometry.origin_xyz, (-1, -2, 3))
    write_label(tmp_path / "label.nii.gz", np.ones((4, 5, 6), np.uint8), image.geometry, "SimpleITKIO")
    assert sitk.ReadImage(str(tmp_path / "label.nii.gz")).GetSize() == (6, 5, 4)


def test_a_sheared_example_decides_for_nibabel_as_in_v2(tmp_path: Path) -> None:
    """nnunetv2 2.8.1 tries to open it: ITK refuses axes that are not at right angles."""
    path = tmp_path / "case_0000.nii.gz"
    rows = (0.5, 0.01, 0.0, 1.0, 0.0, 0.75, 0.0, 2.0, 0.0, 0.0, 2.5, 3.0)
    patched_nifti(path, codes=(252, "2h", (0, 1)), sform=(280, "12f", rows))
    assert choose_reader(".nii.gz", path) == "NibabelIO"
    assert choose_reader(".nii.gz", path, "SimpleITKIO") == "SimpleITKIO"
    assert read_image([path], "NibabelIO").geometry.spacing_zyx == (2.5, 0.75, 0.5)
    write_image(path, some_image(), GRID, "SimpleITKIO")
    assert choose_reader(".nii.gz", path) == "SimpleITKIO"
    path.write_bytes(path.read_bytes()[:30])  # its own case names it
    assert choose_reader(".nii.gz", path) == "SimpleITKIO"
    assert choose_reader(".nii.gz", tmp_path / "nothing.nii.gz") == "SimpleITKIO"


def test_a_nifti_files_own_scaling_is_applied_as_itk_does(tmp_path: Path) -> None:
    path = tmp_path / "scaled.nii.gz"
    patched_nifti(path, scaling=(112, "2f", (0.37, -11.5)))
    image = read_image([path], "SimpleITKIO")
    np.testing.assert_array_equal(image.array_czyx[0], sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    assert image.stored_dtype.startswith("float")
