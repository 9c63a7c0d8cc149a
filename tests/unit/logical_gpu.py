"""A GPU that is only said to be one: tensors live on the CPU and know that they would be on ``cuda``.

An operation that would mix devices fails as it would there, and so does what CUDA has no counterpart of. Values are
computed, so that a whole training step or prediction runs; half precision is the CPU's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

GPU = torch.device("cuda", 0)


class LogicalGpu:
    """Which storages are on the GPU.

    Attributes:
        operations: names of the operations that ran there.
        pinned: number of tensors that were pinned.
        free_bytes: what the driver reports.
    """

    def __init__(self) -> None:
        self._storages: dict[int, Any] = {}  # kept, so that no address is used twice
        self.operations: set[str] = set()
        self.pinned = 0
        self.free_bytes = 80 * 2**30

    def holds(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._storages

    def take(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._storages[storage._cdata] = storage
        return tensor

    def copy_of(self, tensor: Tensor, device: torch.device) -> Tensor:
        """The tensor on ``device``: itself if it is there."""
        if (device.type == "cuda") == self.holds(tensor):
            return tensor
        copy = tensor.detach().clone()
        if device.type == "cuda":
            return self.take(copy)
        self._storages.pop(copy.untyped_storage()._cdata)
        return copy


class _Operations(TorchDispatchMode):
    """Below autograd, so of the way back too: results are where the arguments are, and these are all in one place."""

    def __init__(self, gpu: LogicalGpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        given = [entry for entry in tree_iter((args, kwargs or {})) if isinstance(entry, Tensor)]
        there = [tensor for tensor in given if self._gpu.holds(tensor)]
        elsewhere = [tuple(tensor.shape) for tensor in given if tensor.ndim > 0 and not self._gpu.holds(tensor)]
        if there and elsewhere and name != "aten::copy_":
            raise RuntimeError(f"{name}: tensors of shapes {elsewhere} are on the CPU, others on cuda")
        results = func(*args, **(kwargs or {}))
        if there and name != "aten::copy_":
            self._gpu.operations.add(name)
            for tensor in tree_iter(results):
                if isinstance(tensor, Tensor):
                    self._gpu.take(tensor)
        return results


class _Calls(TorchFunctionMode):
    """What is asked of torch in Python: devices are reported, and tensors made and moved, as if there were a GPU."""

    def __init__(self, gpu: LogicalGpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return GPU if self._gpu.holds(args[0]) else func(*args)
        if func is Tensor.pin_memory:
            assert not self._gpu.holds(args[0]), "only memory of the CPU can be pinned"
            self._gpu.pinned += 1
            return args[0]
        if func is Tensor.numpy and self._gpu.holds(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func is Tensor.new_tensor and self._gpu.holds(args[0]):
            return self._gpu.take(func(*args, **kwargs))
        if func is Tensor.cpu:
            return self._gpu.copy_of(args[0], torch.device("cpu"))
        if func is Tensor.to:
            wanted = (*args[1:], *kwargs.values())
            dtype = next((entry for entry in wanted if isinstance(entry, torch.dtype)), None)
            device = next((entry for entry in wanted if isinstance(entry, (torch.device, str))), None)
            tensor = args[0] if dtype is None else func(args[0], dtype)
            return tensor if device is None else self._gpu.copy_of(tensor, torch.device(device))
        device = kwargs.get("device")
        if device is None or torch.device(device).type != "cuda":
            return func(*args, **kwargs)
        return self._gpu.take(func(*args, **{**kwargs, "device": "cpu"}))


@contextmanager
def logical_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogicalGpu]:
    """Everything inside finds one GPU; ``torch.device("cuda")`` is its name."""
    gpu, autocast = LogicalGpu(), torch.autocast

    def on_the_cpu(device_type: str, dtype: torch.dtype | None = None, enabled: bool = True) -> Any:
        assert device_type == "cuda", f"autocast for {device_type} does nothing on a GPU"
        return autocast("cpu", dtype, enabled)

    class Event:
        def record(self, stream: object) -> None:
            assert stream == "stream of the GPU"

        def synchronize(self) -> None: ...

    with monkeypatch.context() as patches, _Calls(gpu), _Operations(gpu):
        patches.setattr(torch, "autocast", on_the_cpu)
        patches.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
        patches.setattr(torch.cuda, "Event", Event)
        patches.setattr(torch.cuda, "current_stream", lambda device: "stream of the GPU")
        patches.setattr(torch.cuda, "empty_cache", lambda: None)
        patches.setattr(torch.cuda, "mem_get_info", lambda device: (gpu.free_bytes, 80 * 2**30))
        yield gpu
