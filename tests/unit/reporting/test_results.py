"""Reading results: benchmark files in any state, histories with gaps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.reporting.conftest import Finished, write_training

from segwright.core.errors import DamagedFileError
from segwright.core.files import write_json, write_text
from segwright.reporting.results import FoldHistory, ResultFiles, job_times, read_results

HEAD = "s\th:m:s\tmax_rss\tmax_vms\n"


def test_benchmarks_are_summed_by_rule_in_the_order_of_the_stages(tmp_path: Path) -> None:
    root, folder = tmp_path / "dataset" / "mine", tmp_path / "benchmarks"
    write_json(root / "plan" / "configurations.json", {"configurations": {"2d": {"data_id": "2d-aa"}}})
    write_json(tmp_path / "dataset" / "other" / "plan" / "configurations.json", {})
    files = {
        "train_fold/mine/2d/fold_0": "60\t0:01:00\t500\t1\n",
        "train_fold/mine/2d/fold_1": "30\t0:00:30\t-\t-\n",  # too short to be measured
        "train_fold/other/2d/fold_0": "600\t0:10:00\t9000\t1\n",
        "preprocess_batch/2d-aa/batch_0": "6\t0:00:06\t100\t1\n",
        "preprocess_batch/2d-bb/batch_0": "600\t0:10:00\t100\t1\n",  # a store of another pipeline
        "inspect_batch/batch_0": "3\t0:00:03\t50\t1\n9\t0:00:09\t60\t1\n",  # run twice
        "my_rule/mine": "NA\tNA\tNA\tNA\n",
        "report/other": "60\t0:01:00\t1\t1\n",
    }
    for name, content in files.items():
        write_text(folder / f"{name}.tsv", HEAD + content)
    made = [(time.rule, time.jobs, round(time.runtime_min, 3), time.peak_memory_mb) for time in job_times(folder, root)]
    assert made == [
        ("inspect_batch", 1, 0.2, 60.0),
        ("preprocess_batch", 1, 0.1, 100.0),
        ("train_fold", 2, 1.5, 500.0),
        ("my_rule", 1, 0.0, 0.0),
    ]


def test_a_fold_without_history_has_no_duration() -> None:
    assert FoldHistory("2d", "0", (), {}).duration_s == 0
    assert FoldHistory("2d", "0", (), {}).attempts == 1
    epochs = ({"epoch": 0, "duration_s": 2.5, "attempt": 1}, {"epoch": 1, "duration_s": None, "attempt": 3})
    assert (FoldHistory("2d", "0", epochs, {}).duration_s, FoldHistory("2d", "0", epochs, {}).attempts) == (2.5, 3)


def test_results_are_typed_and_ordered(finished: Finished) -> None:
    results = read_results(finished.files)
    assert list(results.summaries) == ["2d", "3d_fullres"] and results.job_times == ()
    assert [(h.configuration, h.fold, len(h.epochs)) for h in results.histories] == [
        ("2d", "0", 3), ("2d", "1", 3), ("3d_fullres", "0", 3), ("3d_fullres", "1", 3),
    ]  # fmt: skip


def test_what_an_earlier_run_left_is_no_part_of_the_results(make: Callable[..., Finished]) -> None:
    """More folds, another configuration, test images that are gone; and a summary nobody selected from."""
    run = make(shifts={"2d": 1})
    files = replace(run.files, final=None)
    write_training(run.root / "2d" / "fold_2", "2d", "2")
    write_training(run.root / "3d_fullres" / "fold_0", "3d_fullres", "0")
    shutil.copytree(run.root / "2d" / "crossval", run.root / "3d_fullres" / "crossval")
    results = read_results(files)
    assert [(history.configuration, history.fold) for history in results.histories] == [("2d", "0"), ("2d", "1")]
    assert list(results.summaries) == list(results.summary_files) == ["2d"]
    assert (run.root / "final" / "manifest.json").is_file() and results.final_manifest is None


def test_missing_results_are_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match=r"selection\.json: the file does not exist"):
        read_results(ResultFiles(tmp_path, tmp_path, [], {}, None))
