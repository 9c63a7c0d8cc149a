"""Headers on which ITK crashes or never returns, or tifffile allocates or loops: refused before they get there."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from segwright.core.errors import DatasetError
from segwright.images.readers import read_channels, read_header

ARRAY = np.arange(4 * 6 * 5, dtype=np.int16).reshape(4, 6, 5)


def written(path: Path) -> bytearray:
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(path))
    return bytearray(path.read_bytes())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"NDims = 3", b"NDims = -1", "NDims is -1"),
        (b"NDims = 3", b"NDims = 30", "NDims is 30"),
        (b"NDims = 3", b"NDims = three", "not a whole number"),
        (b"DimSize = 5 6 4", b"DimSize = 5 6", "DimSize is `5 6`, not 3 numbers"),
        (b"DimSize = 5 6 4", b"DimSize = 5 6 0", "empty grid"),
        (b"DimSize = 5 6 4", b"DimSize = 50000 60000 40000", "values but the file has only|more than"),
        (b"Offset = 0 0 0", b"Offset = 0 0 nan", "Offset is"),
        (b"Offset = 0 0 0", b"Offset = 0 0", "Offset is"),
        (b"ElementType = MET_SHORT", b"ElementType = MET_STRING", "pixels of the type"),
        (b"ElementDataFile = LOCAL", b"ElementDataFile = other.raw", "no pixels in the file itself"),
        (b"ObjectType = Image\n", b"", None),
        (b"NDims = 3\n", b"", "stands before NDims"),
        (b"NDims = 3\n", b"NDims = 3\nNDims = 3\n", "NDims is given twice"),
        (b"NDims = 3\n", b"NDims = 3\nComment = " + b"x" * 5000 + b"\n", "`Comment` in the header has 5000 bytes"),
        (b"NDims = 3\n", b"NDims = 3\nName = " + b"x" * 255 + b"\n", "has 255 bytes, and ITK can read 254"),
        (b"NDims = 3\n", b"NDims = 3\n0008|103e = " + b"x" * 40000 + b"\n", "40000 bytes, and ITK can read 32767"),
        (b"NDims = 3\n", b"NDims = 3\n" + b"k" * 255 + b" = 1\n", "not `key = value`"),
        (b"NDims = 3\n", b"NDims = 3\n= 1\n", "not `key = value`"),
        (b"NDims = 3\n", b"NDims = 3\nNDims: -1 = 2\n", "NDims is given twice"),  # as MetaIO reads it
        (b"NDims = 3\n", b"NDims\0x = -1\nNDims = 3\n", "not `key = value`"),
        (b"NDims = 3\n", b"NDims = 3\nElementType\n: MET_DOUBLE\n", "ElementType is given twice"),
        (b"NDims = 3\n", b"NDims = 3\n" + b"a = b\n" * 5000, "there is no ElementDataFile"),  # 33 KB each in MetaIO
    ],
    ids=lambda value: repr(value)[:40],
)
def test_metaimage(old: bytes, new: bytes, words: str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    content = bytes(written(path))
    assert old in content
    path.write_bytes(content.replace(old, new))
    if words is None:  # what ITK does not mind
        assert np.array_equal(read_channels([path], "SimpleITKIO")[0].array_czyx[0], ARRAY)
        return
    with pytest.raises(DatasetError, match=words) as caught:
        read_channels([path], "SimpleITKIO")
    assert str(path) in str(caught.value)


def image_with(texts: Mapping[str, str]) -> sitk.Image:
    image = sitk.GetImageFromArray(ARRAY)
    image.SetSpacing((0.5, 0.75, 2.5))
    for key, text in texts.items():
        image.SetMetaData(key, text)
    return image


def require_read(path: Path) -> None:
    image = read_channels([path], "SimpleITKIO")[0]
    np.testing.assert_array_equal(image.array_czyx[0], ARRAY)
    assert image.geometry.spacing_zyx == (2.5, 0.75, 0.5)


DICOM = {
    "0008|0008": "ORIGINAL\\PRIMARY\\M\\SE", "0008|0031": "10:55:17.250", "0008|0060": "MR", "a key of words": "1",
    "0008|103e": "t2 \u00e4xial " + "x" * 3000, "0018|0081": "Siemens = 1.5 T: yes", "ITK_FileNotes": "none",
}  # fmt: skip


@pytest.mark.parametrize("compress", [False, True])
def test_metaimage_with_texts_of_dicom(compress: bool, tmp_path: Path) -> None:
    """What SimpleITK's SetMetaData leaves in a header, as converters from DICOM do."""
    path = tmp_path / "a.mha"
    sitk.WriteImage(image_with(DICOM), str(path), useCompression=compress)
    assert {key: sitk.ReadImage(str(path)).GetMetaData(key) for key in DICOM} == DICOM
    require_read(path)


def test_metaimage_with_a_long_header(tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    sitk.WriteImage(image_with({f"0029|{number:04x}": "x" * 400 for number in range(300)}), str(path))
    assert path.read_bytes().index(b"LOCAL") > 1 << 16
    require_read(path)


@pytest.mark.parametrize(
    "lines",
    [
        b"0008|0060 = MR\n0008|0060 = CT\n",  # twice
        b"0008|0081 = a street\nits town\n0008|0090 = a name\n",  # MetaIO takes the town for a key, too
        b"0010|4000 =\n",
        b"0010|4000 = \r\n",
        b"Modality: MET_MOD_MR\n",
        b"Comment = " + b"x" * 254 + b"\n",
        b"k" * 254 + b" = 1\n",
    ],
    ids=lambda value: repr(value)[:40],
)
def test_metaimage_with_other_lines(lines: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    sitk.WriteImage(image_with({}), str(path))
    path.write_bytes(path.read_bytes().replace(b"NDims = 3\n", b"NDims = 3\n" + lines))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), ARRAY)
    require_read(path)


@pytest.mark.parametrize(
    ("code", "position", "value", "words"),
    [
        ("f", 300, np.inf, "not finite"),  # a row of the sform: ITK never returns
        ("f", 292, np.nan, "not finite"),
        ("f", 80, np.nan, "not finite"),  # a spacing: ITK takes 1 instead
        ("f", 84, np.inf, "not finite"),
        ("f", 88, 1e20, "not finite"),
        ("f", 268, -np.inf, "not finite"),
        ("i", 0, 540, "NIfTI-2"),
    ],
)
def test_nifti(code: str, position: int, value: float, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    content = written(path)
    struct.pack_into(f"<{code}", content, position, value)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=words):
        read_header(path, "NibabelIO")


def tiff_of(path: Path, **options: object) -> bytearray:
    tifffile.imwrite(path, ARRAY[0], photometric="minisblack", metadata=None, **options)
    return bytearray(path.read_bytes())


def entry_of(content: bytes, tag: int) -> int:
    """Offset of a tag's entry in the first directory of a little-endian classic TIFF."""
    start = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, start)[0]
    return next(
        start + 2 + 12 * i for i in range(count) if struct.unpack_from("<H", content, start + 2 + 12 * i)[0] == tag
    )


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [
        (279, 2**32 - 1, "a strip or tile lies outside the file"),  # tifffile would allocate it
        (273, 2**31, "a strip or tile lies outside the file"),
        (256, 2**31, "the header claims"),
        (259, 7, "the JPEG data in it is damaged"),  # ITK computes for half a minute
        (259, 34887, "cannot be read; save it with deflate|cannot be read as TIFF"),
    ],
)
def test_tiff_values(tag: int, value: int, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    content = tiff_of(path)
    place = entry_of(content, tag)
    kind = struct.unpack_from("<H", content, place + 2)[0]
    struct.pack_into("<I" if kind == 4 else "<H", content, place + 8, value & (2**32 - 1 if kind == 4 else 2**16 - 1))
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=words) as caught:
        read_channels([path], "NaturalImage2DIO")
    assert "a.tif" in str(caught.value)


def test_tiff_directories_in_a_circle(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    content = tiff_of(path)
    start = struct.unpack_from("<I", content, 4)[0]
    struct.pack_into("<I", content, start + 2 + 12 * struct.unpack_from("<H", content, start)[0], start)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="its directories form a circle"):
        read_header(path, "Tiff3DIO")


def test_tiff_with_a_value_longer_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    content = tiff_of(path)
    struct.pack_into("<I", content, entry_of(content, 273) + 4, 2**30)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="is longer than the file"):
        read_header(path, "Tiff3DIO")


def test_sound_tiffs_of_all_forms_pass(tmp_path: Path) -> None:
    for number, options in enumerate(
        ({}, {"bigtiff": True}, {"byteorder": ">"}, {"imagej": True}, {"compression": "zlib"})
    ):
        path = tmp_path / f"case_{number}.tif"
        tifffile.imwrite(path, ARRAY.astype(np.uint16), photometric="minisblack", **options)
        assert np.array_equal(read_channels([path], "Tiff3DIO")[0].array_czyx[0], ARRAY)


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_compressed_metaimage_that_is_cut_off(cut: int, tmp_path: Path) -> None:
    """ITK does not return from some of these."""
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(path), useCompression=True)
    content = path.read_bytes()
    assert np.array_equal(read_channels([path], "SimpleITKIO")[0].array_czyx[0], ARRAY)
    path.write_bytes(content[:-cut])
    with pytest.raises(DatasetError, match="the compressed data is"):
        read_channels([path], "SimpleITKIO")
    start = content.index(b"LOCAL\n") + 6
    path.write_bytes(content[: start + 20] + b"\xff" * 10 + content[start + 30 :])
    with pytest.raises(DatasetError, match="the compressed data is"):
        read_channels([path], "SimpleITKIO")
