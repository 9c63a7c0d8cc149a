"""Failed jobs, from the logs the workflow's scripts write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segwright.core.configfile import load_settings
from segwright.core.files import write_json, write_text
from segwright.failures import failure_lines, failures

OK = "2026-01-31 10:00:00,123 INFO 3 of 3 cases are there already\n"
FAILED = "2026-01-31 10:00:01,456 ERROR Dataset001_X: 2 errors in the data\n  a: labelsTr/a.nii.gz: missing\n  b: bad\n"
BUG = (
    "2026-01-31 10:00:01,456 ERROR plan failed\nTraceback (most recent call last):\n"
    '  File "x.py", line 1, in <module>\nKeyError: 1\n'
)
STOPPED = "2026-01-31 10:00:01,456 ERROR 2d, fold 0: interrupted (SIGTERM); start again to go on\n"


def log(results: Path, name: str, text: str, age_s: float = 0) -> Path:
    path = results / "logs" / "Dataset001_X" / f"{name}.log"
    write_text(path, text)
    then = path.stat().st_mtime - age_s
    os.utime(path, (then, then))
    return path


def test_the_message_of_a_failed_job(tmp_path: Path) -> None:
    path = log(tmp_path, "require_valid_dataset", OK + FAILED)
    (failure,) = failures(tmp_path)
    assert (failure.dataset, failure.job, failure.log) == ("Dataset001_X", "require_valid_dataset", path)
    assert failure.message.splitlines() == [
        "Dataset001_X: 2 errors in the data", "  a: labelsTr/a.nii.gz: missing", "  b: bad",
    ]  # fmt: skip
    lines = list(failure_lines(tmp_path))
    assert lines[0] == "FAILED Dataset001_X, require_valid_dataset: Dataset001_X: 2 errors in the data"
    assert lines[-1] == f"  log: {path}"


def test_a_bug_is_told_by_its_last_line(tmp_path: Path) -> None:
    log(tmp_path, "plan/default", BUG)
    (failure,) = failures(tmp_path)
    assert (failure.job, failure.message) == ("plan default", "plan failed (KeyError: 1)")


def test_long_messages_are_cut(tmp_path: Path) -> None:
    log(tmp_path, "split", FAILED + "  c: bad\n" * 20)
    lines = list(failure_lines(tmp_path))
    assert len(lines) == 7 and lines[-2] == "  ... and 18 more lines"


@pytest.mark.parametrize("text", ["", OK, FAILED + OK, BUG + OK, "nothing of ours\n", "\xff"])
def test_logs_that_do_not_end_with_an_error(tmp_path: Path, text: str) -> None:
    log(tmp_path, "fingerprint", text)
    assert failures(tmp_path) == []


@pytest.mark.parametrize(
    ("job", "product"),
    [
        ("inspect_batch/batch_0", "benchmarks/Dataset001_X/inspect_batch/batch_0.tsv"),
        ("fingerprint", "benchmarks/Dataset001_X/fingerprint.tsv"),
        ("plan/default", "Dataset001_X/default/plan/plans.json"),
        ("split", "Dataset001_X/data/splits/splits.json"),
        ("select_best/default", "Dataset001_X/default/selection/selection.json"),
        ("index_preprocessed/2d-aa", "Dataset001_X/data/preprocessed/2d-aa/index.json"),
        ("collect_next_stage/default/3d_lowres", "Dataset001_X/default/3d_lowres/next_stage.json"),
    ],
)
def test_a_job_that_succeeded_since_without_a_word(tmp_path: Path, job: str, product: str) -> None:
    path = log(tmp_path, job, FAILED, age_s=100)
    assert len(failures(tmp_path)) == 1
    write_text(tmp_path / product, "")
    assert failures(tmp_path) == []
    os.utime(path)  # failed again since
    os.utime(tmp_path / product, (0, 0))
    assert len(failures(tmp_path)) == 1


def test_a_training_is_left_to_its_own_record(tmp_path: Path) -> None:
    """An interruption is written as an error into the log, but is none; its record knows."""
    log(tmp_path, "train_fold/default/2d/fold_0", STOPPED)
    assert len(failures(tmp_path)) == 1
    state = tmp_path / "Dataset001_X/default/2d/fold_0/state"
    cause = "2d, fold 0: interrupted (SIGTERM); start again to go on"
    write_json(state / "attempts.json", [{"ended": "interrupted", "cause": cause}])
    assert failures(tmp_path) == []
    write_json(
        state / "attempts.json", [{"ended": "interrupted", "cause": cause}, {"ended": "error", "cause": "other"}]
    )
    assert len(failures(tmp_path)) == 1
    for odd in ({}, 3, None, [3], [{"cause": 3}]):
        write_json(state / "attempts.json", odd)
        assert len(failures(tmp_path)) == 1


@pytest.mark.parametrize(
    ("job", "made"),
    [
        ("inspect_batch/batch_7", "data/dataset_fingerprint.json"),
        ("preprocess_batch/2d-aa/batch_7", "data/preprocessed/2d-aa/index.json"),
        ("train_fold/default/2d/fold_4", "default/selection/selection.json"),
        ("predict_fold/default/2d/fold_4", "default/selection/selection.json"),
        ("evaluate_ensemble/default/2d+3d_fullres", "default/selection/selection.json"),
    ],
)
def test_a_job_that_others_went_on_without(tmp_path: Path, job: str, made: str) -> None:
    path = log(tmp_path, job, FAILED, age_s=100)
    for other in ("2d-aa", "default"):
        write_text(tmp_path / "Dataset001_X/other" / made.replace(other, "another"), "")
    assert len(failures(tmp_path)) == 1
    write_text(tmp_path / "Dataset001_X" / made, "")
    assert failures(tmp_path) == []
    os.utime(path)
    os.utime(tmp_path / "Dataset001_X" / made, (0, 0))
    assert len(failures(tmp_path)) == 1


def test_folds_and_configurations_that_are_no_longer_planned(tmp_path: Path) -> None:
    for job in ("train_fold/default/2d/fold_1", "train_fold/default/2d/fold_2", "predict_fold/default/3d/fold_all"):
        log(tmp_path, job, FAILED)
    assert [failure.job.split(" ", 1)[1] for failure in failures(tmp_path)] == [
        "default 3d fold_all", "default 2d fold_1", "default 2d fold_2",
    ]  # fmt: skip
    dataset = tmp_path / "Dataset001_X"
    write_json(dataset / "data/splits/splits.json", [{}, {}])
    assert [failure.job for failure in failures(tmp_path)] == [
        "predict_fold default 3d fold_all", "train_fold default 2d fold_1",
    ]  # fmt: skip
    write_json(dataset / "default/plan/configurations.json", {"configurations": {"2d": {}}})
    assert [failure.job for failure in failures(tmp_path)] == ["train_fold default 2d fold_1"]
    for odd in (3, None, {}, {"configurations": 3}):
        write_json(dataset / "data/splits/splits.json", odd)
        write_json(dataset / "default/plan/configurations.json", odd)
        assert len(failures(tmp_path)) == 3


def test_datasets_and_pipelines_that_are_no_longer_configured(tmp_path: Path) -> None:
    for job in ("plan/default", "plan/gone", "split", "preprocess_batch/gone/batch_0"):
        log(tmp_path, job, FAILED)
    assert len(failures(tmp_path)) == 4
    settings = load_settings({"datasets": {"Dataset001_X": {"path": "x"}}})
    assert [failure.job for failure in failures(tmp_path, settings)] == [
        "plan default", "preprocess_batch gone batch_0", "split",
    ]  # fmt: skip
    assert failures(tmp_path, load_settings({"datasets": {"Dataset002_Y": {"path": "x"}}})) == []


def test_what_slurm_kept_of_an_attempt_is_no_job(tmp_path: Path) -> None:
    """`slurm` is no dataset there, but may be one."""
    slurm = tmp_path / "logs" / "slurm"
    write_text(slurm / "rule_train_fold" / "Dataset001_X_default_2d_0" / "17.log", STOPPED)
    write_text(slurm / "rule_train_fold" / "18_1.log", STOPPED)
    write_text(slurm / "group_plan" / "x" / "19.log", STOPPED)
    assert failures(tmp_path) == []
    write_text(slurm / "plan" / "default.log", FAILED)
    assert [(failure.dataset, failure.job) for failure in failures(tmp_path)] == [("slurm", "plan default")]


def test_only_the_end_of_a_large_log_is_read(tmp_path: Path) -> None:
    log(tmp_path, "fingerprint", OK * 5000 + FAILED)
    assert len(failures(tmp_path)) == 1


def test_no_logs_no_failures(tmp_path: Path) -> None:
    assert failures(tmp_path) == []
    write_text(tmp_path / "logs" / "stray.log", FAILED)
    assert failures(tmp_path) == []
