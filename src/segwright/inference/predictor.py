"""The predictor: one configuration with the weights of one or several folds, from preprocessed image to scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from segwright.core.allocator import keep_freed_memory
from segwright.core.architecture import NETWORK_CLASS_NAMES
from segwright.core.errors import ModelError
from segwright.core.registry import load_plugins
from segwright.core.settings import PredictionSettings
from segwright.core.slices import PredictPlan
from segwright.inference.export import ScoreKind
from segwright.inference.request import Computation
from segwright.inference.sliding_window import Input, Window, predict_scores
from segwright.inference.stage import Stage
from segwright.networks.build import build_network
from segwright.networks.device import is_out_of_memory
from segwright.networks.precision import AUTOCAST_TYPES, resolve_precision
from segwright.networks.weights import load_into, load_weights


class Predictor:
    """Predicts with one configuration; weights of several folds are averaged (method 10.2).

    The network exists once; the folds' weights wait on the CPU and take turns.

    Args:
        threads: CPU threads of torch; None: as many as torch takes by itself.

    Attributes:
        plan: of the stage.
        kind: what :meth:`logits` returns (``prediction.average``).

    Raises:
        ModelError: weights do not fit the plan, or a plugin the model needs was not given.
        DamagedFileError: a weights file is unreadable.
    """

    def __init__(self, stage: Stage, how: Computation, threads: int | None = None) -> None:
        self.plan = plan = stage.plan
        if not stage.weights:
            raise ModelError(f"{plan.configuration}: there are no weights to predict with; train at least one fold")
        settings, training = how.settings, stage.training
        self._threads = threads
        self.kind: ScoreKind = settings.average
        self.device = torch.device(how.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        architecture = plan.architecture
        if training.network:
            architecture = replace(architecture, kind=training.network)
        loaded = load_plugins(how.plugins)
        if architecture.kind not in NETWORK_CLASS_NAMES:  # a plugin's loss or augmentation is not needed to predict
            _require_plugins(training.plugins, loaded)
        self._network = build_network(architecture, plan.num_input_channels, plan.labels.num_outputs, False)
        with _explained_memory(self.device, plan.patch_size):
            self._network = self._network.to(self.device).eval()
        self._folds = [(path, _checked(load_weights(path), path)) for path in stage.weights]
        self._loaded: int | None = None
        for fold in range(len(self._folds)):  # weights that do not fit are refused before any work is done
            self._use(fold)
        self._window = Window(
            patch_size=plan.patch_size,
            num_outputs=plan.labels.num_outputs,
            tile_step=settings.tile_step,
            gaussian=settings.gaussian,
            mirror_axes=training.mirror_axes if settings.mirroring else (),
            activation=_activation(plan, settings),
            autocast=AUTOCAST_TYPES[resolve_precision(settings.precision, self.device.type)],
        )

    def logits(self, image_czyx: np.ndarray, previous_label_zyx: np.ndarray | None = None) -> np.ndarray:
        """Scores on the stored grid: float32 (outputs, z, y, x), the mean over tiles, mirrors and folds.

        All three means are taken in float32; nnU-Net v2 keeps float16 (docs/explanation/differences.md).

        Args:
            image_czyx: preprocessed float32 image, may be a read-only memory map.
            previous_label_zyx: for a cascade the previous stage's label map on the same grid.

        Raises:
            ModelError: a value is infinite or not a number, or the device has too little memory.
        """
        source = self._source(image_czyx, previous_label_zyx)
        total: np.ndarray | None = None
        for fold in range(len(self._folds)):
            self._use(fold)
            with _explained_memory(self.device, self.plan.patch_size), _torch_setup(self._threads):
                scores_czyx = predict_scores(self._network, source, self._window, self.device).cpu().numpy()
            total = scores_czyx if total is None else np.add(total, scores_czyx, out=total)
        assert total is not None  # __init__ refuses a stage without weights
        result = total if len(self._folds) == 1 else np.divide(total, np.float32(len(self._folds)), out=total)
        if not all(np.isfinite(scores_zyx).all() for scores_zyx in result):
            raise ModelError(
                f"{self.plan.configuration}: the network's output is not finite; "
                "with reduced precision use prediction.precision: fp32 or bf16, else the weights are unusable"
            )
        return result

    def _source(self, image_czyx: np.ndarray, previous_label_zyx: np.ndarray | None) -> Input:
        if (previous_label_zyx is None) != (self.plan.previous_stage is None):
            need = "needs" if self.plan.previous_stage else "takes no"
            raise ValueError(f"{self.plan.configuration} {need} label maps of a previous stage")
        if previous_label_zyx is None:
            return Input(image_czyx)
        if previous_label_zyx.shape != image_czyx.shape[1:]:
            raise ValueError(f"previous label map {previous_label_zyx.shape}, image {image_czyx.shape[1:]}")
        return Input(image_czyx, previous_label_zyx, self.plan.labels.foreground_labels)

    def _use(self, fold: int) -> None:
        if self._loaded != fold:
            path, state = self._folds[fold]
            try:
                load_into(self._network, state, strict=True)
            except ModelError as problem:
                raise ModelError(f"{path}: {problem}") from problem
            self._loaded = fold


def _activation(plan: PredictPlan, settings: PredictionSettings) -> Literal["softmax", "sigmoid"] | None:
    """What is averaged instead of logits (``prediction.average``), if anything."""
    if settings.average == "logits":
        return None
    return "sigmoid" if plan.labels.has_regions else "softmax"


def _checked(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path}: {name} is not finite (the training diverged); train this fold again")
    return state


def _require_plugins(needed: Mapping[str, str], loaded: Mapping[str, str]) -> None:
    for name, digest in needed.items():
        if loaded.get(name) != digest:
            found = "another version of it was given" if name in loaded else "it was not given"
            raise ModelError(
                f"the model was trained with the plugin {name} ({digest[:12]}), {found}; use --plugin FILE"
            )


@contextmanager
def _explained_memory(device: torch.device, patch_size: Sequence[int]) -> Iterator[None]:
    """Say what to do when a GPU's memory is full."""
    try:
        yield
    except RuntimeError as problem:
        if device.type == "cpu" or not is_out_of_memory(problem):
            raise
        raise ModelError(
            f"{device}: too little memory for one tile of {tuple(patch_size)} voxels ({str(problem).splitlines()[0]}); "
            "let fewer jobs share the GPU (execution.jobs_per_gpu) or use the CPU (execution.device: cpu, --device cpu)"
        ) from problem


@contextmanager
def _torch_setup(threads: int | None) -> Iterator[None]:
    """A fixed number of CPU threads (None: torch's own), and cuDNN's fastest algorithms: every tile has one shape.

    Single precision is not rounded to TF32, torch's default, which is no more exact than half precision: logits on an
    H100 were 3e-3 from the CPU's with it and 1e-5 without.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)
