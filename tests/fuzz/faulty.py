"""A target that does everything wrong, to see that the fuzzer sees it."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable
from pathlib import Path

from segwright.core.errors import DatasetError
from tests.fuzz.target import Sample, Sampler, Target

NAME = "a.txt"


def _refuse(text: str) -> object:
    raise DatasetError(text)


def _loop(_: Path) -> object:
    while True:
        pass


FAULTS: dict[str, Callable[[Path], object]] = {
    "nothing": lambda folder: (folder / NAME).read_bytes(),
    "refused": lambda folder: _refuse(f"{folder / NAME}: is wrong; correct it"),
    "unnamed": lambda folder: _refuse("something is wrong"),
    "endless message": lambda folder: _refuse(NAME + "x" * 10_000),
    "exception": lambda folder: {}["key"],
    "segmentation fault": lambda folder: ctypes.string_at(0),
    "hang": _loop,
    "much memory": lambda folder: bytearray(700 << 20),
    "writes elsewhere": lambda folder: (folder.parent / "other").write_text("x"),
}


def _prepare() -> Sampler:
    def draw(rng: random.Random) -> Sample:
        fault = rng.choice(list(FAULTS))
        return Sample({NAME: fault.encode()}, FAULTS[fault], (NAME,))

    return draw


FAULTY = Target("faulty", _prepare, 0)
