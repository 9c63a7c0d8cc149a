"""Stored cases against nnU-Net v2's, phantoms of every label scenario and reader (method 4)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from segwright.core.labels import key_text
from segwright.core.slices import PreprocessPlan
from segwright.images.image import Image, LabelMap
from segwright.preprocessing.case import preprocess_case
from tests.parity.datasets import grid

Arrays = dict[str, np.ndarray]


@pytest.mark.parametrize("preset", ["plain", "regions", "ignore", "regions_ignore", "ct", "anisotropic", "2d"])
def test_stored_case(numbers: dict[str, Any], arrays: Callable[..., Arrays], preset: str) -> None:
    recorded, golden = numbers["preprocessing"][preset], arrays("preprocessing", f"{preset}/")
    z, y, x = recorded["spacing"]
    geometry = grid(golden["seg"].shape, (z, y, x))
    image = Image(golden["raw"].astype(np.float32), geometry, "int16")
    case = preprocess_case(
        image, LabelMap(golden["seg"], geometry, "uint8"), PreprocessPlan.from_json(recorded["plan"])
    )
    assert list(case.image_czyx.shape) == recorded["shape"]
    assert case.label_zyx is not None and case.class_locations is not None
    np.testing.assert_allclose(case.image_czyx[:, ::2, ::2, ::2], golden["image"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(case.label_zyx, golden["label"])
    digests = {
        key_text(key): hashlib.sha256(np.ascontiguousarray(voxels, "<i4").tobytes()).hexdigest()
        for key, voxels in case.class_locations.items()
    }
    assert {_plain(key): digest for key, digest in digests.items()} == {
        _plain(key): digest for key, digest in recorded["locations"].items()
    }


def _plain(text: str) -> str:
    """A region of one label is written ``(3,)`` by v2 and may be ``3`` here."""
    return text.replace(",)", ")").strip("()")
