"""What reading costs where images are large: no sorting of pixels, no second copy of all channels."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tests.unit.images.test_pictures import png

from segwright.core.errors import DatasetError
from segwright.core.geometry import Geometry
from segwright.images import natural
from segwright.images.readers import read_image, read_label, write_image

READER = "NaturalImage2DIO"


def palette_of(entries: int) -> np.ndarray:
    """So many different colours, (entries, 3), many with an equal red."""
    return np.array([[number // 64, number % 64, 255 - number // 3] for number in range(entries)], np.uint8)


def test_indices_of_a_palette_are_looked_up_and_not_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indices = np.random.default_rng(0).integers(0, 256, (70, 41))
    path = png(tmp_path / "case.png", indices, 8, 3, palette_of(256).tobytes())
    monkeypatch.setattr(natural, "_BLOCK_PIXELS", 410)  # ten rows
    sorted_sizes: list[int] = []
    unique = np.unique

    def noting(values: np.ndarray, **options: bool) -> object:
        sorted_sizes.append(values.size)
        return unique(values, **options)

    monkeypatch.setattr(np, "unique", noting)
    label = read_label(path, READER)
    np.testing.assert_array_equal(label.array_zyx[0], indices)
    assert label.array_zyx.dtype == np.uint8 and max(sorted_sizes, default=0) <= 256


def test_only_used_colours_have_to_be_different(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    palette = palette_of(16)
    palette[9] = palette[3]
    indices = np.zeros((70, 41), np.int64)
    indices[5:60, 3:9] = 12
    monkeypatch.setattr(natural, "_BLOCK_PIXELS", 1)  # a row at a time
    unused = read_label(png(tmp_path / "unused.png", indices, 8, 3, palette.tobytes()), READER)
    np.testing.assert_array_equal(unused.array_zyx[0], indices)
    for shared in (3, 9):
        indices[-1, -1] = shared
        with pytest.raises(DatasetError, match=r"used\.png: the palette gives several labels the same colour"):
            read_label(png(tmp_path / "used.png", indices, 8, 3, palette.tobytes()), READER)


def test_channel_files_are_stacked_without_a_second_copy(tmp_path: Path) -> None:
    grid = Geometry((32, 64, 64), (2.0, 1.0, 1.0), (0.0,) * 3, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    files = [tmp_path / f"case_{channel:04d}.nrrd" for channel in range(12)]
    for channel, file in enumerate(files):
        write_image(file, np.full(grid.shape_zyx, channel, np.float32), grid, "SimpleITKIO")
    tracemalloc.start()
    image = read_image(files, "SimpleITKIO")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert image.array_czyx.shape == (12, 32, 64, 64) and image.stored_dtype == "float32"
    assert [channel_zyx.max() for channel_zyx in image.array_czyx] == list(range(12))
    assert peak_bytes < 1.5 * image.array_czyx.nbytes
