"""The recorded numbers and arrays; ``numbers["versions"]`` says which releases of nnU-Net v2's packages made them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.parity.inputs import GOLDEN

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def numbers() -> dict[str, Any]:
    return json.loads((GOLDEN / "numbers.json").read_text())


@pytest.fixture(scope="session")
def arrays() -> Callable[[str], Arrays]:
    """The arrays of one file whose names begin with a prefix, without it."""

    def read(name: str, prefix: str = "") -> Arrays:
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as stored:
            return {key.removeprefix(prefix): stored[key] for key in stored.files if key.startswith(prefix)}

    return read
