"""Where predictions go and how they are computed: what all kinds of prediction ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segwright.core.settings import PredictionSettings


@dataclass(frozen=True)
class Output:
    """Where predictions go, and which files are written.

    Attributes:
        file_ending: of the label maps, with the dot.
        save_probabilities: write each case's probabilities, too.
    """

    folder: Path
    file_ending: str
    save_probabilities: bool = False


@dataclass(frozen=True)
class Computation:
    """How predictions are computed. Only the settings change what comes out.

    Attributes:
        device: ``cpu``, ``cuda`` or ``mps``.
        plugins: Python files that register networks.
        workers: threads that prepare, predict and export at the same time; 1 does one thing after the other.
    """

    settings: PredictionSettings
    device: str
    plugins: tuple[Path, ...] = ()
    workers: int = 2
