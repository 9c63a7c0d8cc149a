"""Copies between devices, and the words for full memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.unit.logical_gpu import logical_gpu

from segwright.networks.device import OnTheWay, is_out_of_memory, release_cached_memory, to_device

CPU = torch.device("cpu")
FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("problem", FULL, ids=str)
def test_full_memory_is_recognised(problem: Exception) -> None:
    assert is_out_of_memory(problem)


def test_other_errors_are_not_taken_for_full_memory() -> None:
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_arrays_of_any_kind_become_tensors() -> None:
    own = np.arange(6, dtype=np.float32).reshape(2, 3)
    shared = to_device(own, CPU)
    own[0, 0] = 7
    assert shared[0, 0] == 7
    fixed = np.arange(6, dtype=np.uint16).reshape(2, 3)[:, ::-1]
    fixed.setflags(write=False)
    found = to_device(fixed, CPU)
    assert found.dtype == torch.int32 and found.tolist() == [[2, 1, 0], [5, 4, 3]]


def test_copies_to_the_gpu_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with logical_gpu(monkeypatch) as gpu:
        tensor = to_device(np.ones(3, np.float32), torch.device("cuda"))
        assert gpu.holds(tensor) and gpu.pinned == 1
        assert OnTheWay(tensor * 2).values() == [2, 2, 2]
        release_cached_memory(torch.device("cuda"))
    assert OnTheWay(torch.tensor(0.5)).values() == [0.5]


def test_the_logical_gpu_refuses_what_a_gpu_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with logical_gpu(monkeypatch) as gpu:
        there = torch.ones(3, device="cuda")
        assert gpu.holds(there + 1) and not gpu.holds((there + 1).cpu()) and there.device.type == "cuda"
        with pytest.raises(RuntimeError, match="on the CPU, others on cuda"):
            there + torch.ones(3)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
