"""Model folders and their archives, weights and stored cases."""

from __future__ import annotations

import json
import random
import struct
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from segwright.core.architecture import Architecture
from segwright.core.files import SEAL, bytes_digest, write_bytes, write_json
from segwright.core.labels import Labels
from segwright.core.settings import PredictionSettings
from segwright.core.slices import PredictPlan, PreprocessPlan
from segwright.evaluation.metrics import Counts
from segwright.evaluation.summary import CaseResult, make_summary
from segwright.images.image import Image, LabelMap
from segwright.preprocessing.case import preprocess_case
from segwright.preprocessing.store import StoredCase, write_stored_case
from segwright.selection.best import Selection
from segwright.selection.components import Rule
from segwright.sharing.model import open_model
from segwright.sharing.package import ConfigurationFiles, FoldFiles, package_model
from segwright.sharing.use import input_cases
from tests.fuzz.mutations import mutated, mutated_json
from tests.fuzz.project import use_unchanged
from tests.fuzz.target import Sample, Sampler, Target
from tests.fuzz.zip_changes import mutated_zip

LABELS = Labels((("background", 0), ("a", 1), ("b", 2)))


_STATISTICS = dict.fromkeys(("mean", "median", "std", "min", "max", "percentile_00_5", "percentile_99_5"), 1.0)


def preprocess_plan() -> PreprocessPlan:
    return PreprocessPlan(
        data_name="3d_fullres", channel_names=("MRI",), labels=LABELS, reader="SimpleITKIO",
        transpose_forward=(0, 1, 2), transpose_backward=(0, 1, 2), spacing_mm=(1.0, 1.0, 1.0),
        normalization_schemes=("ZScoreNormalization",), use_mask_for_norm=(False,), intensities=(None,),
    )  # fmt: skip


@cache
def model_files() -> Mapping[str, bytes]:
    """A packaged model with one configuration and two folds."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        architecture = Architecture("plain_unet", (4, 8), ((3,) * 3,) * 2, ((1,) * 3, (2,) * 3), (1, 1), (1,))
        write_json(
            root / "predict.json", PredictPlan("3d_fullres", preprocess_plan(), (8, 8, 8), architecture).to_json()
        )
        folds = []
        for fold in ("0", "1"):
            weights = save({"x": np.arange(3, dtype=np.float32)})
            write_bytes(root / fold / "model.safetensors", weights)
            record = {
                "configuration": "3d_fullres", "fold": fold, "mirror_axes": [0, 1, 2], "plugins": {}, "epochs": 2,
                "settings": {"network": None, "torch_threads": 1}, "weights_digest": bytes_digest(weights),
            }  # fmt: skip
            write_json(root / fold / "training.json", record)
            folds.append(FoldFiles(fold, root / fold / "model.safetensors", root / fold / "training.json"))
        plans = {
            "dataset_name": "Dataset001_Tiny", "plans_name": "plans", "configurations": {"3d_fullres": {}},
            "original_median_spacing_after_transp": [1.0] * 3, "original_median_shape_after_transp": [12, 13, 14],
            "image_reader_writer": "SimpleITKIO", "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2],
            "foreground_intensity_properties_per_channel": {"0": _STATISTICS},
        }  # fmt: skip
        write_json(root / "plans.json", plans)
        facts = {"channel_names": {"0": "MRI"}, **LABELS.to_json(), "numTraining": 2, "file_ending": ".nii.gz"}
        write_json(root / "dataset.json", facts)
        selection = Selection("3d_fullres", ("3d_fullres",), "only one", ("0", "1"), 2, {"3d_fullres": 0.8}, 2)
        write_json(root / "selection.json", selection.to_json())
        write_json(root / "postprocessing.json", {"rules": [Rule((1,)).to_json()]})
        cases = [CaseResult("p", {1: Counts(8, 2, 2, 88), 2: Counts(0, 0, 0, 100)}, "labelsTr/p", "../p")]
        write_json(root / "summary.json", make_summary(cases, LABELS).to_json())
        package_model(
            root / "model", root / "model.zip", plans=root / "plans.json", dataset_json=root / "dataset.json",
            configurations=[ConfigurationFiles("3d_fullres", root / "predict.json", folds)],
            selection=root / "selection.json", postprocessing=root / "postprocessing.json",
            prediction=PredictionSettings(), summaries={"3d_fullres": root / "summary.json"},
        )  # fmt: skip
        model = root / "model"
        return {path.relative_to(model).as_posix(): path.read_bytes() for path in model.rglob("*") if path.is_file()}


def _mutated_model(rng: random.Random) -> dict[str, bytes]:
    """One file changed; mostly with the digests in the manifest corrected, as somebody who means it would."""
    files = dict(model_files())
    name = rng.choice(sorted(files))
    manifest = _unsealed(files["model.json"])
    if name.endswith(".json"):
        files[name] = mutated_json(rng, _unsealed(files[name]))
    else:
        files[name] = mutated(rng, files[name])
    if name != "model.json" and rng.random() < 0.85:
        manifest["files"][name] = {"sha256": bytes_digest(files[name]), "size_bytes": len(files[name])}
        files["model.json"] = json.dumps(manifest).encode()
    return files


def _unsealed(content: bytes) -> dict[str, Any]:
    """Without the digest of its content, which would end the reading at once."""
    value: dict[str, Any] = json.loads(content)
    value.pop(SEAL, None)
    return value


def _use_model(path: Path) -> None:
    with open_model(path) as model:
        model.stages()
        image = path.parent / "images" / "p_0000.nii.gz"
        image.parent.mkdir(exist_ok=True)
        image.write_bytes(b"x")
        if model.file_ending == ".nii.gz" and len(model.channel_names) == 1:
            input_cases(model, image.parent)


def _model_sampler() -> Sampler:
    unchanged = {f"model/{name}": content for name, content in model_files().items()}
    use_unchanged(unchanged, lambda folder: _use_model(folder / "model"))

    def draw(rng: random.Random) -> Sample:
        files = {f"model/{name}": content for name, content in _mutated_model(rng).items()}
        return Sample(files, lambda folder: _use_model(folder / "model"), ("model",))

    return draw


def _zip_sampler() -> Sampler:
    def draw(rng: random.Random) -> Sample:
        files = _mutated_model(rng) if rng.random() < 0.2 else model_files()
        content = mutated_zip(rng, files)
        return Sample({"model.zip": content}, lambda folder: _use_model(folder / "model.zip"), ("model",))

    return draw


def _safetensors_changed(rng: random.Random, content: bytes) -> bytes:
    """The JSON header changed and its length corrected; or bytes."""
    length = struct.unpack("<Q", content[:8])[0]
    if rng.random() < 0.3:
        return mutated(rng, content)
    header = mutated_json(rng, json.loads(content[8 : 8 + length]))
    header += b" " * (-len(header) % 8)
    claimed = len(header) if rng.random() < 0.9 else rng.choice((0, 2**40, len(header) + 8))
    return struct.pack("<Q", claimed) + header + content[8 + length :]


def _weights_sampler() -> Sampler:
    from segwright.inference.stage import read_training_facts
    from segwright.networks.weights import load_weights  # imports torch

    weights = save({"encoder.a.weight": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float16)}, {"fold": "0"})
    training = _unsealed(model_files()["3d_fullres/fold_0/training.json"])

    def draw(rng: random.Random) -> Sample:
        if rng.random() < 0.6:
            name, content, use = "model.safetensors", _safetensors_changed(rng, weights), load_weights
            return Sample({name: content}, lambda folder: use(folder / name), (name,))
        return Sample(
            {"training.json": mutated_json(rng, training)},
            lambda folder: read_training_facts(folder / "training.json"),
            ("training.json",),
        )

    return draw


def _stored_sampler() -> Sampler:
    """A preprocessed case."""
    from segwright.core.geometry import Geometry

    geometry = Geometry((4, 6, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    image = np.arange(120, dtype=np.float32).reshape(1, 4, 6, 5)
    label = (image[0] > 60).astype(np.uint8)
    case = preprocess_case(Image(image, geometry, "float32"), LabelMap(label, geometry, "uint8"), preprocess_plan())
    with tempfile.TemporaryDirectory() as temporary:
        write_stored_case(Path(temporary) / "a.safetensors", case)
        content = (Path(temporary) / "a.safetensors").read_bytes()

    def use(folder: Path) -> None:
        stored = StoredCase(folder / "a.safetensors")
        _ = (stored.image_czyx.sum(), stored.properties.to_json(), stored.class_locations)

    use_unchanged({"a.safetensors": content}, use)

    def draw(rng: random.Random) -> Sample:
        return Sample({"a.safetensors": _safetensors_changed(rng, content)}, use, ("a.safetensors",))

    return draw


def model_targets() -> list[Target]:
    return [
        Target("model_folder", _model_sampler, 3_000),
        Target("model_zip", _zip_sampler, 3_000),
        Target("weights", _weights_sampler, 2_000),
        Target("stored_case", _stored_sampler, 2_000),
    ]
