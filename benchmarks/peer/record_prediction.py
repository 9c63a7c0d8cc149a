"""Golden vectors of predictions: recorded phantoms to label maps, the peer's tiles and folds summed in float32."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tests.parity.inputs import ARCHITECTURES, GOLDEN, OUTPUTS, PATCH, PREDICTED, RUNS, second_fold

from benchmarks.peer.common import quiet, workplace
from benchmarks.peer.compare_prediction import float32_sums
from benchmarks.peer.golden import STRIDE, installed_versions, save
from benchmarks.peer.small import peer_network, phantom
from segwright.core.plans import Configuration
from segwright.core.settings import PlanningSettings
from segwright.core.slices import PreprocessPlan, predict_slice
from segwright.networks.weights import canonical_name


def record_predictions(cases: Mapping[str, Any]) -> None:
    """Every run of every recorded phantom that is predicted; weights of one fold, the other one's follow from them.

    Args:
        cases: the recorded phantoms by preset.
    """
    arrays: dict[str, np.ndarray] = {}
    plans: dict[str, Any] = {}
    for preset, name in PREDICTED.items():
        plans[preset], found = _predict(preset, name, cases[preset])
        arrays |= {f"{preset}/{key}": array for key, array in found.items()}
    save("prediction", arrays)
    content = {"versions": installed_versions(), "plans": plans}
    (GOLDEN / "predict_plans.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def _predict(preset: str, name: str, case: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    configuration, architecture = case["configuration"], ARCHITECTURES[name]
    with workplace() as work:
        plan = phantom(preset, work, settings=PlanningSettings(max_patch_size=16))
    entry = Configuration.from_json(configuration, plan.plans.resolved(configuration))
    entry = replace(entry, architecture=architecture, patch_size=PATCH[-architecture.dimensions :])
    plans = replace(plan.plans, configurations={configuration: entry.to_json()})
    manager = PlansManager(json.loads(json.dumps(plans.to_json())))
    settings = manager.get_configuration(configuration)
    with np.load(GOLDEN / "preprocessing.npz") as arrays:
        raw = arrays[f"{preset}/raw"].astype(np.float32)
    axes = tuple(range(architecture.dimensions))
    network = peer_network(architecture, len(raw), OUTPUTS, deep_supervision=False)
    with quiet(), float32_sums():
        data, _, properties = settings.preprocessor_class(verbose=False).run_case_npy(
            raw, None, {"spacing": case["spacing"]}, manager, settings, plan.facts
        )

        def scores_of(weights: list[dict[str, torch.Tensor]], mirroring: bool) -> torch.Tensor:
            predictor = nnUNetPredictor(use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False)
            predictor.manual_initialization(
                network, manager, settings, weights, plan.facts, "nnUNetTrainer", axes if mirroring else None
            )
            return predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).clone()

        state = _copy(network.state_dict())
        mean = scores_of([state], True).mean((1, 2, 3))
        for key in state:  # every label shall win somewhere
            if key.endswith(f"seg_layers.{len(network.decoder.seg_layers) - 1}.bias"):
                state[key] = state[key] - mean
        found = {f"state/{key}": state[key].numpy() for key in _last_names(state)}
        other = {key: torch.from_numpy(second_fold(tensor.numpy())) for key, tensor in state.items()}
        for run, (folds, mirroring) in RUNS.items():
            scores = scores_of([_copy(state), _copy(other)][:folds], mirroring)
            label, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
                scores, manager, settings, manager.get_label_manager(plan.facts), properties, True, 1
            )
            part = (slice(None), *(slice(None, None, STRIDE),) * 3)
            found |= {f"{run}/label": label, f"{run}/scores": scores.numpy()[part]}
            found[f"{run}/probabilities"] = probabilities[part]
    slice_ = predict_slice(plans, configuration, PreprocessPlan.from_json(case["plan"]))
    return slice_.to_json(), found


def _copy(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights that loading others into the network does not change."""
    return {key: tensor.clone() for key, tensor in state.items()}


def _last_names(state: Mapping[str, torch.Tensor]) -> list[str]:
    """One name of each tensor."""
    return list({canonical_name(key): key for key in state}.values())
