"""Preprocessing of a batch of cases into a content-addressed store (design, decision 3).

The output JSON says which file holds each case. The files lie beside it in ``cases/``, named by the digest of all they
depend on, with one journal a batch that says what each should contain. Snakemake deletes the output JSON before a job
starts, but neither files nor journal: what is there and unharmed is kept, what is missing is made, what is stale is
removed.
"""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.core.dataset import Case, Dataset
from segwright.core.errors import MALFORMED, DamagedFileError, DatasetError, SegwrightError, brief
from segwright.core.files import TEMPORARY_PREFIX, file_digest, intended_name, json_digest, read_json, write_json
from segwright.core.progress import progress
from segwright.core.recorded import RecordedFile
from segwright.core.slices import PreprocessPlan
from segwright.core.versions import STAGE_VERSION
from segwright.images.readers import read_image, read_label
from segwright.preprocessing.axes import use_one_blas_thread
from segwright.preprocessing.case import preprocess_case
from segwright.preprocessing.store import ENDING, FORMAT_VERSION, write_stored_case

log = logging.getLogger(__name__)

BATCH_VERSION = 1
_DIGEST_DIGITS = 12
_JOURNAL_EVERY_S = 2.0  # so much work is lost at most when the process is killed


@dataclass(frozen=True)
class Target:
    """Where the cases of one plan go.

    Attributes:
        output: JSON to write; the same bytes for any number of workers.
        cases_folder: folder of the stored cases, below the folder of ``output``.
    """

    plan: PreprocessPlan
    output: Path
    cases_folder: Path


@dataclass(frozen=True)
class _Task:
    """One case to make. ``inputs`` is the digest of all its result depends on."""

    case: Case
    plan: PreprocessPlan
    path: Path
    inputs: str


@dataclass(frozen=True)
class _Outcome:
    """What became of a task: the SHA-256 of the stored file, or the message of an error the user can mend."""

    content: str = ""
    problem: str = ""


def preprocess_batch(
    dataset: Dataset,
    inspection_file: Path,
    plan: PreprocessPlan,
    output: Path,
    cases_folder: Path,
    workers: int = 1,
) -> None:
    """:func:`preprocess_for_targets` for one plan."""
    preprocess_for_targets(dataset, inspection_file, [Target(plan, Path(output), Path(cases_folder))], workers)


def preprocess_for_targets(
    dataset: Dataset, inspection_file: Path, targets: Sequence[Target], workers: int = 1
) -> None:
    """Preprocess the cases of one inspection batch for each target, and say in its ``output`` where they are.

    Each image is read once for all targets: reading takes longer than all else where images are small.

    Args:
        dataset: where the raw files lie.
        inspection_file: the batch's inspection JSON: its cases and the digests of their raw files.
        targets: one or more, whose plans name one image reader.
        workers: processes; each needs the memory of one case.

    Raises:
        DatasetError: cases could not be preprocessed; one message names all of them. What was finished is kept.
        SegwrightError: a worker process was killed.
    """
    records = _records(Path(inspection_file))
    stores = [_Store(target, dataset, records) for target in targets]
    missing: dict[str, list[_Task]] = {}
    for store in stores:
        for case_id, task in store.missing.items():
            missing.setdefault(case_id, []).append(task)
    problems = set()
    try:
        with progress(f"preprocess {targets[0].output.stem}", len(missing)) as bar:
            for case_id, outcomes in _run(missing, workers):
                waiting = [store for store in stores if case_id in store.missing]
                for store, outcome in zip(waiting, outcomes, strict=True):
                    if outcome.problem:
                        problems.add(f"case {case_id}: {outcome.problem}")
                    else:
                        store.add(case_id, outcome.content)
                bar.advance(case_id)
    finally:
        for store in stores:
            store.journal.write(store.entries)
    if problems:
        raise DatasetError("\n".join(sorted(problems)))
    for store in stores:
        store.write_output()


def write_index(batch_files: Sequence[Path], output: Path) -> None:
    """Write the index of a store: batch name -> digest of its JSON, all of one data_id.

    Raises:
        DamagedFileError: a batch file is missing or damaged.
        DatasetError: batches of different stores, or a case in two of them.
    """
    data_ids: dict[str, Path] = {}
    batches: dict[str, str] = {}
    owner: dict[str, str] = {}
    for path in sorted(map(Path, batch_files), key=lambda path: path.name):
        content = read_json(path)
        try:
            data_ids.setdefault(str(content["data_id"]), path)
            case_ids = list(content["cases"])
        except MALFORMED as error:
            raise DamagedFileError(path, f"not a batch of preprocessed cases ({brief(repr(error))})") from error
        for case_id in case_ids:
            if case_id in owner:
                raise DatasetError(f"{path}: case {case_id} is also in {owner[case_id]}; preprocess the dataset anew")
            owner[case_id] = path.stem
        batches[path.stem] = file_digest(path)
    if len(data_ids) != 1:
        raise DatasetError(f"{output}: an index needs batches of exactly one data_id, not of {sorted(data_ids)}")
    write_json(output, {"version": BATCH_VERSION, "data_id": next(iter(data_ids)), "batches": batches}, sealed=True)


def inputs_digest(record: Mapping[str, Any], plan: PreprocessPlan) -> str:
    """Digest of all a stored case depends on: its raw files and their grid, the plan, and this program's rules."""
    return json_digest(
        {
            "case": record["digest"],
            "geometry": record.get("geometry"),
            "plan": plan.to_json(),
            "version": [STAGE_VERSION["preprocessing"], FORMAT_VERSION],
        }
    )


class _Store:
    """A target while it is filled.

    Attributes:
        entries: what is there, by case. missing: the tasks of the cases that were not there at first.
    """

    def __init__(self, target: Target, dataset: Dataset, records: Mapping[str, Any]) -> None:
        self.target = target
        self.tasks: dict[str, _Task] = {}
        plan, folder = target.plan, target.cases_folder
        for case_id, record in sorted(records.items()):
            inputs = inputs_digest(record, plan)
            case = dataset.training_case(case_id)
            self.tasks[case_id] = _Task(case, plan, folder / _file_name(case_id, inputs), inputs)
        folder.mkdir(parents=True, exist_ok=True)
        self.journal = _Journal(folder / f"{target.output.stem}.journal.json")
        _remove_stale(folder, self.tasks, {case.case_id for case in dataset.training})
        self.entries = {
            case_id: _entry(task, target.output, self.journal.entries[case_id]["content"])
            for case_id, task in self.tasks.items()
            if self.journal.is_intact(case_id, task)
        }
        self.missing = {case_id: task for case_id, task in self.tasks.items() if case_id not in self.entries}
        log.info("%d of %d cases are there already", len(self.entries), len(self.tasks))

    def add(self, case_id: str, content: str) -> None:
        """Note a finished case."""
        self.entries[case_id] = _entry(self.tasks[case_id], self.target.output, content)
        self.journal.update(self.entries)

    def write_output(self) -> None:
        """Say where the cases are; all of them are there."""
        output = self.target.output
        cases = {case_id: self.entries[case_id] for case_id in sorted(self.entries)}
        content = {
            "version": BATCH_VERSION, "data_id": self.target.plan.data_id, "batch": output.stem, "cases": cases,
        }  # fmt: skip
        write_json(output, content, sealed=True)


class _Journal:
    """The undeclared record of what is in the store for one batch, rewritten while cases are finished."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written_s = 0.0
        self.entries: dict[str, dict[str, str]] = {}
        if path.is_file():
            try:
                self.entries = {str(case_id): dict(entry) for case_id, entry in read_json(path).items()}
            except (DamagedFileError, AttributeError, TypeError, ValueError) as error:
                log.warning("%s: damaged, its cases are preprocessed again (%s)", path, error)

    def is_intact(self, case_id: str, task: _Task) -> bool:
        """Whether the case was made from the same inputs and its file still has the content it was written with."""
        entry = self.entries.get(case_id, {})
        if entry.get("inputs") != task.inputs:
            return False
        problem = RecordedFile(task.path, str(entry.get("content")), self.path).problem()
        if problem is not None:
            log.warning("%s: %s; it is made again", task.path, problem)
        return problem is None

    def update(self, entries: Mapping[str, Mapping[str, str]]) -> None:
        """Write, but not more often than once in a while: flushing to disk can take longer than a small case."""
        if time.monotonic() - self._written_s >= _JOURNAL_EVERY_S:
            self.write(entries)

    def write(self, entries: Mapping[str, Mapping[str, str]]) -> None:
        write_json(self.path, entries)
        self._written_s = time.monotonic()


def _records(inspection_file: Path) -> dict[str, Any]:
    try:
        return dict(read_json(inspection_file)["cases"])
    except MALFORMED as error:
        raise DamagedFileError(inspection_file, f"not an inspection file ({brief(repr(error))})") from error


def _file_name(case_id: str, inputs: str) -> str:
    if case_id in ("", ".", "..") or "/" in case_id or "\\" in case_id or case_id.startswith(TEMPORARY_PREFIX):
        raise DatasetError(f"case {case_id}: its name cannot be a file name; rename it")
    return f"{case_id}.{inputs[:_DIGEST_DIGITS]}{ENDING}"


def _entry(task: _Task, output: Path, content: str) -> dict[str, str]:
    return {"file": task.path.relative_to(output.parent).as_posix(), "inputs": task.inputs, "content": content}


def _remove_stale(folder: Path, tasks: Mapping[str, _Task], in_dataset: set[str]) -> None:
    """Remove older files of this batch's cases, files of cases the dataset no longer has, and what killed writers left.

    Other batches' jobs may be writing here: their cases' files are not touched.
    """
    for path in sorted(folder.glob(f"*{ENDING}")):
        unfinished = path.name.startswith(TEMPORARY_PREFIX)
        case_id = intended_name(path)[: -len(ENDING) - _DIGEST_DIGITS - 1]  # of `<case>.<12 digits>.safetensors`
        mine = case_id in tasks or case_id not in in_dataset
        if mine and (unfinished or case_id not in tasks or path != tasks[case_id].path):
            log.info("remove %s", path)
            path.unlink(missing_ok=True)


def _run(missing: Mapping[str, Sequence[_Task]], workers: int) -> Iterator[tuple[str, list[_Outcome]]]:
    """Make the cases, in this process or in ``workers`` others; yields them as they finish."""
    if min(workers, len(missing)) <= 1:
        for case_id, tasks in missing.items():
            with _naming(case_id):
                outcomes = _make(tasks)
            yield case_id, outcomes
        return
    waiting = iter(missing.items())
    running: dict[Future[list[_Outcome]], str] = {}
    context = multiprocessing.get_context("spawn")  # BLAS and ITK threads do not survive a fork
    with ProcessPoolExecutor(min(workers, len(missing)), mp_context=context) as pool:
        while True:
            # No more than `workers` at a time, so that it is known who was at work when a process is killed.
            for case_id, tasks in waiting:
                running[pool.submit(_make, tasks)] = case_id
                if len(running) == workers:
                    break
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            at_work = ", ".join(sorted(running.values()))
            for future in finished:
                case_id = running.pop(future)
                try:
                    with _naming(case_id):
                        outcomes = future.result()
                except BrokenProcessPool:
                    raise SegwrightError(
                        f"a worker process was killed while cases were preprocessed (at work: {at_work}), most likely"
                        " because memory ran out; give the job more memory or fewer workers. Finished cases are kept"
                    ) from None
                yield case_id, outcomes


@contextmanager
def _naming(case_id: str) -> Iterator[None]:
    """An exception that is a bug keeps its type and traceback, and gets the case's name."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"while preprocessing case {case_id}")
        raise


def _make(tasks: Sequence[_Task]) -> list[_Outcome]:
    """Read a case, and preprocess and store it for each task.

    Errors a user can mend come back as text: some do not survive pickling.
    """
    case, reader = tasks[0].case, tasks[0].plan.reader
    try:
        if case.label_file is None:
            raise DatasetError("its label map is missing; add it to labelsTr")
        use_one_blas_thread()
        image, label = read_image(case.image_files, reader), read_label(case.label_file, reader)
    except (SegwrightError, MemoryError) as error:
        return [_Outcome(problem=_problem_text(error))] * len(tasks)
    outcomes = []
    for task in tasks:
        try:
            content = write_stored_case(task.path, preprocess_case(image, label, task.plan))
            outcomes.append(_Outcome(content=content))
        except (SegwrightError, MemoryError) as error:
            outcomes.append(_Outcome(problem=_problem_text(error)))
    return outcomes


def _problem_text(error: SegwrightError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return f"not enough memory ({error}); give the job more memory or fewer workers"
    return str(error)
