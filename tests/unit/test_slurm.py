"""Questions to a SLURM that is played by small scripts; tests/slurm asks a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segwright import slurm
from segwright.core.errors import SettingsError
from segwright.slurm import job_name, refusal, refused_for_good, require_accepted, site_options

NO_PARTITION = "sbatch: error: invalid partition specified: nope"


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Refuses the partition `nope`, cannot place any job with a constraint, and notes what it was asked."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    script = tmp_path / "sbatch"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncase "$*" in\n'
        f'  *--partition=nope*) echo "{NO_PARTITION}" >&2; exit 1;;\n'
        '  *--constraint=*) echo "allocation failure: Requested node configuration is not available" >&2; exit 1;;\n'
        "esac\n"
    )
    script.chmod(0o755)
    return tmp_path / "asked"


@pytest.mark.parametrize(
    ("resources", "sent"),
    [
        ({}, ()),
        ({"slurm_partition": "a,b", "gpu": 1}, ("--partition=a,b", "--gpus=1")),
        ({"slurm_account": "one, two", "gpu": 0, "gres": "gpu:1"}, ("--account=one", "--gres=gpu:1")),
        ({"slurm_account": 123, "gpu": 2, "gpu_model": "a100"}, ("--account=123", "--gpus=a100:2")),
        ({"gpu_model": "a100", "qos": "long"}, ("--qos=long", "--gpus=a100:1")),
        ({"constraint": "h100&ib", "slurm_cluster": "c"}, ("--clusters=c", "--constraint=h100&ib")),
        ({"constraint": "", "gpu": None}, ("--constraint=",)),
        ({"slurm_extra": "--nice=1 --mail-user='a b'"}, ("--nice=1", "--mail-user=a b")),
    ],
)
def test_options_are_those_of_the_executor(resources: dict[str, Any], sent: tuple[str, ...]) -> None:
    assert site_options(resources, None, None) == sent


def test_open_quotes_are_named() -> None:
    with pytest.raises(SettingsError, match=r"slurm_extra: --comment='a: No closing quotation"):
        site_options({"slurm_extra": "--comment='a"}, None, None)


def test_options_of_all_jobs_come_before_those_of_a_rule() -> None:
    assert site_options({"qos": "short"}, "long", "mine") == ("--qos=long", "--reservation=mine")


def test_same_options_are_asked_once_and_the_same_words_are_said_once(sbatch: Path) -> None:
    options = {
        "inspect": ("--partition=cpu",),
        "train": ("--partition=nope", "--gpus=1"),
        "report": ("--partition=nope",),
    }
    with pytest.raises(SettingsError) as caught:
        require_accepted({**options, "predict": options["train"]})
    message = str(caught.value)
    assert "refuses the jobs of train, predict, report:" in message and message.count(NO_PARTITION) == 1
    assert "sbatch --test-only --partition=nope --gpus=1 --wrap=true" in message
    assert len(sbatch.read_text().splitlines()) == 3
    require_accepted({"inspect": ("--partition=cpu",)})


def test_what_may_only_have_to_wait_is_not_refused(sbatch: Path) -> None:
    assert refusal(("--constraint=h100",)) is None and refusal(("--partition=nope",)) == NO_PARTITION


def test_a_question_that_cannot_be_asked_refuses_nothing(
    sbatch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "sbatch"
    script.write_text("#!/bin/sh\necho \"sbatch: unrecognized option '--test-only'\" >&2; exit 255\n")
    assert refusal(("--partition=nope",)) is None
    script.write_text("#!/bin/sh\nexec sleep 30\n")  # the controller is away
    monkeypatch.setattr(slurm, "_TIMEOUT_S", 0.2)
    assert refusal(("--partition=nope",)) is None
    script.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(("--partition=nope",)) is None and job_name("7") is None


@pytest.mark.parametrize(
    ("message", "for_good"),
    [
        (f"SLURM sbatch failed. The error message was '{NO_PARTITION}'.\n    sbatch call: timed out", True),
        ("SLURM sbatch failed. The error message was 'Requested node configuration is not available'.", True),
        ("SLURM sbatch failed. The error message was 'Please name an account (see our wiki)'.", True),
        ("Job submission failed with exception: The given account nobody appears to be invalid.", True),
        ("SLURM sbatch failed. The error message was 'Unable to contact slurm controller (connect failure)'.", False),
        ("SLURM sbatch failed. The error message was 'Socket timed out on send/recv operation'.", False),
        ("SLURM-job '7' failed, SLURM status is: 'FAILED'.", False),
        ("", False),
    ],
)
def test_submissions_are_repeated_only_where_that_may_help(message: str, for_good: bool) -> None:
    assert refused_for_good(message) is for_good
