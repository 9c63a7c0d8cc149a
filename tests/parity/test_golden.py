"""What golden files may hold: the releases that made them, small networks, no objects, of real images no array."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.parity.inputs import ARCHITECTURES, GOLDEN

INSTALL = Path(__file__).parents[2] / "benchmarks" / "peer" / "install.sh"
PACKAGES = {"nnunetv2", "batchgenerators", "batchgeneratorsv2", "dynamic-network-architectures", "torch"}
MOST_FEATURES = 8
WITH_VERSIONS = [path for path in sorted(GOLDEN.rglob("*")) if path.name.endswith((".npz", ".json", ".json.gz"))]


def content_of(path: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_text())


@pytest.mark.parametrize("path", WITH_VERSIONS, ids=lambda path: path.name)
def test_files_say_which_releases_made_them(path: Path) -> None:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            versions = json.loads(str(arrays["versions"]))
            assert all(arrays[name].dtype.kind in "biufU" for name in arrays.files)  # no objects
    else:
        versions = content_of(path)["versions"]
    pinned = {word.split("==")[0]: word.split("==")[1] for word in INSTALL.read_text().split() if "==" in word}
    assert {name: versions[name].partition("+")[0] for name in PACKAGES} == {name: pinned[name] for name in PACKAGES}


def test_networks_are_small() -> None:
    features = [architecture.features_per_stage for architecture in ARCHITECTURES.values()]
    with zipfile.ZipFile(GOLDEN / "models" / "results.zip") as archive:
        plans = [json.loads(archive.read(name)) for name in archive.namelist() if name.endswith("/plans.json")]
    for plan in plans:
        entries = (entry for entry in plan["configurations"].values() if "architecture" in entry)
        features += [entry["architecture"]["arch_kwargs"]["features_per_stage"] for entry in entries]
    assert len(plans) == 4 and max(max(stages) for stages in features) <= MOST_FEATURES
    for name in ("networks", "prediction"):
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
            weights = [arrays[key].shape[:2] for key in arrays.files if "/state/" in key and arrays[key].ndim > 1]
        assert len(weights) > 20 and max(max(shape) for shape in weights) <= 2 * MOST_FEATURES  # concatenated skips


def test_of_real_datasets_there_are_only_plans_and_what_they_are_made_from() -> None:
    for case in content_of(GOLDEN / "real_plans.json.gz")["cases"]:
        assert set(case) == {"name", "kind", "fingerprint", "facts", "settings", "plans"}
        assert set(case["fingerprint"]) == {
            "spacings", "shapes_after_crop", "median_relative_size_after_cropping",
            "foreground_intensity_properties_per_channel",
        }  # fmt: skip
