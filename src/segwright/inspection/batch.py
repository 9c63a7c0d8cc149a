"""Inspection of a batch of cases: the job between raw files and ``inspection/{batch}.json``."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from segwright.core.dataset import Case, Dataset
from segwright.core.errors import DatasetError
from segwright.core.progress import progress
from segwright.images.readers import choose_reader
from segwright.inspection.case import Expectations, inspect_case
from segwright.inspection.records import Batch, CaseRecord, write_batch
from segwright.inspection.store import remove_stale


def inspect_batch(
    dataset: Dataset,
    case_ids: Sequence[str],
    output: Path,
    store: Path,
    *,
    test: bool = False,
    workers: int = 1,
) -> None:
    """Inspect the cases of one batch and write their records to ``output`` (see ``records.py``).

    A bad case never raises: what is wrong becomes problems in its record. Records of unchanged files are taken from
    ``store/values``; side files of these cases that are out of date are removed.

    Args:
        dataset: where the cases lie.
        case_ids: training cases, or test cases with ``test``.
        output: JSON file; its stem is the batch's name.
        store: folder of the side files, e.g. the folder of ``output``.
        workers: processes; only worth their start-up (0.5 CPU seconds each) for large images.

    Raises:
        DatasetError: the dataset has no such case, no reader knows its file ending, or a worker process died.
    """
    known = {case.case_id: case for case in (dataset.test if test else dataset.training)}
    missing = sorted(set(case_ids) - known.keys())
    if missing:
        raise DatasetError(f"{dataset.folder}: there is no {'test' if test else 'training'} case {missing[0]}")
    reader = reader_of(dataset)
    expected = Expectations.of(dataset, reader, test=test)
    records = inspect_cases([known[case_id] for case_id in sorted(case_ids)], expected, store, workers)
    write_batch(output, Batch(output.stem, reader, test, records))
    remove_stale(store, known, records)


def inspect_cases(
    cases: Sequence[Case], expected: Expectations, store: Path, workers: int = 1
) -> dict[str, CaseRecord]:
    """Records of cases, in the order given.

    Raises:
        DatasetError: a worker process died, most likely for lack of memory; names the cases that were not finished.
    """
    records: dict[str, CaseRecord] = {}
    with progress("inspect", len(cases)) as bar:
        if workers <= 1 or len(cases) <= 1:
            for case in cases:
                records[case.case_id] = inspect_case(case, expected, store)
                bar.advance(case.case_id)
            return records
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(cases)), mp_context=context) as pool:
            jobs = {pool.submit(inspect_case, case, expected, store): case.case_id for case in cases}
            try:
                for job in as_completed(jobs):
                    records[jobs[job]] = job.result()
                    bar.advance(jobs[job])
            except BrokenProcessPool:
                raise DatasetError(_died(case.case_id for case in cases if case.case_id not in records)) from None
    return {case.case_id: records[case.case_id] for case in cases}


def reader_of(dataset: Dataset) -> str:
    """The reader of all images of a dataset: declared, or the first that opens its first image (method 1.3).

    Raises:
        DatasetError: no reader knows the file ending, or none opens any of the first images.
    """
    examples: list[Path | None] = [
        case.image_files[0] for case in (*dataset.training, *dataset.test) if case.image_files
    ]
    failure: DatasetError | None = None
    for example in examples[:5] or [None]:
        try:
            return choose_reader(dataset.file_ending, example, dataset.reader)
        except DatasetError as error:  # a damaged example must not hide what is wrong with the others
            failure = failure or error
    assert failure is not None
    raise failure


def _died(unfinished: Iterable[str]) -> str:
    names = list(unfinished)
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return (
        f"a worker process died while images were read, most likely for lack of memory (not finished: {shown});"
        " run again with 1 worker: finished cases are kept"
    )
