"""House rules a machine can check: import order of the rooms, no torch where none is needed, nothing unsafe."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "segwright"

ROOMS = (
    "core", "slurm", "images", "conversion", "phantom", "inspection", "case_table", "splits", "planning",
    "preprocessing", "networks", "training", "inference", "evaluation", "selection", "sharing", "reporting",
    "batches", "plain_paths", "ready_folds", "held_out", "planned", "experiment", "resources", "failures", "status",
    "cli_options", "cli_arguments", "cli_inputs", "cli_messages", "cli", "__main__",
)  # fmt: skip
"""In the order in which data flows: a room imports from itself, core, images and rooms before it."""

TORCH_ROOMS = {"networks", "training", "inference"}
UNSAFE = re.compile(
    r"weights_only=False|allow_pickle=True|\bpickle\.|yaml\.load\(|shell=True|(?<![\w.])eval\(|(?<![\w.])exec\(|extractall\("
    r"|import_module\(|__import__\("
)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        rooms.update(name.split(".")[1] for name in names if name.startswith("segwright."))
    return rooms


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_what_stands_before_them(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    assert imported_rooms(path) <= allowed


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_knows_no_snakemake_and_nothing_unsafe(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"^\s*(import|from) snakemake", text, re.MULTILINE)
    assert not UNSAFE.search(text), UNSAFE.search(text)


def test_the_architecture_page_names_every_room_in_order_and_no_file_that_is_not_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", page, re.MULTILINE)
    assert named == [room for room in ROOMS if room in named]
    missing = [room for room in ROOMS if f"`{room}/`" not in page and f"`{room}.py`" not in page]
    assert all(room.startswith(("cli_", "__")) for room in missing), missing
    files = [f"/{path.relative_to(ROOT)}" for folder in ("src", "workflow") for path in (ROOT / folder).rglob("*.*")]
    for name in set(re.findall(r"[\w/]+\.(?:py|smk)\b", page)) - {"my_losses.py"}:
        assert any(file.endswith(f"/{name}") for file in files), name


def test_rooms_without_networks_start_without_torch() -> None:
    """Start-up costs four times as much with torch; a stage that needs no network must not pay it."""
    names = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in modules()
        if room_of(path) not in TORCH_ROOMS
    ]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "name",
    [
        "inference.export",
        "inference.probabilities",
        "inference.next_stage",
        "training.lease",
        "training.machine",
        "training.previous_stage",
    ],
)
def test_light_modules_of_torch_rooms_start_without_torch(name: str) -> None:
    code = f"import sys, segwright.{name}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def scripts() -> list[Path]:
    return sorted(path for path in (ROOT / "workflow" / "scripts").glob("*.py") if path.name != "_job.py")


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.name)
def test_scripts_are_thin(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 40
    assert 'if __name__ == "__main__":' in text and "def main(snakemake):" in text
    assert "snakemake.config" not in text


def test_every_rule_has_its_script_and_every_script_its_rule() -> None:
    named = {
        name
        for path in (ROOT / "workflow" / "rules").glob("*.smk")
        for name in re.findall(r'"\.\./scripts/(\w+)\.py"', path.read_text())
    }
    assert named == {path.stem for path in scripts()}
