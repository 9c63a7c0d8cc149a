"""What is fuzzed: a target makes samples, and a sample says how it is used."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One mutated input.

    Attributes:
        files: relative name -> content; written into an empty folder.
        use: what a user's command would do with them; gets the folder.
        named: a refusal must name one of these.
    """

    files: Mapping[str, bytes]
    use: Callable[[Path], object]
    named: tuple[str, ...]


Sampler = Callable[[random.Random], Sample]


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        prepare: makes the unchanged files and returns the function that draws a mutated one.
        share: how many of 100 000 inputs are of this kind.
    """

    name: str
    prepare: Callable[[], Sampler]
    share: int


def rng_of(target: str, seed: int, index: int) -> random.Random:
    """The one source of randomness of an input: (target, seed, index) make it again."""
    return random.Random(f"{target} {seed} {index}")
