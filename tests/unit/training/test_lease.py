"""GPU slots (design, decision 9), without a GPU: identities are given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segwright.core.errors import SettingsError, TrainingError
from segwright.core.settings import ExecutionSettings
from segwright.training.lease import GpuLease, acquire_gpu, find_gpus, parse_listing, resolve_device
from segwright.training.machine import leased_device

UUID_A, UUID_B = "GPU-" + "a" * 8 + "-1111-2222-3333-" + "a" * 12, "GPU-" + "b" * 8 + "-1111-2222-3333-" + "b" * 12


def test_slots_fill_every_gpu_first_and_are_exclusive(tmp_path: Path) -> None:
    leases, seen = [], []
    for _ in range(4):
        environment: dict[str, str] = {}
        lease = acquire_gpu(2, tmp_path, environment=environment, gpus=[UUID_A, UUID_B])
        assert lease is not None
        leases.append(lease)
        seen.append((environment["CUDA_VISIBLE_DEVICES"], lease.slot))
    assert seen == [(UUID_A, 0), (UUID_B, 0), (UUID_A, 1), (UUID_B, 1)]
    with pytest.raises(TrainingError, match="all 4 GPU slots"):
        acquire_gpu(2, tmp_path, environment={}, gpus=[UUID_A, UUID_B], poll_s=0.01, timeout_s=0.05)
    leases[1].release()
    again = acquire_gpu(2, tmp_path, environment={}, gpus=[UUID_A, UUID_B])
    assert again is not None and (again.gpu, again.slot) == (UUID_B, 0)
    for lease in (*leases, again):
        lease.release()


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"])
def test_a_choice_already_made_is_left_alone(tmp_path: Path, name: str) -> None:
    environment = {name: "7"}
    assert acquire_gpu(1, tmp_path, environment=environment, gpus=[UUID_A]) is None
    assert environment == {name: "7"} and not list(tmp_path.iterdir())


def test_no_gpu_no_lease(tmp_path: Path) -> None:
    def absent() -> str:
        raise FileNotFoundError("nvidia-smi")

    assert find_gpus(absent, tmp_path / "none") == []
    assert acquire_gpu(1, tmp_path, environment={}, gpus=[]) is None
    folder = tmp_path / "proc" / "0000:01:00.0"
    folder.mkdir(parents=True)
    (folder / "information").write_text(f"Model: X\nGPU UUID: \t {UUID_A}\n")
    assert find_gpus(absent, tmp_path / "proc") == [UUID_A]


def test_listing_with_and_without_mig() -> None:
    plain = f"GPU 0: NVIDIA A (UUID: {UUID_A})\nGPU 1: NVIDIA A (UUID: {UUID_B})\n"
    assert parse_listing(plain) == [UUID_A, UUID_B]
    mig = f"GPU 0: A (UUID: {UUID_A})\n  MIG 1g Device 0: (UUID: MIG-1-2)\n  MIG 1g Device 1: (UUID: MIG-3-4)\n"
    assert parse_listing(mig + f"GPU 1: A (UUID: {UUID_B})\n") == ["MIG-1-2", "MIG-3-4", UUID_B]


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda")
    with pytest.raises(SettingsError, match="unknown"):
        resolve_device("tpu")


def test_a_device_that_is_not_there_is_named_as_both_ways_in_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SettingsError) as caught:
        resolve_device("mps")
    expected = "device (--device, in a configuration execution.device) is mps but torch finds no such device here"
    assert str(caught.value) == f"{expected}; use auto or cpu"


@pytest.mark.parametrize(("cuda", "why"), [(None, "built without CUDA"), ("13.0", "built for CUDA 13.0; nvidia-smi")])
def test_a_torch_that_cannot_use_the_gpu_is_said(
    cuda: str | None, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    import torch

    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    lease = GpuLease(UUID_A, 0, descriptor)
    monkeypatch.setattr("segwright.training.machine.acquire_gpu", lambda jobs: lease)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with leased_device(ExecutionSettings()) as device:
        assert device == "cpu" and lease.descriptor == -1  # another program may have the GPU
    assert f"torch cannot use the GPU {UUID_A}" in caplog.text and why in caplog.text
    with pytest.raises(SettingsError, match=why), leased_device(ExecutionSettings(device="cuda")):
        pass


def test_importing_lease_and_request_needs_no_torch() -> None:
    code = "import sys, segwright.training.lease, segwright.training.request; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
