"""What the workflow must know of a finished plan: its configurations and which of them feed which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from segwright.core.errors import MALFORMED, DamagedFileError, brief, named
from segwright.core.files import DELETE_FOLDER, read_json


@dataclass(frozen=True)
class PlannedConfiguration:
    """One entry of ``configurations.json``: what the workflow must know of a planned configuration.

    Attributes:
        problem: why it cannot be trained, and what to do; None if it can.
    """

    name: str
    data_id: str
    previous_stage: str | None
    next_stages: tuple[str, ...]
    problem: str | None = None


def read_configurations(plan_folder: Path | str) -> dict[str, PlannedConfiguration]:
    """Read a plan's ``configurations.json``, in plans order."""
    path = Path(plan_folder) / "configurations.json"
    record = read_json(path, DELETE_FOLDER)
    try:
        return {
            name: PlannedConfiguration(
                name=name,
                data_id=entry["data_id"],
                previous_stage=entry["previous_stage"],
                next_stages=tuple(entry["next_stages"]),
                problem=entry.get("problem"),
            )
            for name, entry in record["configurations"].items()
        }
    except MALFORMED as problem:
        raise DamagedFileError(path, f"not the overview of a plan ({brief(repr(problem))})", DELETE_FOLDER) from problem


def planned_configuration(plan: Mapping[str, PlannedConfiguration], name: str) -> PlannedConfiguration:
    """One configuration of a plan.

    Raises:
        SettingsError: it was not planned.
    """
    return named(plan, name, "planned configuration")


def previous_stages(name: str, plan: Mapping[str, PlannedConfiguration]) -> list[str]:
    """The previous stages of a configuration, nearest first; recognised by ``previous_stage``, never by name."""
    chain: list[str] = []
    previous = plan[name].previous_stage
    while previous is not None:
        chain.append(previous)
        previous = plan[previous].previous_stage
    return chain


def ancestors(names: Iterable[str], plan: Mapping[str, PlannedConfiguration]) -> set[str]:
    """The previous stages of all of them."""
    return {ancestor for name in names for ancestor in previous_stages(name, plan)}
