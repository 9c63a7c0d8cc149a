"""Scores of a preprocessed case with all mirror images, one thread, the same untrained weights on both sides.

The peer computes in float32 on a CPU and sums in float16; segwright sums in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pairs import Function, Goal, Pair, Place

SMALL, LARGE = "Hippocampus, 1 tile of 40x56x40", "CT, 2 tiles of 48x80x80"
_SHAPES = {SMALL: (35, 51, 35), LARGE: (48, 80, 120)}
_PATCHES = {SMALL: (40, 56, 40), LARGE: (48, 80, 80)}
_GOALS = {"fp32": (Goal(ratio=1.0), Goal(ratio=1.0)), "bf16": (Goal(ratio=1.8), Goal(ratio=2.2))}
STAGES = tuple(f"prediction, {case}, mirrored, {precision}" for case in (SMALL, LARGE) for precision in _GOALS)
_SEED = 20240229


def pair(stage: str, place: Place) -> Pair | None:
    from benchmarks.stages.inputs import CT_SOURCE, hippocampus, prepare
    from segwright.core.plans import Plans

    case = next(case for case in (SMALL, LARGE) if case in stage)
    precision = stage.rsplit(" ", 1)[1]
    folder = hippocampus(place)
    source = place.data / CT_SOURCE / "imagesTr"
    if folder is None or not source.is_dir():
        return None
    prepared = prepare(place, folder, patch_size=list(_PATCHES[case]))
    image = place.work / "image.npy"
    np.save(image, case_image(folder / "imagesTr" if case == SMALL else source, _SHAPES[case]))
    plans = Plans.from_json(json_of(prepared.plans_file))
    weights = place.work / "weights.safetensors"
    model = write_model(place.work / "model", prepared.plans_file, folder / "dataset.json", plans, weights)
    return Pair(
        stage,
        peer=Function(
            "benchmarks.stages.prediction:peer", {"model": str(model), "image": str(image)}, prepared.variables
        ),
        ours=Function(
            "benchmarks.stages.prediction:ours",
            {
                "plans": str(prepared.plans_file), "dataset": str(folder), "weights": str(weights),
                "image": str(image), "precision": precision,
            },
        ),
        must=_GOALS[precision][0],
        target=_GOALS[precision][1],
        difference=labels_that_differ,
        note="untrained weights, so many voxels are near ties",
    )  # fmt: skip


def case_image(images: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The middle of a real image, normalised: float32 (1, z, y, x)."""
    from segwright.images.readers import read_image

    whole = read_image([sorted(images.glob("*.nii.gz"))[0]], "SimpleITKIO").array_czyx[0].astype(np.float32)
    short = [max(0, edge - length) for edge, length in zip(shape, whole.shape, strict=True)]
    whole = np.pad(whole, [(n // 2, n - n // 2) for n in short], mode="edge")
    starts = [(length - edge) // 2 for edge, length in zip(shape, whole.shape, strict=True)]
    part = whole[tuple(slice(start, start + edge) for start, edge in zip(starts, shape, strict=True))]
    return np.ascontiguousarray((part - part.mean()) / part.std())[None]


def write_model(folder: Path, plans_file: Path, dataset_json: Path, plans: Any, weights: Path) -> Path:
    """The same weights for segwright and as a model folder of the peer."""
    import torch

    from benchmarks.stages.training import write_weights
    from segwright.networks.weights import load_weights, with_aliases

    write_weights(weights, plans.configuration("3d_fullres").architecture)
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(plans_file.read_text())
    (folder / "dataset.json").write_text(dataset_json.read_text())
    checkpoint = {
        "network_weights": with_aliases(load_weights(weights)),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder


def peer(model: str, image: str) -> Callable[[], Any]:
    import contextlib
    import io

    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(
            use_mirroring=True, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
        )
        predictor.initialize_from_trained_model_folder(model, (0,))
    data = torch.from_numpy(np.load(image))

    def run() -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()):
            return predictor.predict_logits_from_preprocessed_data(data).numpy()

    return run


def ours(plans: str, dataset: str, weights: str, image: str, precision: str) -> Callable[[], Any]:
    from segwright.core.dataset import load_dataset
    from segwright.core.plans import Plans
    from segwright.core.settings import PredictionSettings
    from segwright.core.slices import predict_slice, preprocess_slice
    from segwright.inference.predictor import Predictor
    from segwright.inference.request import Computation
    from segwright.inference.stage import Stage, TrainingFacts

    raw, planned = load_dataset(Path(dataset)), Plans.from_json(json_of(Path(plans)))
    stored = preprocess_slice(planned, "3d_fullres", raw.labels, raw.channel_names)
    stage = Stage(predict_slice(planned, "3d_fullres", stored), (Path(weights),), TrainingFacts((0, 1, 2)))
    predictor = Predictor(stage, Computation(PredictionSettings(precision=precision), "cpu"), threads=1)
    data = np.load(image)
    return lambda: predictor.logits(data)


def labels_that_differ(mine: Path, theirs: Path) -> str:
    """Share of voxels whose largest score is another one."""
    ours_zyx, peers_zyx = (np.load(path).argmax(axis=0) for path in (mine, theirs))
    return f"{np.mean(ours_zyx != peers_zyx):.2%} of the voxels change label"


def json_of(path: Path) -> dict[str, Any]:
    import json

    content: dict[str, Any] = json.loads(path.read_text())
    return content
