"""Training on a GPU: where its tensors are, what it does when memory is short. With a real one, what comes out."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.logical_gpu import GPU, logical_gpu
from tests.unit.training.fake_training import LABELS, PLAN, FakeBatch, make_data, make_request

from segwright.core.architecture import Architecture
from segwright.core.errors import InterruptedForRetry, SettingsError, TrainingError
from segwright.core.files import file_digest, read_json
from segwright.core.labels import Labels
from segwright.core.slices import TrainPlan
from segwright.networks.weights import load_weights
from segwright.training.fold import reproducible, run_training
from segwright.training.loop import EpochRules, resolve_compute, train_steps, validation_steps
from segwright.training.loss import LOSSES
from segwright.training.optimizer import build_optimizer, load_optimizer_state
from segwright.training.run import first_network, loss_options

REGIONS_AND_IGNORE = Labels.from_json(
    {"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, "regions_class_order": [1, 2]}
)

pytestmark = pytest.mark.usefixtures("no_drawing", "one_thread")


def plan_3d(kind: str, labels: Labels) -> TrainPlan:
    architecture = Architecture(
        kind=kind,
        features_per_stage=(2, 3, 4),
        kernel_sizes=((3, 3, 3),) * 3,
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
        blocks_per_stage=(1, 2, 1),
        convs_per_stage_decoder=(1, 1),
    )
    return TrainPlan("3d_fullres", 1, labels, (4, 8, 8), 2, architecture, False, (False,))


def batches(plan: TrainPlan, steps: int) -> list[FakeBatch]:
    """Noise and labels, or regions with an ignore mask, for both heads."""
    rng, found = np.random.default_rng(4), []
    for _ in range(steps):
        channels = len(plan.labels.regions_class_order or ()) + 1 if plan.labels.has_regions else 1
        shape = (plan.batch_size, channels, *plan.patch_size)
        target = rng.integers(0, 2 if plan.labels.has_regions else 3, shape)
        target = target.astype(bool if plan.labels.has_regions else np.int16)
        images = rng.normal(size=(plan.batch_size, 1, *plan.patch_size)).astype(np.float32)
        step = plan.architecture.strides[1]
        lower = target[(slice(None), slice(None), *(slice(None, None, edge) for edge in step))]
        found.append(FakeBatch(images, [target, lower.copy()], ("case_1", "case_2")))
    return found


@pytest.mark.parametrize(
    ("plan", "settings"),
    [
        (PLAN, {}),
        (replace(PLAN, batch_dice=False), {"optimizer": "adamw", "class_weights": (1.0, 2.0, 3.0)}),
        (plan_3d("plain_unet", LABELS), {"deep_supervision": False, "precision": "fp32"}),
        (plan_3d("residual_unet", REGIONS_AND_IGNORE), {"class_weights": (1.0, 2.0)}),
        (plan_3d("residual_unet", Labels((("background", 0), ("a", 1), ("ignore", 2)))), {"precision": "bf16"}),
    ],
    ids=["2d", "2d adamw", "3d fp32", "residual regions ignore", "residual ignore bf16"],
)
def test_every_tensor_of_a_step_is_on_the_gpu(
    plan: TrainPlan, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request(tmp_path, plan=plan, **settings)
    options = loss_options(request)
    made = LOSSES.get("default")(options)
    seen: list[torch.dtype] = []

    def loss(logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor | None) -> torch.Tensor:
        value = made(logits, target, annotated)
        seen.extend((logits.dtype, value.dtype))
        return value

    with logical_gpu(monkeypatch) as gpu:
        compute = resolve_compute(request.settings.precision, "cuda")
        network = first_network(request).to(compute.device)
        optimizer, scaler = build_optimizer(network, request.settings), compute.scaler()
        before = {name: tensor.cpu().clone() for name, tensor in network.state_dict().items()}
        rules = EpochRules(loss, options, 12.0, compute)
        parameters = list(network.parameters())
        result = train_steps(network, parameters, optimizer, scaler, batches(plan, 3), rules)
        validated = validation_steps(network.eval(), batches(plan, 2), rules)
        assert scaler.is_enabled() == (compute.precision == "fp16")
        assert np.isfinite(result.loss) and np.isfinite(validated.loss)
        assert validated.counts is not None and validated.counts.sum() > 0
        assert all(gpu.holds(weights) for weights in parameters)
        assert all(gpu.holds(weights.grad) for weights in parameters if weights.grad is not None)
        for state in optimizer.state.values():
            assert all(gpu.holds(tensor) for tensor in state.values())
        heads = 1 if not request.settings.deep_supervision else 2
        assert gpu.pinned == 5 * 3  # images and two targets of five batches
        changed = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor.cpu(), before[name])]
        unused = {name for name in before if heads == 2 and "seg_layers.0" in name}  # the lowest head weighs nothing
        assert set(changed) >= {name for name in before if "conv" in name and name.endswith("weight")} - unused
    reduced = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[compute.precision]
    assert set(seen[::2]) == {reduced} and set(seen[1::2]) == {torch.float32}
    assert "aten::native_group_norm" not in gpu.operations  # the CPU's way to instance norm


def train_on(device: str, output: Path, spoil: Any = None, **changes: Any) -> str:
    request = replace(make_request(output, **changes), device=device)
    run_training(request, make_data(request.plan, spoil), {})
    return file_digest(output / "model.safetensors")


def end_in_epoch_1(epoch: int, step: int, batch: FakeBatch) -> FakeBatch:
    if (epoch, step) == (1, 0):
        os.kill(os.getpid(), signal.SIGTERM)
    return batch


def test_a_whole_training_stops_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with logical_gpu(monkeypatch):
        straight = train_on("cuda", tmp_path / "straight", epochs=2)
    with logical_gpu(monkeypatch), pytest.raises(InterruptedForRetry, match="1 of 2 epochs saved"):
        train_on("cuda", tmp_path / "stopped", end_in_epoch_1, epochs=2)
    with logical_gpu(monkeypatch):
        assert train_on("cuda", tmp_path / "stopped", epochs=2) == straight
    record = read_json(tmp_path / "stopped/training.json")
    assert (record["device"], record["precision"], record["epochs"]) == ("cuda", "fp16", 2)


@pytest.mark.parametrize("words", ["CUDA error: out of memory", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"])
def test_a_full_gpu_is_explained(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise RuntimeError(words)

    message = rf"the memory of cuda does not hold batches of 2 x 16 x 16 \({words}\)"
    with logical_gpu(monkeypatch), pytest.raises(TrainingError, match=message):
        train_on("cuda", tmp_path / "in a step", full)
    with logical_gpu(monkeypatch) as gpu, pytest.raises(TrainingError, match=r"2d: batches of 2 x 16 x 16.*are free"):
        gpu.free_bytes = 2**10
        train_on("cuda", tmp_path / "before")
    with logical_gpu(monkeypatch), pytest.raises(TrainingError, match=message):
        monkeypatch.setattr(torch.cuda, "mem_get_info", full)  # other programs left no room for CUDA itself
        train_on("cuda", tmp_path / "at once")
    for case in ("in a step", "before", "at once"):
        assert read_json(tmp_path / case / "state/attempts.json")[0]["ended"] == "out_of_memory"


def test_a_gpu_takes_the_fastest_convolutions() -> None:
    before = torch.backends.cudnn.benchmark
    with reproducible(torch.device("cuda"), 1):
        assert torch.backends.cudnn.benchmark and not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark == before


def test_a_fused_optimizer_takes_up_what_was_saved_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    request = make_request(tmp_path)
    on_cpu = first_network(request)
    saved = build_optimizer(on_cpu, request.settings)
    assert saved.param_groups[0]["fused"] is None
    on_cpu(torch.ones(1, 1, 16, 16))[0].sum().backward()
    saved.step()
    with logical_gpu(monkeypatch) as gpu:
        optimizer = build_optimizer(first_network(request).to(GPU), request.settings)
        load_optimizer_state(optimizer, saved.state_dict())
        assert optimizer.param_groups[0]["fused"] is True
        buffers = [state["momentum_buffer"] for state in optimizer.state.values()]
        assert len(buffers) == len(list(on_cpu.parameters())) and all(map(gpu.holds, buffers))
        on_gpu_state = optimizer.state_dict()
    load_optimizer_state(saved, on_gpu_state)
    assert saved.param_groups[0]["fused"] is None


@pytest.mark.parametrize("optimizer_name", ["sgd", "adamw"])
def test_a_skipped_first_step_leaves_no_trace(
    optimizer_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Gradient scaling begins so high that the first steps are often skipped."""
    request = make_request(tmp_path, optimizer=optimizer_name)
    weights = torch.nn.Linear(40, 30)
    expected = torch.nn.Linear(40, 30)
    expected.load_state_dict(weights.state_dict())
    plain = build_optimizer(expected, request.settings)
    with logical_gpu(monkeypatch):
        weights = weights.to(GPU)
        fused = build_optimizer(weights, request.settings)
        scaler = torch.amp.GradScaler("cuda")
        for factor in (torch.inf, 1.0, 1.0):
            fused.zero_grad()
            scaler.scale(weights(torch.ones(2, 40, device=GPU)).square().mean() * factor).backward()
            scaler.unscale_(fused)
            scaler.step(fused)
            scaler.update()
        assert scaler.get_scale() == 2**15
        found = {name: tensor.cpu() for name, tensor in weights.state_dict().items()}
    for _ in range(2):
        plain.zero_grad()
        expected(torch.ones(2, 40)).square().mean().backward()
        plain.step()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_compiled_training_is_the_same_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's tracing of forward and backward but without the C++ it would write, which takes half a minute."""
    traced = partial(torch.compile, backend="aot_eager", fullgraph=True)  # refuses what it cannot see through
    plain = train_on("cpu", tmp_path / "plain", epochs=2)
    monkeypatch.setattr(torch, "compile", traced)
    with pytest.raises(InterruptedForRetry):
        train_on("cpu", tmp_path / "compiled", end_in_epoch_1, epochs=2, compile=True)
    assert train_on("cpu", tmp_path / "compiled", epochs=2, compile=True) != plain  # its lowest head decays
    weights, expected = (load_weights(tmp_path / name / "model.safetensors") for name in ("compiled", "plain"))
    assert weights.keys() == expected.keys()
    for name in expected:
        if "seg_layers.0" not in name:
            torch.testing.assert_close(weights[name], expected[name], rtol=1e-4, atol=1e-6)
    metrics = [read_json(tmp_path / name / "training.json")["metrics"] for name in ("compiled", "plain")]
    assert metrics[0]["val_loss"] == pytest.approx(metrics[1]["val_loss"], abs=1e-4)


def test_a_compiler_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no working C++ compiler found")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=no_compiler))
    with pytest.raises(SettingsError, match=r"torch.compile fails here .*no working C\+\+ compiler.*compile: false"):
        train_on("cpu", tmp_path, compile=True)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")


@needs_gpu
@pytest.mark.parametrize("settings", [{}, {"optimizer": "adamw"}, {"precision": "bf16"}, {"precision": "fp32"}])
def test_a_real_gpu_learns_what_the_cpu_learns(settings: dict[str, Any], tmp_path: Path) -> None:
    changes: dict[str, Any] = {"epochs": 8, "iterations": 10, "learning_rate": 0.02, **settings}
    for device in ("cpu", "cuda"):
        train_on(device, tmp_path / device, **{**changes, **({} if device == "cuda" else {"precision": "fp32"})})
    losses = [read_json(tmp_path / device / "training.json")["metrics"]["val_loss"] for device in ("cpu", "cuda")]
    assert losses[1] == pytest.approx(losses[0], abs=0.02) and losses[1] < -0.5


@needs_gpu
def test_a_real_gpu_takes_up_a_state_of_the_cpu_and_gives_it_back(tmp_path: Path) -> None:
    with pytest.raises(InterruptedForRetry):
        train_on("cpu", tmp_path, end_in_epoch_1, epochs=3)
    with pytest.raises(InterruptedForRetry):
        train_on("cuda", tmp_path, lambda e, s, b: end_in_epoch_1(e - 1, s, b), epochs=3)
    train_on("cpu", tmp_path, epochs=3)
    assert read_json(tmp_path / "training.json")["epochs"] == 3
