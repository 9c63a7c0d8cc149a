"""Inspection of a whole dataset in one process: what the workflow does in several jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from segwright.core.dataset import cases_by_batch, load_dataset
from segwright.inspection.batch import inspect_cases, reader_of
from segwright.inspection.batch_number import record_batches
from segwright.inspection.case import Expectations
from segwright.inspection.checks import collect_checks, require_valid, write_checks
from segwright.inspection.fingerprint import build_fingerprint, write_fingerprint
from segwright.inspection.records import Batch, CaseRecord, write_batch
from segwright.inspection.store import remove_stale


def inspect_dataset(folder: Path, output: Path, workers: int = 1, batches: int = 32) -> Path:
    """Inspect a whole dataset without Snakemake: batches, checks.json, checks.tsv, dataset_fingerprint.json.

    Returns:
        path of the fingerprint.

    Raises:
        DatasetError: dataset.json cannot be used, or the data has errors; the tables are written nevertheless.
        SettingsError: ``output`` was made with another number of batches.
    """
    output = Path(output)
    dataset = load_dataset(folder)
    reader = reader_of(dataset)
    record_batches(output, batches)
    files: dict[bool, list[Path]] = {}
    for test, cases, place in ((False, dataset.training, output / "inspection"), (True, dataset.test, output / "test")):
        records = inspect_cases(cases, Expectations.of(dataset, reader, test=test), place, workers)
        remove_stale(place, records, records)
        files[test] = _write_batches(place, reader, test, records, batches)
    checks = collect_checks(files[False], dataset, files[True])
    write_checks(checks, output / "checks.json", output / "checks.tsv")
    require_valid(checks)
    write_fingerprint(output / "dataset_fingerprint.json", build_fingerprint(files[False], output / "inspection"))
    return output / "dataset_fingerprint.json"


def _write_batches(
    folder: Path, reader: str, test: bool, records: Mapping[str, CaseRecord], batches: int
) -> list[Path]:
    written = []
    for name, case_ids in cases_by_batch(records, batches).items():
        written.append(folder / f"{name}.json")
        write_batch(written[-1], Batch(name, reader, test, {case_id: records[case_id] for case_id in case_ids}))
    for stale in set(folder.glob("batch_*.json")) - set(written):
        stale.unlink()
    return written
