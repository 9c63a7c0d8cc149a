"""The peer and segwright in turn: what a pair is, how it is measured, and its row of the table.

A side is a command, run from start to end in a process of its own each time, or a function that a worker process of its
own environment calls again and again (:mod:`benchmarks.worker`); ``fresh`` starts a new worker for every call.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import machine_text, peer_versions_text, versions_text
from benchmarks.measure import Measurement, Worker, emptied, run_command
from benchmarks.table import MarkdownTable

RESULTS = Path(__file__).parent / "results" / "speed.md"
COLUMNS = (
    "stage", "peer", "segwright", "times faster", "must", "target", "holds", "peer's memory", "segwright's memory",
    "difference", "date", "machine", "versions",
)  # fmt: skip
HEAD = """
# Speed

nnU-Net v2 and segwright in turn on the same inputs. Written by `make bench`; each measurement replaces its own row.
What is measured and what the columns mean stands in [the README](../README.md).
"""
LEAST_PAIRS = 5
_TURN_S = 480.0


@dataclass(frozen=True)
class Goal:
    """What a stage is to reach; None where nothing is asked.

    Attributes:
        ratio: the peer's seconds over ours.
        seconds: ours, absolutely.
        memory_mib: our peak.
        memory_share: our peak over the peer's.
    """

    ratio: float | None = None
    seconds: float | None = None
    memory_mib: float | None = None
    memory_share: float | None = None

    def text(self) -> str:
        parts = [
            "" if self.ratio is None else f"{self.ratio:g}x",
            "" if self.seconds is None else f"< {self.seconds:g} s",
            "" if self.memory_mib is None else f"< {memory_text(self.memory_mib)}",
            "" if self.memory_share is None else f"{self.memory_share:.2g} of the memory",
        ]
        return ", ".join(part for part in parts if part) or "-"

    def missed(self, ratio: float, seconds: float, ours_mib: float, peer_mib: float) -> list[str]:
        """In words, what is not reached."""
        checks = (
            (self.ratio is None or ratio >= self.ratio, "ratio"),
            (self.seconds is None or seconds < self.seconds, "time"),
            (self.memory_mib is None or ours_mib < self.memory_mib, "memory"),
            (self.memory_share is None or ours_mib <= self.memory_share * peer_mib, "memory"),
        )
        return [word for good, word in checks if not good]


@dataclass(frozen=True)
class Command:
    """A whole process, or several one after the other (their times add up, of their memory the largest counts).

    Attributes:
        words: the command, or several.
        variables: more environment variables.
        clean: folders emptied before each run.
        outcome: where its results lie afterwards, for the comparison.
    """

    words: tuple[tuple[str | Path, ...], ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    clean: tuple[Path, ...] = ()
    outcome: Path = Path()

    def run(self) -> Measurement:
        for folder in self.clean:
            emptied(folder)
        parts = [run_command(words, self.variables) for words in self.words]
        return Measurement(
            sum(part.cpu_s for part in parts), sum(part.wall_s for part in parts), max(p.memory_mib for p in parts)
        )


@dataclass(frozen=True)
class Function:
    """A function of a worker process: ``name`` ("module:function") is called once with ``arguments`` and gives it.

    Attributes:
        fresh: a new process for every call; the first call of each is what counts.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    fresh: bool = False


Side = Command | Function


@dataclass(frozen=True)
class Pair:
    """One row.

    Attributes:
        stage: the key of the row.
        difference: given the two results (a .npy, .npz or .json file, or the outcome of the command; ours first), how
            far they are apart, in words; run once, on the first results.
        per_run: how many units one run makes, and their name: ``(60, "patches")`` gives patches a second.
        wall: compare wall time instead of CPU seconds.
        note: added to the difference, such as where the limit is.
    """

    stage: str
    peer: Side
    ours: Side
    must: Goal
    target: Goal
    difference: Callable[[Path, Path], str] | None = None
    per_run: tuple[int, str] = (1, "")
    wall: bool = False
    note: str = ""


@dataclass(frozen=True)
class Place:
    """What a stage needs to make its pairs.

    Attributes:
        work: a folder of its own for inputs and results.
        data: real images, one folder a dataset.
        peer: the interpreter of the environment nnU-Net v2 is installed in; the commands lie beside it.
        own: the interpreter of segwright's environment.
        lock: a file whose lock is waited for around every pair; None: no lock.
        pairs: how many pairs.
    """

    work: Path
    data: Path
    peer: Path
    own: Path
    lock: Path | None = None
    pairs: int = LEAST_PAIRS

    @contextlib.contextmanager
    def alone(self) -> Iterator[Callable[[], None]]:
        """Hold the lock, if there is one; gives a function that lets others have their turn after some minutes."""
        if self.lock is None:
            yield lambda: None
            return
        with self.lock.open("a") as file:

            def wait() -> float:
                fcntl.flock(file, fcntl.LOCK_EX)
                return time.monotonic()

            since_s = wait()

            def pause() -> None:
                nonlocal since_s
                if time.monotonic() - since_s > _TURN_S:
                    fcntl.flock(file, fcntl.LOCK_UN)
                    time.sleep(1)
                    since_s = wait()

            yield pause


def measured_row(pair: Pair, place: Place) -> dict[str, str]:
    """Run peer and segwright in turn and give the row of the table."""
    found: dict[str, list[Measurement]] = {"peer": [], "ours": []}
    results = {who: place.work / "outcome" / who for who in found}
    emptied(place.work / "outcome")
    with contextlib.ExitStack() as stack:
        runs = {who: _runner(getattr(pair, who), _python(place, who), results[who], stack) for who in found}
        pause = stack.enter_context(place.alone())
        for _, warm_up in runs.values():
            if warm_up is not None:
                warm_up()
        for number in range(place.pairs):
            pause()
            for who in ("ours", "peer") if number % 2 else ("peer", "ours"):
                found[who].append(runs[who][0]())
    paths = {who: _result_path(getattr(pair, who), results[who]) for who in found}
    difference = pair.difference(paths["ours"], paths["peer"]) if pair.difference else "-"
    return row_of(pair, found["peer"], found["ours"], difference, place)


def row_of(
    pair: Pair, peer: list[Measurement], ours: list[Measurement], difference: str, place: Place
) -> dict[str, str]:
    """The row of measurements made elsewhere, peer and segwright in turn."""
    seconds = {who: [m.wall_s if pair.wall else m.cpu_s for m in ms] for who, ms in (("peer", peer), ("ours", ours))}
    memory = {who: median(m.memory_mib for m in ms) for who, ms in (("peer", peer), ("ours", ours))}
    ratios = [theirs / mine for theirs, mine in zip(seconds["peer"], seconds["ours"], strict=True)]
    figures = (median(ratios), median(seconds["ours"]), memory["ours"], memory["peer"])
    share = f" ({memory['ours'] / memory['peer']:.2f})" if memory["peer"] else ""
    return {
        "stage": pair.stage,
        "peer": time_text(median(seconds["peer"]), pair.per_run, pair.wall),
        "segwright": time_text(median(seconds["ours"]), pair.per_run, pair.wall),
        "times faster": f"{median(ratios):.3g} ({min(ratios):.3g} to {max(ratios):.3g}; {len(ratios)} pairs)",
        "must": pair.must.text(),
        "target": pair.target.text(),
        "holds": holds_text(pair.must.missed(*figures), pair.target.missed(*figures)),
        "peer's memory": memory_text(memory["peer"]),
        "segwright's memory": f"{memory_text(memory['ours'])}{share}",
        "difference": "; ".join(text for text in (difference, pair.note) if text),
        **provenance(place),
    }


def provenance(place: Place) -> dict[str, str]:
    """Date, machine and versions."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine_text(),
        "versions": f"{versions_text(('numpy', 'torch'))}; {peer_versions_text(place.peer)}",
    }


def table() -> MarkdownTable:
    """The committed table; :meth:`MarkdownTable.put` replaces one row."""
    return MarkdownTable(RESULTS, HEAD, COLUMNS, key="stage")


def holds_text(must_missed: list[str], target_missed: list[str]) -> str:
    if must_missed:
        return f"**no** ({', '.join(must_missed)})"
    return "must" if target_missed else "target"


def time_text(seconds: float, per_run: tuple[int, str] = (1, ""), wall: bool = False) -> str:
    count, unit = per_run
    each = seconds / count
    text = f"{1000 * each:.3g} ms" if each < 1 else f"{each:.3g} s" if each < 100 else f"{each:.0f} s"
    return f"{text} {'wall' if wall else 'CPU'}" + (f" ({count / seconds:.3g} {unit}/s)" if unit else "")


def memory_text(mib: float) -> str:
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.2f} GiB"


def _python(place: Place, who: str) -> Path:
    return place.peer if who == "peer" else place.own


def _runner(
    side: Side, python: Path, save: Path, stack: contextlib.ExitStack
) -> tuple[Callable[[], Measurement], Callable[[], object] | None]:
    """The measured run and, for a worker that stays, a first one that is not counted and whose result is kept."""
    if isinstance(side, Command):
        return side.run, None
    if side.fresh:
        return lambda: _call_fresh(side, python, save), None
    worker = stack.enter_context(Worker(python, side.name, side.arguments, side.variables))
    return worker.call, lambda: worker.call(save)


def _call_fresh(side: Function, python: Path, save: Path) -> Measurement:
    with Worker(python, side.name, side.arguments, side.variables) as worker:
        return worker.call(None if _existing(save) else save)


def _result_path(side: Side, save: Path) -> Path:
    return side.outcome if isinstance(side, Command) else _existing(save) or save


def _existing(save: Path) -> Path | None:
    return next((path for ending in (".npy", ".npz", ".json") if (path := save.with_suffix(ending)).is_file()), None)
