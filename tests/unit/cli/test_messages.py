"""Help, exit codes and how messages look."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from segwright import cli
from segwright.cli_arguments import make_parser
from segwright.core.errors import InterruptedForRetry
from tests.unit.cli.conftest import Project, Run, plan_arguments

COMMANDS = (
    "inspect", "plan", "preprocess", "train", "predict", "evaluate", "ensemble", "postprocess", "import-model",
    "export-model", "convert", "phantom", "status",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_parses(command: str, run: Run) -> None:
    said = run(command, "--help")
    assert said.code == 0
    (example,) = [line.strip() for line in said.out.splitlines() if line.startswith("  segwright ")]
    name, *arguments = example.split()
    assert name == "segwright" and make_parser().parse_args(arguments).command == command
    assert "--debug" in said.out


def test_help_lists_every_command_and_the_version_is_known(run: Run) -> None:
    said = run("--help")
    assert said.code == 0 and all(f"\n    {command}" in said.out for command in COMMANDS)
    assert set(cli._COMMANDS) == set(COMMANDS)
    from segwright import __version__

    assert run("--version").out == f"segwright {__version__}\n"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InterruptedForRetry("saved; start again"), 75, "error: saved; start again\n"),
        (KeyboardInterrupt(), 130, "error: interrupted; start the same command again to go on\n"),
        (MemoryError(), 2, "error: there is not enough memory; free some, or use fewer --workers\n"),
        (OSError(28, "No space left on device", "/disk/x"), 2, "error: /disk/x: no space left on device; correct the"),
        (OSError("odd"), 2, "error: odd; correct the"),
    ],
)
def test_exit_codes(error: BaseException, code: int, message: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(options: object) -> None:
        raise error

    monkeypatch.setitem(cli._COMMANDS, "status", fail)  # type: ignore[arg-type]
    said = run("status")
    assert said.code == code and said.err.startswith(message)
    with pytest.raises(type(error)):
        cli.main(["status", "--debug"])


def test_a_bug_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli._COMMANDS, "status", lambda options: {}["bug"])  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        run("status")


def test_warnings_are_marked_and_logging_is_left_as_it_was(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    library = logging.getLogger("segwright")
    before = (library.level, library.propagate, list(library.handlers))

    def speak(options: object) -> None:
        logging.getLogger("segwright.somewhere").info("plain")
        logging.getLogger("segwright.somewhere").warning("careful")
        logging.getLogger("segwright.somewhere").debug("unheard")

    monkeypatch.setitem(cli._COMMANDS, "status", speak)  # type: ignore[arg-type]
    assert run("status").err == "plain\nwarning: careful\n"
    assert (library.level, library.propagate, list(library.handlers)) == before


def test_planning_and_help_load_neither_torch_nor_image_libraries(project: Project, tmp_path: Path) -> None:
    """What makes `segwright plan` answer in less than half a second, checked without a clock."""
    code = "import sys; from segwright.cli import main; assert main(sys.argv[1:]) == 0; print(*sys.modules)"
    arguments = [str(argument) for argument in plan_arguments(project, tmp_path / "plan")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"torch", "SimpleITK", "scipy", "pandas", "matplotlib", "rich", "tifffile"})


def test_the_json_form_of_messages_is_not_broken_by_the_prefix(run: Run, tmp_path: Path) -> None:
    """A message of several lines stays as it is; only its first line carries the prefix."""
    raw = tmp_path / "Dataset001_X"
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    (raw / "imagesTr/a_0000.nii.gz").write_bytes(b"x")
    facts = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1}, "numTraining": 1}
    (raw / "dataset.json").write_text(json.dumps({**facts, "file_ending": ".nii.gz"}))
    said = run("inspect", "--dataset", raw, "--output", tmp_path / "o")
    lines = said.err[said.err.index("error: ") :].splitlines()
    assert said.code == 2 and len(lines) >= 2 and all(line.startswith("  a: ") for line in lines[1:])


def test_the_package_is_the_command() -> None:
    arguments = ["plan", "--fingerprint", "/nowhere", "--dataset-json", "/x", "--output", "/y"]
    done = subprocess.run([sys.executable, "-m", "segwright", *arguments], capture_output=True, text=True, check=False)
    assert (
        done.returncode == 2
        and done.stderr.startswith("error: /x: the file does not exist")
        and "Traceback" not in done.stderr
    )
