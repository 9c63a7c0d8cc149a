"""Readers and writers of 3-D and 2-D files: values, spacings, label maps and the grids they are written on (1.3)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tifffile

from benchmarks.peer.common import SEED, Table, largest_difference, quiet, workplace
from segwright.images.readers import read_image, read_label, write_label

SHAPE = (7, 9, 11)
DIRECTIONS = {
    "identity": np.eye(3),
    "flipped": np.diag([-1.0, 1.0, -1.0]),
    "turned": np.eye(3)[:, [2, 0, 1]] * (-1, 1, -1),
    "oblique": np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]]),
}
MEDICAL = {
    ".nii.gz": ("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient"),
    ".nii": ("NibabelIO", "NibabelIOWithReorient"),
    ".nrrd": ("SimpleITKIO", "SimpleITKIOWithReorient"),
    ".mha": ("SimpleITKIO",),
}
HEADERS = {"in micrometres": (123, "B", 3), "without orientation": (252, "2h", 0, 0)}
"""Offset, type and values of fields of a NIfTI header that nibabel and ITK understand otherwise."""


def main() -> None:
    table = Table("Images")
    rng = np.random.default_rng(SEED)
    with workplace() as work:
        for ending, readers in MEDICAL.items():
            for name, direction in DIRECTIONS.items():
                files = [work / f"{name}_{channel:04d}{ending}" for channel in range(2)] + [work / f"{name}{ending}"]
                for file in files:
                    values = rng.integers(0, 3 if file == files[-1] else 3000, SHAPE).astype(np.int16)
                    image = sitk.GetImageFromArray(values.astype(np.uint8) if file == files[-1] else values)
                    image.SetSpacing((0.7, 1.3, 2.9))
                    image.SetOrigin((10.5, -3.0, 7.0))
                    image.SetDirection([float(cosine) for cosine in direction.ravel()])
                    sitk.WriteImage(image, str(file))
                for reader in readers:
                    compare(f"{ending} {name}", files[:2], files[2], reader, work, table)
                for what, field in HEADERS.items() if ending == ".nii" else ():
                    changed = [change_header(file, *field) for file in files]
                    for reader in readers:
                        compare(f"{ending} {name} {what}", changed[:2], changed[2], reader, work, table)
        for ending in (".png", ".bmp", ".tif"):
            pictures = {"grey": (255, (12, 14)), "colours": (255, (12, 14, 3)), "one bit": (2, (12, 14))}
            for name, (top, shape) in pictures.items():
                if (ending, top) == (".bmp", 2):
                    continue  # ITK cannot read it
                values = rng.integers(0, top, shape).astype(bool if top == 2 else np.uint8)
                picture(work / f"{name}_0000{ending}", values)
                picture(work / f"{name}{ending}", rng.integers(0, 3, (12, 14)).astype(np.uint8))
                files = [work / f"{name}_0000{ending}"], work / f"{name}{ending}"
                compare(f"{ending} {name}", *files, "NaturalImage2DIO", work, table)
        for slices in (2, 3, 4, 9):
            for suffix, top in (("_0000", 255), ("", 3)):
                array = rng.integers(0, top, (slices, 12, 14)).astype(np.uint8)
                tifffile.imwrite(work / f"stack{slices}{suffix}.tiff", array)
            (work / f"stack{slices}.json").write_text('{"spacing": [3.0, 0.5, 0.6]}')
            files = [work / f"stack{slices}_0000.tiff"], work / f"stack{slices}.tiff"
            compare(f".tiff of {slices} slices", *files, "Tiff3DIO", work, table)
    table.close()


def change_header(path: Path, offset: int, code: str, *values: int) -> Path:
    """A copy of an uncompressed NIfTI file with other numbers in its header."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<" + code, content, offset, *values)
    changed = path.with_name(f"changed_{path.name}")
    changed.write_bytes(content)
    return changed


def picture(path: Path, array: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(array).save(path)


def compare(name: str, images: list[Path], label: Path, reader: str, work: Path, table: Table) -> None:
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    peers = recursive_find_reader_writer_by_name(reader)()
    with quiet():
        values, properties = peers.read_images([str(path) for path in images])
        labels, _ = peers.read_seg(str(label))
    ours, mine = read_image(images, reader), read_label(label, reader)
    table.row(f"{name}, {reader}: values", largest_difference(ours.array_czyx, values), 0)
    table.row(f"{name}, {reader}: spacing", largest_difference(ours.geometry.spacing_zyx, properties["spacing"]), 1e-6)
    table.row(f"{name}, {reader}: label map", largest_difference(mine.array_zyx, labels[0]), 0)
    files = [work / f"{who}_written{label.name}" for who in ("ours", "peers")]
    write_label(files[0], mine.array_zyx, ours.geometry, reader)
    with quiet():
        peers.write_seg(mine.array_zyx.astype(np.uint8), str(files[1]), properties)
    table.row(f"{name}, {reader}: written voxels and grid", written_difference(*files), 1e-5)


def written_difference(ours: Path, peers: Path) -> float:
    if ours.suffix.startswith(".tif"):
        return largest_difference(tifffile.imread(ours), tifffile.imread(peers))
    a, b = (sitk.ReadImage(str(path)) for path in (ours, peers))
    pairs = [(sitk.GetArrayFromImage(a), sitk.GetArrayFromImage(b)), (a.GetOrigin(), b.GetOrigin())]
    pairs += [(a.GetSpacing(), b.GetSpacing()), (a.GetDirection(), b.GetDirection())]
    return max(largest_difference(mine, theirs) for mine, theirs in pairs)


if __name__ == "__main__":
    main()
