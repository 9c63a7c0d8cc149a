"""Training of one fold, from request to model.safetensors (method 9; design, decisions 7 and 8).

The result depends on the request's plan, settings, data and plugins, never on workers, interruptions or speed: every
random draw is keyed by (seed, epoch, step, sample), and a state is saved only between epochs.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from segwright import __version__
from segwright.core.allocator import keep_freed_memory
from segwright.core.architecture import NETWORK_CLASS_NAMES
from segwright.core.errors import SettingsError
from segwright.core.files import file_digest, json_digest, remove_temporary_files, write_json
from segwright.core.plugins import names_a_plugin
from segwright.core.registry import load_plugins
from segwright.core.settings import to_plain
from segwright.core.versions import STAGE_VERSION
from segwright.networks.device import is_out_of_memory
from segwright.networks.weights import save_weights
from segwright.training.attempts import Attempts, OutOfMemory
from segwright.training.data import TrainingData, open_data
from segwright.training.deadline import Deadline, StopSignal
from segwright.training.lock import FolderLock
from segwright.training.loop import Compute, resolve_compute
from segwright.training.memory import advice, require_memory, training_bytes
from segwright.training.request import TrainingRequest
from segwright.training.run import FoldTraining
from segwright.training.state import StateFolder

log = logging.getLogger(__name__)

MODEL_FILE, RECORD_FILE, STATE_FOLDER = "model.safetensors", "training.json", "state"
_WITHOUT_EFFECT = ("configurations", "folds", "schedule", "checkpoint_interval", "keep_state", "initial_model")
"""Settings that change no weights, or (``schedule``, ``initial_model``) stand in the identity by what they come to."""

_TRUSTED_SHARE = 0.8  # of the estimated memory: what advice aims at where memory ran out against the estimate
_RECORDED_METRICS = ("train_loss", "val_loss", "dice_per_class", "mean_fg_dice", "ema_fg_dice")


def train_fold(request: TrainingRequest) -> None:
    """Train, resuming a matching state; writes ``model.safetensors``, ``training.json`` and ``progress.png``.

    Raises:
        InterruptedForRetry: a signal came or the deadline is near; the state is saved, start again.
        TrainingError: another process trains here, the loss diverged, a worker died, memory ran out, or three attempts
            made no progress.
        SettingsError: settings that contradict each other or the machine.
    """
    digests = load_plugins(request.plugins)
    settings = request.settings.resolved()
    run_training(replace(request, settings=settings), open_data(request, settings), digests)


def run_training(request: TrainingRequest, data: TrainingData, plugin_digests: Mapping[str, str]) -> None:
    """:func:`train_fold` with its data given. ``request.settings`` are resolved."""
    settings = request.settings
    if data.validation is None and (settings.weights == "best" or settings.early_stopping is not None):
        raise SettingsError("training.weights: best and early_stopping need validation cases; this fold has none")
    deadline = Deadline.after(request.deadline)
    compute = resolve_compute(settings.precision, request.device)
    identity = training_identity(request, data, plugin_digests)
    folder = request.output / STATE_FOLDER
    with StopSignal() as stop, FolderLock(folder):
        remove_temporary_files(request.output)
        states = StateFolder(folder, identity)
        states.open()
        state = states.load()
        attempts = Attempts(folder)
        attempt = attempts.begin(0 if state is None else int(state["epoch"]))
        with attempts, _memory_errors(request, compute), reproducible(compute.device, settings.torch_threads):
            require_memory(request.plan, settings, compute.precision, request.device, free_memory(compute.device))
            training = FoldTraining(request, compute, states, attempts, attempt.number)
            if state is not None:
                training.restore(state)
                log.info("going on after epoch %d of %s (attempt %d)", training.epoch, settings.epochs, attempt.number)
            training.run(data, deadline, stop)
            write_results(request, training, data, identity)
    if not settings.keep_state:
        shutil.rmtree(folder)


def training_identity(
    request: TrainingRequest, data: TrainingData, plugin_digests: Mapping[str, str]
) -> dict[str, Any]:
    """Everything the weights depend on; a state is resumed only where all of it is equal."""
    settings = {name: v for name, v in to_plain(request.settings).items() if name not in _WITHOUT_EFFECT}
    if request.settings.on_divergence == "stop":
        del settings["on_divergence"]  # as before there was this choice, so that older states still fit
    if request.settings.augment_on == "workers":
        del settings["augment_on"]  # likewise
    initial = request.initial_weights
    plugin_used = names_a_plugin(request.settings) or request.plan.architecture.kind not in NETWORK_CLASS_NAMES
    return {
        "train_slice": json_digest(request.plan.to_json()),
        "fold": request.fold.name,
        "split": json_digest({"train": list(request.fold.train), "val": list(request.fold.val)}),
        "data": dict(data.identity),
        "settings": settings,
        "plugins": dict(plugin_digests) if plugin_used else {},
        "initial_model": None if initial is None else file_digest(initial),
        "versions": {"segwright": __version__, "torch": torch.__version__, "training": STAGE_VERSION["training"]},
    }


def write_results(
    request: TrainingRequest, training: FoldTraining, data: TrainingData, identity: Mapping[str, Any]
) -> None:
    """Write the declared outputs. training.json has no times and no paths: equal trainings give equal files."""
    plan, settings = request.plan, request.settings
    weights, epoch = training.chosen_weights()
    metadata = {"format": "pt", "configuration": plan.configuration, "fold": request.fold.name}
    save_weights(request.output / MODEL_FILE, weights, metadata)
    training.history.draw(always=True)
    records, best = training.history.records, training.history.best_epoch
    last = records[-1].to_json()
    write_json(
        request.output / RECORD_FILE,
        {
            **identity,
            "configuration": plan.configuration,
            "plan": plan.to_json(),
            "network": settings.network or plan.architecture.kind,
            "num_inputs": plan.num_input_channels,
            "num_outputs": plan.labels.num_outputs,
            "mirror_axes": list(data.mirror_axes),
            "data_id": data.identity.get("data_id"),
            "device": training.compute.device.type,
            "precision": training.compute.precision,
            "epochs": training.epoch,
            **({} if training.rate_factor == 1 else {"rate_factor_after_rollback": training.rate_factor}),
            "stopped_early": training.epoch < int(settings.epochs or 0),
            "weights_of_epoch": epoch,
            "weights_digest": file_digest(request.output / MODEL_FILE),
            "metrics": {
                **{name: last[name] for name in _RECORDED_METRICS},
                "best_epoch": best,
                "best_ema_fg_dice": None if best is None else records[best].to_json()["ema_fg_dice"],
            },
        },
        sealed=True,
    )


@contextlib.contextmanager
def reproducible(device: torch.device, threads: int) -> Iterator[None]:
    """Fixed threads, deterministic operators and kept memory on the CPU; on CUDA the fastest convolutions (9.1).

    Those may differ in the last bits from run to run.
    """
    deterministic: Any = torch.utils.deterministic
    threads_before, deterministic_before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill_before, benchmark_before = deterministic.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_freed_memory()
        torch.use_deterministic_algorithms(True, warn_only=True)
        deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time
    torch.backends.cudnn.benchmark = device.type == "cuda"
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(deterministic_before)
        deterministic.fill_uninitialized_memory = fill_before
        torch.backends.cudnn.benchmark = benchmark_before


def free_memory(device: torch.device) -> int | None:
    """Free bytes of the device; None where it has no memory of its own, or does not tell."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


@contextlib.contextmanager
def _memory_errors(request: TrainingRequest, compute: Compute) -> Iterator[None]:
    """Say what to do when memory runs out, be it for the first byte on the device."""
    free_bytes = None
    try:
        free_bytes = free_memory(compute.device)
        yield
    except (MemoryError, RuntimeError) as problem:  # torch.OutOfMemoryError is one of the latter
        if not is_out_of_memory(problem):
            raise
        needed = training_bytes(request.plan, request.settings, compute.precision)
        smaller = min(needed * _TRUSTED_SHARE, free_bytes or needed)  # the estimate was too low
        first_line = (str(problem) or type(problem).__name__).splitlines()[0]
        plan = request.plan
        raise OutOfMemory(
            f"{plan.configuration}, fold {request.fold.name}: the memory of {request.device} does not hold batches of "
            f"{plan.batch_size} x {' x '.join(map(str, plan.patch_size))} ({first_line}); "
            f"{advice(plan, request.settings, compute.precision, smaller)}"
        ) from problem
