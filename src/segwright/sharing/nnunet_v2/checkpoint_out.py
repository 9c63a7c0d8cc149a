"""A fold's weights as nnU-Net v2's checkpoint_final.pth (method 9.4, 13).

Prediction there reads ``network_weights``, ``trainer_name``, ``init_args.configuration`` and
``inference_allowed_mirroring_axes``; the other keys are what its trainer expects when it opens a checkpoint. What a
model folder does not hold (momenta, the course of the training) is left empty or not-a-number, never invented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segwright.core.errors import ModelError
from segwright.core.slices import PredictPlan
from segwright.sharing.nnunet_v2.plans_out import TRAINER

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT = "checkpoint_final.pth"
_LEARNING_RATE, _WEIGHT_DECAY, _MOMENTUM = 0.01, 3e-5, 0.99  # v2's optimizer (method 9.1)


@dataclass(frozen=True)
class CheckpointFacts:
    """What stands in a checkpoint beside the weights.

    Attributes:
        plans, dataset: contents of v2's plans.json and dataset.json.
        training: content of the fold's training.json.
        mirror_axes: spatial axes v2 may flip; none: it never flips, whatever its options say.
    """

    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    fold: str
    training: Mapping[str, Any]
    mirror_axes: Sequence[int]


def write_checkpoint(path: Path, weights: Path, plan: PredictPlan, facts: CheckpointFacts) -> None:
    """Write a checkpoint; equal inputs give equal bytes with the same torch.

    Args:
        path: its name becomes part of the content (torch names the file's root folder after it).
        weights: model.safetensors of the fold.

    Raises:
        ModelError: the weights do not fit the network of ``plan``, which v2 would only say when predicting.
        DamagedFileError: the weights cannot be read.
    """
    import torch

    from segwright.networks.build import build_network
    from segwright.networks.weights import canonical_state, load_into, load_weights, with_aliases

    state = canonical_state(load_weights(weights))
    network = build_network(plan.architecture, plan.num_input_channels, plan.labels.num_outputs, True)
    try:
        load_into(network, state, strict=True)
    except ModelError as problem:
        raise ModelError(f"{weights}: {problem}") from problem
    checkpoint = {
        # in the order of the network, each tensor under all its names (stored once)
        "network_weights": with_aliases({name: state[name] for name in network.state_dict()}),
        "optimizer_state": _fresh_optimizer(list(state.values())),
        "grad_scaler_state": None,
        "logging": _logging(facts.training),
        "_best_ema": _metrics(facts.training).get("best_ema_fg_dice"),
        "current_epoch": _epochs(facts.training),
        "init_args": {
            "plans": dict(facts.plans),
            "configuration": plan.configuration,
            "fold": "all" if facts.fold == "all" else int(facts.fold),
            "dataset_json": dict(facts.dataset),
            "device": torch.device("cpu"),
        },
        "trainer_name": TRAINER,
        # v2 fails on an empty list; None means no flips
        "inference_allowed_mirroring_axes": tuple(facts.mirror_axes) or None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)


def _fresh_optimizer(tensors: Sequence[Tensor]) -> dict[str, Any]:
    """The state of v2's optimizer before its first step: the model folder has no momenta."""
    import torch

    optimizer = torch.optim.SGD(
        list(tensors), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY, momentum=_MOMENTUM, nesterov=True
    )
    state: dict[str, Any] = optimizer.state_dict()
    return state


def _logging(training: Mapping[str, Any]) -> dict[str, list[Any]]:
    """One value an epoch, as v2's logger wants it: the last one where the training record has it, else not-a-number."""
    epochs, metrics = _epochs(training), _metrics(training)
    last: dict[str, Any] = {
        "mean_fg_dice": _number(metrics.get("mean_fg_dice")),
        "ema_fg_dice": _number(metrics.get("ema_fg_dice")),
        "dice_per_class_or_region": [_number(value) for value in metrics.get("dice_per_class") or ()],
        "train_losses": _number(metrics.get("train_loss")),
        "val_losses": _number(metrics.get("val_loss")),
        "lrs": _number(None),
        "epoch_start_timestamps": _number(None),
        "epoch_end_timestamps": _number(None),
    }
    unknown: dict[str, Any] = {name: [] if isinstance(value, list) else _number(None) for name, value in last.items()}
    return {name: ([unknown[name]] * (epochs - 1) + [value])[:epochs] for name, value in last.items()}


def _metrics(training: Mapping[str, Any]) -> Mapping[str, Any]:
    return training.get("metrics") or {}


def _epochs(training: Mapping[str, Any]) -> int:
    return int(training.get("epochs") or 0)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
