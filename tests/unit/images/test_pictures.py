"""PNG, BMP, 2-D TIFF and 3-D TIFF with side-car."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from segwright.core.errors import DatasetError
from segwright.core.geometry import Geometry
from segwright.images.readers import (
    choose_reader,
    read_header,
    read_image,
    read_label,
    read_label_header,
    sidecars,
    write_image,
    write_label,
)

READER = "NaturalImage2DIO"
PICTURE = Geometry((1, 5, 6), (999.0, 1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0), 2)
STACK = Geometry((4, 5, 6), (50.0, 4.6, 4.6), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


def png(
    path: Path, samples: np.ndarray, bits: int, colour_type: int, palette: bytes = b"", transparent: bytes = b""
) -> Path:
    """A PNG file written by hand, for kinds that ITK does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows, columns = samples.shape[:2]
    lines = b"".join(b"\0" + packed(row, bits) for row in samples)
    head = struct.pack(">IIBBBBB", columns, rows, bits, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", head) + (chunk(b"PLTE", palette) if palette else b"")
    body += (chunk(b"tRNS", transparent) if transparent else b"") + chunk(b"IDAT", zlib.compress(lines))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))
    return path


def packed(row: np.ndarray, bits: int) -> bytes:
    if bits == 16:
        return row.astype(">u2").tobytes()
    if bits == 8:
        return row.astype(np.uint8).tobytes()
    digits = "".join(f"{value:0{bits}b}" for value in row.ravel())
    return int(digits.ljust(-(-len(digits) // 8) * 8, "0"), 2).to_bytes(-(-len(digits) // 8), "big")


def indices() -> np.ndarray:
    return np.arange(30).reshape(5, 6) % 4


@pytest.mark.parametrize(("bits", "colour_type", "channels"), [(8, 0, 1), (16, 0, 1), (8, 2, 3), (16, 2, 3), (8, 6, 4)])
def test_png_kinds(tmp_path: Path, bits: int, colour_type: int, channels: int) -> None:
    samples = np.random.default_rng(1).integers(0, 2**bits, (5, 6, channels))
    path = png(tmp_path / "case_0000.png", samples, bits, colour_type)
    image = read_image([path], READER)
    assert (image.geometry, image.stored_dtype) == (PICTURE, f"uint{bits}")
    np.testing.assert_array_equal(image.array_czyx[:, 0], np.moveaxis(samples, -1, 0))
    assert read_header(path, READER) == (PICTURE, f"uint{bits}")


@pytest.mark.parametrize(("bits", "white"), [(1, 1), (2, 255), (4, 255)])
def test_image_pngs_of_few_bits_have_the_values_v2_sees(tmp_path: Path, bits: int, white: int) -> None:
    """One bit is 0 and 1, two and four bits are stretched to 0..255 (nnunetv2 2.8.1 with pillow 13.0.0)."""
    samples = indices() % 2**bits
    image = read_image([png(tmp_path / "case_0000.png", samples, bits, 0)], READER)
    np.testing.assert_array_equal(image.array_czyx[0, 0], samples * (white / (2**bits - 1)))


@pytest.mark.parametrize(("colour_type", "transparent"), [(2, struct.pack(">3H", 1, 2, 3)), (3, bytes([0, 128, 255]))])
def test_transparent_colours_are_no_channel(tmp_path: Path, colour_type: int, transparent: bytes) -> None:
    """As v2: a colour that is declared transparent (tRNS) has the three channels of the others."""
    samples = indices()[..., None].repeat(3, axis=2) if colour_type == 2 else indices()
    palette = bytes([0, 0, 0, 0, 0, 255, 200, 10, 10, 0, 255, 0]) if colour_type == 3 else b""
    plain = read_image([png(tmp_path / "plain_0000.png", samples, 8, colour_type, palette)], READER)
    path = png(tmp_path / "case_0000.png", samples, 8, colour_type, palette, transparent)
    np.testing.assert_array_equal(read_image([path], READER).array_czyx, plain.array_czyx)
    assert plain.array_czyx.shape == (3, 1, 5, 6)
    if palette:
        np.testing.assert_array_equal(read_label(path, READER).array_zyx[0], indices())


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_label_pngs_of_few_bits_hold_their_numbers(tmp_path: Path, bits: int) -> None:
    samples = indices() % 2**bits
    label = read_label(png(tmp_path / "case.png", samples, bits, 0), READER)
    np.testing.assert_array_equal(label.array_zyx[0], samples)


def test_palette_labels_are_the_stored_indices(tmp_path: Path) -> None:
    palette = bytes([0, 0, 0, 0, 0, 255, 200, 10, 10, 0, 255, 0])
    label = read_label(png(tmp_path / "case.png", indices(), 8, 3, palette), READER)
    assert label.array_zyx.dtype == np.uint8
    np.testing.assert_array_equal(label.array_zyx[0], indices())
    image = read_image([png(tmp_path / "image_0000.png", indices(), 8, 3, palette)], READER)
    assert image.array_czyx[:, 0, 0, 2].tolist() == [200, 10, 10]


def test_a_palette_with_equal_colours_is_refused(tmp_path: Path) -> None:
    palette = bytes([0, 0, 0, 9, 9, 9, 9, 9, 9, 1, 1, 1])
    with pytest.raises(DatasetError, match=r"case\.png: the palette gives several labels the same colour"):
        read_label(png(tmp_path / "case.png", indices(), 8, 3, palette), READER)


def test_grey_saved_as_rgb_is_a_label_map_and_colours_are_not(tmp_path: Path) -> None:
    grey = np.repeat(indices()[..., None], 3, axis=2)
    label = read_label(png(tmp_path / "grey.png", grey, 8, 2), READER)
    np.testing.assert_array_equal(label.array_zyx[0], indices())
    grey[0, 0, 1] = 77
    with pytest.raises(DatasetError, match=r"colour\.png.*3 channels"):
        read_label(png(tmp_path / "colour.png", grey, 8, 2), READER)


def test_a_huge_png_claim_is_refused(tmp_path: Path) -> None:
    path = png(tmp_path / "huge.png", indices(), 8, 0)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 900_000, 900_000)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"huge\.png.*8\.1e\+11"):
        read_image([path], READER)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_labels_are_written_as_grey_8_bit_pictures(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"case{ending}"
    write_label(path, indices()[None].astype(np.int16), PICTURE, READER)
    written = sitk.ReadImage(str(path))
    assert written.GetSize() == (6, 5)
    if ending != ".bmp":  # ITK expands a grey BMP to colours
        assert written.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    assert read_image([path], READER).array_czyx.shape == (1, 1, 5, 6)
    label = read_label(path, READER)
    assert (label.geometry, label.stored_dtype) == (PICTURE, "uint8")
    np.testing.assert_array_equal(label.array_zyx[0], indices())


def test_values_a_picture_cannot_hold_are_refused(tmp_path: Path) -> None:
    for wrong in (np.full((1, 5, 6), 0.5, np.float32), np.full((1, 5, 6), -1), np.full((1, 5, 6), 70000)):
        with pytest.raises(DatasetError, match=r"case\.png: values"):
            write_image(tmp_path / "case.png", wrong, PICTURE, READER)
    with pytest.raises(DatasetError, match="one slice, not 4"):
        write_label(tmp_path / "case.png", np.zeros((4, 5, 6), np.uint8), STACK, READER)


def test_real_pictures_equal_itks_view(shared_data: Path) -> None:
    path = sorted((shared_data / "nuclei2d_rgb").rglob("imagesTr/*.png"))[0]
    image = read_image([path], READER)
    assert image.array_czyx.shape == (3, 1, 256, 320)
    np.testing.assert_array_equal(
        image.array_czyx[:, 0], np.moveaxis(sitk.GetArrayFromImage(sitk.ReadImage(path)), -1, 0)
    )


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_tiff_pictures_grey_and_colour(tmp_path: Path, compression: str | None, kind: type) -> None:
    colours = np.random.default_rng(0).integers(0, 200, (5, 6, 3)).astype(kind)
    tifffile.imwrite(tmp_path / "rgb_0000.tif", colours, photometric="rgb", compression=compression)
    tifffile.imwrite(tmp_path / "grey_0000.tif", colours[..., 0], photometric="minisblack", compression=compression)
    assert choose_reader(".tif", tmp_path / "rgb_0000.tif") == READER
    image = read_image([tmp_path / "rgb_0000.tif"], READER)
    np.testing.assert_array_equal(image.array_czyx[:, 0], np.moveaxis(colours, -1, 0).astype(np.float32))
    grey = read_image([tmp_path / "grey_0000.tif"], READER)
    assert (grey.geometry, grey.stored_dtype) == (PICTURE, np.dtype(kind).name)
    np.testing.assert_array_equal(grey.array_czyx[0, 0], colours[..., 0].astype(np.float32))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiffs_of_one_bit_are_zeros_and_ones(tmp_path: Path, compression: str | None) -> None:
    mask = indices() > 1
    for name in ("case_0000.tif", "case.tif"):
        tifffile.imwrite(tmp_path / name, mask, compression=compression)
    image, label = read_image([tmp_path / "case_0000.tif"], READER), read_label(tmp_path / "case.tif", READER)
    assert (image.stored_dtype, label.array_zyx.dtype) == ("uint8", np.uint8)
    np.testing.assert_array_equal(image.array_czyx[0, 0], mask)
    np.testing.assert_array_equal(label.array_zyx[0], mask)


def test_lzw_tiffs_are_read_whether_tifffile_can_or_not(tmp_path: Path) -> None:
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "lzw_0000.tif"))
    writer.SetUseCompression(True)
    writer.SetCompressor("LZW")
    writer.Execute(sitk.GetImageFromArray(indices().astype(np.uint8)))
    assert tifffile.TiffFile(tmp_path / "lzw_0000.tif").pages[0].compression == tifffile.COMPRESSION.LZW
    np.testing.assert_array_equal(read_image([tmp_path / "lzw_0000.tif"], READER).array_czyx[0, 0], indices())


def test_stacks_take_their_spacing_from_the_sidecar(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    array = np.arange(120, dtype=np.uint16).reshape(4, 5, 6)
    path = tmp_path / "case_0000.tif"
    write_image(path, array, STACK, "Tiff3DIO")
    assert json.loads((tmp_path / "case.json").read_text()) == {"spacing": [50.0, 4.6, 4.6]}
    image = read_image([path], "Tiff3DIO")
    assert image.geometry == STACK
    np.testing.assert_array_equal(image.array_czyx[0], array)
    (tmp_path / "case.json").unlink()
    assert read_header(path, "Tiff3DIO")[0].spacing_zyx == (1.0, 1.0, 1.0)
    assert "no case.json" in caplog.text
    (tmp_path / "case.json").write_text('{"spacing": [1, 0, 1]}')
    with pytest.raises(DatasetError, match=r"case\.json: the voxel spacing"):
        read_header(path, "Tiff3DIO")


def write_planes(path: Path, array: np.ndarray, axes: str, form: str) -> Path:
    options = {"imagej": True} if form == "imagej" else {"ome": True}
    tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": axes}, **options)
    return path


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("form", ["imagej", "ome"])
def test_channels_in_front_are_colours(tmp_path: Path, form: str, channels: int) -> None:
    """As v2, whose library moves a first axis of three or four planes to the end."""
    array = np.arange(channels * 30, dtype=np.uint16).reshape(channels, 5, 6)
    path = write_planes(tmp_path / "case_0000.tif", array, "CYX", form)
    assert choose_reader(".tif", path) == READER
    assert read_header(path, READER) == (PICTURE, "uint16")
    image = read_image([path], READER)
    assert image.geometry == PICTURE
    np.testing.assert_array_equal(image.array_czyx[:, 0], array)
    with pytest.raises(DatasetError, match=f"case_0000.tif.*{channels} channels"):
        read_label(path, READER)


def test_channels_that_itk_must_decompress(tmp_path: Path) -> None:
    """LZW, which tifffile cannot read by itself, in a file whose description is ImageJ's."""
    path, array = tmp_path / "case_0000.tif", np.arange(90, dtype=np.uint8).reshape(3, 5, 6)
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(path))
    writer.SetUseCompression(True)
    writer.SetCompressor("LZW")
    writer.Execute(sitk.GetImageFromArray(array))
    content, text = bytearray(path.read_bytes()), b"ImageJ=1.53\nimages=3\nchannels=3\nmode=composite\n\0"
    start = struct.unpack_from("<I", content, 4)[0]
    entries = [start + 2 + 12 * i for i in range(struct.unpack_from("<H", content, start)[0])]
    software = next(entry for entry in entries if struct.unpack_from("<H", content, entry)[0] == 305)
    struct.pack_into("<HHII", content, software, 270, 2, len(text), len(content))
    path.write_bytes(bytes(content) + text)
    assert choose_reader(".tif", path) == READER
    np.testing.assert_array_equal(read_image([path], READER).array_czyx[:, 0], array)


@pytest.mark.parametrize("form", ["imagej", "ome"])
@pytest.mark.parametrize(("axes", "planes"), [("ZYX", 3), ("ZYX", 4), ("CYX", 2), ("CYX", 5)])
def test_slices_and_other_numbers_of_channels_are_a_stack(tmp_path: Path, form: str, axes: str, planes: int) -> None:
    array = np.arange(planes * 30, dtype=np.uint16).reshape(planes, 5, 6)
    path = write_planes(tmp_path / "case_0000.tif", array, axes, form)
    with pytest.raises(DatasetError, match=f"no 2-D picture but {planes} x 5 x 6"):
        read_header(path, READER)
    assert choose_reader(".tif", path) == "Tiff3DIO"
    np.testing.assert_array_equal(read_image([path], "Tiff3DIO").array_czyx[0], array)


@pytest.mark.parametrize("planes", [3, 4])
def test_a_stack_of_few_slices_is_no_picture_in_colours(tmp_path: Path, planes: int) -> None:
    array = np.arange(planes * 30, dtype=np.uint8).reshape(planes, 5, 6)
    # what tifffile makes of a stack of three or four slices when nothing is said
    tifffile.imwrite(tmp_path / "thin_0000.tiff", array, photometric="rgb", planarconfig="separate")
    assert choose_reader(".tiff", tmp_path / "thin_0000.tiff") == "Tiff3DIO"
    np.testing.assert_array_equal(read_image([tmp_path / "thin_0000.tiff"], "Tiff3DIO").array_czyx[0], array)
    tifffile.imwrite(tmp_path / "rgb_0000.tiff", array.transpose(1, 2, 0)[..., :3], photometric="rgb")
    with pytest.raises(DatasetError, match="no grey 3-D stack"):
        read_image([tmp_path / "rgb_0000.tiff"], "Tiff3DIO")


def test_written_stack_labels_have_a_sidecar_too(tmp_path: Path) -> None:
    write_label(tmp_path / "case.tif", np.ones((4, 5, 6), np.uint8), STACK, "Tiff3DIO")
    assert read_label(tmp_path / "case.tif", "Tiff3DIO").geometry == STACK
    one_slice = Geometry((1, 5, 6), STACK.spacing_zyx, STACK.origin_xyz, STACK.direction_xyz)
    write_label(tmp_path / "thin.tif", np.ones((1, 5, 6), np.uint8), one_slice, "Tiff3DIO")
    assert read_label(tmp_path / "thin.tif", "Tiff3DIO").geometry == one_slice


def test_side_cars_of_cases_whose_names_end_in_four_digits(tmp_path: Path) -> None:
    """As v2: only a channel file's suffix is left out."""
    images, labels = tmp_path / "imagesTr", tmp_path / "labelsTr"
    images.mkdir()
    labels.mkdir()
    other = Geometry(STACK.shape_zyx, (7.0, 2.0, 1.5), STACK.origin_xyz, STACK.direction_xyz)
    grids = {"case_0001": STACK, "case_0002": other}
    for name, grid in grids.items():
        write_image(images / f"{name}_0000.tif", np.ones((4, 5, 6), np.uint8), grid, "Tiff3DIO")
        write_label(labels / f"{name}.tif", np.ones((4, 5, 6), np.uint8), grid, "Tiff3DIO")
    for name, grid in grids.items():
        for folder in (images, labels):
            assert json.loads((folder / f"{name}.json").read_text()) == {"spacing": list(grid.spacing_zyx)}
        assert read_image([images / f"{name}_0000.tif"], "Tiff3DIO").geometry == grid
        assert read_label(labels / f"{name}.tif", "Tiff3DIO").geometry == grid
        assert read_label_header(labels / f"{name}.tif", "Tiff3DIO") == (grid, "uint8")
    assert len(list(labels.iterdir())) == 4


def test_where_side_cars_stand(tmp_path: Path) -> None:
    images, label = [tmp_path / "a_0001_0000.tif", tmp_path / "a_0001_0001.tif"], tmp_path / "labels" / "a_0001.tif"
    beside_label = tmp_path / "labels" / "a_0001.json"
    assert sidecars(images, label, "Tiff3DIO") == [tmp_path / "a_0001.json"] * 2 + [beside_label]
    assert sidecars(images[:1], None, "Tiff3DIO") == [tmp_path / "a_0001.json"]
    assert sidecars(images, label, READER) == sidecars(images, label, "SimpleITKIO") == []


def test_real_stacks(shared_data: Path) -> None:
    folder = shared_data / "em_vnc" / "Dataset107_EMvnc"
    path = folder / "imagesTr" / "vnc_ne_0000.tif"
    assert choose_reader(".tif", path) == "Tiff3DIO"
    geometry, dtype = read_header(path, "Tiff3DIO")
    assert (geometry.shape_zyx, geometry.spacing_zyx, dtype) == ((20, 512, 512), (50.0, 4.6, 4.6), "uint8")
    label = read_label(folder / "labelsTr" / "vnc_ne.tif", "Tiff3DIO")
    assert label.geometry == geometry and set(np.unique(label.array_zyx)) == {0, 1, 2, 3, 4}
