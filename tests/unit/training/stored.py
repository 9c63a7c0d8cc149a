"""A small preprocessed store, and sources of batches that misbehave in worker processes."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core.architecture import Architecture
from segwright.core.errors import DamagedFileError
from segwright.core.files import write_json
from segwright.core.geometry import Geometry
from segwright.core.labels import LabelKey, Labels, key_values
from segwright.core.slices import TrainPlan
from segwright.preprocessing.case import CaseProperties, PreprocessedCase
from segwright.preprocessing.store import write_stored_case
from segwright.training.loader import Batch, BatchLayout, Filled

LABELS = Labels((("background", 0), ("a", 1), ("b", 2)))
LAYOUT = BatchLayout((2, 1, 4, 5), ((2, 1, 4, 5), (2, 1, 2, 3)), np.dtype(np.int16))


def make_plan(patch_size: tuple[int, ...], labels: Labels = LABELS, batch_size: int = 3, **changes: Any) -> TrainPlan:
    stages, dimensions = 3, len(patch_size)
    architecture = Architecture(
        kind="plain_unet",
        features_per_stage=(4,) * stages,
        kernel_sizes=((3,) * dimensions,) * stages,
        strides=((1,) * dimensions, *((2,) * dimensions,) * (stages - 1)),
        blocks_per_stage=(1,) * stages,
        convs_per_stage_decoder=(1,) * (stages - 1),
    )
    facts: dict[str, Any] = {
        "configuration": "3d_fullres", "num_channels": 1, "labels": labels, "patch_size": patch_size,
        "batch_size": batch_size, "architecture": architecture, "batch_dice": True, "use_mask_for_norm": (False,),
    }  # fmt: skip
    return TrainPlan(**{**facts, **changes})


def locations(label_zyx: np.ndarray, keys: Sequence[LabelKey]) -> dict[LabelKey, np.ndarray]:
    return {key: np.argwhere(np.isin(label_zyx, key_values(key))).astype(np.int32) for key in keys}


def write_store(
    folder: Path, cases: Mapping[str, tuple[np.ndarray, np.ndarray]], keys: Sequence[LabelKey] = (1, 2)
) -> Path:
    """Store (image_czyx, label_zyx) by case id; returns index.json."""
    entries = {}
    for case_id, (image_czyx, label_zyx) in cases.items():
        shape = label_zyx.shape
        box = tuple((0, edge) for edge in shape)
        geometry = Geometry(shape, (1.0,) * 3, (0.0,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))  # type: ignore[arg-type]
        properties = CaseProperties(geometry, shape, box, shape, shape, (1.0,) * 3, (1.0,) * 3)  # type: ignore[arg-type]
        case = PreprocessedCase(
            image_czyx.astype(np.float32),
            label_zyx.astype(np.int8),
            properties,
            locations(label_zyx, keys),
            (True,) * len(image_czyx),
            (0, 1, 2),
        )
        content = write_stored_case(folder / "cases" / f"{case_id}.safetensors", case)
        entries[case_id] = {"file": f"cases/{case_id}.safetensors", "inputs": "x", "content": content}
    batch = folder / "batch_0.json"
    write_json(batch, {"version": 1, "data_id": "test", "batch": "batch_0", "cases": entries})
    digest = hashlib.sha256(batch.read_bytes()).hexdigest()
    write_json(folder / "index.json", {"version": 1, "data_id": "test", "batches": {"batch_0": digest}})
    return folder / "index.json"


def make_cases(count: int, shape: tuple[int, int, int], channels: int = 1) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Cases with a block of label 1 and a smaller one of label 2."""
    cases = {}
    for number in range(count):
        rng = np.random.default_rng(number)
        label_zyx = np.zeros(shape, np.int8)
        z, y, x = (edge // 4 + number % 3 for edge in shape)
        label_zyx[z : z + 4, y : y + 5, x : x + 6] = 1
        label_zyx[z, y, x : x + 2] = 2
        cases[f"case_{number}"] = (rng.standard_normal((channels, *shape)).astype(np.float32), label_zyx)
    return cases


@dataclass(frozen=True)
class NumberSource:
    """Batches that hold 100 epoch + step. ``trouble`` happens at ``at_step``."""

    trouble: str = ""
    at_step: int = 2

    @property
    def slot_bytes(self) -> int:
        return LAYOUT.size_bytes

    def fill(self, epoch: int, step: int, memory: np.ndarray, announce: Callable[[str], None] | None = None) -> Filled:
        if announce is not None:
            announce(f"case_{step}")
        if step == self.at_step and self.trouble:
            _TROUBLES[self.trouble]()
        time.sleep(0.003 * (step % 3))  # batches become ready out of order
        images, targets = LAYOUT.views(memory)
        images[...] = 100 * epoch + step
        for target in targets:
            target[...] = step
        return Filled((f"case_{step}", str(os.getpid())), LAYOUT.size_bytes)

    def batch(self, memory: np.ndarray, filled: Filled) -> Batch:
        return Batch(*LAYOUT.views(memory), filled.case_ids)


def _fail() -> None:
    raise ZeroDivisionError("a bug in a transform")


def _damaged() -> None:
    raise DamagedFileError("/store/case_2.safetensors", "the file is empty")


def _full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _no_memory() -> None:
    raise MemoryError


def _crash() -> None:
    ctypes.string_at(0)


def _kill_by(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def _hang() -> None:
    time.sleep(120)


def _work_long() -> None:
    until = time.process_time() + 1.2
    while time.process_time() < until:
        pass


_TROUBLES: dict[str, Callable[[], None]] = {
    "fail": _fail, "damaged": _damaged, "full": _full, "no memory": _no_memory, "crash": _crash,
    "kill": _kill_by(signal.SIGKILL), "bus": _kill_by(signal.SIGBUS), "term": _kill_by(signal.SIGTERM),
    "hang": _hang, "stop": _kill_by(signal.SIGSTOP), "work long": _work_long, "exit": lambda: os._exit(3),
}  # fmt: skip
