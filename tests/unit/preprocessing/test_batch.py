"""A batch into the store: contents, re-use, staleness, damage, errors, killed workers, any number of workers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright.core.dataset import Dataset, load_dataset
from segwright.core.errors import DamagedFileError, DatasetError
from segwright.core.files import file_digest, read_json, write_json
from segwright.core.slices import PreprocessPlan
from segwright.images.readers import read_image, read_label
from segwright.preprocessing import batch as batch_module
from segwright.preprocessing.batch import Target, preprocess_batch, preprocess_for_targets, write_index
from segwright.preprocessing.case import preprocess_case
from segwright.preprocessing.store import PreprocessedStore

MakePlan = Callable[..., PreprocessPlan]


class Store:
    """One dataset, one plan, one output folder."""

    def __init__(self, dataset: Dataset, plan: PreprocessPlan, folder: Path, name: str = "batch_0") -> None:
        self.dataset, self.plan, self.folder = dataset, plan, folder
        self.inspection = folder / "inspection" / f"{name}.json"
        self.output, self.cases = folder / "store" / f"{name}.json", folder / "store" / "cases"
        self.inspect([case.case_id for case in dataset.training])

    def inspect(self, case_ids: list[str]) -> None:
        """What inspection would record: the digests of the raw files."""
        cases = {}
        for case_id in case_ids:
            case = self.dataset.training_case(case_id)
            files = [*case.image_files, *([case.label_file] if case.label_file else [])]
            cases[case_id] = {"digest": "".join(file_digest(file) for file in files), "geometry": None}
        write_json(self.inspection, {"version": 1, "batch": "batch_0", "reader": "SimpleITKIO", "cases": cases})

    def run(self, workers: int = 1) -> dict[str, Any]:
        self.output.unlink(missing_ok=True)  # as Snakemake does
        preprocess_batch(self.dataset, self.inspection, self.plan, self.output, self.cases, workers)
        return read_json(self.output)

    def files(self) -> dict[str, float]:
        return {path.name: path.stat().st_mtime_ns for path in self.cases.glob("*.safetensors")}


@pytest.fixture
def store(dataset: Dataset, make_plan: MakePlan, tmp_path: Path) -> Store:
    return Store(dataset, make_plan(spacing_mm=(1.5, 1.0, 1.2)), tmp_path)


def test_output_says_where_the_cases_are(store: Store) -> None:
    result = store.run()
    assert result["data_id"] == store.plan.data_id
    assert result["batch"] == "batch_0"
    assert list(result["cases"]) == ["case.0", "case.1", "case.2"]
    for case_id, entry in result["cases"].items():
        assert entry["file"] == f"cases/{case_id}.{entry['inputs'][:12]}.safetensors"
        assert file_digest(store.output.parent / entry["file"]) == entry["content"]
    write_index([store.output], store.output.parent / "index.json")
    opened = PreprocessedStore(store.output.parent)
    assert opened.case_ids == ("case.0", "case.1", "case.2")
    assert opened.data_id == store.plan.data_id
    assert opened.file("case.1").digest == result["cases"]["case.1"]["content"]
    case = store.dataset.training_case("case.1")
    assert case.label_file is not None
    expected = preprocess_case(
        read_image(case.image_files, "SimpleITKIO"), read_label(case.label_file, "SimpleITKIO"), store.plan
    )
    stored = opened.open("case.1")
    assert np.array_equal(stored.image_czyx, expected.image_czyx)
    assert stored.label_zyx is not None
    assert np.array_equal(stored.label_zyx, expected.label_zyx)
    assert PreprocessedStore(store.output.parent / "index.json").file("case.1") == opened.file("case.1")


def test_second_run_makes_nothing_and_gives_the_same_bytes(store: Store) -> None:
    store.run()
    before, content = store.files(), store.output.read_bytes()
    store.run()
    assert store.files() == before
    assert store.output.read_bytes() == content


def test_one_corrected_case_is_made_again_and_its_old_file_removed(store: Store) -> None:
    store.run()
    before = store.files()
    shutil.copy(
        store.dataset.folder / "labelsTr" / "case.0.nii.gz", store.dataset.folder / "labelsTr" / "case.1.nii.gz"
    )
    shutil.copy(
        store.dataset.folder / "imagesTr" / "case.0_0000.nii.gz",
        store.dataset.folder / "imagesTr" / "case.1_0000.nii.gz",
    )
    store.inspect(["case.0", "case.1", "case.2"])
    store.run()
    after = store.files()
    kept = before.keys() & after.keys()
    assert {name[:6] for name in kept} == {"case.0", "case.2"}
    assert all(before[name] == after[name] for name in kept)
    assert len(after) == 3


def test_a_changed_plan_makes_everything_again(store: Store, make_plan: MakePlan) -> None:
    first = store.run()
    store.plan = make_plan(spacing_mm=(1.5, 1.0, 1.3))
    second = store.run()
    for case_id in first["cases"]:
        assert first["cases"][case_id]["inputs"] != second["cases"][case_id]["inputs"]
    assert len(store.files()) == 3


def test_altered_content_is_noticed_and_mended(store: Store) -> None:
    first = store.run()
    path = store.output.parent / first["cases"]["case.2"]["file"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert store.run() == first
    assert file_digest(path) == first["cases"]["case.2"]["content"]


def test_leftovers_and_cases_that_left_the_dataset_are_removed_but_not_other_batches(store: Store) -> None:
    store.run()
    other = Store(store.dataset, store.plan, store.folder, "batch_1")
    other.inspect(["case.2"])
    store.inspect(["case.0", "case.1"])
    unfinished = store.cases / ".part-0123456789ab-case.0.aaaaaaaaaaaa.safetensors"
    foreign = store.cases / ".part-0123456789ab-case.2.aaaaaaaaaaaa.safetensors"
    departed = store.cases / "departed.aaaaaaaaaaaa.safetensors"
    for path in (unfinished, foreign, departed):
        path.write_bytes(b"x")
    store.run()
    assert not unfinished.exists()
    assert not departed.exists()
    assert foreign.exists(), "the other batch may be writing it"
    assert sum(name.startswith("case.2.") for name in store.files()) == 1
    other.run()
    assert not foreign.exists()


def test_a_damaged_journal_costs_only_time(store: Store) -> None:
    first = store.run()
    journal = store.cases / "batch_0.journal.json"
    for text in ("{", "[1]", '{"case.0": 3}'):
        journal.write_text(text)
        assert store.run() == first


def test_bad_cases_are_named_together_and_the_good_ones_kept(store: Store) -> None:
    (store.dataset.folder / "imagesTr" / "case.1_0000.nii.gz").write_bytes(b"no image")
    (store.dataset.folder / "labelsTr" / "case.2.nii.gz").unlink()
    store.dataset = load_dataset(store.dataset.folder)
    with pytest.raises(DatasetError) as caught:
        store.run()
    message = str(caught.value)
    assert "case case.1: " in message
    assert "case.1_0000.nii.gz" in message
    assert "case case.2: its label map is missing" in message
    assert not store.output.exists()
    assert [name[:6] for name in store.files()] == ["case.0"]
    before = store.files()
    with pytest.raises(DatasetError):
        store.run()
    assert store.files() == before


def test_two_targets_read_each_image_once_and_get_the_bytes_of_two_runs(
    store: Store, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Store(store.dataset, make_plan(spacing_mm=(1.5, 1.0, 1.3)), store.folder / "other")
    alone = [one.run() for one in (store, other)]
    shutil.rmtree(store.cases)
    (other.output.parent / alone[1]["cases"]["case.1"]["file"]).unlink()
    read: list[str] = []

    def counted(files: tuple[Path, ...], reader: str) -> Any:
        read.append(files[0].name[:6])
        return read_image(files, reader)

    monkeypatch.setattr(batch_module, "read_image", counted)
    targets = [Target(one.plan, one.output, one.cases) for one in (store, other)]
    preprocess_for_targets(store.dataset, store.inspection, targets)
    assert [read_json(one.output) for one in (store, other)] == alone
    assert read == ["case.0", "case.1", "case.2"]
    for one, result in zip((store, other), alone, strict=True):
        for entry in result["cases"].values():
            assert file_digest(one.output.parent / entry["file"]) == entry["content"]


def test_a_bad_case_is_named_once_for_two_targets(store: Store, make_plan: MakePlan) -> None:
    other = Store(store.dataset, make_plan(spacing_mm=(1.5, 1.0, 1.3)), store.folder / "other")
    (store.dataset.folder / "imagesTr" / "case.1_0000.nii.gz").write_bytes(b"no image")
    targets = [Target(one.plan, one.output, one.cases) for one in (store, other)]
    with pytest.raises(DatasetError) as caught:
        preprocess_for_targets(store.dataset, store.inspection, targets)
    assert str(caught.value).count("case case.1: ") == 1
    assert [sorted(name[:6] for name in one.files()) for one in (store, other)] == [["case.0", "case.2"]] * 2


def test_bugs_keep_their_type_and_get_the_name_of_the_case(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(batch_module, "preprocess_case", broken)
    with pytest.raises(ZeroDivisionError) as caught:
        store.run()
    assert caught.value.__notes__ == ["while preprocessing case case.0"]


def test_unknown_cases_and_unsafe_names_are_refused(store: Store) -> None:
    write_json(store.inspection, {"cases": {"nobody": {"digest": "x"}}})
    with pytest.raises(DatasetError, match="nobody"):
        store.run()
    with pytest.raises(DatasetError, match="cannot be a file name"):
        batch_module._file_name("../x", "0" * 64)
    write_json(store.inspection, {"nothing": 1})
    with pytest.raises(DamagedFileError, match="not an inspection file"):
        store.run()


SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import segwright.preprocessing.batch as batch
from segwright.core.dataset import load_dataset
from segwright.core.slices import PreprocessPlan

arguments = json.loads(Path(sys.argv[1]).read_text())
if arguments["sabotage"]:
    original = batch.preprocess_case
    def preprocess_case(*args):
        if arguments["sabotage"] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ZeroDivisionError("oops")
    batch.preprocess_case = preprocess_case  # runs again in every spawned worker, which imports this script

if __name__ == "__main__":
    batch.preprocess_batch(
        load_dataset(arguments["dataset"]), Path(arguments["inspection"]), PreprocessPlan.from_json(arguments["plan"]),
        Path(arguments["output"]), Path(arguments["cases"]), workers=2,
    )
"""


def run_script(store: Store, tmp_path: Path, sabotage: str = "") -> subprocess.CompletedProcess[str]:
    (tmp_path / "job.py").write_text(SCRIPT)
    arguments = {
        "dataset": str(store.dataset.folder),
        "inspection": str(store.inspection),
        "plan": store.plan.to_json(),
        "output": str(store.output),
        "cases": str(store.cases),
        "sabotage": sabotage,
    }
    (tmp_path / "arguments.json").write_text(json.dumps(arguments))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(tmp_path / "job.py"), str(tmp_path / "arguments.json")]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


def test_two_workers_from_a_script_give_the_same_bytes(store: Store, tmp_path: Path) -> None:
    store.run()
    content = store.output.read_bytes()
    shutil.rmtree(store.output.parent)
    done = run_script(store, tmp_path)
    assert done.returncode == 0, done.stderr
    assert store.output.read_bytes() == content


def test_a_killed_worker_is_reported_with_the_cases_at_work(store: Store, tmp_path: Path) -> None:
    done = run_script(store, tmp_path, "kill")
    assert done.returncode == 1
    assert "a worker process was killed while cases were preprocessed (at work: case.0, case.1)" in done.stderr
    assert not store.output.exists()


def test_a_workers_bug_reaches_the_parent_with_cause_and_case(store: Store, tmp_path: Path) -> None:
    done = run_script(store, tmp_path, "bug")
    assert done.returncode == 1
    assert "ZeroDivisionError: oops" in done.stderr
    assert "while preprocessing case case." in done.stderr
    assert 'raise ZeroDivisionError("oops")' in done.stderr, "the worker's own traceback"


def test_index_needs_one_store_and_unique_cases(store: Store, tmp_path: Path) -> None:
    store.run()
    other = tmp_path / "other" / "batch_1.json"
    write_json(other, {**read_json(store.output), "batch": "batch_1"})
    with pytest.raises(DatasetError, match=r"case case\.0 is also in batch_0"):
        write_index([store.output, other], tmp_path / "index.json")
    write_json(other, {"data_id": "another", "cases": {}})
    with pytest.raises(DatasetError, match="exactly one data_id"):
        write_index([store.output, other], tmp_path / "index.json")
    write_json(other, {"cases": {}})
    with pytest.raises(DamagedFileError, match=r"batch_1\.json"):
        write_index([other], tmp_path / "index.json")


def test_a_store_that_does_not_fit_together_is_refused(store: Store) -> None:
    store.run()
    folder = store.output.parent
    write_index([store.output], folder / "index.json")
    with pytest.raises(DamagedFileError, match="case nobody"):
        PreprocessedStore(folder).open("nobody")
    content = read_json(store.output)
    index = read_json(folder / "index.json")
    content["cases"]["case.0"]["file"] = "cases/../../secret"
    write_json(store.output, content)
    with pytest.raises(DamagedFileError, match="not the one the index was made for"):
        PreprocessedStore(folder)
    write_index([store.output], folder / "index.json")
    with pytest.raises(DamagedFileError, match="not a file name"):
        PreprocessedStore(folder)
    write_json(folder / "index.json", {**index, "batches": {"../batch_0": "x"}})
    with pytest.raises(DamagedFileError, match="not a file name"):
        PreprocessedStore(folder)
