"""Do the same thing to many cases, in this process or in several; results come in the order of the tasks."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from segwright.core.errors import DatasetError
from segwright.core.progress import progress

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_cases(
    function: Callable[[Task], Result],
    tasks: Sequence[tuple[str, Task]],
    workers: int,
    title: str,
) -> Iterator[tuple[str, Result]]:
    """Yield (case id, ``function(task)``) for every (case id, task).

    Args:
        function: a module-level function; it and the tasks must be picklable when ``workers`` > 1.

    Raises:
        DatasetError: a worker process was killed.
    """
    with progress(title, len(tasks)) as bar:
        if min(workers, len(tasks)) <= 1:
            for case_id, task in tasks:
                yield case_id, function(task)
                bar.advance(case_id)
            return
        context = multiprocessing.get_context("spawn")  # threads of numpy and ITK do not survive a fork
        with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
            results = pool.map(function, [task for _, task in tasks])
            for case_id, _ in tasks:
                try:
                    result = next(results)
                except BrokenProcessPool:
                    raise DatasetError(
                        f"{title}: a worker process was killed at or after case {case_id}, most likely because memory"
                        " ran out; use fewer workers or more memory"
                    ) from None
                yield case_id, result
                bar.advance(case_id)
