"""What differs between a CPU and a GPU besides the arithmetic: copies to and fro, and how full memory is told."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_FULL_MEMORY = (
    "out of memory",  # CUDA's driver (a torch.AcceleratorError) and MPS, besides torch.OutOfMemoryError
    "can't allocate memory",  # torch's allocator on the CPU
    "_alloc_failed",  # cuBLAS and cuDNN
    "unable to find an engine",  # cuDNN, where no algorithm's workspace fits
)


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """The array as tensor on ``device``: the CPU's shares the array's memory, CUDA's copy is not waited for."""
    if array.dtype == np.uint16:
        array = array.astype(np.int32)  # torch compares no unsigned 16-bit integers
    if not array.flags.writeable:
        array = array.copy()
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)  # torch keeps pinned memory until it was copied
    return tensor.to(device)


class OnTheWay:
    """A tensor that is being copied to the CPU.

    Reading a tensor on a GPU waits for everything that was queued there, also for what was queued after it. Reading
    this waits for the copy alone, so the GPU has work while Python looks at the numbers.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._copied: torch.cuda.Event | None = None
        on_cuda = tensor.device.type == "cuda"
        self._copy = tensor.detach().to("cpu", non_blocking=on_cuda)
        if on_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(tensor.device))

    def values(self) -> list[float]:
        """All numbers of the tensor."""
        if self._copied is not None:
            self._copied.synchronize()
        return [float(value) for value in self._copy.reshape(-1).tolist()]


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an error says that the device's memory, or the CPU's, is full; torch has several words for it."""
    if isinstance(problem, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(problem).lower()
    return isinstance(problem, RuntimeError) and any(words in text for words in _FULL_MEMORY)


def release_cached_memory(device: torch.device) -> None:
    """Give back what torch keeps of freed tensors, so that tensors of other sizes find room."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
